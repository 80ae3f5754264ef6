"""`segmed export` and `segmed import`: to and from the formats of other programs."""
