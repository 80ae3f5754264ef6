"""How far the model versions agree with the submitted labels."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping

from segmed.active.tables.labels import KEPT_LABELS


class ModelAgreementRepository:
    """The table `witnesses`: the Dice of model versions and labels; its name is older than the term.

    Args:
        connection: Open connection, within a transaction of the caller.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def of_label(self, label: int) -> dict[str, float]:
        """Dice of a label, by model version."""
        query = "SELECT version, dice FROM witnesses WHERE label = ?"
        return dict(self._connection.execute(query, (label,)).fetchall())

    def labels_of(self, version: str) -> set[int]:
        """Identifiers of the labels that a version was compared with."""
        query = "SELECT label FROM witnesses WHERE version = ?"
        return {row[0] for row in self._connection.execute(query, (version,))}

    def usual(self, version: str, label: int, most: int) -> list[float]:
        """Dice of a version with the newest kept labels.

        Args:
            version: Model version.
            label: Identifier of a label to leave out.
            most: Largest number of labels.
        """
        rows = self._connection.execute(
            f"SELECT w.dice FROM witnesses w JOIN {KEPT_LABELS} l ON l.id = w.label WHERE w.version = ? AND "
            "w.label != ? ORDER BY w.label DESC LIMIT ?",
            (version, label, most),
        )
        return [row[0] for row in rows]

    def put(self, label: int, dice: Mapping[str, float]) -> None:
        """Store the Dice of a label by model version, in place of earlier values; NaN is left out."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO witnesses (label, version, dice) VALUES (?, ?, ?)",
            [(label, version, value) for version, value in dice.items() if math.isfinite(value)],
        )
