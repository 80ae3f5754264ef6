"""Published weights: which there are, where they lie, and how they come onto this machine."""
