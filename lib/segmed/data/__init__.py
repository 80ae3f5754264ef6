"""Procedural data: volumes with known truth, and synthetic images for training."""
