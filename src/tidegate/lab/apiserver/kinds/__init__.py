"""What is particular about single kinds, one file per kind with code of its own."""
