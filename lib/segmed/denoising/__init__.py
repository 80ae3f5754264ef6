"""Denoising of pictures before segmentation: the DnCNN network, its training, and denoised slices."""
