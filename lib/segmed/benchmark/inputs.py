"""What a job starts from: the identity of its files, and its weights in words."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from segmed.benchmark.settings import BenchmarkJob
from segmed.benchmark.table import Table
from segmed.data.datasets.catalogue import load_dataset
from segmed.methods import find_method
from segmed.methods.base.method import Method
from segmed.sam.sources import DEFAULT_MODEL, EMBEDDED
from segmed.training.checkpoint import data_facts


def dataset_identities(table: Table, folders: Mapping[str, str]) -> dict[str, str]:
    """Identities of the datasets of a table in these folders, which depend on their files only.

    A dataset that cannot be opened has none; its jobs tell the reason.
    """
    options = {other.dataset: other.options for other in table.external_tests} | {
        table.dataset: table.options
    }
    found = {}
    for name, folder in folders.items():
        with suppress(ValueError, OSError):
            found[name] = data_facts(load_dataset(name, folder, **options[name]))
    return found


def file_states(job: BenchmarkJob) -> dict[str, str]:
    """Names, sizes and times of change of the local files and folders that the settings of a job name."""
    training = find_method(job.entry.method).training
    local = {f.name for f in fields(training.config) if f.metadata.get("local")} if training else set()
    named = {name: value for name, value in job.entry.settings.items() if name in local}
    paths = {
        name: Path(str(value))
        for name, value in {"backbone": job.settings["backbone"], **named}.items()
        if value
    }
    return {name: _state(path) for name, path in paths.items() if path.exists()}


def _state(path: Path) -> str:
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    states = [(one.name, one.stat()) for one in found if one.is_file()]
    return " ".join(f"{name}:{state.st_size}:{state.st_mtime_ns}" for name, state in states)


def weights_text(method: Method, job: BenchmarkJob, trains: bool) -> str:
    """Describe the weights that a row started from, for the reader."""
    given = job.entry.settings
    if not method.needs_backbone:
        pretrained = "an encoder pretrained on ImageNet" if given.get("pretrained") else ""
        return pretrained or ("random weights" if trains else "no weights")
    source = str(job.settings["backbone"] or method.weights)
    if method.detects and method.training is not None:
        usual = {f.name: f.default for f in fields(method.training.config)}
        prompter = find_method(str(given.get("prompter", usual["prompter"])))
        outlines = str(given.get("prompter_weights", "")) or prompter.weights or source
        begun = Path(str(given["start"])).name if given.get("start") else "random weights"
        return f"{begun} for the detector; for its prompter {prompter.name}, {_named(outlines)}"
    if given.get("jbu"):
        return f"{_named(source)}; upsampler of {Path(str(given['jbu'])).name}"
    return _named(source)


def _named(source: str) -> str:
    if source == EMBEDDED:
        return "segmed-tiny, trained on synthetic images only"
    if source == DEFAULT_MODEL:
        return "segmed-default, trained on public images of many kinds"
    return Path(source).name if Path(source).exists() else source
