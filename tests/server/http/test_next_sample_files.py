"""Images that SegMed reads and the ITK of a viewer does not are given to viewers as plain NIfTI."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
import SimpleITK as sitk
from PIL import Image
from running import Server, Start
from segmed.imaging.formats.itk_readable import itk_reads

VOXELS = np.random.default_rng(0).integers(0, 900, (7, 6, 5)).astype(np.int16)
AFFINE = np.diag([-1.0, -1, 2, 1])
NRRD = (
    "NRRD0004\ntype: short\ndimension: 3\nsizes: 7 6 5\nspace: left-posterior-superior\n"
    "space directions: (1,0,0) (0,1,0) (0,0,2)\nspace origin: (0,0,0)\nendian: little\nencoding: {}\n\n"
)


def _flat() -> bytes:
    content = bytearray(nib.Nifti1Image(VOXELS, AFFINE).to_bytes())
    content[280:328] = bytes(48)  # srow_x, srow_y, srow_z
    return bytes(content)


FOREIGN = {
    "packed.nii": gzip.compress(nib.Nifti1Image(VOXELS, AFFINE).to_bytes()),
    "second.nii": nib.Nifti2Image(VOXELS, AFFINE).to_bytes(),
    "second_packed.nii.gz": gzip.compress(nib.Nifti2Image(VOXELS, AFFINE).to_bytes()),
    "flat.nii": _flat(),
    "bzip2.nrrd": NRRD.format("bzip2").encode() + bz2.compress(VOXELS.tobytes(order="F")),
}
KNOWN = {
    "plain.nii.gz": gzip.compress(nib.Nifti1Image(VOXELS, AFFINE).to_bytes()),
    "not_packed.nii.gz": nib.Nifti1Image(VOXELS, AFFINE).to_bytes(),
    "raw.nrrd": NRRD.format("raw").encode() + VOXELS.tobytes(order="F"),
}


@pytest.fixture(scope="module")
def foreign(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server on one file of each kind."""
    studies = tmp_path_factory.mktemp("foreign")
    for name, content in {**FOREIGN, **KNOWN}.items():
        (studies / name).write_bytes(content)
    Image.fromarray(VOXELS[..., 0].astype(np.uint8)).save(studies / "web.jpg", "WEBP", lossless=True)
    return start(studies, "--conf", "models", "classical")


@pytest.mark.parametrize("name", FOREIGN)
def test_what_itk_cannot_open_is_sent_as_nifti(foreign: Server, name: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        sitk.ReadImage(str(foreign.studies / name))
    image = name.partition(".")[0]
    answer = requests.get(f"{foreign.url}/datastore/image?image={image}", timeout=60)
    assert answer.status_code == 200, answer.text
    assert f'filename="{image}.nii"' in answer.headers["content-disposition"]
    (tmp_path / "a.nii").write_bytes(answer.content)
    found = sitk.ReadImage(str(tmp_path / "a.nii"))
    assert np.array_equal(sitk.GetArrayFromImage(found).T, VOXELS) and found.GetSpacing() == (1, 1, 2)
    params = {"params": '{"roi": [1, 5, 1, 5, 2, 2], "result_extension": ".nii.gz"}'}
    mask = requests.post(f"{foreign.url}/infer/classical?image={image}&output=image", data=params, timeout=60)
    assert mask.status_code == 200, mask.text
    (tmp_path / "mask.nii.gz").write_bytes(mask.content)
    for key in ("GetOrigin", "GetSpacing", "GetDirection"):
        one = sitk.ReadImage(str(tmp_path / "mask.nii.gz"))
        assert np.allclose(getattr(one, key)(), getattr(found, key)())


def test_a_picture_of_a_kind_that_itk_does_not_know_is_sent_as_nifti(foreign: Server) -> None:
    answer = requests.get(f"{foreign.url}/datastore/image?image=web", timeout=60)
    assert answer.status_code == 200 and 'filename="web.nii"' in answer.headers["content-disposition"]


@pytest.mark.parametrize("name", KNOWN)
def test_other_files_are_sent_as_they_are(foreign: Server, name: str) -> None:
    image = name.partition(".")[0]
    answer = requests.get(f"{foreign.url}/datastore/image?image={image}", timeout=60)
    assert answer.content == KNOWN[name]


def test_a_damaged_file_is_sent_as_it_is(tmp_path: Path) -> None:
    for name in ("a.nii", "a.nii.gz", "a.nrrd"):
        (tmp_path / name).write_bytes(b"\x1f\x8b noise")
        assert itk_reads(tmp_path / name)
    for content in (b"", b"no image", gzip.compress(b"x" * 4000)[:10] + b"\xff" * 400):
        (tmp_path / "short.nii.gz").write_bytes(content)
        assert itk_reads(tmp_path / "short.nii.gz")
