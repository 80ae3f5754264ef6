"""Which user has reserved which image, and which images users have skipped."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable


class ReservationRepository:
    """The table `reservations`. Times are `Transaction.now`.

    Args:
        connection: Open connection, within a transaction of the caller.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def images(self) -> set[str]:
        """Ids of all reserved images, including expired reservations that were not removed yet."""
        return {row[0] for row in self._connection.execute("SELECT image FROM reservations")}

    def holders(self, now: float) -> dict[str, str]:
        """User who holds each image, by image id, without expired reservations."""
        query = "SELECT image, user FROM reservations WHERE until > ?"
        return dict(self._connection.execute(query, (now,)).fetchall())

    def of_user(self, user: str) -> list[tuple[str, str]]:
        """Images that a user holds with the strategies that chose them, the earliest end first."""
        query = "SELECT image, strategy FROM reservations WHERE user = ? ORDER BY until, image"
        return [(row[0], row[1]) for row in self._connection.execute(query, (user,))]

    def strategy(self, image: str, user: str) -> str:
        """Strategy that chose an image for a user; "" if the user does not hold it."""
        query = "SELECT strategy FROM reservations WHERE image = ? AND user = ?"
        row = self._connection.execute(query, (image, user)).fetchone()
        return row[0] if row else ""

    def add(self, image: str, user: str, strategy: str, until: float) -> bool:
        """Reserve an image; returns whether it was free."""
        query = "INSERT OR IGNORE INTO reservations (image, user, strategy, until) VALUES (?, ?, ?, ?)"
        return bool(self._connection.execute(query, (image, user, strategy, until)).rowcount)

    def prolong(self, image: str, user: str, until: float) -> None:
        """Set the end of a reservation, if the user holds the image."""
        query = "UPDATE reservations SET until = ? WHERE image = ? AND user = ?"
        self._connection.execute(query, (until, image, user))

    def release(self, image: str, user: str) -> None:
        """Remove a user's reservation of an image, if there is one."""
        self._connection.execute("DELETE FROM reservations WHERE image = ? AND user = ?", (image, user))

    def release_all(self, user: str) -> None:
        """Remove all reservations of a user."""
        self._connection.execute("DELETE FROM reservations WHERE user = ?", (user,))

    def remove_expired(self, now: float) -> None:
        """Remove the reservations that have ended."""
        self._connection.execute("DELETE FROM reservations WHERE until <= ?", (now,))

    def remove(self, images: Iterable[str]) -> None:
        """Remove the reservations of images, whoever holds them."""
        self._connection.executemany(
            "DELETE FROM reservations WHERE image = ?", [(image,) for image in images]
        )


class SkipRepository:
    """The table `skips`.

    Args:
        connection: Open connection, within a transaction of the caller.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def of_user(self, user: str) -> list[tuple[str, bool]]:
        """Images that a user has skipped, the longest skipped first, and whether the skip is forever."""
        query = "SELECT image, forever FROM skips WHERE user = ? ORDER BY since"
        return [(row[0], bool(row[1])) for row in self._connection.execute(query, (user,))]

    def put(self, image: str, user: str, forever: bool, now: float) -> None:
        """Note that a user skips an image, for now or forever, in place of an earlier skip of it."""
        query = "INSERT OR REPLACE INTO skips (image, user, forever, since) VALUES (?, ?, ?, ?)"
        self._connection.execute(query, (image, user, int(forever), now))

    def remove(self, images: Iterable[str]) -> None:
        """Remove the skips of images by all users."""
        self._connection.executemany("DELETE FROM skips WHERE image = ?", [(image,) for image in images])
