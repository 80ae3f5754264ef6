"""A simulated annotator: boxes, clicks, scribbles and rough masks as people draw them, and corrections of a mask."""
