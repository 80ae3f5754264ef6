"""Labelled cases of a folder or a dataset, as objects on slices.

Layout of a folder: `index.json`, a list of {"id", "modality", "image", "label", …} with paths relative to the
folder. If `label` has one value for several objects, a file `label_instances.*` beside it may hold one value
per object. With "labels": "instances" in an entry, each value of its label map is one object; with a number
of "objects", each connected part is one object.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from scipy import ndimage

from segmed.data.datasets.catalogue import load_dataset
from segmed.data.slices import SliceDataset
from segmed.imaging.grid import image_grid, read_labels
from segmed.imaging.labels.masks import slice_box
from segmed.imaging.picture import Picture, open_picture
from segmed.imaging.prompts import SlicePrompt

T = TypeVar("T")


@dataclass(frozen=True)
class SliceObject:
    """One labelled object on one slice of a case.

    Attributes:
        k: Index of the slice.
        label: Value of the object in the label map.
        mask: The mask of the object (H, W), boolean.
    """

    k: int
    label: int
    mask: np.ndarray

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The tight box as x0, y0, x1, y1 in px, ends inclusive."""
        return slice_box(self.mask)

    @property
    def prompt(self) -> SlicePrompt:
        """A prompt with the tight box."""
        return SlicePrompt(box=self.box)


@dataclass(frozen=True)
class Case:
    """A picture and its label map (I, J, K) on the same grid.

    Attributes:
        name: Name of the case; all images of one patient have one name.
        modality: Modality, such as "ct".
        source: Name of the data set.
        picture: The image.
        labels: The label map (I, J, K).
        has_many: Whether each connected part of a label is an object.
        names: Names of the labels by value, as far as known.
    """

    name: str
    modality: str
    source: str
    picture: Picture
    labels: np.ndarray
    has_many: bool
    names: Mapping[int, str] = field(default_factory=dict)

    def objects(self, min_area: int = 100, max_slices: int | None = None) -> Iterator[SliceObject]:
        """The objects on the slices; with `has_many` one per connected part, otherwise one per label.

        Args:
            min_area: Smallest area of an object in px.
            max_slices: Largest number of slices per label, evenly spaced, or None for all.
        """
        for label in (int(v) for v in np.unique(self.labels) if v):
            of_label = self.labels == label
            ks = [k for k in range(of_label.shape[2]) if of_label[:, :, k].sum() >= min_area]
            for k in evenly(ks, max_slices or None):
                for mask in self._parts(of_label[:, :, k].T):
                    if mask.sum() >= min_area:
                        yield SliceObject(k, label, mask)

    def _parts(self, mask: np.ndarray) -> list[np.ndarray]:
        if not self.has_many:
            return [mask]
        parts, count = ndimage.label(mask, np.ones((3, 3)))
        return [parts == n for n in range(1, count + 1)]


def read_index(
    folder: str | os.PathLike[str], sources: Collection[str] = (), limit: int | None = None
) -> list[dict[str, Any]]:
    """Read the entries of the folder's `index.json`.

    Args:
        folder: Folder of labelled cases.
        sources: Sources to include, or none for all.
        limit: Largest number of cases of each source, evenly spaced, or None for all.

    Raises:
        FileNotFoundError: If there is no index.
        ValueError: If the index does not have one of the sources.
    """
    folder = Path(folder)
    if not (folder / "index.json").is_file():
        raise FileNotFoundError(f"{folder} has no index.json. Give a folder of labelled cases.")
    entries: list[dict[str, Any]] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    groups: dict[str, list[int]] = defaultdict(list)
    for n, entry in enumerate(entries):
        groups[_source_of(entry)].append(n)
    unknown = sorted(set(sources) - groups.keys())
    if unknown:
        raise ValueError(f"{folder} has no source {unknown[0]!r}. Choose from {', '.join(sorted(groups))}.")
    wanted = [m for name, ns in groups.items() if not sources or name in sources for m in evenly(ns, limit)]
    return [entries[n] for n in sorted(wanted)]


def load_cases(
    folder: str | os.PathLike[str], sources: Collection[str] = (), limit: int | None = None
) -> Iterator[Case]:
    """Open the cases of the folder's `index.json` that `read_index` selects, with the same errors."""
    folder = Path(folder)
    for entry in read_index(folder, sources, limit):
        image, label = folder / entry["image"], folder / entry["label"]
        by_value = entry.get("labels") == "instances"
        instances = label if by_value else next(iter(sorted(label.parent.glob("label_instances.*"))), None)
        # An entry with a number of objects counts connected parts.
        apart = entry["modality"] == "lm" or "objects" in entry
        picture = open_picture(image)
        labels = read_labels(instances or label, image_grid(image, picture.shape, picture.affine))
        names = {} if instances else {int(v): str(name) for v, name in (entry.get("labels") or {}).items()}
        yield Case(
            entry["id"],
            entry["modality"],
            _source_of(entry),
            picture,
            labels,
            instances is None and apart,
            names,
        )


def dataset_cases(
    dataset: SliceDataset, name: str, limit: int | None = None, without: Collection[str] = ()
) -> Iterator[Case]:
    """Open the cases of a dataset; the volumes or images of one patient have the name of that patient.

    Args:
        dataset: The dataset, opened by its loader.
        name: Name of the cases' modality and source.
        limit: Largest number of patients, evenly spaced, or None for all.
        without: Patients to leave out.
    """
    patients = set(evenly([p for p in dataset.patients if p not in without], limit))
    for n, volume in enumerate(dataset.volumes):
        if volume.patient in patients:
            array, labels = dataset.read(n)
            picture = Picture(array, np.diag([*volume.spacing, 1.0]), str(volume.image), volume.window)
            yield Case(volume.patient, name, name, picture, labels, False, dataset.classes)


def chosen_cases(
    folder: Path | None,
    sources: Collection[str] = (),
    limit: int | None = None,
    data: str = "",
    root: Path | None = None,
    seen: Path | None = None,
) -> tuple[Iterator[Case], int]:
    """Open the cases of a folder, or of a dataset from the catalogue, and count them.

    Args:
        folder: Folder with an `index.json`, if `data` is not given.
        sources: Sources of the folder to include, or none for all.
        limit: Largest number of cases of each source, or of patients of the dataset, evenly spaced; None for
            all.
        data: Name of the dataset.
        root: Folder of the dataset.
        seen: Folder of training images; patients of the dataset with files in its index are left out.

    Raises:
        FileNotFoundError: If there is no index, or no dataset.
        ValueError: If a source or the dataset is unknown, or neither folder nor dataset is given.
    """
    if data and root:
        dataset = load_dataset(data, root)
        without = (
            {Path(str(e.get("path", ""))).name.split(".")[0] for e in read_index(seen)} if seen else set()
        )
        patients = set(evenly([p for p in dataset.patients if p not in without], limit))
        count = sum(volume.patient in patients for volume in dataset.volumes)
        return dataset_cases(dataset, data, limit, without), count
    if folder is None:
        raise ValueError("There are no cases. Give a folder with an index.json, or a dataset and its folder.")
    return load_cases(folder, sources, limit), len(read_index(folder, sources, limit))


def evenly(items: Sequence[T], most: int | None) -> list[T]:
    """Select at most `most` items, evenly spaced; None selects all."""
    if most is None or len(items) <= most:
        return list(items)
    return [items[round(n)] for n in np.linspace(0, len(items) - 1, most)]


def _source_of(entry: Mapping[str, Any]) -> str:
    return str(entry.get("source", entry["id"]))


@dataclass(frozen=True)
class VolumeObject:
    """One labelled object of a volume.

    Attributes:
        label: Value of the object in the label map.
        kind: Name of the structure, or "" if unknown.
        mask: The mask of the object (I, J, K), boolean.
    """

    label: int
    kind: str
    mask: np.ndarray


def volume_objects(
    case: Case, min_voxels: int = 100, min_slices: int = 3, limit: int | None = None
) -> Iterator[VolumeObject]:
    """The objects of a labelled volume; with `has_many` one per connected part, otherwise one per label.

    Args:
        case: Picture and label map.
        min_voxels: Smallest number of voxels of an object.
        min_slices: Smallest number of slices with the object.
        limit: Largest number of objects, evenly spaced over the label map, or None for all.
    """
    large: list[tuple[int, tuple[slice, ...], np.ndarray]] = []
    for label in (int(v) for v in np.unique(case.labels) if v):
        of_label = case.labels == label
        parts = ndimage.label(of_label, np.ones((3, 3, 3)))[0] if case.has_many else of_label.astype(np.uint8)
        for n, box in enumerate(ndimage.find_objects(parts), start=1):
            own = parts[box] == n
            if own.sum() >= min_voxels and own.any((0, 1)).sum() >= min_slices:
                large.append((label, box, own))
    for label, box, own in evenly(large, limit):
        mask = np.zeros(case.labels.shape, bool)
        mask[box] = own
        yield VolumeObject(label, case.names.get(label, ""), mask)
