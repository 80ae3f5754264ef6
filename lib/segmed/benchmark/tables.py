"""The tables of the benchmark: the only module that names the methods of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from segmed.benchmark import published
from segmed.benchmark.table import Entry, ExternalTest, Table
from segmed.methods import METHODS

_BASELINES = tuple(
    Entry(n, n, {"pretrained": True}, "classes")
    for n in ("deeplabv3plus", "unet", "unetpp", "deeplabv3", "pan")
)
_LORA = {rank: Entry(f"lora-{rank}", "lora", {"rank": rank}, "classes") for rank in (1, 4, 8)}
_ADAPTER = Entry("adapter", "adapter", protocol="classes")
_SAM = {"prompter": "sam", "prompter_weights": "sam-vit-base"}
_MEDSAM = {"prompter": "medsam", "prompter_weights": "medsam-vit-base"}
_ORACLES = (
    Entry("sam-oracle", "sam", {"proposals": "published"}, "oracle", train=False),
    Entry("sam2-oracle", "sam2", {"proposals": "sam2"}, "oracle", train=False),
)
_SEGMED = "study of SAM with FeatUp and GAFL on LGG"
_PEFT = "study of parameter-efficient SAM on FLARE22, GID-5 and SIRST"
_YOLO = "study of YOLOv5 boxes for MedSAM on BraTS 2023"
_WEI = "Wei et al., I-MedSAM (2024)"
_HD = "The published distance counts 100 for empty masks; ours is the mean over the others."
_WITH_BACKGROUND = "The published averages include the background."
_ORACLE = (
    "The oracle rows let the truth choose among proposals; they do not compare with trained classifiers."
)

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
                "The published split is by slices: neighbours of test slices were used for training.",
                "Losses of 1.66 beside an IoU of 0.87 cannot be Dice + BCE on logits; ours are not compared.",
            ),
        ),
        Table(
            "lgg-sam",
            "LGG: SAM, FeatUp, GAFL and the other methods on SAM",
            _SEGMED,
            "lgg",
            (
                *(Entry(f"untrained {name}", name, train=False) for name in ("sam", "medsam")),
                *(Entry(name, name, parent=f"untrained {name}") for name in ("sam", "medsam")),
                Entry("featup", "featup", parent="medsam"),
                Entry("featup with frozen upsampler", "featup", {"freeze_jbu": True}, parent="medsam"),
                Entry("gafl", "gafl", parent="medsam"),
                *(
                    Entry(f"gafl with {name.replace('_', ' ')}", "gafl", {"variant": name}, parent="medsam")
                    for name in ("spectrum_log", "phase", "general_spectrum")
                ),
                Entry("imedsam", "imedsam", parent="medsam"),
                _ADAPTER,
                _LORA[4],
                Entry("detector", "detector", protocol="classes"),
            ),
            published.LGG_SAM,
            slice_shares=(0.18, 0.1),
            notes=(
                "Tables II, III and IV contradict each other: SAM with GAFL differs in every row between III "
                "and IV, and II is at a reduced image size, which IV mixes with full-size SAM.",
                "F1 and Dice are the same quantity, but differ in every published column.",
                "The row sam is a tuned mask decoder with SAM's own preparation of slices, as published; "
                "medsam is the same with that of MedSAM, which featup, gafl and imedsam share, so that they "
                "are compared with it.",
                "Give `--set preset=segmed` for the published recipe: Adam at 1e-3 and focal loss.",
                "The upsampler of FeatUp starts with random weights, at which the frozen one stays, unless "
                "`--set jbu=FILE` gives pretrained ones.",
            ),
        ),
        Table(
            "flare22",
            "FLARE22: 13 organs of the abdomen",
            _PEFT,
            "flare22",
            (*_ORACLES, replace(_ADAPTER, settings={"depth_adapter": True}), *_LORA.values()),
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
            notes=("The values are those of shown examples, with masks chosen by the truth.",),
        ),
        Table(
            "brats-detectors",
            "BraTS 2023: boxes around the whole tumour",
            _YOLO,
            "brats",
            (
                Entry("fcos", "detector", {}, "detection"),
                Entry("yolov5su", "detector", {"architecture": "yolo:yolov5s.yaml"}, "detection"),
                Entry("yolov5lu", "detector", {"architecture": "yolo:yolov5l.yaml"}, "detection"),
            ),
            published.BRATS_DETECTORS,
            {"region": "whole tumour"},
            (0.2, 0.2),
            notes=(
                "The published detectors started from weights trained on photographs; ours do not.",
                "Published are YOLOv5s and YOLOv5l with anchors. Ours are YOLOv5su and YOLOv5lu, the "
                "variants without anchors that current versions of ultralytics build.",
            ),
        ),
        Table(
            "brats-medsam",
            "BraTS 2023: the whole tumour from boxes",
            _YOLO,
            "brats",
            (
                Entry(
                    "chain-sam",
                    "detector",
                    {"prompter": "sam", "prompter_weights": "sam-vit-base"},
                    "classes",
                ),
                Entry("chain-medsam", "detector", _MEDSAM, "classes"),
                Entry("chain-tuned", "detector", _MEDSAM, "classes", tunes_prompter=True),
                Entry("medsam-tuned", "medsam"),
            ),
            published.BRATS_MEDSAM,
            {"region": "whole tumour"},
            (0.2, 0.2),
            notes=(
                "All published values use boxes of the detector. Each chain is measured with them and with "
                "true boxes; medsam-tuned is prompted with true boxes.",
            ),
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
            notes=(_HD, "The published models have inputs of 384 px; set --image-size to compare."),
        ),
        Table(
            "sessile-ablation",
            "Kvasir-Sessile: parts of I-MedSAM",
            _WEI,
            "kvasir-sessile",
            (
                Entry("phase", "imedsam", {"variant": "phase"}),
                Entry("without frequency adapter", "imedsam", {"adapters": False}),
                Entry("nothing refined", "imedsam", {"share": 0}),
                Entry("LoRA only", "imedsam", {"adapters": False, "implicit": False}),
                Entry("LoRA and frequency adapter", "imedsam", {"implicit": False}),
                *(Entry(f"rank {rank}", "imedsam", {"rank": rank}) for rank in (1, 8)),
                Entry("amplitude with 12.5 % refined", "imedsam"),
                *(
                    Entry(f"{share} % refined", "imedsam", {"share": share / 100})
                    for share in (50, 25, 6.25, 3.125)
                ),
            ),
            published.SESSILE_ABLATION,
            shares=(0.2, 0.2),
            notes=(
                _HD,
                "LoRA and implicit decoder is the row without frequency adapter, and all parts the default.",
            ),
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
            notes=(_HD, "The published models have inputs of 512 px; set --image-size to compare."),
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
    """Select tables by name; `all`, or no name, selects all.

    Raises:
        ValueError: If a name is unknown.
    """
    unknown = [name for name in names if name not in (*TABLES, "all")]
    if unknown:
        raise ValueError(f"There is no table {unknown[0]!r}. Choose from all, {', '.join(TABLES)}.")
    return (
        list(TABLES.values())
        if not names or "all" in names
        else [TABLES[name] for name in dict.fromkeys(names)]
    )


def chosen_entries(tables: Sequence[Table], names: Sequence[str]) -> dict[str, list[Entry]]:
    """Select rows of each table by their name or method; no names select all rows.

    An oracle or a method that none of the tables has becomes a row in each of them, with its default
    settings.

    Raises:
        ValueError: If a name is neither that of a row nor of a method.
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
                raise ValueError(
                    f"There is no row {name!r}. Choose from the rows {', '.join(rows)}, or the methods "
                    f"{', '.join(METHODS)}."
                )
            mine = {table.name: {name: extra} for table in tables}
        for table in tables:
            found[table.name] |= mine[table.name]
    return {table.name: list(found[table.name].values()) for table in tables}


def _row_of(name: str) -> Entry | None:
    method = METHODS.get(name)
    if method is None:
        return None
    return Entry(name, name, {}, "classes" if method.automatic else "box", method.learns)
