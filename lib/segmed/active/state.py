"""What active learning knows of the images, and who labels which: scores, embeddings, reservations, next samples."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from segmed.active.database import Database
from segmed.active.score_table import ScoreTable, next_generation, read_table
from segmed.active.strategies import CandidatePool, find_strategy, missing, rank

_MOST = 100  # images that a user may hold
_SPARE = 2  # more are ranked than asked for, because another process may be faster
_TRIES = 8


@dataclass(frozen=True)
class Proposal:
    """An image that is the user's until the reservation ends.

    Attributes:
        image: id.
        strategy: that chose it.
        again: whether the user had it already.
        note: what the user should know, such as that no scores were there.
    """

    image: str
    strategy: str
    again: bool = False
    note: str = ""


class ActiveState:
    """The images and their users.

    Args:
        database: where it is kept; several processes may have it open.
        lease: s that a proposed image stays reserved without a sign of work on it.

    Raises:
        ValueError: a lease that is not above 0.
    """

    def __init__(self, database: Database, lease: float = 1800.0) -> None:
        if not 0 < lease < math.inf:
            raise ValueError(f"A reservation of {lease} s is not possible; give a number above 0, such as 1800.")
        self.database = database
        self.lease = lease
        self._kept: ScoreTable | None = None

    def observe(self, images: Mapping[str, str], labelled: Collection[str]) -> None:
        """Take note of what is in the studies; cheap where nothing has changed.

        Args:
            images: fingerprint of the file by id, in the order of the studies.
            labelled: ids that have a final label.
        """
        wanted = {image: (mark, n, int(image in labelled)) for n, (image, mark) in enumerate(images.items())}
        query = "SELECT image, fingerprint, position, labelled FROM images"
        with self.database.read() as sql:
            if {row[0]: tuple(row)[1:] for row in sql.execute(query)} == wanted:
                return
        with self.database.write() as (sql, _, wall):
            before = {row[0]: tuple(row)[1:] for row in sql.execute(query)}
            gone = [(image,) for image in before.keys() - wanted.keys()]
            changed = [(image, *facts) for image, facts in wanted.items() if before.get(image) != facts]
            for table in ("images", "scored", "reservations", "skips"):
                sql.executemany(f"DELETE FROM {table} WHERE image = ?", gone)
            sql.executemany(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?) ON CONFLICT (image) DO UPDATE SET fingerprint = "
                "excluded.fingerprint, position = excluded.position, labelled = excluded.labelled",
                [(*row, wall) for row in changed],
            )
            sql.execute("DELETE FROM reservations WHERE image IN (SELECT image FROM images WHERE labelled)")
            if gone or any(before.get(row[0], (None, None))[:2] != row[1:3] for row in changed):
                next_generation(sql, structure=True)

    def stale(self, version: str, limit: int = 100) -> list[str]:
        """Images without scores of this version, or changed since; those without a label first."""
        with self.database.read() as sql:
            rows = sql.execute(
                "SELECT i.image FROM images i LEFT JOIN scored s ON s.image = i.image AND s.version = ? AND "
                "s.fingerprint = i.fingerprint WHERE s.image IS NULL ORDER BY i.labelled, i.position LIMIT ?",
                (version, limit),
            )
            return [row[0] for row in rows]

    def save_scores(
        self,
        image: str,
        version: str,
        fingerprint: str,
        scores: Mapping[str, float],
        embedding: np.ndarray | None = None,
        encodes: int = 0,
        decodes: int = 0,
        seconds: float = 0.0,
    ) -> bool:
        """Keep what was found out about an image; without scores and embedding, that it cannot be looked at.

        Args:
            image: id.
            version: of the model.
            fingerprint: of the file that was looked at.
            scores: by quantity; NaN counts as unknown.
            embedding: (D,)
            encodes: what it cost.
            decodes: likewise.
            seconds: likewise.

        Returns:
            Whether the image is still there.

        Raises:
            OSError: nothing was kept.
        """
        finite = {name: float(value) for name, value in scores.items() if math.isfinite(value)}
        blob = None
        if embedding is not None and np.isfinite(embedding).all():
            blob = np.ascontiguousarray(embedding, np.float32).tobytes()
        with self.database.write() as (sql, _, _):
            if sql.execute("SELECT 1 FROM images WHERE image = ?", (image,)).fetchone() is None:
                return False
            cost = encodes, decodes, seconds, next_generation(sql)
            row = (image, version, fingerprint, json.dumps(finite), blob, *cost)
            sql.execute("INSERT OR REPLACE INTO scored VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        return True

    def arrived(self) -> dict[str, float]:
        """When each image was first seen, s since 1970."""
        with self.database.read() as sql:
            return dict(sql.execute("SELECT image, arrived FROM images").fetchall())

    def prune(self, version: str) -> int:
        """Forget the scores of all other versions, once no image lacks those of this one.

        Returns:
            Rows that were forgotten.
        """
        with self.database.read() as sql:  # nothing is written where there is nothing to do
            if sql.execute("SELECT 1 FROM scored WHERE version != ? LIMIT 1", (version,)).fetchone() is None:
                return 0
        if self.stale(version, 1):
            return 0
        with self.database.write() as (sql, _, _):
            count = sql.execute("DELETE FROM scored WHERE version != ?", (version,)).rowcount
            if count:
                next_generation(sql, structure=True)
        return count

    def table(self, version: str) -> tuple[tuple[str, ...], Mapping[str, np.ndarray], np.ndarray | None]:
        """Images, scores by quantity (N,) and embeddings (N, D) of one version, as `CandidatePool` has them.

        Scores of different versions are never mixed. While fewer than half as many images are scored by the version
        asked for as by another one, which was served before, that one's are given.
        """
        known = self._known(version)
        return known.images, known.scores, known.embeddings

    def propose(
        self, strategy: str, user: str, count: int = 1, version: str = "", keep: bool = True, seed: int | None = None
    ) -> list[Proposal]:
        """Reserve the next images for a user; no two users have one image at a time.

        Images that the user skipped come when nothing else is left, the longest skipped first.

        Args:
            strategy: name.
            user: who asks.
            count: how many images the user wants to have, 1 to 100.
            version: of the model that is served.
            keep: whether images that the user has but did not label count among them and come first, so that a
                repeated request has the same answer; else they are given back.
            seed: of the chance.

        Returns:
            Fewer than `count`, or none, if there are not so many images without a label that nobody else has.

        Raises:
            ValueError: no such strategy, or an impossible count.
        """
        find_strategy(strategy)
        if not 1 <= count <= _MOST:
            raise ValueError(f"{count} images cannot be proposed; ask for 1 to {_MOST}.")
        chosen: list[Proposal] = []
        with self.database.write() as (sql, now, _):
            sql.execute("DELETE FROM reservations WHERE until <= ?", (now,))
            mine = "FROM reservations WHERE user = ?"
            given_back = []
            if keep:
                rows = sql.execute(f"SELECT image, strategy {mine} ORDER BY until, image LIMIT ?", (user, count))
                chosen = [Proposal(row[0], row[1], again=True) for row in rows]
            else:
                given_back = [row[0] for row in sql.execute(f"SELECT image {mine}", (user,))]
                sql.execute(f"DELETE {mine}", (user,))
        for _ in range(_TRIES):
            if len(chosen) >= count:
                break
            ranked, note, complete = self._ranked(strategy, user, count - len(chosen), version, given_back, seed)
            taken = self._reserve(ranked, user, strategy, count - len(chosen))
            chosen += [Proposal(image, strategy, note=note) for image in taken]
            if complete and len(taken) == len(ranked):
                break
        return chosen

    def release(self, image: str, user: str) -> None:
        """Give an image back without a word on it."""
        with self.database.write() as (sql, _, _):
            sql.execute("DELETE FROM reservations WHERE image = ? AND user = ?", (image, user))

    def skip(self, image: str, user: str, forever: bool = False) -> None:
        """Give an image back: the user wants it later, when nothing else is left, or never ("not this one")."""
        with self.database.write() as (sql, now, _):
            sql.execute("DELETE FROM reservations WHERE image = ? AND user = ?", (image, user))
            if sql.execute("SELECT 1 FROM images WHERE image = ?", (image,)).fetchone():
                sql.execute("INSERT OR REPLACE INTO skips VALUES (?, ?, ?, ?)", (image, user, int(forever), now))

    def reserved(self) -> dict[str, str]:
        """Who has which image now."""
        with self.database.read() as sql:
            query = "SELECT image, user FROM reservations WHERE until > ?"
            return dict(sql.execute(query, (self.database.now(sql),)).fetchall())

    def _ranked(
        self, strategy: str, user: str, count: int, version: str, given_back: Collection[str], seed: int | None
    ) -> tuple[list[str], str, bool]:
        """Candidates, best first, a note, and whether there are no others."""
        known = self._known(version)
        with self.database.read() as sql:
            labelled = {row[0] for row in sql.execute("SELECT image FROM images WHERE labelled")}
            reserved = {row[0] for row in sql.execute("SELECT image FROM reservations")}
            skips = sql.execute("SELECT image, forever FROM skips WHERE user = ? ORDER BY since", (user,)).fetchall()
        away = {row[0] for row in skips} | set(given_back)
        # what somebody works on will be labelled soon
        covered = np.array([image in labelled or image in reserved for image in known.images], bool)
        free = ~covered & np.array([image not in away for image in known.images], bool)
        pool = CandidatePool(known.images, free, known.scores, known.embeddings)
        ranked = rank(strategy, pool, count + _SPARE, seed, covered)
        note = missing(strategy, pool) if ranked else ""
        last = [row[0] for row in skips if not row[1]] + list(given_back)
        if len(ranked) < count + _SPARE:
            ranked += [image for image in dict.fromkeys(last) if image not in labelled | reserved | set(ranked)]
        return ranked, note, len(ranked) < count + _SPARE

    def _reserve(self, ranked: Collection[str], user: str, strategy: str, count: int) -> list[str]:
        taken: list[str] = []
        with self.database.write() as (sql, now, _):
            for image in ranked:
                if len(taken) == count:
                    break
                added = sql.execute(
                    "INSERT OR IGNORE INTO reservations SELECT image, ?, ?, ? FROM images WHERE image = ? AND NOT "
                    "labelled",
                    (user, strategy, now + self.lease, image),
                )
                taken += [image] * added.rowcount
        return taken

    def _known(self, version: str) -> ScoreTable:
        with self.database.read() as sql:
            self._kept = read_table(sql, version, self._kept)
            return self._kept
