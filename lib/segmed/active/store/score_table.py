"""Scores and embeddings of all images in memory, brought up to date by reading the rows that are new."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from segmed.active.tables.images import ImageRepository
from segmed.active.tables.scores import ScoreRepository

_FEW = 500  # images that are looked up one by one


@dataclass(frozen=True)
class ScoreTable:
    """Scores and embeddings of the images in the order of the studies.

    Attributes:
        generation: Number that rises with each change of a score.
        structure: Generation of the last change that concerned more than one image's score.
        version: Model version whose scores were requested.
        source: Model version that gave the scores.
        images: Ids of the N images.
        fingerprints: Fingerprints of the images' files.
        scores: (N,) float64 by quantity, NaN where unknown.
        embeddings: (N, D) float32, rows of NaN where unknown; None where no image has an embedding.
    """

    generation: int
    structure: int
    version: str
    source: str
    images: tuple[str, ...]
    fingerprints: tuple[str, ...]
    scores: Mapping[str, np.ndarray]
    embeddings: np.ndarray | None


def read_table(sql: sqlite3.Connection, version: str, kept: ScoreTable | None) -> ScoreTable:
    """The table as it is now.

    Scores of different versions are never mixed. While fewer than half as many images are scored by the
    requested version as by another one, which was served before, the scores of that other version are
    returned.

    Args:
        sql: Open connection, within a transaction.
        version: Model version whose scores are requested.
        kept: Table of an earlier call, which is left as it is; None if there is none.
    """
    generation, structure = ScoreRepository(sql).generations()
    if kept is not None and (kept.generation, kept.version) == (generation, version):
        return kept
    source = _source(sql, version)
    if kept is None or kept.source != source:
        kept = ScoreTable(-1, -1, version, source, (), (), {}, None)
    new: list[str] = []
    if kept.structure != structure:
        kept, new = _rearranged(sql, kept)
        if kept.generation < 0 or len(new) > _FEW:
            kept, new = replace(kept, generation=-1), []
    return replace(_updated(sql, kept, new), generation=generation, structure=structure, version=version)


def _source(sql: sqlite3.Connection, version: str) -> str:
    """The version whose scores are shown when `version` is served."""
    counts = ScoreRepository(sql).counts()
    best = max(counts, key=lambda v: (counts[v], v), default=version)
    return version if 2 * counts.get(version, 0) >= counts.get(best, 0) else best


def _rearranged(sql: sqlite3.Connection, known: ScoreTable) -> tuple[ScoreTable, list[str]]:
    """The known scores of the present images, and the images that are new or have changed."""
    rows = ImageRepository(sql).fingerprints()
    before = {row: n for n, row in enumerate(zip(known.images, known.fingerprints, strict=True))}
    # origin: (N,) row of each image in the known table, -1 for images that are new or have changed
    origin = np.array([before.get(row, -1) for row in rows], int)
    unchanged = origin >= 0

    def rearrange(values: np.ndarray) -> np.ndarray:
        rearranged = np.full((len(rows), *values.shape[1:]), np.nan, values.dtype)
        rearranged[unchanged] = values[origin[unchanged]]
        return rearranged

    images = tuple(image for image, _ in rows)
    table = replace(
        known,
        images=images,
        fingerprints=tuple(fingerprint for _, fingerprint in rows),
        scores={name: rearrange(values) for name, values in known.scores.items()},
        embeddings=None if known.embeddings is None else rearrange(known.embeddings),
    )
    return table, [images[n] for n in np.flatnonzero(~unchanged)]


def _updated(sql: sqlite3.Connection, known: ScoreTable, new: Sequence[str]) -> ScoreTable:
    """The known table with the scores that were saved since, and with those of images that are new in it."""
    row_of = {image: n for n, image in enumerate(known.images)}
    repository = ScoreRepository(sql)
    saved = repository.saved_since(known.source, known.generation)
    for image in new:
        saved += repository.of_image(known.source, image)
    # the M saved entries replace rows (M,) of the scores (N,) and of the embeddings (N, D)
    rows = np.array([row_of[entry.image] for entry in saved], int)
    scores = {}
    for name in known.scores.keys() | {name for entry in saved for name in entry.scores}:
        scores[name] = known.scores.get(name, np.full(len(row_of), np.nan)).copy()
        scores[name][rows] = [entry.scores.get(name, np.nan) for entry in saved]
    vectors = {n: entry.embedding for n, entry in enumerate(saved) if entry.embedding is not None}
    embeddings = known.embeddings
    if embeddings is None and vectors:
        usual_length = Counter(len(vector) for vector in vectors.values()).most_common(1)[0][0]
        embeddings = np.full((len(row_of), usual_length), np.nan, np.float32)
    if embeddings is not None:
        embeddings = embeddings.copy()
        embeddings[rows] = np.nan
        fitting = [n for n, vector in vectors.items() if len(vector) == embeddings.shape[1]]
        if fitting:
            embeddings[rows[fitting]] = np.stack([vectors[n] for n in fitting])
    return replace(known, scores=scores, embeddings=embeddings)
