"""The scores and embeddings of the images by model version, and the counter of their changes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from segmed.active.tables.images import IMAGE_ROWS

_CURRENT = f"scored s JOIN {IMAGE_ROWS} i ON i.image = s.image AND i.fingerprint = s.fingerprint"
_COLUMNS = "s.image, s.scores, s.embedding"


@dataclass(frozen=True)
class ScoringCost:
    """What it cost to score an image.

    Attributes:
        encodes: Passes of the encoder.
        decodes: Passes of the decoder.
        seconds: Time in seconds.
    """

    encodes: int = 0
    decodes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class StoredScores:
    """Scores of one image by one model version.

    Attributes:
        image: Identifier of the image.
        scores: Finite scores by quantity; empty for an image that could not be scored.
        embedding: (D,) float32, or None.
    """

    image: str
    scores: Mapping[str, float]
    embedding: np.ndarray | None


class ScoreRepository:
    """The tables `scored` and `generation`; the latter counts the changes of the former.

    Scores of an earlier state of an image's file stay stored, but no query returns them.

    Args:
        connection: Open connection, within a transaction of the caller.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def generations(self) -> tuple[int, int]:
        """Number of the last change, and of the last one that concerned more than one image's scores."""
        row = self._connection.execute("SELECT number, structure FROM generation").fetchone()
        return row[0], row[1]

    def next_generation(self, structure: bool = False) -> int:
        """Count a change.

        Args:
            structure: Whether the change concerns more than one image's scores, such as images that came or
                went.

        Returns:
            Number of the change.
        """
        self._connection.execute("UPDATE generation SET number = number + 1")
        if structure:
            self._connection.execute("UPDATE generation SET structure = number")
        return self.generations()[0]

    def save(
        self, version: str, fingerprint: str, stored: StoredScores, cost: ScoringCost, generation: int
    ) -> None:
        """Store the scores of an image in place of those that this version gave it before.

        Args:
            version: Model version that gave the scores.
            fingerprint: Fingerprint of the image's file that was scored.
            stored: The scores.
            cost: What they cost.
            generation: Number of the change, see `next_generation`.
        """
        embedding = None
        if stored.embedding is not None:
            embedding = np.ascontiguousarray(stored.embedding, np.float32).tobytes()
        self._connection.execute(
            "INSERT OR REPLACE INTO scored (image, version, fingerprint, scores, embedding, encodes, "
            "decodes, seconds, generation) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                stored.image,
                version,
                fingerprint,
                json.dumps(dict(stored.scores)),
                embedding,
                cost.encodes,
                cost.decodes,
                cost.seconds,
                generation,
            ),
        )

    def saved_since(self, version: str, generation: int) -> list[StoredScores]:
        """Scores of a version that were saved after a change, for files that have not changed since."""
        query = f"SELECT {_COLUMNS} FROM {_CURRENT} WHERE s.version = ? AND s.generation > ?"
        return [_stored(row) for row in self._connection.execute(query, (version, generation))]

    def of_image(self, version: str, image: str) -> list[StoredScores]:
        """Scores of one image by a version: one entry, or none if the image lacks them."""
        query = f"SELECT {_COLUMNS} FROM {_CURRENT} WHERE s.version = ? AND s.image = ?"
        return [_stored(row) for row in self._connection.execute(query, (version, image))]

    def counts(self) -> dict[str, int]:
        """Number of images with scores, by version."""
        query = f"SELECT s.version, count(*) FROM {_CURRENT} GROUP BY s.version"
        return dict(self._connection.execute(query).fetchall())

    def images_without(self, version: str, limit: int) -> list[str]:
        """Images that lack scores of a version, or have changed since; those without a label first.

        Args:
            version: Model version.
            limit: Largest number of images to return.
        """
        rows = self._connection.execute(
            f"SELECT i.image FROM {IMAGE_ROWS} i LEFT JOIN scored s ON s.image = i.image AND s.version = ? "
            "AND s.fingerprint = i.fingerprint WHERE s.image IS NULL ORDER BY i.labelled, i.position LIMIT ?",
            (version, limit),
        )
        return [row[0] for row in rows]

    def has_other_versions(self, version: str) -> bool:
        """Whether there are scores of another version."""
        query = "SELECT 1 FROM scored WHERE version != ? LIMIT 1"
        return self._connection.execute(query, (version,)).fetchone() is not None

    def remove(self, images: Iterable[str]) -> None:
        """Remove the scores of images, by all versions."""
        self._connection.executemany("DELETE FROM scored WHERE image = ?", [(image,) for image in images])

    def remove_other_versions(self, version: str) -> int:
        """Remove the scores of all versions but one; returns how many there were."""
        return self._connection.execute("DELETE FROM scored WHERE version != ?", (version,)).rowcount


def _stored(row: sqlite3.Row) -> StoredScores:
    image, scores, blob = row
    return StoredScores(image, json.loads(scores), None if blob is None else np.frombuffer(blob, np.float32))
