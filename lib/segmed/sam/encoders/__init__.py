"""Image encoders of SAMs other than the plain ViT."""
