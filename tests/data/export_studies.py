"""A studies folder with labels to export, and its export by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from segmed.cli import app
from typer.testing import CliRunner

NAMES = {2: "liver", 5: "lesion"}
PATIENTS = 5


def truth_of(n: int) -> np.ndarray:
    labels = np.zeros((24, 20, 3), np.uint8)
    labels[3 + n : 14 + n, 4:15, 1:] = 2
    labels[6 + n : 9 + n, 7:10, 2] = 5
    labels[18, 17, 2] = 5
    return labels


def export_to(studies: Path, to: str, out: Path, *words: str) -> Path:
    done = CliRunner().invoke(app, ["export", str(studies), "--to", to, "-o", str(out), *words])
    assert done.exit_code == 0, done.output
    return out


def make_studies(root: Path) -> Path:
    """The studies folder of a server with five labelled images."""
    (root / "labels" / "final").mkdir(parents=True)
    affine = np.diag([-1.5, -1.5, 3.0, 1.0])
    objects = {}
    for n in range(PATIENTS):
        labels, name = truth_of(n), f"p{n}-ct"
        image = (labels * 100 + np.random.default_rng(n).integers(0, 20, labels.shape)).astype(np.int16)
        nib.save(nib.Nifti1Image(image, affine), root / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(labels, affine), root / "labels" / "final" / f"{name}.nii.gz")
        info = {"segments": [{"value": v, "name": name} for v, name in NAMES.items()]}
        objects[name] = {
            "image": {"ext": ".nii.gz", "info": {}},
            "labels": {"final": {"ext": ".nii.gz", "info": info}},
        }
    content = {"name": "s", "description": "", "images_dir": ".", "labels_dir": "labels", "objects": objects}
    (root / "datastore_v2.json").write_text(json.dumps(content))
    return root
