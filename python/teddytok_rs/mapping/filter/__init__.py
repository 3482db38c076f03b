"""Parse and evaluate `cell_filter`: a closed grammar over obs columns."""
