"""The state of active learning: images with their scores, reservations, and the choice of next samples."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from segmed.active.scoring.strategies import REVIEW, CandidatePool, find_strategy, missing, rank
from segmed.active.store.database import Database
from segmed.active.store.score_table import ScoreTable, read_table
from segmed.active.tables.images import ImageFacts, ImageRepository
from segmed.active.tables.reservations import ReservationRepository, SkipRepository
from segmed.active.tables.review import ReviewRepository
from segmed.active.tables.scores import ScoreRepository, ScoringCost, StoredScores

_MOST = 100  # images that a user may hold
_SPARE = 2  # images ranked beyond the number requested, as another process may reserve some of them
_TRIES = 8


@dataclass(frozen=True)
class Proposal:
    """An image that is reserved for a user.

    Attributes:
        image: Identifier of the image.
        strategy: Name of the strategy that chose it.
        again: Whether the user held the image already.
        note: What the user should know, such as that scores were missing; "" if nothing.
    """

    image: str
    strategy: str
    again: bool = False
    note: str = ""


class ActiveState:
    """The images, their scores and their reservations.

    Args:
        database: Database that holds the state; several processes may have it open.
        lease: Time in seconds that a proposed image stays reserved without a sign of work on it.

    Raises:
        ValueError: The lease is not above 0.
    """

    def __init__(self, database: Database, lease: float = 1800.0) -> None:
        if not 0 < lease < math.inf:
            raise ValueError(
                f"A reservation of {lease} s is not possible; give a number above 0, such as 1800."
            )
        self.database = database
        self.lease = lease
        self._kept: ScoreTable | None = None

    def observe(self, images: Mapping[str, str], labelled: Collection[str]) -> None:
        """Bring the state up to date with the studies; cheap where nothing has changed.

        Args:
            images: Fingerprint of each image's file by image id, in the order of the studies.
            labelled: Ids of the images that have a final label.
        """
        wanted = {
            image: ImageFacts(fingerprint, position, int(image in labelled))
            for position, (image, fingerprint) in enumerate(images.items())
        }
        with self.database.read() as sql:
            if ImageRepository(sql).facts() == wanted:
                return
        with self.database.write() as (sql, _, wall):
            table, scores = ImageRepository(sql), ScoreRepository(sql)
            reservations, skips = ReservationRepository(sql), SkipRepository(sql)
            before = table.facts()
            gone = before.keys() - wanted.keys()
            changed = {image: facts for image, facts in wanted.items() if before.get(image) != facts}
            table.remove(gone)
            scores.remove(gone)
            reservations.remove(gone)
            skips.remove(gone)
            table.put(changed, wall)
            reservations.remove(reservations.images() & table.labelled())
            # labels alone leave the score table's rows as they are
            moved = any(
                image not in before or before[image][:2] != facts[:2] for image, facts in changed.items()
            )
            if gone or moved:
                scores.next_generation(structure=True)

    def stale(self, version: str, limit: int = 100) -> list[str]:
        """Images that lack scores of this version, or have changed since; those without a label first."""
        with self.database.read() as sql:
            return ScoreRepository(sql).images_without(version, limit)

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
        """Store the scores of an image; without scores and embedding, that the image cannot be scored.

        Args:
            image: Identifier of the image.
            version: Model version that gave the scores.
            fingerprint: Fingerprint of the image's file that was scored.
            scores: Score by quantity; NaN counts as unknown.
            embedding: (D,) vector that describes the image; None, or not finite, where there is none.
            encodes: Number of passes of the encoder that the scores took.
            decodes: Number of passes of the decoder that they took.
            seconds: Time in seconds that they took.

        Returns:
            Whether the image is still in the studies; if not, nothing is stored.

        Raises:
            OSError: The scores could not be stored.
        """
        finite = {name: float(value) for name, value in scores.items() if math.isfinite(value)}
        if embedding is not None and not np.isfinite(embedding).all():
            embedding = None
        with self.database.write() as (sql, _, _):
            if not ImageRepository(sql).exists(image):
                return False
            table = ScoreRepository(sql)
            cost = ScoringCost(encodes, decodes, seconds)
            table.save(
                version, fingerprint, StoredScores(image, finite, embedding), cost, table.next_generation()
            )
        return True

    def arrived(self) -> dict[str, float]:
        """Time at which each image was first seen, in seconds since 1970, by image id."""
        with self.database.read() as sql:
            return ImageRepository(sql).arrivals()

    def prune(self, version: str) -> int:
        """Delete the scores of all other versions, once no image lacks those of this one.

        Returns:
            Number of images whose scores were deleted, counted once per version.
        """
        with self.database.read() as sql:  # nothing is written where there is nothing to do
            if not ScoreRepository(sql).has_other_versions(version):
                return 0
        if self.stale(version, 1):
            return 0
        with self.database.write() as (sql, _, _):
            table = ScoreRepository(sql)
            count = table.remove_other_versions(version)
            if count:
                table.next_generation(structure=True)
        return count

    def table(self, version: str) -> tuple[tuple[str, ...], Mapping[str, np.ndarray], np.ndarray | None]:
        """Images, scores by quantity (N,) and embeddings (N, D) of one version, as `CandidatePool` has them.

        Scores of different versions are never mixed. While fewer than half as many images are scored by this
        version as by another one, which was served before, the scores of that other version are returned."""
        known = self._known(version)
        return known.images, known.scores, known.embeddings

    def propose(
        self,
        strategy: str,
        user: str,
        count: int = 1,
        version: str = "",
        keep: bool = True,
        seed: int | None = None,
        but: str = "",
    ) -> list[Proposal]:
        """Reserve the next images for a user; no two users hold an image at the same time.

        Images that the user skipped are proposed when no others are left, the longest skipped first.

        Args:
            strategy: Name of the strategy that ranks the images.
            user: Name of the user.
            count: Number of images that the user wants to hold, 1 to 100.
            version: Model version whose scores are used.
            keep: Whether images that the user holds but has not labelled count among them and come first, so
                that a repeated request has the same answer; if False, these images are released.
            seed: Seed for strategies that draw at random; None for a new draw each time.
            but: Image that is not proposed, for it is open already; "" if there is none.

        Returns:
            The reserved images; fewer than `count`, or none, if there are not enough images without a label
            that nobody else holds.

        Raises:
            ValueError: There is no such strategy, or the count is out of range.
        """
        find_strategy(strategy)
        if not 1 <= count <= _MOST:
            raise ValueError(f"{count} images cannot be proposed; ask for 1 to {_MOST}.")
        chosen: list[Proposal] = []
        released: list[str] = []
        with self.database.write() as (sql, now, _):
            reservations = ReservationRepository(sql)
            reservations.remove_expired(now)
            held = reservations.of_user(user)
            if keep:
                chosen = [Proposal(image, chosen_by, again=True) for image, chosen_by in held if image != but]
                chosen = chosen[:count]
            else:
                released = [image for image, _ in held]
                reservations.release_all(user)
        for _ in range(_TRIES):
            if len(chosen) >= count:
                break
            ranked, notes, complete = self._ranked(
                strategy, user, count - len(chosen), version, released, seed
            )
            ranked = [image for image in ranked if image != but]
            reserved = self._reserve(ranked, user, strategy, count - len(chosen))
            chosen += [Proposal(image, strategy, note=notes.get(image, "")) for image in reserved]
            if complete and len(reserved) == len(ranked):
                break
        return chosen

    def queue_review(self, reasons: Mapping[str, str]) -> None:
        """Store which images the strategy `review` proposes, the most urgent first, with the reasons.

        They replace those of an earlier call. Images that are not in the studies yet may be among them.

        Raises:
            OSError: They could not be stored.
        """
        with self.database.write() as (sql, _, _):
            ReviewRepository(sql).replace(reasons)

    def release(self, image: str, user: str) -> None:
        """Release a user's image without noting anything about it."""
        with self.database.write() as (sql, _, _):
            ReservationRepository(sql).release(image, user)

    def skip(self, image: str, user: str, forever: bool = False) -> None:
        """Release a user's image, which is proposed to the user again when no others are left, or never."""
        with self.database.write() as (sql, now, _):
            ReservationRepository(sql).release(image, user)
            if ImageRepository(sql).exists(image):
                SkipRepository(sql).put(image, user, forever, now)

    def reserved(self) -> dict[str, str]:
        """User who holds each reserved image, by image id."""
        with self.database.read() as sql:
            return ReservationRepository(sql).holders(self.database.now(sql))

    def _ranked(
        self, strategy: str, user: str, count: int, version: str, released: Collection[str], seed: int | None
    ) -> tuple[list[str], Mapping[str, str], bool]:
        """Candidates, best first; notes for the user; and whether there are no other candidates."""
        known = self._known(version)
        with self.database.read() as sql:
            labelled = ImageRepository(sql).labelled()
            reserved = ReservationRepository(sql).images()
            skips = SkipRepository(sql).of_user(user)
            reasons = ReviewRepository(sql).reasons() if strategy == REVIEW else {}
        unwanted = {image for image, _ in skips} | set(released)
        # images that somebody works on will be labelled soon, so they count as covered
        covered = np.array([image in labelled or image in reserved for image in known.images], bool)
        free = ~covered & np.array([image not in unwanted for image in known.images], bool)
        urgency = {image: -float(place) for place, image in enumerate(reasons)}
        review = {REVIEW: np.array([urgency.get(image, math.nan) for image in known.images])}
        pool = CandidatePool(known.images, free, {**known.scores, **review}, known.embeddings)
        ranked = rank(strategy, pool, count + _SPARE, seed, covered)
        note = missing(strategy, pool) if ranked else ""
        last = [image for image, forever in skips if not forever] + list(released)
        if len(ranked) < count + _SPARE:
            ranked += [
                image for image in dict.fromkeys(last) if image not in labelled | reserved | set(ranked)
            ]
        return ranked, dict.fromkeys(ranked, note) | reasons, len(ranked) < count + _SPARE

    def _reserve(self, ranked: Collection[str], user: str, strategy: str, count: int) -> list[str]:
        """The first `count` images that are still free, reserved for the user."""
        reserved: list[str] = []
        with self.database.write() as (sql, now, _):
            images, reservations = ImageRepository(sql), ReservationRepository(sql)
            for image in ranked:
                if len(reserved) == count:
                    break
                if images.lacks_label(image) and reservations.add(image, user, strategy, now + self.lease):
                    reserved.append(image)
        return reserved

    def _known(self, version: str) -> ScoreTable:
        with self.database.read() as sql:
            self._kept = read_table(sql, version, self._kept)
            return self._kept
