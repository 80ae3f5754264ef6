"""The log of submitted labels: who labelled what, the work it took, and which labels are held for review."""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from segmed.active.review.quarantine import QuarantineConfig, suspicion
from segmed.active.store.database import Database
from segmed.active.tables.cases import CaseRepository, CaseWork
from segmed.active.tables.images import ImageRepository
from segmed.active.tables.labels import LabelRecord, LabelRepository, LabelState
from segmed.active.tables.model_agreements import ModelAgreementRepository
from segmed.active.tables.reservations import ReservationRepository

__all__ = ["CaseWork", "Effort", "LabelLog", "LabelRecord", "LabelState"]
_HISTORY = 200  # earlier labels from which a version's usual agreement is taken


@dataclass(frozen=True)
class Effort:
    """The work on a label as reported by a viewer that counts it.

    Attributes:
        prompts: Number of prompts; None if the viewer does not report it.
        seconds: Working time in seconds; None if the viewer does not report it.
        model: Model that was used; "" if the viewer does not report it.
    """

    prompts: int | None = None
    seconds: float | None = None
    model: str = ""


class LabelLog:
    """The submitted labels and the work on them.

    Args:
        database: Database that holds the log.
        lease: Time in seconds for which a reservation is valid after each sign of work.
        pause: Longest time in seconds between two signs of work that counts as working time.
    """

    def __init__(self, database: Database, lease: float = 1800.0, pause: float = 120.0) -> None:
        self.database = database
        self.lease = lease
        self.pause = pause

    def work(self, image: str, user: str, prompts: int = 0, model: str = "") -> None:
        """Note a sign of work and prolong the reservation.

        Args:
            image: Identifier of the image.
            user: Name of the user.
            prompts: Number of prompts that were answered; 0 if the image was opened.
            model: Model that answered them, or "".
        """
        with self.database.write() as (sql, now, wall):
            self._work(sql, now, wall, image, user, prompts, model)
            ReservationRepository(sql).prolong(image, user, now + self.lease)

    def record(
        self,
        image: str,
        user: str,
        checksum: str,
        sizes: Mapping[str, int],
        agreement: Mapping[str, float] | None = None,
        effort: Effort | None = None,
    ) -> LabelRecord | None:
        """Note a submitted label; the image counts as labelled from then on, and all reservations of it end.

        Args:
            image: Identifier of the image.
            user: Name of the user who submitted the label.
            checksum: Checksum of the label's file.
            sizes: Number of voxels by structure; structures without voxels are left out.
            agreement: Dice of the model's proposal by structure, NaN left out; None if nothing was proposed.
            effort: Work as reported by the viewer, which replaces what was counted here.

        Returns:
            The submission; None if the newest label of this image is by the same user and has the same file.
        """
        present = {name: count for name, count in sizes.items() if count}
        dice = {name: value for name, value in (agreement or {}).items() if math.isfinite(value)}
        reported = effort or Effort()
        with self.database.write() as (sql, now, wall):
            ImageRepository(sql).set_labelled(image, True)
            labels = LabelRepository(sql)
            newest = labels.newest_of(image)
            submitted = None
            if newest is None or (newest.user, newest.checksum) != (user, checksum):
                self._work(sql, now, wall, image, user, 0, reported.model)
                submitted = labels.add(image, user, checksum, present, dice, wall)
                CaseRepository(sql).close(image, user, submitted.id, reported.prompts, reported.seconds)
            ReservationRepository(sql).remove([image])
        return submitted

    def delete(self, image: str) -> int:
        """Note that the labels of an image were deleted; the image can be proposed again.

        Returns:
            Number of labels that the image had.
        """
        with self.database.write() as (sql, _, _):
            ImageRepository(sql).set_labelled(image, False)
            return LabelRepository(sql).delete_of(image)

    def examine(self, label: int, dice: Mapping[str, float], config: QuarantineConfig | None = None) -> str:
        """Compare a label with the predictions of model versions, and hold it if it is suspect.

        Args:
            label: Identifier of the label.
            dice: Mean Dice over structures, by model version.
            config: Limits beyond which a label is suspect.

        Returns:
            Why the label is held, or "" if it is not.

        Raises:
            ValueError: There is no such label.
        """
        with self.database.write() as (sql, _, _):
            labels, agreements = LabelRepository(sql), ModelAgreementRepository(sql)
            record = labels.get(label)
            if record is None:
                raise ValueError(f"There is no label {label}; use the identifier of a submitted label.")
            usual = {version: agreements.usual(version, label, _HISTORY) for version in dice}
            agreements.put(label, dice)
            reason = suspicion(dice, usual, config)
            if reason and record.state == "kept" and labels.hold(label, reason):
                return reason
        return ""

    def review(self, label: int, keep: bool, reviewer: str) -> LabelRecord:
        """Decide on a label, which is not held again after that.

        Args:
            label: Identifier of the label.
            keep: Whether to train on it; a label that is dropped does not count, but its file is left as it
                is.
            reviewer: Name of the user who decides.

        Returns:
            The submission after the review.

        Raises:
            ValueError: There is no such label, it is deleted, or no reviewer is given.
        """
        if not reviewer:
            raise ValueError("A review needs a reviewer; give the name of the user who decides.")
        with self.database.write() as (sql, _, _):
            labels = LabelRepository(sql)
            # SQLite takes no larger numbers
            reviewed = 0 < label < 2**63 and labels.review(label, "kept" if keep else "dropped", reviewer)
            record = labels.get(label) if reviewed else None
            if record is None:
                raise ValueError(f"There is no label {label} to review; it may have been deleted.")
            return record

    def labels(self, state: LabelState | None = None) -> list[LabelRecord]:
        """All submissions, or those in one state, oldest first."""
        with self.database.read() as sql:
            return LabelRepository(sql).all(state)

    def usable(self) -> list[LabelRecord]:
        """The labels to train on: the newest of each image, unless it is held, dropped or deleted."""
        newest = {record.image: record for record in self.labels() if record.state != "deleted"}
        return sorted((r for r in newest.values() if r.state == "kept"), key=lambda r: r.id)

    def unexamined(self, version: str, most: int = 50) -> list[LabelRecord]:
        """Labels not compared with this model version yet, among the newest `most` that are trained on."""
        with self.database.read() as sql:
            examined = ModelAgreementRepository(sql).labels_of(version)
        return [record for record in self.usable()[-most:] if record.id not in examined]

    def model_agreements(self, label: int) -> dict[str, float]:
        """Dice of the model versions with a label, by version."""
        with self.database.read() as sql:
            return ModelAgreementRepository(sql).of_label(label)

    def contested(self) -> dict[str, list[LabelRecord]]:
        """Images that several users labelled differently, with each user's newest label."""
        by_image: dict[str, dict[str, LabelRecord]] = defaultdict(dict)
        for record in self.labels():
            if record.state in ("kept", "held"):
                by_image[record.image][record.user] = record
        newest = {image: sorted(users.values(), key=lambda r: r.id) for image, users in by_image.items()}
        return {image: records for image, records in newest.items() if len({r.checksum for r in records}) > 1}

    def cases(self) -> list[CaseWork]:
        """The users' work on images, in the order in which it began."""
        with self.database.read() as sql:
            return CaseRepository(sql).all()

    def _work(
        self,
        sql: sqlite3.Connection,
        now: float,
        wall: float,
        image: str,
        user: str,
        prompts: int,
        model: str,
    ) -> None:
        """Add a sign of work to the open case of the user's image, or open a case."""
        cases = CaseRepository(sql)
        if not cases.add_work(image, user, prompts, model, now, self.pause):
            strategy = ReservationRepository(sql).strategy(image, user)
            cases.open(image, user, strategy, prompts, model, now, wall)
