"""The submitted labels, and what has become of each."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

LabelState = Literal["kept", "held", "dropped", "deleted"]
KEPT_LABELS = "(SELECT id FROM labels WHERE state = 'kept')"  # to be joined with other tables


@dataclass(frozen=True)
class LabelRecord:
    """One submission.

    Attributes:
        id: Identifier, larger than those of all earlier submissions.
        image: Identifier of the image.
        user: Name of the user who submitted the label.
        checksum: Checksum of the label's file.
        sizes: Number of voxels by name of the structure; empty for an empty label.
        agreement: Dice of the model's proposal against the submitted label, by structure.
        state: `kept` labels are trained on, `held` ones wait for review, `dropped` ones were rejected in a
            review, and the files of `deleted` ones are gone.
        reason: Why the label is or was held, or "".
        reviewer: Name of the user who reviewed the label, or "".
        at: Time of submission, in seconds since 1970.
    """

    id: int
    image: str
    user: str
    checksum: str
    sizes: Mapping[str, int]
    agreement: Mapping[str, float]
    state: LabelState
    reason: str
    reviewer: str
    at: float


class LabelRepository:
    """The table `labels`.

    Args:
        connection: Open connection, within a transaction of the caller.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def all(self, state: LabelState | None = None) -> list[LabelRecord]:
        """All submissions, or those in one state, oldest first."""
        query = "SELECT * FROM labels WHERE ? IS NULL OR state = ? ORDER BY id"
        return [_record(row) for row in self._connection.execute(query, (state, state))]

    def get(self, label: int) -> LabelRecord | None:
        """One submission; None if there is none with this identifier."""
        row = self._connection.execute("SELECT * FROM labels WHERE id = ?", (label,)).fetchone()
        return None if row is None else _record(row)

    def newest_of(self, image: str) -> LabelRecord | None:
        """The newest label of an image that is not deleted; None if there is none."""
        query = "SELECT * FROM labels WHERE image = ? AND state != 'deleted' ORDER BY id DESC LIMIT 1"
        row = self._connection.execute(query, (image,)).fetchone()
        return None if row is None else _record(row)

    def newest_id(self) -> int:
        """Identifier of the newest submission; 0 if there is none."""
        return int(self._connection.execute("SELECT coalesce(max(id), 0) FROM labels").fetchone()[0])

    def count_new_images(self, since: int) -> int:
        """Number of images with a kept label that is newer than the one with identifier `since`."""
        query = "SELECT count(DISTINCT image) FROM labels WHERE state = 'kept' AND id > ?"
        return int(self._connection.execute(query, (since,)).fetchone()[0])

    def add(
        self,
        image: str,
        user: str,
        checksum: str,
        sizes: Mapping[str, int],
        agreement: Mapping[str, float],
        wall: float,
    ) -> LabelRecord:
        """Store a submission as `kept`; the arguments are those of `LabelRecord`, and `wall` is its time."""
        number = self._connection.execute(
            "INSERT INTO labels (image, user, checksum, sizes, agreement, state, reason, reviewer, at) "
            "VALUES (?, ?, ?, ?, ?, 'kept', '', '', ?)",
            (image, user, checksum, json.dumps(dict(sizes)), json.dumps(dict(agreement)), wall),
        ).lastrowid
        return _record(self._connection.execute("SELECT * FROM labels WHERE id = ?", (number,)).fetchone())

    def delete_of(self, image: str) -> int:
        """Mark all labels of an image as deleted; returns how many were not before."""
        query = "UPDATE labels SET state = 'deleted' WHERE image = ? AND state != 'deleted'"
        return self._connection.execute(query, (image,)).rowcount

    def hold(self, label: int, reason: str) -> bool:
        """Hold a label for review, unless it was reviewed already; returns whether it is held."""
        query = "UPDATE labels SET state = 'held', reason = ? WHERE id = ? AND reviewer = ''"
        return bool(self._connection.execute(query, (reason, label)).rowcount)

    def review(self, label: int, state: LabelState, reviewer: str) -> bool:
        """Store the outcome of a review; returns False if there is no such label or it is deleted."""
        query = "UPDATE labels SET state = ?, reviewer = ? WHERE id = ? AND state != 'deleted'"
        return bool(self._connection.execute(query, (state, reviewer, label)).rowcount)


def _record(row: sqlite3.Row) -> LabelRecord:
    facts = {**dict(row), "sizes": json.loads(row["sizes"]), "agreement": json.loads(row["agreement"])}
    return LabelRecord(**facts)
