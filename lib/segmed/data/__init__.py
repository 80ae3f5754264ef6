"""Data: procedural phantoms now, loaders of public datasets beside them."""
