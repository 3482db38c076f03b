"""Turn chunks of rows into record batches of token sequences."""
