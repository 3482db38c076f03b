"""Write, verify and read the folder of a dataset."""
