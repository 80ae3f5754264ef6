"""A folder of labelled cases as objects on slices.

Layout: `index.json`, a list of {"id", "modality", "image", "label", …} with paths relative to the folder; beside a
label, `label_instances.*` may hold one value per object where `label` holds one value for all of them. An entry may say
that its "labels" are "instances", each value one object, or how many "objects" it has, which are connected parts then.
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

from segmed.data.catalogue import load_dataset
from segmed.data.slices import SliceDataset
from segmed.imaging.grid import image_grid, read_labels
from segmed.imaging.masks import slice_box
from segmed.imaging.picture import Picture, open_picture
from segmed.imaging.prompts import SlicePrompt

T = TypeVar("T")


@dataclass(frozen=True)
class SliceObject:
    """One labelled object on one slice of a case.

    Attributes:
        k: the slice.
        label: its value in the label map.
        mask: (H, W) boolean.
    """

    k: int
    label: int
    mask: np.ndarray

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Tight (x0, y0, x1, y1), ends inclusive."""
        return slice_box(self.mask)

    @property
    def prompt(self) -> SlicePrompt:
        return SlicePrompt(box=self.box)


@dataclass(frozen=True)
class Case:
    """A picture and its label map (I, J, K) on the same grid.

    Attributes:
        name: of the case; what belongs to one patient has one name.
        modality: such as "ct".
        source: data set.
        picture: the image.
        labels: its label map.
        has_many: whether each connected part of a label is an object.
        names: of the labels, as far as known.
    """

    name: str
    modality: str
    source: str
    picture: Picture
    labels: np.ndarray
    has_many: bool
    names: Mapping[int, str] = field(default_factory=dict)

    def objects(self, min_area: int = 100, max_slices: int | None = None) -> Iterator[SliceObject]:
        """Objects of at least `min_area` px; cases of `has_many` give one per connected part (or instance).

        Args:
            min_area: px.
            max_slices: at most so many slices per label, evenly spaced; None takes all.
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
    """The entries of the folder's `index.json`.

    Args:
        folder: of labelled cases.
        sources: to which they are restricted; all if none are given.
        limit: at most so many cases of each source, evenly spaced; None takes all.

    Raises:
        FileNotFoundError: no index there.
        ValueError: a source that the index does not have.
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
        raise ValueError(f"{folder} has no source {unknown[0]!r}. It has {', '.join(sorted(groups))}.")
    wanted = [m for name, ns in groups.items() if not sources or name in sources for m in evenly(ns, limit)]
    return [entries[n] for n in sorted(wanted)]


def load_cases(
    folder: str | os.PathLike[str], sources: Collection[str] = (), limit: int | None = None
) -> Iterator[Case]:
    """All cases of the folder's `index.json`, or those that `read_index` chooses, whose errors it raises."""
    folder = Path(folder)
    for entry in read_index(folder, sources, limit):
        image, label = folder / entry["image"], folder / entry["label"]
        by_value = entry.get("labels") == "instances"
        instances = label if by_value else next(iter(sorted(label.parent.glob("label_instances.*"))), None)
        # an entry that counts its objects counts connected parts
        apart = entry["modality"] == "lm" or "objects" in entry
        picture = open_picture(image)
        labels = read_labels(instances or label, image_grid(image, picture.shape, picture.affine))
        names = {} if instances else {int(v): str(name) for v, name in (entry.get("labels") or {}).items()}
        yield Case(
            entry["id"], entry["modality"], _source_of(entry), picture, labels, instances is None and apart, names
        )


def dataset_cases(
    dataset: SliceDataset, name: str, limit: int | None = None, without: Collection[str] = ()
) -> Iterator[Case]:
    """Cases of a dataset; the volumes (or pictures) of one patient are of one case.

    Args:
        dataset: opened by its loader.
        name: of modality and source.
        limit: at most so many patients, evenly spaced; None takes all.
        without: patients that are left out.
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
    """Cases of a folder, or of a dataset that is known by name, and how many there are.

    Args:
        folder: with an `index.json`, if `data` is not given.
        sources: of the folder; all if none are given.
        limit: cases of each source, or patients of the dataset, evenly spaced; None takes all.
        data: name of the dataset.
        root: its folder.
        seen: folder of training images; patients of the dataset whose files its index names are left out.

    Raises:
        FileNotFoundError: no index, or no dataset there.
        ValueError: an unknown source or dataset, or neither folder nor dataset.
    """
    if data and root:
        dataset = load_dataset(data, root)
        without = {Path(str(e.get("path", ""))).name.split(".")[0] for e in read_index(seen)} if seen else set()
        patients = set(evenly([p for p in dataset.patients if p not in without], limit))
        count = sum(volume.patient in patients for volume in dataset.volumes)
        return dataset_cases(dataset, data, limit, without), count
    if folder is None:
        raise ValueError("There are no cases. Give a folder with an index.json, or a dataset and its folder.")
    return load_cases(folder, sources, limit), len(read_index(folder, sources, limit))


def evenly(items: Sequence[T], most: int | None) -> list[T]:
    """At most so many of the items, evenly spaced; None takes all."""
    if most is None or len(items) <= most:
        return list(items)
    return [items[round(n)] for n in np.linspace(0, len(items) - 1, most)]


def _source_of(entry: Mapping[str, Any]) -> str:
    return str(entry.get("source", entry["id"]))
