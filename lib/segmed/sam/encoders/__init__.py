"""Image encoders of SAMs that are no plain ViT."""
