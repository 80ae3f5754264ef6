"""Scores and embeddings of all images in memory, brought up to date by the rows that are new."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

_FEW = 500  # images that are looked up one by one


@dataclass(frozen=True)
class ScoreTable:
    """Scores and embeddings of the images in the order of the studies.

    Attributes:
        generation: rises with each change of a score.
        structure: generation of the last change that is more than one image's score.
        version: asked for.
        source: version that the scores are of.
        images: ids.
        marks: of the images' files.
        scores: (N,) by quantity, NaN where unknown.
        embeddings: (N, D), rows of NaN where unknown; None where there are none at all.
    """

    generation: int
    structure: int
    version: str
    source: str
    images: tuple[str, ...]
    marks: tuple[str, ...]
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
    return replace(_with_news(sql, kept, new), generation=generation, structure=structure, version=version)


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


def _rearranged(sql: sqlite3.Connection, known: ScoreTable) -> tuple[ScoreTable, list[str]]:
    """What is known of the images that are there now, and those that are new or have changed."""
    rows = sql.execute("SELECT image, fingerprint FROM images ORDER BY position").fetchall()
    images, marks = tuple(row[0] for row in rows), tuple(row[1] for row in rows)
    before = {(image, mark): n for n, (image, mark) in enumerate(zip(known.images, known.marks, strict=True))}
    origin = np.array([before.get((row[0], row[1]), -1) for row in rows], int)
    there = origin >= 0

    def moved(values: np.ndarray) -> np.ndarray:
        found = np.full((len(rows), *values.shape[1:]), np.nan, values.dtype)
        found[there] = values[origin[there]]
        return found

    scores = {name: moved(values) for name, values in known.scores.items()}
    embeddings = None if known.embeddings is None else moved(known.embeddings)
    arranged = replace(known, images=images, marks=marks, scores=scores, embeddings=embeddings)
    return arranged, [images[n] for n in np.flatnonzero(~there)]


def _with_news(sql: sqlite3.Connection, known: ScoreTable, new: Sequence[str]) -> ScoreTable:
    """What is known, with the scores that were saved since, and those of images that are new here."""
    place = {image: n for n, image in enumerate(known.images)}
    query = (
        "SELECT s.image, s.scores, s.embedding FROM scored s JOIN images i ON i.image = s.image AND "
        "i.fingerprint = s.fingerprint WHERE s.version = ? AND "
    )
    rows = sql.execute(f"{query} s.generation > ?", (known.source, known.generation)).fetchall()
    for image in new:
        rows += sql.execute(f"{query} s.image = ?", (known.source, image)).fetchall()
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
    return replace(known, scores=scores, embeddings=embeddings)
