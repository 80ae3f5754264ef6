"""Images that a batch run ranked for a review by a person, with the reasons."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping


class ReviewRepository:
    """The table `review`.

    Args:
        connection: Open connection, within a transaction of the caller.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def replace(self, reasons: Mapping[str, str]) -> None:
        """Store images in the order in which they should be reviewed, in place of all earlier ones.

        Args:
            reasons: Why each image should be reviewed, by image id, the most urgent one first.
        """
        self._connection.execute("DELETE FROM review")
        self._connection.executemany(
            "INSERT INTO review (image, place, reason) VALUES (?, ?, ?)",
            ((image, place, reason) for place, (image, reason) in enumerate(reasons.items())),
        )

    def reasons(self) -> dict[str, str]:
        """Reasons by image id, the most urgent image first."""
        return dict(self._connection.execute("SELECT image, reason FROM review ORDER BY place").fetchall())
