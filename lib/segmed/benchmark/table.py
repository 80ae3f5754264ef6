"""The parts of a benchmark table: rows, protocols, and further tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from segmed.benchmark.published import Published

Protocol = Literal["box", "classes", "oracle", "detection"]
PROTOCOLS: Mapping[Protocol, str] = {
    "box": "prompted with the tight box of each object; without an object nothing is found",
    "classes": "labels each slice by itself",
    "oracle": "upper bound: the truth chooses the best of the proposed masks for each class",
    "detection": "boxes, compared with those of the labels",
}


@dataclass(frozen=True)
class Entry:
    """A row of a table.

    Attributes:
        name: Name in this table.
        method: Name in `METHODS`.
        settings: Settings of the method's config; for an oracle the preset of its proposals, as `proposals`.
        protocol: Protocol of the measurement.
        train: Whether the method is first trained on the table's dataset.
        tunes_prompter: Whether the prompter of a detector is trained there, too, on true boxes.
        parent: Name of the row that this one builds on, to which it is compared; "" for the first row.
    """

    name: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    protocol: Protocol = "box"
    train: bool = True
    tunes_prompter: bool = False
    parent: str = ""


@dataclass(frozen=True)
class ExternalTest:
    """Another dataset on which the trained methods are tested.

    Attributes:
        dataset: Name in the catalogue.
        options: Options of its loader.
        labels: Our names by the names in that dataset, or None for equal names; other labels are background.
    """

    dataset: str
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Table:
    """A table of a paper, or one of our own.

    Attributes:
        name: Name for commands.
        title: Title for the reader.
        source: Source of the published values, "" for none.
        dataset: Name in the catalogue; "" if the dataset is not available.
        entries: The measured rows.
        published: Published values of these rows, and of rows that are not measured.
        options: Options of the dataset's loader.
        shares: Shares of the patients in validation and test.
        slice_shares: Shares of the slices in validation and test, if that split was published.
        sizes: Sides in px of further mask sizes at which the trained methods are tested.
        external_tests: Further datasets for tests.
        by_class: Whether the report lists the classes.
        notes: Remarks on the published values.
    """

    name: str
    title: str
    source: str
    dataset: str
    entries: tuple[Entry, ...]
    published: tuple[Published, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    shares: tuple[float, float] = (0.1, 0.2)
    slice_shares: tuple[float, float] | None = None
    sizes: tuple[int, ...] = ()
    external_tests: tuple[ExternalTest, ...] = ()
    by_class: bool = False
    notes: tuple[str, ...] = ()
