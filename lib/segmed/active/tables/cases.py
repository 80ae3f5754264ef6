"""The users' work on images: one open case per image and user, which a submitted label closes."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True)
class CaseWork:
    """One user's work on one image.

    Attributes:
        image: Identifier of the image.
        user: Name of the user.
        strategy: Strategy that proposed the image; "" if the user opened it without a proposal.
        seconds: Working time in seconds; of each pause, at most two minutes count.
        prompts: Number of answered prompts.
        label: Identifier of the label that the work led to; None while the case is open.
        opened: Time at which the work began, in seconds since 1970.
        model: Model that answered the last prompt, or the one that the viewer reported; "" if neither is
            known.
    """

    image: str
    user: str
    strategy: str
    seconds: float
    prompts: int
    label: int | None
    opened: float
    model: str = ""


class CaseRepository:
    """The table `cases`.

    Args:
        connection: Open connection, within a transaction of the caller.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def all(self) -> list[CaseWork]:
        """All cases, in the order in which they were opened."""
        columns = "image, user, strategy, seconds, prompts, label, opened, model"
        return [
            CaseWork(*row) for row in self._connection.execute(f"SELECT {columns} FROM cases ORDER BY id")
        ]

    def add_work(self, image: str, user: str, prompts: int, model: str, now: float, pause: float) -> bool:
        """Add a sign of work to the open case, with the time since the last sign.

        Args:
            image: Identifier of the image.
            user: Name of the user.
            prompts: Number of prompts that were answered.
            model: Model that answered; "" leaves the one that is stored.
            now: `Transaction.now` in seconds.
            pause: Longest time between two signs that counts as work, in seconds.

        Returns:
            Whether the user has an open case of the image.
        """
        changed = self._connection.execute(
            "UPDATE cases SET seconds = seconds + min(? - last, ?), last = ?, prompts = prompts + ?, "
            "model = coalesce(nullif(?, ''), model) WHERE image = ? AND user = ? AND label IS NULL",
            (now, pause, now, prompts, model, image, user),
        )
        return bool(changed.rowcount)

    def open(
        self, image: str, user: str, strategy: str, prompts: int, model: str, now: float, wall: float
    ) -> None:
        """Open a case.

        Args:
            image: Identifier of the image.
            user: Name of the user.
            strategy: Strategy that proposed the image, or "".
            prompts: Number of prompts that were answered already.
            model: Model that answered them, or "".
            now: `Transaction.now` in seconds.
            wall: Time in seconds since 1970.
        """
        self._connection.execute(
            "INSERT INTO cases (image, user, strategy, opened, last, seconds, prompts, model) "
            "VALUES (?, ?, ?, ?, ?, 0, ?, ?)",
            (image, user, strategy, wall, now, prompts, model),
        )

    def close(self, image: str, user: str, label: int, prompts: int | None, seconds: float | None) -> None:
        """Close the open case of a user's image with the label that it led to.

        Args:
            image: Identifier of the image.
            user: Name of the user.
            label: Identifier of the label.
            prompts: Number of prompts, in place of those that were counted; None leaves the count.
            seconds: Working time in seconds, in place of what was measured; None leaves the measurement.
        """
        self._connection.execute(
            "UPDATE cases SET label = ?, prompts = coalesce(?, prompts), seconds = coalesce(?, seconds) "
            "WHERE image = ? AND user = ? AND label IS NULL",
            (label, prompts, seconds, image, user),
        )
