"""Synthetic images for training: organs, lesions and instruments drawn in many modalities. No patient
data."""
