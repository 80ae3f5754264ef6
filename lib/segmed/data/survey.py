"""What a dataset holds: counts, spacing, a histogram of labels, and what cannot be read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from segmed.data.slices import Skipped, SliceDataset


@dataclass(frozen=True)
class LabelCount:
    """How often a label is there.

    Attributes:
        value: of the label.
        name: of the label.
        voxels: in all slices.
        slices: that hold it.
        patients: that have it.
    """

    value: int
    name: str
    voxels: int
    slices: int
    patients: int


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        patients: that have a readable slice.
        volumes: files, or sets of files of one image.
        slices: of them.
        labelled: slices with a label.
        sizes: least and greatest size in voxels along i, j and k, each by itself.
        spacing: likewise of the spacing in the dataset's unit.
        labels: in the order of their values.
        skipped: what could not be used.
        examples: place in the dataset of the slice that shows most labels, then most of them, of each patient that has
            one, in the order of the patients.
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
        dataset: or a part of one.
        tell: called with the number of volumes done and of all.

    Raises:
        ValueError: nothing can be read.
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
        here = max(((int((c > 0).sum()), int(c.sum()), -place) for c, (place, _) in zip(counts, mine, strict=True)))
        best[patient] = max(here, best.get(patient, here))
        sizes.append(labels.shape)
        spacings.append(dataset.volumes[n].spacing)
    if not read:
        raise ValueError(f"Nothing can be read. The first: {skipped[0].reason if skipped else 'there are no slices.'}")
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
