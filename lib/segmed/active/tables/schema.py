"""The format of the active learning database: statements that create it and migrate older versions.

The table `witnesses` holds the model agreements (see `tables/model_agreements.py`); it keeps the name under
which existing databases have it."""

from __future__ import annotations

FORMATS = (
    """
CREATE TABLE clock (boot TEXT NOT NULL, uptime REAL NOT NULL, wall REAL NOT NULL, elapsed REAL NOT NULL);
CREATE TABLE generation (number INTEGER NOT NULL, structure INTEGER NOT NULL);
INSERT INTO generation VALUES (0, 0);
CREATE TABLE images (
    image TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, position INTEGER NOT NULL, labelled INTEGER NOT NULL);
CREATE TABLE scored (
    image TEXT NOT NULL, version TEXT NOT NULL, fingerprint TEXT NOT NULL, scores TEXT NOT NULL,
    embedding BLOB, encodes INTEGER NOT NULL, decodes INTEGER NOT NULL, seconds REAL NOT NULL,
    generation INTEGER NOT NULL, PRIMARY KEY (image, version));
CREATE INDEX scored_lately ON scored (version, generation, image, fingerprint);
CREATE TABLE reservations (
    image TEXT PRIMARY KEY, user TEXT NOT NULL, strategy TEXT NOT NULL, until REAL NOT NULL);
CREATE TABLE skips (image TEXT NOT NULL, user TEXT NOT NULL, forever INTEGER NOT NULL, since REAL NOT NULL,
    PRIMARY KEY (image, user));
CREATE TABLE cases (
    id INTEGER PRIMARY KEY, image TEXT NOT NULL, user TEXT NOT NULL, strategy TEXT NOT NULL,
    opened REAL NOT NULL, last REAL NOT NULL, seconds REAL NOT NULL, prompts INTEGER NOT NULL, label INTEGER);
CREATE UNIQUE INDEX one_open_case ON cases (image, user) WHERE label IS NULL;
CREATE TABLE labels (
    id INTEGER PRIMARY KEY AUTOINCREMENT, image TEXT NOT NULL, user TEXT NOT NULL, checksum TEXT NOT NULL,
    sizes TEXT NOT NULL, agreement TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
    reviewer TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX labels_by_image ON labels (image);
CREATE TABLE witnesses (
    label INTEGER NOT NULL, version TEXT NOT NULL, dice REAL NOT NULL, PRIMARY KEY (label, version));
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL,
    owner TEXT NOT NULL, attempts INTEGER NOT NULL, upto INTEGER NOT NULL, version TEXT NOT NULL,
    message TEXT NOT NULL, created REAL NOT NULL, changed REAL NOT NULL, elapsed REAL NOT NULL);
CREATE UNIQUE INDEX one_active_job ON jobs ((1)) WHERE state IN ('reserved', 'training', 'judging');
""",
    """
ALTER TABLE cases ADD COLUMN model TEXT NOT NULL DEFAULT '';
ALTER TABLE images ADD COLUMN arrived REAL NOT NULL DEFAULT 0;
""",
    """
CREATE TABLE review (image TEXT PRIMARY KEY, place INTEGER NOT NULL, reason TEXT NOT NULL);
""",
)
