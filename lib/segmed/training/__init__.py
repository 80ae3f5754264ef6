"""Training: what an annotator would say, losses, and loops."""
