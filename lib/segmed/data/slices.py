"""Labelled slices of studies on disk, read when asked for: what methods are trained and measured on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from torch.utils.data import Dataset

from segmed.imaging.picture import open_picture
from segmed.imaging.reading import read_volume
from segmed.imaging.store import ByteBoundedStore

_KEPT_BYTES = 256 * 2**20


@dataclass(frozen=True)
class LabelledVolume:
    """An image file and the label map on its grid.

    Attributes:
        patient: whose it is; a patient may have several.
        image: file.
        label: file.
        slices: along the last axis.
    """

    patient: str
    image: Path
    label: Path
    slices: int


@dataclass(frozen=True)
class LabelledSlice:
    """One slice as methods take it.

    Attributes:
        image: (H, W) or (H, W, 3) uint8.
        labels: (H, W) uint8, 0 for background.
        patient: whose it is.
        spacing: distance of rows and of columns in the dataset's `unit`.
    """

    image: np.ndarray
    labels: np.ndarray
    patient: str
    spacing: tuple[float, float] = (1.0, 1.0)


class SliceDataset(Dataset[LabelledSlice]):
    """Slices of volumes; of these only a bounded number of bytes is kept in memory.

    Args:
        volumes: on disk; nothing is read before a slice is asked for.
        classes: names by label value, without background.
        unit: `mm` where the files state their spacing, else `px`.
        binary: every value above zero is label 1, as in masks of 0 and 255.
        slices: (volume, k) of each slice; None takes all of them.
        store: volumes read lately, shared by the parts of a dataset.
    """

    def __init__(
        self,
        volumes: Sequence[LabelledVolume],
        classes: Mapping[int, str],
        unit: Literal["mm", "px"] = "mm",
        binary: bool = False,
        slices: Sequence[tuple[int, int]] | None = None,
        store: ByteBoundedStore[tuple[np.ndarray, np.ndarray, tuple[float, float]]] | None = None,
    ) -> None:
        self.volumes = tuple(volumes)
        self.classes = dict(classes)
        self.unit = unit
        self.binary = binary
        everything = [(n, k) for n, volume in enumerate(self.volumes) for k in range(volume.slices)]
        self.slices = tuple(everything if slices is None else slices)
        self._store = ByteBoundedStore(_KEPT_BYTES) if store is None else store

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, n: int) -> LabelledSlice:
        """Read slice n.

        Raises:
            FileNotFoundError: a file is gone.
            ValueError: a file is damaged, image and label map differ in shape, or a label has no name.
        """
        volume, k = self.slices[n]
        image, labels, spacing = self._read(volume)
        return LabelledSlice(
            np.ascontiguousarray(np.swapaxes(image[:, :, k], 0, 1)),
            np.ascontiguousarray(labels[:, :, k].T),
            self.volumes[volume].patient,
            spacing,
        )

    @property
    def patients(self) -> list[str]:
        """Sorted, each once."""
        return sorted({self.volumes[n].patient for n, _ in self.slices})

    def of(self, patients: Collection[str]) -> SliceDataset:
        """The slices of some patients.

        Raises:
            ValueError: the dataset does not know a patient.
        """
        unknown = sorted(set(patients) - set(self.patients))
        if unknown:
            raise ValueError(
                f"The dataset has no patient {unknown[0]!r} ({len(unknown)} of {len(patients)} are unknown). Use the "
                "split that was made for this dataset, or make a new one."
            )
        return self._part([(n, k) for n, k in self.slices if self.volumes[n].patient in patients])

    def with_object(self, min_area: int = 1) -> SliceDataset:
        """The slices on which at least `min_area` px are labelled; reads every label map once."""
        return self._part([(n, k) for n, k in self.slices if np.count_nonzero(self._read(n)[1][:, :, k]) >= min_area])

    def thinned(self, per_patient: int) -> SliceDataset:
        """At most so many slices of each patient, evenly spaced."""
        kept: list[tuple[int, int]] = []
        for patient in self.patients:
            mine = [(n, k) for n, k in self.slices if self.volumes[n].patient == patient]
            places = np.unique(np.linspace(0, len(mine) - 1, min(per_patient, len(mine))).round().astype(int))
            kept.extend(mine[place] for place in places)
        return self._part(kept)

    def _part(self, slices: Sequence[tuple[int, int]]) -> SliceDataset:
        return SliceDataset(self.volumes, self.classes, self.unit, self.binary, slices, self._store)

    def _read(self, n: int) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
        """Image (I, J, K[, 3]), labels (I, J, K) and spacing of a volume."""
        kept = self._store.get(n)
        if kept is None:
            volume = self.volumes[n]
            picture, label = open_picture(volume.image), read_volume(volume.label)
            array = label.array[..., 0] if label.is_colour else label.array
            check_same_grid(volume, picture.shape, label.shape)
            labels = (array > 0 if self.binary else array).astype(np.uint8)
            unknown = sorted({int(v) for v in np.unique(array)} - {0, *self.classes}) if not self.binary else []
            if unknown:
                raise ValueError(
                    f"{volume.label.name} holds the label {unknown[0]}, but the dataset names only "
                    f"{', '.join(map(str, self.classes))}. Name it in dataset.json, or take the pair out."
                )
            column, row, _ = label.spacing
            spacing = (row, column) if self.unit == "mm" else (1.0, 1.0)
            kept = picture.array, labels, spacing
            self._store.put(n, kept, picture.nbytes + labels.nbytes)
        return kept


def check_same_grid(volume: LabelledVolume, image: Sequence[int], label: Sequence[int]) -> None:
    """Refuse a pair whose shapes in voxels differ.

    Raises:
        ValueError: they do.
    """
    if tuple(image) != tuple(label):
        raise ValueError(
            f"{volume.image.name} has the shape {tuple(image)}, but its label map {volume.label.name} has "
            f"{tuple(label)}: they do not belong together. Fetch both again, or take the pair out of the dataset."
        )
