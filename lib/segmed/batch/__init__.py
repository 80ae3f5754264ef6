"""Segmentation of whole archives: a plan in a manifest, workers, and results that survive interruptions."""
