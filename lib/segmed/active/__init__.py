"""Which image to label next, and when labels are worth a new training."""
