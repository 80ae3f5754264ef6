"""`segmed predict` and `segmed masks`: segmentation of one image without a server."""
