"""Suite -> plan: the cells to carry out, as plain data. Nothing here imports torch or reads data."""
