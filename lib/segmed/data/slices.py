"""Labelled slices of studies on disk, read on access, on which methods are trained and evaluated."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from segmed.data.split import Split
from segmed.imaging.grid import read_grid, read_labels
from segmed.imaging.intensity import to_uint8
from segmed.imaging.labels.masks import binary_labels
from segmed.imaging.reading import read_volume
from segmed.imaging.store import ByteBoundedStore

logger = logging.getLogger(__name__)

_KEPT_BYTES = 256 * 2**20
_SIDE = re.compile(r"(?<![a-z])(left|right|anterior|posterior|l|r|lt|rt)(?![a-z])")


@dataclass(frozen=True)
class LabelledVolume:
    """An image and its label map.

    Attributes:
        patient: Patient of the image; a patient may have several images.
        image: File of the image.
        label: File of the label map.
        slices: Number of slices along the last axis; 0 until the headers are read.
        channels: Two further files on the grid of `image`; the three are shown as red, green and blue.
        components: Indices along the fourth axis of `image`, 1 for grey, 3 for colour; () for 3-D files.
        window: Intensity window, see `imaging/intensity.py`.
        values: Labels of the dataset by the values in `label`; None where they are the same.
        spacing: Spacing of the voxels along (i, j, k) in mm, or 1 where the files do not state it.
        image_id: Identifier of the image on a server; "" where it is that of the patient.
    """

    patient: str
    image: Path
    label: Path
    slices: int = 0
    channels: tuple[Path, ...] = ()
    components: tuple[int, ...] = ()
    window: str = "auto"
    values: Mapping[int, int] | None = None
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    image_id: str = ""

    @property
    def name(self) -> str:
        """Name of the image; patients may have several."""
        return self.image_id or self.patient

    @property
    def files(self) -> tuple[Path, ...]:
        """The images, followed by the label map."""
        return (self.image, *self.channels, self.label)


@dataclass(frozen=True)
class LabelledSlice:
    """One slice in the form that methods take.

    Attributes:
        image: Pixels (H, W) or (H, W, 3), uint8.
        labels: Labels (H, W), uint8, 0 for background.
        patient: Patient of the image.
        spacing: Distance of rows and of columns in the dataset's `unit`.
    """

    image: np.ndarray
    labels: np.ndarray
    patient: str
    spacing: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class Skipped:
    """A pair that cannot be used.

    Attributes:
        patient: Patient of the image.
        file: The file at fault, or the image.
        reason: Why the pair cannot be used, in one sentence.
    """

    patient: str
    file: Path
    reason: str


def sided(names: Collection[str]) -> tuple[str, ...]:
    """The names that distinguish left from right or front from back, which mirroring would make wrong."""
    return tuple(name for name in names if _SIDE.search(name.lower().replace("_", " ")))


class SliceDataset(Dataset[LabelledSlice]):
    """Slices of volumes; of these only a bounded number of bytes is kept in memory.

    Args:
        volumes: Volumes on disk, which are read when their slices are accessed.
        classes: Label names by value, without background.
        unit: `mm` where the files state their spacing, else `px`.
        binary: Whether label maps are masks of one object, see `binary_labels`.
        slices: Index (volume, k) of each slice; None takes all slices.
        store: Cache of volumes, shared by the parts of a dataset.
        skipped: Pairs that were found but cannot be used.
        published: The split that comes with the files.
    """

    def __init__(
        self,
        volumes: Sequence[LabelledVolume],
        classes: Mapping[int, str],
        unit: Literal["mm", "px"] = "mm",
        binary: bool = False,
        slices: Sequence[tuple[int, int]] | None = None,
        store: ByteBoundedStore[np.ndarray] | None = None,
        skipped: Sequence[Skipped] = (),
        published: Split | None = None,
    ) -> None:
        self.volumes = tuple(volumes)
        self.classes = dict(classes)
        self.unit = unit
        self.binary = binary
        everything = [(n, k) for n, volume in enumerate(self.volumes) for k in range(volume.slices)]
        self.slices = tuple(everything if slices is None else slices)
        self.skipped = tuple(skipped)
        self.published = published
        self._store = ByteBoundedStore(_KEPT_BYTES) if store is None else store

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, n: int) -> LabelledSlice:
        """Read slice n.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: A file is damaged, image and label map do not belong together, or a label has no name.
        """
        volume, k = self.slices[n]
        image, labels = self.read(volume)
        return LabelledSlice(
            np.ascontiguousarray(np.swapaxes(image[:, :, k], 0, 1)),
            np.ascontiguousarray(labels[:, :, k].T),
            self.volumes[volume].patient,
            self.volumes[volume].spacing[1::-1],
        )

    @property
    def patients(self) -> list[str]:
        """The patients, sorted, each once."""
        return sorted({self.volumes[n].patient for n, _ in self.slices})

    @property
    def images(self) -> dict[str, str]:
        """Patients by name of the image."""
        return {self.volumes[n].name: self.volumes[n].patient for n, _ in self.slices}

    @property
    def lateralised(self) -> tuple[str, ...]:
        """The labels that mirroring or rotating the images would make wrong, such as `left kidney`."""
        return sided(self.classes.values())

    def of(self, patients: Collection[str]) -> SliceDataset:
        """The slices of some patients.

        Raises:
            ValueError: The dataset does not know a patient.
        """
        unknown = sorted(set(patients) - set(self.patients))
        if unknown:
            raise ValueError(
                f"The dataset has no patient {unknown[0]!r} ({len(unknown)} of {len(patients)} are unknown). "
                "Use the split that was made for this dataset, or make a new one."
            )
        return self._part([(n, k) for n, k in self.slices if self.volumes[n].patient in patients])

    def of_images(self, names: Collection[str]) -> SliceDataset:
        """The slices of some images, by name."""
        return self._part([(n, k) for n, k in self.slices if self.volumes[n].name in names])

    def with_object(self, min_area: int = 1) -> SliceDataset:
        """The slices on which at least `min_area` px are labelled; reads every label map once.

        Label maps that cannot be read are skipped.

        Raises:
            ValueError: None can be read.
        """

        def labelled(n: int) -> Collection[int]:
            return np.flatnonzero(np.count_nonzero(self._labels(n), (0, 1)) >= min_area).tolist()

        return self._where(labelled)

    def readable(self) -> SliceDataset:
        """All slices but those of volumes that cannot be read, which are skipped; reads every file once.

        Raises:
            ValueError: None can be read.
        """
        return self._where(lambda n: range(self.read(n)[1].shape[2]))

    def thinned(self, per_patient: int) -> SliceDataset:
        """At most so many slices of each patient, evenly spaced."""
        kept: list[tuple[int, int]] = []
        for patient in self.patients:
            mine = [(n, k) for n, k in self.slices if self.volumes[n].patient == patient]
            places = np.unique(np.linspace(0, len(mine) - 1, min(per_patient, len(mine))).round().astype(int))
            kept.extend(mine[place] for place in places)
        return self._part(kept)

    def picked(self, slices: Sequence[tuple[int, int]]) -> SliceDataset:
        """The part of the dataset with these slices, each given as (volume, k)."""
        return self._part(slices)

    def read(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (I, J, K) or (I, J, K, 3) and labels (I, J, K) of volume n, uint8; raises as a slice does."""
        return self._image(n), self._labels(n)

    def _part(self, slices: Sequence[tuple[int, int]], **changes: Any) -> SliceDataset:
        part = copy.copy(self)
        vars(part).update(slices=tuple(slices), **changes)
        return part

    def _where(self, wanted: Callable[[int], Collection[int]]) -> SliceDataset:
        """The slices that `wanted` returns for each volume; a volume on which it fails is skipped."""
        kept: dict[int, set[int]] = {}
        skipped = []
        volumes = list(dict.fromkeys(n for n, _ in self.slices))
        for n in volumes:
            try:
                kept[n] = set(wanted(n))
            except (ValueError, OSError) as error:
                logger.warning("skipped: %s", error)
                skipped.append(Skipped(self.volumes[n].patient, self.volumes[n].image, str(error)))
        if volumes and not kept:
            raise ValueError(f"None of the {len(volumes)} images can be used. The first: {skipped[0].reason}")
        chosen = [(n, k) for n, k in self.slices if k in kept.get(n, ())]
        return self._part(chosen, skipped=(*self.skipped, *skipped))

    def _image(self, n: int) -> np.ndarray:
        return self._kept(("image", n), lambda: _read_image(self.volumes[n]))

    def _labels(self, n: int) -> np.ndarray:
        return self._kept(("labels", n), lambda: self._read_labels(self.volumes[n]))

    def _kept(self, key: tuple[str, int], read: Callable[[], np.ndarray]) -> np.ndarray:
        array = self._store.get(key)
        if array is None:
            array = read()
            self._store.put(key, array, array.nbytes)
        return array

    def _read_labels(self, volume: LabelledVolume) -> np.ndarray:
        stored = read_labels(volume.label, read_grid(volume.image))
        if self.binary:
            return binary_labels(stored, volume.label)
        values = {v: v for v in self.classes} if volume.values is None else volume.values
        present = np.unique(stored)
        unknown = [v for v in present if int(v) != v or int(v) not in {0, *values}]
        if unknown:
            raise ValueError(
                f"{volume.label.name} holds the label {unknown[0]:g}, but the dataset names only "
                f"{', '.join(map(str, values))}. Name it where the dataset names its labels, or remove it."
            )
        table = np.zeros(max(int(present.max()), *values) + 1, np.uint8)
        table[list(values)] = list(values.values())
        return table[stored.astype(np.intp)]


def _read_image(volume: LabelledVolume) -> np.ndarray:
    """(I, J, K) or (I, J, K, 3) uint8; each channel is windowed by itself."""
    parts: list[tuple[Path, int | None]] = [(volume.image, n) for n in volume.components or (None,)]
    parts += [(path, None) for path in volume.channels]
    arrays = [to_uint8(read_volume(path, component), volume.window) for path, component in parts]
    return arrays[0] if len(arrays) == 1 else np.stack(arrays, -1)


def check_same_grid(volume: LabelledVolume, image: Sequence[int], label: Sequence[int]) -> None:
    """Refuse a pair whose shapes in voxels differ.

    Raises:
        ValueError: The shapes differ.
    """
    if tuple(image) != tuple(label):
        raise ValueError(
            f"{volume.image.name} has the shape {tuple(image)}, but its label map {volume.label.name} has "
            f"{tuple(label)}: they do not belong together. Fetch both again, or take the pair out."
        )
