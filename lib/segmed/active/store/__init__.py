"""The state of active learning in one SQLite file: images, scores, reservations, labels, and the clock."""
