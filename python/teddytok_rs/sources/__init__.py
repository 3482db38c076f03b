"""Open sources (AnnData, h5ad, zarr, SOMA) and read their rows in chunks."""
