"""Drawn pictures with known objects, for training on nothing but procedural data; needs torch only."""
