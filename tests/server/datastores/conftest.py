"""Studies of the tests of this folder: DICOM files, a PACS, and an application with four images."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
from dicom_phantom import phantom_series
from label_site import AFFINE, Site, make_site
from orthanc import Pacs, started
from PIL import Image
from segmed.data.phantom import Phantom
from study_folder import SHAPE


@pytest.fixture
def scattered(tmp_path: Path) -> tuple[Path, Phantom]:
    """One CT over two folders, another one beside it under names without extension, an MR, and no images."""
    root = tmp_path / "study"
    phantom = phantom_series(root / "a", shape=SHAPE, seed=1)
    phantom_series(tmp_path / "b", shape=SHAPE, seed=2)
    phantom_series(root / "deep" / "er", modality="MR", shape=SHAPE, seed=3)
    (root / "rest").mkdir()
    for n, path in enumerate(sorted((root / "a").iterdir())):
        if n % 2:
            path.rename(root / "rest" / f"IM{n}")
    for path in sorted((tmp_path / "b").iterdir()):
        shutil.copy(path, root / "a" / f"other{path.stem}")
    (root / "notes.txt").write_text("not an image")
    (root / ".hidden").mkdir()
    shutil.copy(tmp_path / "b" / "000.dcm", root / ".hidden")
    return root, phantom


@pytest.fixture
def mine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pacs]:
    """A PACS of a test's own."""
    yield from started(tmp_path_factory.mktemp("mine"))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Four images: three volumes and a picture."""
    studies = tmp_path / "studies"
    studies.mkdir()
    voxels = np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.int16)
    for name in ("a", "b", "c"):
        nib.save(nib.Nifti1Image(voxels, AFFINE), studies / f"{name}.nii.gz")
    Image.fromarray(voxels[:, :, 0].T.clip(0, 255).astype(np.uint8)).save(studies / "p.png")
    return make_site(studies, tmp_path, monkeypatch)


@pytest.fixture
def slicer(tmp_path: Path) -> Path:
    """Overlapping segments as 3D Slicer writes them: each is value 1 of its layer, but for one."""
    layers = np.zeros((2, *SHAPE), np.uint8)
    layers[0, 3:15, 4:12, 1:5], layers[1, 6:9, 6:9, 2:4] = 3, 1
    lps = np.diag([-1.0, -1, 1, 1]) @ AFFINE
    header = {
        "space": "left-posterior-superior",
        "space directions": np.vstack([[np.nan] * 3, lps[:3, :3].T]),
        "space origin": lps[:3, 3],
        "kinds": ["list", "domain", "domain", "domain"],
    }
    for n, (name, value, colour) in enumerate((("Leber", 3, "0.5 0.25 0.125"), ("Herd", 1, "1 0 0"))):
        header |= {
            f"Segment{n}_Name": name,
            f"Segment{n}_LabelValue": str(value),
            f"Segment{n}_Layer": str(n),
        }
        header |= {f"Segment{n}_Color": colour, f"Segment{n}_ID": f"id{n}", f"Segment{n}_Tags": "a|b"}
    nrrd.write(str(tmp_path / "sent.seg.nrrd"), layers, header)
    return tmp_path / "sent.seg.nrrd"
