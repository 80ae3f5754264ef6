"""The cases of an export: images and label maps on one grid, with their part of the split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import nibabel as nib
import numpy as np

from segmed.data.slices import LabelledVolume, SliceDataset
from segmed.data.split import Split
from segmed.imaging.durable import appear_whole
from segmed.imaging.grid import image_grid, read_labels
from segmed.imaging.labels.masks import binary_labels
from segmed.imaging.reading import read_volume
from segmed.imaging.volume import Volume

TRAIN, VALIDATION, TEST = "train", "val", "test"
_SAFE = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True)
class ExportCase:
    """One labelled image.

    Attributes:
        name: Name of letters, digits and `_`, different for each case.
        patient: Name of the patient, of the same letters.
        part: "train", "val" or "test".
        volume: Files of the image and its label map.
        binary: Whether the label map is a mask of one object, of whatever values.
    """

    name: str
    patient: str
    part: str
    volume: LabelledVolume
    binary: bool = False

    def image(self) -> Volume:
        """The image. Raises what `read_volume` raises, and ValueError where it has several channels."""
        if self.volume.channels or len(self.volume.components) > 1:
            raise ValueError(
                f"{self.volume.image.name} is one of several channels of its case, and exports have one "
                "channel. Choose one modality of the dataset, or export with the dataset's own tools."
            )
        return read_volume(self.volume.image, next(iter(self.volume.components), None))

    def labels(self, image: Volume) -> np.ndarray:
        """Label map (I, J, K) of the dataset's values, uint8, on the grid of the image.

        Raises:
            ValueError: It cannot be read, or does not lie on the image.
        """
        grid = image_grid(self.volume.image, image.shape, image.affine)
        found = read_labels(self.volume.label, grid)
        if self.binary:
            return binary_labels(found, self.volume.label)
        if self.volume.values is None:
            return found.astype(np.uint8)
        found = found.astype(np.int64)  # label maps of whole numbers may be stored as floats
        table = np.zeros(max(int(found.max()), *self.volume.values, 0) + 1, np.uint8)
        for stored, value in self.volume.values.items():
            table[stored] = value
        return np.asarray(table[found])


Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Export:
    """What is written where, for all layouts.

    Attributes:
        cases: The cases.
        classes: Names by value.
        folder: New folder.
        tell: Function called with the number of written cases and of all.
        modality: DICOM term for layouts that name it, "" for that of the images: NIfTI does not state it.
    """

    cases: list[ExportCase]
    classes: Mapping[int, str]
    folder: Path
    tell: Tell | None = None
    modality: str = ""

    def begin(self) -> Path:
        """Make the folder.

        Raises:
            FileExistsError: It is not empty.
        """
        begin_folder(self.folder)
        return self.folder

    def read(self) -> Iterator[tuple[ExportCase, Volume, np.ndarray]]:
        """Cases with image and label map, read one at a time. Raises ValueError if one cannot be read."""
        for number, case in enumerate(self.cases, 1):
            image = case.image()
            labels = case.labels(image)
            if strange := sorted({*np.unique(labels).tolist()} - {0, *self.classes}):
                raise ValueError(
                    f"{case.volume.label.name} holds the label {strange[0]}, but the dataset names only "
                    f"{', '.join(map(str, self.classes))}. Name it, or remove it from the label map."
                )
            yield case, image, labels
            if self.tell:
                self.tell(number, len(self.cases))


def cases_of(data: SliceDataset, split: Split) -> list[ExportCase]:
    """The cases of a dataset, named after their images and in the order of the dataset.

    Raises:
        ValueError: A patient is in no part of the split.
    """
    parts = {p: TRAIN for p in split.train} | {p: VALIDATION for p in split.validation}
    parts |= {p: TEST for p in split.test}
    if strange := sorted({v.patient for v in data.volumes} - parts.keys()):
        raise ValueError(f"The patient {strange[0]!r} is in no part of the split. Split again.")
    names = [_plain(volume.name) for volume in data.volumes]
    lowered = [name.lower() for name in names]
    # Names that only one image has stay, and the others get numbers that make no such name.
    taken = {name for name, times in Counter(lowered).items() if times == 1}
    alone = frozenset(taken)
    cases = []
    for name, volume in zip(names, data.volumes, strict=True):
        if name.lower() not in alone:
            name = next(one for n in count(1) if (one := f"{name}_{n:04d}").lower() not in taken)
            taken.add(name.lower())
        cases.append(ExportCase(name, _plain(volume.patient), parts[volume.patient], volume, data.binary))
    return cases


def begin_folder(folder: Path) -> None:
    """Make a folder for an export.

    Raises:
        FileExistsError: It is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(
            f"{folder} is not empty. Give a new folder, so that nothing of another export stays."
        )
    folder.mkdir(parents=True, exist_ok=True)


def write_pair(image: Volume, labels: np.ndarray, image_file: Path, label_file: Path) -> None:
    """Write image and label map as NIfTI on exactly the same grid; colours are averaged."""
    array = image.array.mean(-1).astype(np.float32) if image.is_colour else image.array
    if array.dtype in (np.bool_, np.int64, np.uint64):
        array = array.astype(np.int32)
    for voxels, path in ((array, image_file), (labels, label_file)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with appear_whole(path, ".nii.gz", sync=False) as part:
            nib.save(nib.Nifti1Image(voxels, image.affine), part)


def _plain(name: str) -> str:
    return _SAFE.sub("_", name).strip("_")[:100] or "case"
