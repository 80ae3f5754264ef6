"""The tables that can be made: dataset, rows, protocol, and what was published. The only place that names methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from segmed.benchmark import published
from segmed.benchmark.published import Published
from segmed.methods import METHODS

Protocol = Literal["box", "classes", "oracle", "detection"]
PROTOCOLS: Mapping[Protocol, str] = {
    "box": "told the tight box of each object; where there is no object nobody draws a box, and nothing is found",
    "classes": "labels each slice by itself",
    "oracle": "upper bound: the truth chooses the best of the proposed masks for each class",
    "detection": "boxes, compared with those of the labels",
}


@dataclass(frozen=True)
class Entry:
    """A row of a table.

    Attributes:
        name: in this table.
        method: in `METHODS`.
        settings: of the method's config; of an oracle the preset of its proposals, as `proposals`.
        protocol: how it is asked.
        train: whether it is trained on the table's dataset before.
    """

    name: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    protocol: Protocol = "box"
    train: bool = True


@dataclass(frozen=True)
class ExternalTest:
    """Another dataset on which the trained methods are tested.

    Attributes:
        dataset: in the catalogue.
        options: of its loader.
        labels: our names by the names there; None for the same ones. Others are background.
    """

    dataset: str
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Table:
    """A table of a paper, or one of our own.

    Attributes:
        name: for commands.
        title: for people.
        source: where the published values are from, "" for none.
        dataset: in the catalogue; "" where no dataset can be had.
        entries: rows that are measured.
        published: values to put beside them; entries that are not measured have values only.
        options: of the dataset's loader.
        shares: of the patients in validation and test.
        slice_shares: of the slices in validation and test, where that is what was published.
        sizes: sides in px of further targets that the trained methods are tested at.
        external_tests: further datasets.
        by_class: whether classes are told apart in the report.
        notes: what is odd about the published values.
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


_BASELINES = tuple(Entry(n, n, protocol="classes") for n in ("deeplabv3plus", "unet", "unetpp", "deeplabv3", "pan"))
_LORA = {rank: Entry(f"lora-{rank}", "lora", {"rank": rank}, "classes") for rank in (1, 4, 8)}
_ADAPTER = Entry("adapter", "adapter", protocol="classes")
_ORACLES = (
    Entry("sam-oracle", "sam", {"proposals": "published"}, "oracle", train=False),
    Entry("sam2-oracle", "sam2", {"proposals": "sam2"}, "oracle", train=False),
)
_SEGMED = "study of SAM with FeatUp and GAFL on LGG"
_PEFT = "study of parameter-efficient SAM on FLARE22, GID-5 and SIRST"
_YOLO = "study of YOLOv5 boxes for MedSAM on BraTS 2023"
_WEI = "Wei et al., I-MedSAM (2024)"
_HD = "The published distance is the Hausdorff distance, 100 where a mask is empty; ours is HD95, without empty ones."
_WITH_BACKGROUND = "The published averages include the background."
_ORACLE = "The oracle rows let the truth choose among proposals; they do not compare with trained classifiers."

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            "lgg-baselines",
            "LGG: networks without a prompt",
            _SEGMED,
            "lgg",
            _BASELINES,
            published.LGG_BASELINES,
            slice_shares=(0.18, 0.1),
            notes=(
                "The published split is by slices: neighbours of test slices were learnt from.",
                "Losses of 1.66 beside an IoU of 0.87 are not those of Dice + BCE on logits; ours is not compared.",
            ),
        ),
        Table(
            "lgg-sam",
            "LGG: SAM, FeatUp, GAFL and the other methods on SAM",
            _SEGMED,
            "lgg",
            (
                Entry("sam", "medsam"),
                Entry("featup", "featup"),
                Entry("gafl", "gafl"),
                Entry("imedsam", "imedsam"),
                _ADAPTER,
                _LORA[4],
                Entry("detector", "detector", protocol="classes"),
            ),
            published.LGG_SAM,
            slice_shares=(0.18, 0.1),
            notes=(
                "Tables II, III and IV contradict each other: SAM with GAFL differs in every row between III and IV, "
                "and II is at a reduced image size, which IV mixes with full-size SAM.",
                "F1 and Dice are the same quantity, but differ in every published column.",
                "The row sam is a tuned mask decoder, as published.",
            ),
        ),
        Table(
            "flare22",
            "FLARE22: 13 organs of the abdomen",
            _PEFT,
            "flare22",
            (*_ORACLES, _ADAPTER, *_LORA.values()),
            published.FLARE22,
            by_class=True,
            notes=(_WITH_BACKGROUND, _ORACLE),
        ),
        Table(
            "gid5",
            "GID-5: land cover",
            _PEFT,
            "gid5",
            (*_ORACLES, _LORA[4]),
            published.GID5,
            by_class=True,
            notes=(_WITH_BACKGROUND, _ORACLE),
        ),
        Table(
            "sirst",
            "SIRST: infrared targets",
            _PEFT,
            "sirst",
            (*_ORACLES, _LORA[4]),
            published.SIRST,
            by_class=True,
            notes=(_WITH_BACKGROUND, _ORACLE),
        ),
        Table(
            "liver-phases",
            "Liver tumours in four phases: points, resolutions, sizes of SAM",
            "Hu et al., When SAM Meets Medical Images (2023)",
            "",
            (),
            published.LIVER_PHASES,
            notes=("The values are those of shown examples, and the truth chose among masks.",),
        ),
        Table(
            "brats-detectors",
            "BraTS 2023: boxes around the whole tumour",
            _YOLO,
            "brats",
            (
                Entry("fcos", "detector", {}, "detection"),
                Entry("yolov5s", "detector", {"architecture": "yolo:yolov5s.yaml"}, "detection"),
                Entry("yolov5l", "detector", {"architecture": "yolo:yolov5l.yaml"}, "detection"),
            ),
            published.BRATS_DETECTORS,
            {"region": "whole tumour"},
            (0.2, 0.2),
            notes=("The published detectors began from weights that had learnt everyday pictures; ours do not.",),
        ),
        Table(
            "brats-medsam",
            "BraTS 2023: the whole tumour from boxes",
            _YOLO,
            "brats",
            (
                Entry("chain-sam", "detector", {"prompter": "sam"}, "classes"),
                Entry("chain-medsam", "detector", {"prompter": "medsam"}, "classes"),
                Entry("medsam-tuned", "medsam"),
            ),
            published.BRATS_MEDSAM,
            {"region": "whole tumour"},
            (0.2, 0.2),
            notes=("The published values all have boxes of the detector; medsam-tuned is told true boxes here.",),
        ),
        Table(
            "sessile",
            "Kvasir-Sessile: I-MedSAM, other resolutions, and CVC-ClinicDB",
            _WEI,
            "kvasir-sessile",
            (Entry("imedsam", "imedsam"), Entry("medsam", "medsam")),
            published.SESSILE,
            shares=(0.2, 0.2),
            sizes=(128, 896),
            external_tests=(ExternalTest("cvc-clinicdb"),),
            notes=(_HD, "The published models see 384 px; choose it with --image-size."),
        ),
        Table(
            "sessile-ablation",
            "Kvasir-Sessile: parts of I-MedSAM",
            _WEI,
            "kvasir-sessile",
            (
                Entry("phase", "imedsam", {"variant": "phase"}),
                Entry("amplitude, 12.5 % refined", "imedsam"),
                *(Entry(f"{share} % refined", "imedsam", {"share": share / 100}) for share in (50, 25, 6.25, 3.125)),
            ),
            published.SESSILE_ABLATION,
            shares=(0.2, 0.2),
            notes=(_HD, "Rows without a value of ours leave out a part that ours cannot be built without."),
        ),
        Table(
            "btcv",
            "BTCV: 13 organs, and livers of AMOS",
            _WEI,
            "btcv",
            (Entry("imedsam", "imedsam"), Entry("medsam", "medsam")),
            published.BTCV,
            shares=(0.2, 0.2),
            external_tests=(ExternalTest("amos", {"modality": "CT"}, {"liver": "liver"}),),
            by_class=True,
            notes=(_HD, "The published models see 512 px; choose it with --image-size."),
        ),
        Table(
            "hippocampus",
            "MSD hippocampus: anterior and posterior part",
            "",
            "msd",
            (*_LORA.values(), _ADAPTER, *_BASELINES),
            by_class=True,
        ),
    )
}


def chosen_tables(names: list[str]) -> list[Table]:
    """The tables of these names; `all`, or no name, is all of them.

    Raises:
        ValueError: unknown name.
    """
    unknown = [name for name in names if name not in (*TABLES, "all")]
    if unknown:
        raise ValueError(f"There is no table {unknown[0]!r}. Choose from all, {', '.join(TABLES)}.")
    return list(TABLES.values()) if not names or "all" in names else [TABLES[name] for name in dict.fromkeys(names)]


def chosen_entries(tables: Sequence[Table], names: Sequence[str]) -> dict[str, list[Entry]]:
    """Rows of each table by their name or method; no names are all rows.

    An oracle or a method that none of the tables has becomes a row in each of them, a method with its own defaults.

    Raises:
        ValueError: no row of any table and no method is called so.
    """
    if not names:
        return {table.name: list(table.entries) for table in tables}
    found: dict[str, dict[str, Entry]] = {table.name: {} for table in tables}
    for name in names:
        mine = {t.name: {e.name: e for e in t.entries if name in (e.name, e.method)} for t in tables}
        if not any(mine.values()):
            extra = next((e for e in _ORACLES if e.name == name), None) or _row_of(name)
            if extra is None:
                rows = dict.fromkeys(e.name for table in tables for e in (*table.entries, *_ORACLES))
                raise ValueError(f"There is no row {name!r}: rows are {', '.join(rows)}; methods {', '.join(METHODS)}.")
            mine = {table.name: {name: extra} for table in tables}
        for table in tables:
            found[table.name] |= mine[table.name]
    return {table.name: list(found[table.name].values()) for table in tables}


def _row_of(name: str) -> Entry | None:
    method = METHODS.get(name)
    if method is None:
        return None
    return Entry(name, name, {}, "classes" if method.automatic else "box", method.learns)
