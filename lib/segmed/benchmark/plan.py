"""The plan of a benchmark: jobs of the tables that can be measured, and reasons for skipped ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from segmed.benchmark.settings import BenchmarkJob
from segmed.benchmark.tables import Entry, Table, chosen_entries
from segmed.data.datasets.catalogue import find_dataset, load_dataset
from segmed.methods import find_method


@dataclass(frozen=True)
class Plan:
    """A table and its jobs.

    Attributes:
        table: The table.
        jobs: Jobs of all rows with all seeds.
        skipped: Reason in one line why there are none, or "".
    """

    table: Table
    jobs: tuple[BenchmarkJob, ...] = ()
    skipped: str = ""


def plan(
    tables: Sequence[Table],
    names: Sequence[str],
    seeds: int,
    settings: Mapping[str, Any],
    template: BenchmarkJob,
) -> list[Plan]:
    """Plan the jobs of tables; datasets are opened, but voxels are not read.

    Args:
        tables: The tables.
        names: Names of rows or methods, or none for all rows.
        seeds: Number of seeds, which are counted from 0.
        settings: Settings for every method that knows them.
        template: A job with the folders, the budget and the other settings of all jobs.

    Raises:
        ValueError: If there is no seed, or a dataset, row, method or setting is unknown.
    """
    if seeds < 1:
        raise ValueError(f"{seeds} seeds give no numbers. Give at least 1, or 3 for a spread.")
    for name in template.folders:
        find_dataset(name)
    known: set[str] = set()
    plans = []
    rows = chosen_entries(tables, names)
    for table in tables:
        entries = [_with(entry, settings, known) for entry in rows[table.name]]
        skipped = _missing(table, template.folders)
        if not skipped and not entries:
            skipped = f"none of its rows is selected; it has {', '.join(e.name for e in table.entries)}."
        jobs = [
            replace(
                template, table=table.name, entry=entry, seed=seed, folders=_used(table, template.folders)
            )
            for seed in range(seeds)
            for entry in entries
        ]
        plans.append(Plan(table, () if skipped else tuple(jobs), skipped))
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(
            f"None of the selected methods knows {unknown[0]!r}. "
            "Give settings that `segmed train --set` takes."
        )
    return plans


def _with(entry: Entry, settings: Mapping[str, Any], known: set[str]) -> Entry:
    training = find_method(entry.method).training
    keys = {f.name for f in fields(training.config)} if training and entry.train else set()
    keys |= {"proposals"} if entry.protocol == "oracle" else set()
    mine = {key: value for key, value in settings.items() if key in keys}
    known |= set(mine)
    return replace(entry, settings={**entry.settings, **mine})


def _used(table: Table, folders: Mapping[str, str]) -> dict[str, str]:
    wanted = {table.dataset, *(other.dataset for other in table.external_tests)}
    return {name: folder for name, folder in folders.items() if name in wanted}


def _missing(table: Table, folders: Mapping[str, str]) -> str:
    """The reason in one line why a table cannot be measured, or ""."""
    if not table.dataset:
        return (
            "its images are not public. scripts/multi_phase.py measures the same on folders with one image "
            "per phase."
        )
    dataset = find_dataset(table.dataset)
    if table.dataset not in folders:
        return (
            f"there is no --data {table.dataset}=FOLDER. Get {dataset.title} from {dataset.source} and put "
            f"into the folder {dataset.layout}"
        )
    try:
        load_dataset(table.dataset, folders[table.dataset], **table.options)
    except (ValueError, OSError) as error:
        return " ".join(str(error).split())
    return ""
