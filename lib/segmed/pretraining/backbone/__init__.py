"""Training of the small SAM-shaped backbone `segmed-tiny` on synthetic images."""
