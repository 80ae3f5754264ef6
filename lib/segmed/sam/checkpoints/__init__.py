"""Checkpoint files: reading without unpickling, names of their weights, and families of models."""
