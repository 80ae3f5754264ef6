"""DICOM objects: series as grids, segmentations (SEG), structure sets (RTSTRUCT), and codes of what they
show."""
