#!/usr/bin/env python
"""One lesion in several registered phases, prompted by the same clicks in all of them.

    python scripts/multi_phase.py [CASES] [--method segmed] [--backbone WEIGHTS] [--label 1] [-o table.md]

CASES holds one folder per case, with one image per phase on the grid of the labels:

    CASES/case-1/NC.nii.gz  ART.nii.gz  PV.nii.gz  DE.nii.gz  label.nii.gz

All files but `label.*` are phases, named after the file; NRRD, MetaImage and PNG are read, too. The slice on
which the label is largest is taken. Without CASES, four contrast phases of drawn CT volumes are made from one
label map each. Half of the columns let the truth choose among the masks of a phase: these are upper bounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress
from segmed.data.phantom import make_phantom
from segmed.evaluation.multi_phase import MultiPhaseConfig, PhaseCase, multi_phase_scores, multi_phase_table
from segmed.imaging.grid import Grid, read_labels
from segmed.imaging.intensity import WINDOWS, stretch
from segmed.imaging.picture import open_picture
from segmed.imaging.volume import Volume
from segmed.inference.loading import BackboneConfig, Loader, find_method

# HU added to the organs of the drawn volume, which is as in the portal venous phase: arteries fill first, a
# lesion of liver cells with them, and washes out
PHASES = {
    "NC": {
        "liver": -50,
        "spleen": -75,
        "kidney right": -125,
        "kidney left": -125,
        "aorta": -165,
        "lesion": -10,
    },
    "ART": {"liver": -35, "spleen": 10, "kidney right": 20, "kidney left": 20, "aorta": 110, "lesion": 75},
    "PV": {},
    "DE": {"liver": -20, "spleen": -30, "kidney right": -30, "kidney left": -30, "aorta": -80, "lesion": -15},
}
_LIVER_WINDOW = (-50.0, 250.0)  # HU
_NOISE = 12.0  # HU


def drawn(count: int) -> Iterator[PhaseCase]:
    for seed in range(count):
        phantom = make_phantom("CT", (256, 224, 24), (1.4, 1.4, 8.0), seed)
        values = {name: value for value, name in phantom.names.items()}
        lesion = phantom.labels == values["lesion"]
        k = int(lesion.sum(axis=(0, 1)).argmax())
        rng = np.random.default_rng(seed)
        phases = {}
        for name, added in PHASES.items():
            image = phantom.image[:, :, k] + rng.normal(0, _NOISE, lesion.shape[:2])
            for organ, hu in added.items():
                image[phantom.labels[:, :, k] == values[organ]] += hu
            volume = Volume(image[:, :, None], phantom.affine, "CT")
            phases[name] = stretch(volume, *_LIVER_WINDOW)[:, :, 0].T
        yield PhaseCase(f"drawn {seed}", phases, lesion[:, :, k].T)


def stored(folder: Path, label: int, window: str) -> Iterator[PhaseCase]:
    folders = sorted(path for path in folder.iterdir() if path.is_dir())
    if not folders:
        raise FileNotFoundError(f"{folder} has no folders of cases. See --help for the layout.")
    for case in folders:
        files = {path.name.split(".")[0]: path for path in sorted(case.iterdir()) if path.is_file()}
        if "label" not in files or len(files) < 2:
            raise FileNotFoundError(
                f"{case} needs label.nii.gz and one image per phase. See --help for the layout."
            )
        pictures = {name: open_picture(path, window) for name, path in files.items() if name != "label"}
        first = next(iter(pictures.values()))
        labels = read_labels(files["label"], Grid(first.shape, first.affine)) == label
        k = int(labels.sum(axis=(0, 1)).argmax())
        if odd := [
            name
            for name, picture in pictures.items()
            if picture.shape != first.shape or not np.allclose(picture.affine, first.affine, atol=1e-3)
        ]:
            raise ValueError(
                f"The phase {odd[0]!r} of {case.name} lies on another grid. Register the phases."
            )
        yield PhaseCase(
            case.name, {name: picture.slice(k) for name, picture in pictures.items()}, labels[:, :, k].T
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", type=Path, nargs="?")
    parser.add_argument("--method", default="segmed")
    parser.add_argument("--backbone", default="")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--points", type=int, nargs="+", default=[1, 5, 10, 20])
    parser.add_argument("--resolutions", type=int, nargs="+", default=[224, 512, 1024])
    parser.add_argument("--label", type=int, default=1, help="value of the object in the labels")
    parser.add_argument("--window", choices=list(WINDOWS), default="auto")
    parser.add_argument("--count", type=int, default=8, help="drawn cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path)
    told = parser.parse_args()
    config = MultiPhaseConfig(tuple(told.points), tuple(told.resolutions), told.seed)
    segmenter = Loader().get(told.method, BackboneConfig(told.backbone), told.device)
    cases = list(stored(told.cases, told.label, told.window) if told.cases else drawn(told.count))
    with Progress() as bar:
        task = bar.add_task("phases")
        scores = multi_phase_scores(
            segmenter, cases, config, lambda n, of: bar.update(task, completed=n, total=of)
        )
    source = told.backbone or find_method(told.method).weights or "no weights"
    lines = [
        f"Method {told.method}, weights {Path(source).name if Path(source).exists() else source}, "
        f"{len(cases)} {'cases' if told.cases else 'drawn cases'} of {len(cases[0].phases)} phases, seed "
        f"{told.seed}.",
        "",
        multi_phase_table(scores),
        "",
        "`segmed-tiny` has seen synthetic images only: with it, these numbers say nothing about published "
        "weights.",
    ]
    text = "\n".join(lines if "segmed-tiny" in source else lines[:-2]) + "\n"
    print(text)
    if told.out:
        told.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
