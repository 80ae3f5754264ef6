"""What all methods share: the `Segmenter` interface, training recipes, and losses."""
