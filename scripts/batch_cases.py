#!/usr/bin/env python
"""A batch run over labelled cases of many kinds, with boxes from their labels; DICOM results are validated.

    python scripts/batch_cases.py CASES --out runs/cases                    all cases of an index.json
    python scripts/batch_cases.py CASES --out runs/cases --only pictures    or volumes, dicom

Each labelled object gets its tight box, at most eight objects of an image (`--most`). `pictures` have one
slice and are segmented by `segmed`, all others by `segmed_3d`. Cases whose image is a DICOM series are
run with `--seg`; a DICOM SEG and a structured report of each are checked by dciodvfy (dicom3tools). Printed
are the number of images by state and the Dice of the objects by modality. A run that is there is continued.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage
from segmed.batch.finished import finished_items
from segmed.batch.report import collect
from segmed.batch.runs import RunOptions, run_batch
from segmed.batch.settings import BOXES, RunSettings
from segmed.cli import app
from segmed.evaluation.cases import Case, load_cases, read_index
from segmed.evaluation.metrics import Overlap
from segmed.imaging.grid import image_grid, read_labels
from segmed.imaging.labels.masks import bounding_box
from typer.testing import CliRunner

PARTS = ("pictures", "volumes", "dicom")
LEAST = 30  # voxels of an object


def part_of(image: Path, case: Case) -> str:
    """Which run a case belongs to."""
    if image.is_dir():
        return "dicom"
    return "volumes" if case.labels.shape[2] > 1 else "pictures"


def masks_of(case: Case, most: int) -> list[np.ndarray]:
    """The largest objects (I, J, K), boolean."""
    found = []
    for label in np.unique(case.labels[case.labels > 0]):
        mask = case.labels == label
        if not case.has_many:
            found.append(mask)
            continue
        parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
        found += [parts == n for n in np.argsort(np.bincount(parts.ravel())[1:])[::-1][:most] + 1][:count]
    found = [mask for mask in found if mask.sum() >= LEAST]
    return sorted(found, key=lambda mask: -int(mask.sum()))[:most]


def planned(folder: Path, part: str, most: int) -> Iterator[tuple[Path, Case, list[np.ndarray]]]:
    """Images of a part with their objects."""
    for entry, case in zip(read_index(folder), load_cases(folder), strict=True):
        image = (folder / entry["image"]).absolute()
        if part_of(image, case) == part and (masks := masks_of(case, most)):
            yield image, case, masks


def run(folder: Path, part: str, out: Path, most: int) -> str:
    """Run one part, and describe what came of it."""
    out.mkdir(parents=True, exist_ok=True)
    boxes, cases = {}, list(planned(folder, part, most))
    for image, _, masks in cases:
        rois = [[end for ends in bounding_box(mask) or () for end in ends] for mask in masks]
        boxes[str(image)] = [{"label": f"object {n}", "roi": roi} for n, roi in enumerate(rois, 1)]
    listed = out / f"{part}.txt"
    listed.write_text("".join(f"{image}\n" for image, _, _ in cases), encoding="utf-8")
    (out / f"{part}.json").write_text(json.dumps(boxes), encoding="utf-8")
    settings = RunSettings(
        str(listed),
        "segmed" if part == "pictures" else "segmed_3d",
        prompts=BOXES,
        boxes=str(out / f"{part}.json"),
        seg=part == "dicom",
        previews=True,
        device="cpu",
        registry=str(out / "models"),
    )
    run_batch(settings, out / part, RunOptions(give_way=False))
    report, items = collect(out / part), finished_items(out / part)
    dice: dict[str, list[float]] = defaultdict(list)
    for image, case, masks in cases:
        item = items.get(str(image))
        if item is None:
            continue
        found = read_labels(item.mask, image_grid(image, case.picture.shape, case.picture.affine))
        if part == "dicom":
            report_of(image, item.mask)
        dice[case.modality] += [Overlap.of(found == n, mask).dice() for n, mask in enumerate(masks, 1)]
    lines = [f"{part}: {len(cases)} images, {report.states}"]
    lines += [f"  failed: {group.error}" for group in report.failures]
    lines += [f"  {name}: {len(d)} objects, Dice {np.mean(d):.3f}" for name, d in sorted(dice.items())]
    if part == "dicom":
        lines += validated(out / part)
    return "\n".join(lines)


def report_of(series: Path, mask: Path) -> None:
    """Write the structured report of a mask, and the DICOM SEG that it refers to, beside the mask."""
    out = mask.with_name(f"{mask.name.split('.')[0]}-report.dcm")
    words = [
        "export",
        str(mask),
        "--to",
        "sr",
        "--series",
        str(series),
        "--model",
        "segmed_3d",
        "-o",
        str(out),
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output


def validated(out: Path) -> list[str]:
    """What dciodvfy says of the DICOM files of a run."""
    if not shutil.which("dciodvfy"):
        return ["  dciodvfy is not installed"]
    lines = []
    for file in sorted(out.rglob("*.dcm")):
        said = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True, check=False)
        kinds = Counter(line.split(" ")[0] for line in said.stderr.splitlines() if line)
        lines.append(f"  {file.name}: {kinds['Error']} errors, {kinds['Warning']} warnings")
    return lines


def main() -> None:
    """Run the parts one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", type=Path, help="folder with an index.json")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--most", type=int, default=8, help="objects of an image, the largest ones")
    a = parser.parse_args()
    for part in (a.only,) if a.only else PARTS:
        print(run(a.cases, part, a.out, a.most), flush=True)


if __name__ == "__main__":
    sys.exit(main())
