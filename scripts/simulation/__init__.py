"""Simulated annotators that label an archive: the parts that the scripts share."""
