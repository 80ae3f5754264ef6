"""The images of the studies, in their order, and whether each has a final label."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import NamedTuple

IMAGE_ROWS = "(SELECT image, fingerprint, position, labelled FROM images)"  # to be joined with other tables


class ImageFacts(NamedTuple):
    """What is stored of an image.

    Attributes:
        fingerprint: Text that changes whenever the image's file does.
        position: Place of the image in the order of the studies, from 0.
        labelled: 1 if the image has a final label, else 0.
    """

    fingerprint: str
    position: int
    labelled: int


class ImageRepository:
    """The table `images`.

    Args:
        connection: Open connection, within a transaction of the caller.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def facts(self) -> dict[str, ImageFacts]:
        """Facts of all images, by image id."""
        rows = self._connection.execute("SELECT image, fingerprint, position, labelled FROM images")
        return {image: ImageFacts(*facts) for image, *facts in rows}

    def fingerprints(self) -> list[tuple[str, str]]:
        """Image ids and fingerprints in the order of the studies."""
        rows = self._connection.execute("SELECT image, fingerprint FROM images ORDER BY position")
        return [(row[0], row[1]) for row in rows]

    def arrivals(self) -> dict[str, float]:
        """Time at which each image was first seen, in seconds since 1970, by image id."""
        return dict(self._connection.execute("SELECT image, arrived FROM images").fetchall())

    def counts(self) -> tuple[int, int]:
        """Number of images, and of those that have a label."""
        row = self._connection.execute("SELECT count(*), coalesce(sum(labelled), 0) FROM images").fetchone()
        return row[0], row[1]

    def labelled(self) -> set[str]:
        """Ids of the images that have a label."""
        return {row[0] for row in self._connection.execute("SELECT image FROM images WHERE labelled")}

    def exists(self, image: str) -> bool:
        """Whether the image is in the studies."""
        return (
            self._connection.execute("SELECT 1 FROM images WHERE image = ?", (image,)).fetchone() is not None
        )

    def lacks_label(self, image: str) -> bool:
        """Whether the image is in the studies and has no label."""
        query = "SELECT 1 FROM images WHERE image = ? AND NOT labelled"
        return self._connection.execute(query, (image,)).fetchone() is not None

    def set_labelled(self, image: str, labelled: bool) -> None:
        """Note whether an image has a label; an image that is not in the studies is ignored."""
        self._connection.execute("UPDATE images SET labelled = ? WHERE image = ?", (int(labelled), image))

    def put(self, facts: Mapping[str, ImageFacts], wall: float) -> None:
        """Add images, or change the facts of those that are there.

        Args:
            facts: Facts to store, by image id.
            wall: Arrival time of the images that are new, in seconds since 1970.
        """
        self._connection.executemany(
            "INSERT INTO images (image, fingerprint, position, labelled, arrived) VALUES (?, ?, ?, ?, ?) ON "
            "CONFLICT (image) DO UPDATE SET fingerprint = excluded.fingerprint, position = "
            "excluded.position, labelled = excluded.labelled",
            [(image, *stored, wall) for image, stored in facts.items()],
        )

    def remove(self, images: Iterable[str]) -> None:
        """Remove images that have left the studies."""
        self._connection.executemany("DELETE FROM images WHERE image = ?", [(image,) for image in images])
