"""Map names to numbers: genes, annotations, labels and cells."""
