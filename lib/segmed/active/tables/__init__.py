"""One class per table of the SQLite file of active learning; each works inside an open transaction."""
