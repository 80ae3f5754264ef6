"""The slices of a job within its budget, split into training, validation and test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from segmed.benchmark.settings import BenchmarkJob, Budget
from segmed.benchmark.tables import Table
from segmed.data.datasets.catalogue import load_dataset
from segmed.data.slices import SliceDataset
from segmed.data.split import Split, split_patients

_SPLIT_SEED = 0  # one split for all methods and seeds, so that they can be compared


def open_parts(
    table: Table, job: BenchmarkJob
) -> tuple[tuple[SliceDataset, SliceDataset, SliceDataset], str]:
    """Open the slices for training, validation and test, with a description of the split for the reader.

    Raises:
        FileNotFoundError: If the dataset, or a file of it, does not exist.
        ValueError: If its files or labels are not those that the loader expects, or there are too few
            patients.
    """
    data = load_dataset(table.dataset, job.folders[table.dataset], **table.options)
    data = thinned(data, job.budget).readable()
    how, available = "by patients", set(data.patients)
    published = data.published
    parts = [published.train, published.validation, published.test] if published else []
    parts = [tuple(name for name in part if name in available) for part in parts]
    if job.slice_split and table.slice_shares:
        return _parts_by_slices(data, table.slice_shares), "by slices regardless of patients, as published"
    if parts and all(parts):
        how = "as the dataset's authors did"
        split = Split(parts[0], parts[1], parts[2], _SPLIT_SEED)
    else:
        split = split_patients(data.patients, _SPLIT_SEED, *table.shares)
    return (data.of(split.train), data.of(split.validation), data.of(split.test)), how


def thinned(data: SliceDataset, budget: Budget) -> SliceDataset:
    """Limit a dataset to the budget's number of patients, drawn at random, and of slices of each."""
    if 0 < budget.patients < len(data.patients):
        order = np.random.default_rng(_SPLIT_SEED).permutation(data.patients).tolist()
        data = data.of(order[: budget.patients])
    return data.thinned(budget.slices) if budget.slices else data


def _parts_by_slices(
    data: SliceDataset, shares: tuple[float, float]
) -> tuple[SliceDataset, SliceDataset, SliceDataset]:
    """Split as if each slice were a patient of its own; test slices are scored under their patients."""
    names = [f"{data.volumes[n].patient} {place}" for place, (n, _) in enumerate(data.slices)]
    volumes = [
        replace(data.volumes[n], patient=name) for name, (n, _) in zip(names, data.slices, strict=True)
    ]
    slices = [(place, k) for place, (_, k) in enumerate(data.slices)]
    alone = SliceDataset(volumes, data.classes, data.unit, data.binary, slices, skipped=data.skipped)
    split = split_patients(names, _SPLIT_SEED, *shares)
    tested = set(split.test)
    test = data.picked([one for name, one in zip(names, data.slices, strict=True) if name in tested])
    return alone.of(split.train), alone.of(split.validation), test
