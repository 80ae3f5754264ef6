"""Scores of whole images, whose masks arrive slice by slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from segmed.data.slices import LabelledSlice, SliceDataset
from segmed.evaluation.segmentation_scores import ImageScore, score_mask
from segmed.imaging.labels.masks import bounding_box


@dataclass(frozen=True)
class _Piece:
    """The part of a mask on one slice that its bounding box encloses."""

    place: int  # number of the slice among those seen
    corner: tuple[int, int]
    mask: np.ndarray


@dataclass
class _Image:
    """What was seen of one image; the masks by label are kept as pieces, which need little memory."""

    volume: int
    patient: str
    spacing: tuple[float, float]
    shape: tuple[int, ...]
    indices: list[int] = field(default_factory=list)
    found: dict[int, list[_Piece]] = field(default_factory=dict)
    truth: dict[int, list[_Piece]] = field(default_factory=dict)


class WholeScores:
    """Collects masks slice by slice and scores each image as a whole, in 3-D if it has several slices.

    The slices of an image must follow each other. If slices of a volume are left out, their gap counts as the
    distance of neighbouring slices.

    Args:
        data: The dataset of the slices, for the number of their image and its spacing.
    """

    def __init__(self, data: SliceDataset) -> None:
        self._data = data
        self._image: _Image | None = None
        self._scores: list[ImageScore] = []

    def add(self, number: int, sample: LabelledSlice, masks: Mapping[int, np.ndarray]) -> None:
        """Take the masks of a slice.

        Args:
            number: Number of the slice in the dataset.
            sample: The slice with its true labels on the grid of the masks.
            masks: Predicted masks (H, W) by label; a label without a mask is scored only if another slice of
                its image has one.
        """
        volume, k = self._data.slices[number]
        if self._image is None or self._image.volume != volume:
            self._finish_image()
            self._image = _Image(volume, sample.patient, sample.spacing, sample.labels.shape)
        image, place = self._image, len(self._image.indices)
        image.indices.append(k)
        for label, mask in masks.items():
            for pieces, whole in ((image.found, mask), (image.truth, sample.labels == label)):
                mine = pieces.setdefault(label, [])
                if (box := bounding_box(whole)) is not None:
                    part = whole[tuple(slice(low, high + 1) for low, high in box)]
                    mine.append(_Piece(place, (box[0][0], box[1][0]), part.astype(bool)))

    def finish(self) -> list[ImageScore]:
        """The scores of all images, one per label."""
        self._finish_image()
        return self._scores

    def _finish_image(self) -> None:
        image, self._image = self._image, None
        if image is None:
            return
        for label in image.found:
            self._scores.append(self._scored(image, label))

    def _scored(self, image: _Image, label: int) -> ImageScore:
        pieces = image.found[label], image.truth[label]
        every = [*pieces[0], *pieces[1]]
        low = np.array([[p.place, *p.corner] for p in every] or [[0, 0, 0]]).min(0)
        high = np.array([[p.place + 1, *np.add(p.corner, p.mask.shape)] for p in every] or [[1, 1, 1]]).max(0)
        found, truth = (_filled(part, low, high) for part in pieces)
        spacing: Sequence[float] = image.spacing
        if len(image.indices) > 1:
            gap = float(np.median(np.abs(np.diff(image.indices))))
            spacing = (gap * self._data.volumes[image.volume].spacing[2], *image.spacing)
        else:
            found, truth = found[0], truth[0]
        score = score_mask(found, truth, spacing, image.patient, label)
        beside = len(image.indices) * int(np.prod(image.shape)) - truth.size
        return replace(score, overlap=replace(score.overlap, tn=score.overlap.tn + beside))


def _filled(pieces: Sequence[_Piece], low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The mask (K, H, W) of some pieces within a box."""
    whole = np.zeros(tuple(high - low), bool)
    for piece in pieces:
        y, x = np.subtract(piece.corner, low[1:])
        rows, columns = piece.mask.shape
        whole[piece.place - low[0], y : y + rows, x : x + columns] = piece.mask
    return whole
