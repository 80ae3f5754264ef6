"""Who labelled what, how long it took, and which labels are held back for review."""

from __future__ import annotations

import json
import math
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from segmed.active.database import Database
from segmed.active.quarantine import QuarantineConfig, suspicion

LabelState = Literal["kept", "held", "dropped", "deleted"]
_HISTORY = 200  # earlier labels that tell what is usual


@dataclass(frozen=True)
class LabelRecord:
    """One submission.

    Attributes:
        id: rises with each submission.
        image: id.
        user: who submitted it.
        checksum: of the label's file.
        sizes: voxels by name of the structure; empty for an empty label.
        agreement: Dice of what the model proposed against what was submitted, by structure.
        state: `kept` is learnt from, `held` waits for review, `dropped` was turned down there, `deleted` is gone.
        reason: why it is held.
        reviewer: who decided.
        at: s since 1970.
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


@dataclass(frozen=True)
class CaseWork:
    """One user's work on one image.

    Attributes:
        image: id.
        user: who.
        strategy: that proposed the image; "" if the user opened it alone.
        seconds: of work; pauses count up to two minutes each.
        prompts: answered ones.
        label: id of the label it led to; None while it is open.
        opened: s since 1970.
        model: whose prompts were answered last, or as the viewer tells.
    """

    image: str
    user: str
    strategy: str
    seconds: float
    prompts: int
    label: int | None
    opened: float
    model: str = ""


@dataclass(frozen=True)
class Effort:
    """What a viewer that counts for itself tells of the work on a label.

    Attributes:
        prompts: None where it does not tell.
        seconds: likewise.
        model: "" likewise.
    """

    prompts: int | None = None
    seconds: float | None = None
    model: str = ""


class LabelLog:
    """Labels and the work on them.

    Args:
        database: where it is kept.
        lease: s by which each sign of work prolongs a reservation.
        pause: s between two signs of work that count at most.
    """

    def __init__(self, database: Database, lease: float = 1800.0, pause: float = 120.0) -> None:
        self.database = database
        self.lease = lease
        self.pause = pause

    def work(self, image: str, user: str, prompts: int = 0, model: str = "") -> None:
        """Note a sign of work: the image was opened (0 prompts), or a prompt was answered. Prolongs the reservation."""
        with self.database.write() as (sql, now, wall):
            self._work(sql, now, wall, image, user, prompts, model)
            sql.execute(
                "UPDATE reservations SET until = ? WHERE image = ? AND user = ?", (now + self.lease, image, user)
            )

    def record(
        self,
        image: str,
        user: str,
        checksum: str,
        sizes: Mapping[str, int],
        agreement: Mapping[str, float] | None = None,
        effort: Effort | None = None,
    ) -> LabelRecord | None:
        """Note a submitted label; the image is labelled then, and nobody's any more.

        Args:
            image: id.
            user: who submitted it.
            checksum: of the file.
            sizes: voxels by structure; those of 0 are left out.
            agreement: Dice of the proposal by structure, NaN left out; None if nothing was proposed.
            effort: what the viewer tells of the work, in place of what was counted here.

        Returns:
            None if the user's last label of this image is the same.
        """
        facts = {name: count for name, count in sizes.items() if count}
        dice = {name: value for name, value in (agreement or {}).items() if math.isfinite(value)}
        told = effort or Effort()
        with self.database.write() as (sql, now, wall):
            sql.execute("UPDATE images SET labelled = 1 WHERE image = ?", (image,))
            last = sql.execute(
                "SELECT user, checksum FROM labels WHERE image = ? AND state != 'deleted' ORDER BY id DESC LIMIT 1",
                (image,),
            ).fetchone()
            found = None
            if last is None or tuple(last) != (user, checksum):
                self._work(sql, now, wall, image, user, 0, told.model)
                number = sql.execute(
                    "INSERT INTO labels (image, user, checksum, sizes, agreement, state, reason, reviewer, at) "
                    "VALUES (?, ?, ?, ?, ?, 'kept', '', '', ?)",
                    (image, user, checksum, json.dumps(facts), json.dumps(dice), wall),
                ).lastrowid
                sql.execute(
                    "UPDATE cases SET label = ?, prompts = coalesce(?, prompts), seconds = coalesce(?, seconds) "
                    "WHERE image = ? AND user = ? AND label IS NULL",
                    (number, told.prompts, told.seconds, image, user),
                )
                found = _record(sql.execute("SELECT * FROM labels WHERE id = ?", (number,)).fetchone())
            sql.execute("DELETE FROM reservations WHERE image = ?", (image,))
        return found

    def delete(self, image: str) -> int:
        """Note that the labels of an image are gone; it can be proposed again.

        Returns:
            How many there were.
        """
        with self.database.write() as (sql, _, _):
            sql.execute("UPDATE images SET labelled = 0 WHERE image = ?", (image,))
            query = "UPDATE labels SET state = 'deleted' WHERE image = ? AND state != 'deleted'"
            return sql.execute(query, (image,)).rowcount

    def examine(self, label: int, dice: Mapping[str, float], config: QuarantineConfig | None = None) -> str:
        """Compare a label with what model versions predict, and hold it if it is suspect.

        Args:
            label: id.
            dice: mean Dice over structures by version.
            config: limits.

        Returns:
            Why it is held, or "".

        Raises:
            ValueError: there is no such label.
        """
        with self.database.write() as (sql, _, _):
            row = sql.execute("SELECT state FROM labels WHERE id = ?", (label,)).fetchone()
            if row is None:
                raise ValueError(f"There is no label {label}.")
            usual: dict[str, list[float]] = defaultdict(list)
            for version in dice:
                rows = sql.execute(
                    "SELECT w.dice FROM witnesses w JOIN labels l ON l.id = w.label WHERE w.version = ? AND "
                    "w.label != ? AND l.state = 'kept' ORDER BY w.label DESC LIMIT ?",
                    (version, label, _HISTORY),
                )
                usual[version] = [r[0] for r in rows]
            finite = [(label, version, value) for version, value in dice.items() if math.isfinite(value)]
            sql.executemany("INSERT OR REPLACE INTO witnesses VALUES (?, ?, ?)", finite)
            reason = suspicion(dice, usual, config)
            if reason and row[0] == "kept":
                sql.execute(
                    "UPDATE labels SET state = 'held', reason = ? WHERE id = ? AND reviewer = ''", (reason, label)
                )
                changed = sql.execute("SELECT changes()").fetchone()[0]
                return reason if changed else ""
        return ""

    def review(self, label: int, keep: bool, reviewer: str) -> LabelRecord:
        """Decide on a label; it is not held again. One that is not kept does not count, but its file is left alone.

        Raises:
            ValueError: there is no such label, or it is deleted, or nobody decides.
        """
        if not reviewer:
            raise ValueError("A review needs a reviewer; say who decides.")
        with self.database.write() as (sql, _, _):
            state = "kept" if keep else "dropped"
            query = "UPDATE labels SET state = ?, reviewer = ? WHERE id = ? AND state != 'deleted'"
            known = 0 < label < 2**63  # SQLite takes no larger numbers
            if not known or not sql.execute(query, (state, reviewer, label)).rowcount:
                raise ValueError(f"There is no label {label} to review; it may have been deleted.")
            return _record(sql.execute("SELECT * FROM labels WHERE id = ?", (label,)).fetchone())

    def labels(self, state: LabelState | None = None) -> list[LabelRecord]:
        """All submissions, or those of one state, oldest first."""
        with self.database.read() as sql:
            rows = sql.execute("SELECT * FROM labels WHERE ? IS NULL OR state = ? ORDER BY id", (state, state))
            return [_record(row) for row in rows]

    def usable(self) -> list[LabelRecord]:
        """What is learnt from: the newest label of each image, unless that is held, dropped or deleted."""
        newest = {record.image: record for record in self.labels() if record.state != "deleted"}
        return sorted((r for r in newest.values() if r.state == "kept"), key=lambda r: r.id)

    def unexamined(self, version: str, most: int = 50) -> list[LabelRecord]:
        """The labels that this version has not borne witness on, among the newest `most` that are learnt from."""
        with self.database.read() as sql:
            known = {row[0] for row in sql.execute("SELECT label FROM witnesses WHERE version = ?", (version,))}
        return [record for record in self.usable()[-most:] if record.id not in known]

    def witnesses(self, label: int) -> dict[str, float]:
        """Dice by version that were found for a label."""
        with self.database.read() as sql:
            return dict(sql.execute("SELECT version, dice FROM witnesses WHERE label = ?", (label,)).fetchall())

    def contested(self) -> dict[str, list[LabelRecord]]:
        """Images that several users labelled differently, with each user's newest label."""
        by_image: dict[str, dict[str, LabelRecord]] = defaultdict(dict)
        for record in self.labels():
            if record.state in ("kept", "held"):
                by_image[record.image][record.user] = record
        newest = {image: sorted(users.values(), key=lambda r: r.id) for image, users in by_image.items()}
        return {image: found for image, found in newest.items() if len({r.checksum for r in found}) > 1}

    def cases(self) -> list[CaseWork]:
        """Work on images, in the order it began."""
        with self.database.read() as sql:
            columns = "image, user, strategy, seconds, prompts, label, opened, model"
            return [CaseWork(*row) for row in sql.execute(f"SELECT {columns} FROM cases ORDER BY id")]

    def _work(
        self, sql: sqlite3.Connection, now: float, wall: float, image: str, user: str, prompts: int, model: str
    ) -> None:
        changed = sql.execute(
            "UPDATE cases SET seconds = seconds + min(? - last, ?), last = ?, prompts = prompts + ?, "
            "model = coalesce(nullif(?, ''), model) WHERE image = ? AND user = ? AND label IS NULL",
            (now, self.pause, now, prompts, model, image, user),
        ).rowcount
        if not changed:
            row = sql.execute(
                "SELECT strategy FROM reservations WHERE image = ? AND user = ?", (image, user)
            ).fetchone()
            sql.execute(
                "INSERT INTO cases (image, user, strategy, opened, last, seconds, prompts, model) "
                "VALUES (?, ?, ?, ?, ?, 0, ?, ?)",
                (image, user, row[0] if row else "", wall, now, prompts, model),
            )


def _record(row: sqlite3.Row) -> LabelRecord:
    facts = {**dict(row), "sizes": json.loads(row["sizes"]), "agreement": json.loads(row["agreement"])}
    return LabelRecord(**facts)
