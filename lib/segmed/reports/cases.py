"""Parts of the report that need the label maps: the agreement of annotators, and the worst proposals."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from segmed.active.review.submission import LabelMap, named_dice, whole_labels
from segmed.active.store.labels import LabelRecord
from segmed.active.store.study_files import StoredLabel, StudyFiles
from segmed.data.checksums import file_checksum
from segmed.imaging.grid import read_grid, read_labels
from segmed.imaging.picture import open_picture
from segmed.reports.numbers import proposal_dice
from segmed.training.overlay import overlay_sheet
from segmed.training.validation import ShownCase

FINAL, ORIGINAL = "final", "original"


@dataclass(frozen=True)
class Pair:
    """Two labels of one image.

    Attributes:
        image: Identifier of the image.
        users: Users who submitted the labels; "" where they are not known.
        tags: Tags under which the labels are stored; "" for a label whose file was replaced by a later one.
        dice: Dice by structure; None where a file was replaced, so that the labels cannot be compared.
        possible: Highest mean Dice that the sizes of the structures allow; NaN where these are not known.
    """

    image: str
    users: tuple[str, str]
    tags: tuple[str, str]
    dice: Mapping[str, float] | None
    possible: float

    @property
    def mean(self) -> float | None:
        """Mean Dice over structures, 1 for two empty labels; None where they cannot be compared."""
        if self.dice is None:
            return None
        return float(np.mean([*self.dice.values()])) if self.dice else 1.0


@dataclass(frozen=True)
class Agreement:
    """How far two users agree, or one user with their own earlier labels.

    Attributes:
        users: Names of the users in alphabetical order.
        pairs: Number of pairs that could be compared.
        dice: Mean Dice of these pairs.
        lowest: Lowest Dice of these pairs.
    """

    users: tuple[str, str]
    pairs: int
    dice: float
    lowest: float


@dataclass(frozen=True)
class WorstCase:
    """A label that the model's proposal differs from strongly.

    Attributes:
        label: The submission.
        dice: Dice of the proposal, mean over structures.
        overlay: Picture (H, W, 3) uint8, the label green, the proposal red, both yellow; None without files.
        note: Which slice is shown, or why none is.
    """

    label: LabelRecord
    dice: float
    overlay: np.ndarray | None
    note: str


@dataclass(frozen=True)
class _UserLabel:
    """A label of an image, with its user, its tag, and the known facts."""

    user: str
    tag: str
    checksum: str
    sizes: Mapping[str, int] | None
    label_map: LabelMap | None


def label_pairs(files: StudyFiles, labels: Sequence[LabelRecord], most: int = 40) -> tuple[list[Pair], int]:
    """All pairs of labels of one image by different users or under different tags, proposals left out.

    The datastore keeps one file per tag, so that a second final label replaces the first. For such pairs only
    the sizes are known, which bound the Dice from above.

    Args:
        files: Files of the studies.
        labels: All submissions, oldest first; deleted and dropped ones do not count.
        most: Largest number of images whose files are read, those labelled last first.

    Returns:
        The pairs that can be compared or bounded, and the number of images that were left out.
    """
    records: dict[str, dict[str, LabelRecord]] = defaultdict(dict)
    for label in labels:
        if label.state in ("kept", "held"):
            records[label.image].pop(label.user, None)
            records[label.image][label.user] = label
    stored = {name for name, tags in files.labels.items() if len(tags.keys() - {ORIGINAL}) > 1}
    several = [name for name in sorted({*files.labels, *records}) if name in stored or len(records[name]) > 1]
    several.sort(key=lambda name: -max((label.id for label in records[name].values()), default=0))
    pairs = []
    for name in several[:most]:
        user_labels = _user_labels(files.labels.get(name, {}), list(records[name].values()))
        pairs += [_pair(name, first, second) for first, second in combinations(user_labels, 2)]
    known = [pair for pair in pairs if pair.dice is not None or math.isfinite(pair.possible)]
    return known, max(0, len(several) - most)


def agreements(pairs: Sequence[Pair]) -> list[Agreement]:
    """Means over the pairs that can be compared, by users."""
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for pair in pairs:
        if pair.mean is not None:
            groups[min(pair.users), max(pair.users)].append(pair.mean)
    return [
        Agreement(users, len(dice), float(np.mean(dice)), min(dice)) for users, dice in sorted(groups.items())
    ]


def worst_cases(
    files: StudyFiles, labels: Sequence[LabelRecord], window: str, most: int = 8
) -> list[WorstCase]:
    """The labels that the model's proposals differ from most, with outlines of both.

    Args:
        files: Files of the studies.
        labels: All submissions, oldest first; the newest of each image counts, unless it is deleted or
            dropped.
        window: Intensity window of the pictures.
        most: Largest number of labels.
    """
    newest = {label.image: label for label in labels if label.state != "deleted"}
    rated = [(dice, label) for label in newest.values() if (dice := proposal_dice(label)) is not None]
    rated = sorted(
        ((d, label) for d, label in rated if label.state != "dropped"), key=lambda r: (r[0], r[1].id)
    )
    worst = []
    for dice, label in rated[:most]:
        try:
            overlay, note = _overlay(files, label, window)
        except OSError:
            overlay, note = None, "One of its files is missing, so nothing can be shown."
        except ValueError:
            overlay, note = None, "One of its files cannot be read, so nothing can be shown."
        worst.append(WorstCase(label, dice, overlay, note))
    return worst


def _user_labels(labels: Mapping[str, StoredLabel], records: Sequence[LabelRecord]) -> list[_UserLabel]:
    """Labels of an image whose files are there, and then those whose files were replaced."""
    user_labels, recorded = [], set()
    for tag, stored in sorted(labels.items()):
        if tag == ORIGINAL:
            continue
        try:
            digest = file_checksum(stored.label_map.file)
        except OSError:
            continue
        record = next((r for r in reversed(records) if r.checksum == digest and r.id not in recorded), None)
        recorded |= {record.id} if record else set()
        user = record.user if record else stored.user
        user_labels.append(_UserLabel(user, tag, digest, record.sizes if record else None, stored.label_map))
    return user_labels + [
        _UserLabel(r.user, "", r.checksum, r.sizes, None) for r in records if r.id not in recorded
    ]


def _pair(image: str, first: _UserLabel, second: _UserLabel) -> Pair:
    dice = None
    if first.checksum == second.checksum:
        dice = dict.fromkeys(first.sizes or second.sizes or (), 1.0)
    elif first.label_map and second.label_map:
        try:
            grid = read_grid(first.label_map.file, labels=True)
            maps = [whole_labels(read_labels(one.file, grid)) for one in (first.label_map, second.label_map)]
            dice = named_dice(maps[0], first.label_map.names, maps[1], second.label_map.names)
        except (OSError, ValueError):
            dice = None
    users, tags = (first.user, second.user), (first.tag, second.tag)
    return Pair(image, users, tags, dice, _possible(first.sizes, second.sizes))


def _possible(first: Mapping[str, int] | None, second: Mapping[str, int] | None) -> float:
    """The highest possible mean Dice of structures of these sizes; NaN where they are not known."""
    if first is None or second is None:
        return math.nan
    # 2 |A ∩ B| / (|A| + |B|) is at most 2 min(|A|, |B|) / (|A| + |B|)
    sizes = [(first.get(name, 0), second.get(name, 0)) for name in {*first, *second}]
    return float(np.mean([2 * min(pair) / sum(pair) for pair in sizes])) if sizes else 1.0


def _overlay(files: StudyFiles, label: LabelRecord, window: str) -> tuple[np.ndarray | None, str]:
    labels = files.labels.get(label.image, {})
    stored, proposed = labels.get(FINAL), labels.get(ORIGINAL)
    if stored is None or proposed is None:
        return None, "The label or the proposal is not in the studies any more, so nothing can be shown."
    if file_checksum(stored.label_map.file) != label.checksum:
        return None, "The label was replaced by another one, so nothing can be shown."
    file = files.locate(label.image)
    picture, grid = open_picture(file, window), read_grid(file)
    final, proposal = (whole_labels(read_labels(one.label_map.file, grid)) for one in (stored, proposed))
    differing = ((final > 0) ^ (proposal > 0)).sum((0, 1))
    k = int((differing if differing.any() else (final > 0).sum((0, 1))).argmax())
    shown = ShownCase(label.image, picture.slice(k), final[:, :, k].T, proposal[:, :, k].T)
    return overlay_sheet([shown]), f"Slice {k} of 0 to {picture.shape[2] - 1}, where they differ most."
