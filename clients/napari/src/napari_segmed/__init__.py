"""SegMed in napari: boxes, points, scribbles and lassos become labels, by a server or in this process."""
