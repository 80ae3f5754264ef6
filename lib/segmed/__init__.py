"""SegMed: interactive segmentation of medical images with the SAM family."""

__version__ = "0.1.0"
