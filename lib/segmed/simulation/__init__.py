"""A simulated annotator: boxes, clicks, scribbles and rough masks, and corrections of masks."""
