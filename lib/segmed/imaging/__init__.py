"""Volumes, intensity windows, prompts and label maps: what a viewer shows and sends, without any model."""
