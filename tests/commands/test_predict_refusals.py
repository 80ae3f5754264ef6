"""`segmed predict` refuses bad prompts, images, outputs and devices in one sentence, and writes nothing."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from command_line import BOX, assert_refused, run


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "There is nothing to segment"),
        (("--not-point", "10,10,8"), "There is nothing to segment"),
        (("--box", "1,2,3"), "--box '1,2,3' must be 4 or 6 numbers with commas between them, in voxels."),
        (("--box", "1,2,3,4"), "must be 6 numbers"),
        (("--box", "a,b,c,d,e,f"), "must be 4 or 6 numbers"),
        (("--box", ""), "must be 4 or 6 numbers"),
        (("--box", "nan,40,10,40,8,8"), "A box needs six finite numbers"),
        (("--box", "200,240,10,40,8,8"), "The box lies outside the image"),
        (("--box", "10,10,10,40,8,8"), "The box is empty"),
        (("--point", "1,2"), "--point '1,2' must be 3 numbers"),
        (("--point", "1;2;3"), "must be 2 or 3 numbers"),
        (("--point", "1,inf,3"), "A click needs three finite voxel indices"),
        (("--point", "1,2,99"), "lies outside the image"),
        ((*BOX, "--not-point", "x"), "--not-point 'x' must be 2 or 3 numbers"),
        ((*BOX, "--window", "ct-liver"), "Unknown intensity window 'ct-liver'"),
        ((*BOX, "--model", "vnet"), "There is no method 'vnet'. Choose from"),
        ((*BOX, "--model", "medsam"), "'medsam' needs SAM weights"),
        ((*BOX, "--model", "medsam_3d"), "'medsam' needs SAM weights"),
        ((*BOX, "--model", "medsam", "--backbone", "./nowhere"), "nowhere"),
        ((*BOX, "--mask", "nowhere.nii.gz"), "There is no image at nowhere.nii.gz"),
    ],
)
def test_bad_options_are_refused(
    phantom_file: Path, tmp_path: Path, options: tuple[str, ...], sentence: str
) -> None:
    assert_refused(run("predict", phantom_file, *options, "-o", tmp_path / "a.nii.gz"), tmp_path, sentence)


def test_a_missing_image_is_refused(tmp_path: Path) -> None:
    result = run("predict", "nowhere.nii.gz", *BOX, "-o", tmp_path / "a.nii.gz")
    assert_refused(result, tmp_path, "There is no image at nowhere.nii.gz")


def test_a_damaged_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.nii.gz").write_bytes(b"nothing")
    result = run("predict", tmp_path / "bad.nii.gz", *BOX, "-o", tmp_path / "a.nii.gz")
    assert_refused(result, tmp_path, "bad.nii.gz cannot be read", before=("bad.nii.gz",))


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.nii.gz.zip"])
def test_an_output_of_another_kind_is_refused(phantom_file: Path, tmp_path: Path, name: str) -> None:
    result = run("predict", phantom_file, *BOX, "-o", tmp_path / name)
    assert_refused(result, tmp_path, "Masks are written as .nrrd, .nii.gz, .nii, .png, not as")


def test_a_png_of_a_volume_is_refused(phantom_file: Path, tmp_path: Path) -> None:
    result = run("predict", phantom_file, *BOX, "-o", tmp_path / "a.png")
    assert_refused(result, tmp_path, "A PNG holds one slice, this mask has 16")


def test_a_missing_output_folder_is_refused(phantom_file: Path, tmp_path: Path) -> None:
    result = run("predict", phantom_file, *BOX, "-o", tmp_path / "nowhere" / "a.nii.gz")
    assert_refused(result, tmp_path, "does not exist. Make it first.")


def test_an_output_that_is_a_folder_is_refused(phantom_file: Path, tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").mkdir()
    result = run("predict", phantom_file, *BOX, "-o", tmp_path / "a.nii.gz")
    assert_refused(result, tmp_path, "a.nii.gz", before=("a.nii.gz",))


@pytest.mark.parametrize(
    ("option", "value"), [("--device", "abacus"), ("--device", "cuda:99"), ("--precision", "fp7")]
)
def test_a_device_or_precision_that_is_none_is_refused(
    phantom_file: Path, tmp_path: Path, backbone: Path, option: str, value: str
) -> None:
    options = ("--backbone", backbone, "--model", "medsam", option, value)
    assert_refused(run("predict", phantom_file, *BOX, *options, "-o", tmp_path / "a.nii.gz"), tmp_path, value)


def test_a_mask_of_another_size_is_refused(phantom_file: Path, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "m.nii.gz")
    result = run("predict", phantom_file, "--mask", tmp_path / "m.nii.gz", "-o", tmp_path / "a.nii.gz")
    assert_refused(result, tmp_path, "does not lie on the image", before=("m.nii.gz",))


def test_what_is_read_is_not_replaced(phantom_file: Path, tmp_path: Path) -> None:
    image, mask = tmp_path / "ct.nii.gz", tmp_path / "mask.nii.gz"
    image.write_bytes(phantom_file.read_bytes())
    mask.write_bytes(phantom_file.read_bytes())
    link = tmp_path / "link.nii.gz"
    link.symlink_to(image)
    before = sorted(path.name for path in tmp_path.iterdir())
    for out in (image, mask, link):
        result = run("predict", image, *BOX, "--mask", mask, "-o", out)
        assert_refused(result, tmp_path, "is an input, and the result would replace it", before=tuple(before))
    assert image.read_bytes() == mask.read_bytes() == phantom_file.read_bytes()
