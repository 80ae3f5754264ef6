"""Scores and embeddings of all images in memory, brought up to date by the rows that are new."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class ScoreTable:
    """Scores and embeddings of the images in the order of the studies.

    Attributes:
        generation: rises with each change of a score.
        structure: generation of the last change that is more than one image's score.
        version: asked for.
        source: version that the scores are of.
    """

    generation: int
    structure: int
    version: str
    source: str
    images: tuple[str, ...]
    scores: Mapping[str, np.ndarray]
    embeddings: np.ndarray | None


def read_table(sql: sqlite3.Connection, version: str, kept: ScoreTable | None) -> ScoreTable:
    """The table as it is now.

    Scores of different versions are never mixed. While fewer than half as many images are scored by the version asked
    for as by another one, which was served before, that one's are given.

    Args:
        sql: within a transaction.
        version: asked for.
        kept: the table of an earlier call, which is left as it is.
    """
    generation, structure = sql.execute("SELECT number, structure FROM generation").fetchone()
    if kept is None or (kept.structure, kept.version) != (structure, version):
        kept = None
    elif kept.generation == generation:
        return kept
    source = _source(sql, version)
    if kept is None or kept.source != source:
        images = tuple(row[0] for row in sql.execute("SELECT image FROM images ORDER BY position"))
        kept = ScoreTable(-1, structure, version, source, images, {}, None)
    return _with_news(sql, kept, generation)


def next_generation(sql: sqlite3.Connection, structure: bool = False) -> int:
    """Note a change of a score, or with `structure` one of more than that; gives the number of the generation."""
    sql.execute("UPDATE generation SET number = number + 1")
    if structure:
        sql.execute("UPDATE generation SET structure = number")
    return int(sql.execute("SELECT number FROM generation").fetchone()[0])


def _source(sql: sqlite3.Connection, version: str) -> str:
    """The version whose scores are shown when this one is served."""
    rows = sql.execute(
        "SELECT s.version, count(*) FROM scored s JOIN images i ON i.image = s.image AND i.fingerprint = s.fingerprint "
        "GROUP BY s.version"
    )
    counts = dict(rows.fetchall())
    best = max(counts, key=lambda v: (counts[v], v), default=version)
    return version if 2 * counts.get(version, 0) >= counts.get(best, 0) else best


def _with_news(sql: sqlite3.Connection, known: ScoreTable, generation: int) -> ScoreTable:
    """What is known, with the scores that were saved since."""
    place = {image: n for n, image in enumerate(known.images)}
    rows = sql.execute(
        "SELECT s.image, s.scores, s.embedding FROM scored s JOIN images i ON i.image = s.image AND "
        "i.fingerprint = s.fingerprint WHERE s.version = ? AND s.generation > ?",
        (known.source, known.generation),
    ).fetchall()
    fresh = np.array([place[row[0]] for row in rows], int)
    found = [json.loads(row[1]) for row in rows]
    scores = {}
    for name in known.scores.keys() | {name for one in found for name in one}:
        scores[name] = known.scores.get(name, np.full(len(place), np.nan)).copy()
        scores[name][fresh] = [one.get(name, np.nan) for one in found]
    embeddings = known.embeddings
    sizes = Counter(len(row[2]) for row in rows if row[2] is not None)
    if embeddings is None and sizes:
        embeddings = np.full((len(place), sizes.most_common(1)[0][0] // 4), np.nan, np.float32)
    if embeddings is not None:
        embeddings = embeddings.copy()
        embeddings[fresh] = np.nan
        size = 4 * embeddings.shape[1]
        fits = [n for n, row in enumerate(rows) if row[2] is not None and len(row[2]) == size]
        joined = np.frombuffer(b"".join(rows[n][2] for n in fits), np.float32)
        embeddings[fresh[fits]] = joined.reshape(len(fits), -1) if fits else 0
    return replace(known, generation=generation, scores=scores, embeddings=embeddings)
