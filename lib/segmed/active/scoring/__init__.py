"""Scores of unlabelled images: uncertainty and diversity of one image, and the strategies that rank them."""
