"""Procedural data: volumes with known truth, and drawn pictures for training."""
