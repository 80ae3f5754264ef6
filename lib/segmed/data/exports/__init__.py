"""Labelled images in the layouts that other programs read."""
