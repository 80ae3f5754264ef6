"""Loaders of public datasets, one file per layout, and the catalogue that opens them by name."""
