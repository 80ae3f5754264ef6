"""The plan of a benchmark: jobs of the tables that can be measured, and reasons for skipped ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from segmed.benchmark.inputs import dataset_identities, file_states
from segmed.benchmark.settings import BenchmarkJob
from segmed.benchmark.tables import Entry, Table, chosen_entries
from segmed.data.datasets.catalogue import find_dataset, load_dataset
from segmed.methods import METHODS, find_method


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
    folders = template.folders
    for name in folders:
        find_dataset(name)
    rows = chosen_entries(tables, names)
    chosen = [entry for table in tables for entry in rows[table.name]]
    _check(settings, tables, chosen)
    _check_weights(template, chosen)
    plans = []
    for table in tables:
        entries = [_with(entry, settings) for entry in rows[table.name]]
        skipped = _missing(table, folders)
        if not skipped and not entries:
            skipped = f"none of its rows is selected; it has {', '.join(e.name for e in table.entries)}."
        used = _used(table, folders)
        identities = {} if skipped else dataset_identities(table, used)
        template = replace(template, table=table.name, folders=used)
        jobs = []
        for seed in range(0 if skipped else seeds):
            for entry in entries:
                job = replace(template, entry=entry, seed=seed)
                jobs.append(replace(job, files=identities | file_states(job)))
        plans.append(Plan(table, tuple(jobs), skipped))
    return plans


def _check(settings: Mapping[str, Any], tables: Sequence[Table], selected: Sequence[Entry]) -> None:
    """Refuse a setting that no selected row knows; the others apply to the rows that know them."""
    known = {key for entry in selected for key in _settings_of(entry)}
    for name in sorted(set(settings) - known):
        chosen = ", ".join(dict.fromkeys(entry.name for entry in selected))
        others = dict.fromkeys(e.name for table in tables for e in table.entries if name in _settings_of(e))
        remedy = (
            f"In these tables, {', '.join(others)} know it: select one of them with --methods, or leave it "
            "out."
            if others
            else f"They know {', '.join(sorted(known)) or 'no settings'}."
        )
        raise ValueError(f"None of the selected rows ({chosen}) knows {name!r}. {remedy}")


def _check_weights(template: BenchmarkJob, selected: Sequence[Entry]) -> None:
    """Refuse weights and input sizes that no selected row would use."""
    methods = {entry.method: find_method(entry.method) for entry in selected}
    for name in template.backbones:
        if not find_method(name).own_format:
            others = ", ".join(method.name for method in METHODS.values() if method.own_format)
            raise ValueError(
                f"{name} takes no weights of another architecture than SAM's, as --own-backbone names them "
                f"for {others}. Give --backbone, or leave them out."
            )
    if template.image_size and not any(method.needs_backbone for method in methods.values()):
        raise ValueError(
            f"None of the selected rows ({', '.join(methods)}) has SAM weights, whose input size "
            "--image-size is. Give --set input_size=SIZE."
        )


def _settings_of(entry: Entry) -> set[str]:
    """The names of the settings that a row knows."""
    training = find_method(entry.method).training
    keys = {f.name for f in fields(training.config)} if training and entry.train else set()
    return keys | ({"proposals"} if entry.protocol == "oracle" else set())


def _with(entry: Entry, settings: Mapping[str, Any]) -> Entry:
    mine = {key: value for key, value in settings.items() if key in _settings_of(entry)}
    # A network with the box as a channel does not label slices without one.
    protocol = "box" if mine.get("box_channel") is True else entry.protocol
    return replace(entry, settings={**entry.settings, **mine}, protocol=protocol)


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
