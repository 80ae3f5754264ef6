"""Detection before segmentation: boxes found by a detector and outlined by a promptable method."""
