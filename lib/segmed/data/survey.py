"""A survey of the contents of a dataset: counts, spacing, a histogram of labels, and unreadable files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from segmed.data.slices import Skipped, SliceDataset


@dataclass(frozen=True)
class LabelCount:
    """How often a label occurs.

    Attributes:
        value: Value of the label.
        name: Name of the label.
        voxels: Number of voxels in all slices.
        slices: Number of slices with the label.
        patients: Number of patients with the label.
    """

    value: int
    name: str
    voxels: int
    slices: int
    patients: int


@dataclass(frozen=True)
class Survey:
    """The contents of a dataset.

    Attributes:
        patients: Number of patients with a readable slice.
        volumes: Number of images, each in one or several files.
        slices: Number of readable slices.
        labelled: Number of slices with a label.
        sizes: Least and greatest size in voxels along i, j and k, each axis by itself.
        spacing: Least and greatest spacing along i, j and k in the dataset's unit.
        labels: Counts of the labels in the order of their values.
        skipped: Pairs that could not be used.
        examples: Index in the dataset of the slice with the most labels, and then the most labelled voxels,
            of each patient that has one, in the order of the patients.
    """

    patients: int
    volumes: int
    slices: int
    labelled: int
    sizes: tuple[tuple[float, ...], tuple[float, ...]]
    spacing: tuple[tuple[float, ...], tuple[float, ...]]
    labels: tuple[LabelCount, ...]
    skipped: tuple[Skipped, ...]
    examples: tuple[int, ...]


def survey(dataset: SliceDataset, tell: Callable[[int, int], None] | None = None) -> Survey:
    """Read everything once, one volume at a time.

    Args:
        dataset: Dataset, or a part of one.
        tell: Function that is called with the number of finished volumes and the number of all.

    Raises:
        ValueError: No volume can be read.
    """
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for place, (n, k) in enumerate(dataset.slices):
        places[n].append((place, k))
    skipped, read = list(dataset.skipped), []
    voxels, slices = np.zeros(256, np.int64), np.zeros(256, np.int64)
    holders: dict[int, set[str]] = defaultdict(set)
    best: dict[str, tuple[int, int, int]] = {}
    sizes, spacings, labelled = [], [], 0
    for done, (n, mine) in enumerate(places.items(), start=1):
        patient = dataset.volumes[n].patient
        try:
            _, labels = dataset.read(n)
        except (ValueError, OSError) as error:
            skipped.append(Skipped(patient, dataset.volumes[n].image, str(error)))
            continue
        finally:
            if tell:
                tell(done, len(places))
        counts = np.stack([np.bincount(labels[:, :, k].ravel(), minlength=256) for _, k in mine])
        counts[:, 0] = 0
        read.append(n)
        voxels, slices = voxels + counts.sum(0), slices + (counts > 0).sum(0)
        labelled += int(counts.any(1).sum())
        for value in np.flatnonzero(counts.any(0)):
            holders[int(value)].add(patient)
        here = max(
            ((int((c > 0).sum()), int(c.sum()), -place) for c, (place, _) in zip(counts, mine, strict=True))
        )
        best[patient] = max(here, best.get(patient, here))
        sizes.append(labels.shape)
        spacings.append(dataset.volumes[n].spacing)
    if not read:
        raise ValueError(
            f"Nothing can be read. The first: {skipped[0].reason if skipped else 'there are no slices.'}"
        )
    return Survey(
        len({dataset.volumes[n].patient for n in read}),
        len(read),
        sum(len(places[n]) for n in read),
        labelled,
        _range(sizes),
        _range(spacings),
        tuple(
            LabelCount(value, name, int(voxels[value]), int(slices[value]), len(holders[value]))
            for value, name in sorted(dataset.classes.items())
        ),
        tuple(skipped),
        tuple(-best[patient][2] for patient in sorted(best) if best[patient][1]),
    )


def _range(values: Sequence[tuple[float, ...]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    array = np.array(values)
    return tuple(array.min(0).tolist()), tuple(array.max(0).tolist())
