"""`segmed predict` turns boxes, clicks and previous masks into masks on the grid of the image."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from command_line import BOX, run, text
from PIL import Image
from segmed.data.phantom import Phantom
from segmed.evaluation.metrics import Overlap
from segmed.imaging.formats.seg_nrrd import read_segments
from segmed.imaging.labels.masks import bounding_box

LIVER, SPLEEN = 1, 2


def _box(phantom: Phantom, label: int, k: int, margin: int = 2) -> str:
    found = bounding_box(phantom.labels[:, :, k] == label)
    assert found is not None
    (i0, i1), (j0, j1) = found
    return f"{i0 - margin},{i1 + margin},{j0 - margin},{j1 + margin},{k},{k}"


def _middle(phantom: Phantom, label: int) -> int:
    """The slice that shows most of a structure."""
    return int((phantom.labels == label).sum(axis=(0, 1)).argmax())


def _dice(mask: np.ndarray, truth: np.ndarray) -> float:
    return Overlap.of(mask, truth).dice()


def test_a_box_gives_the_liver_on_the_grid_of_the_image(
    phantom: Phantom, phantom_file: Path, tmp_path: Path
) -> None:
    k = _middle(phantom, LIVER)
    result = run("predict", phantom_file, "--box", _box(phantom, LIVER, k), "-o", tmp_path / "liver.nii.gz")
    assert result.exit_code == 0, result.output
    mask = nib.Nifti1Image.from_filename(tmp_path / "liver.nii.gz")
    assert mask.shape == phantom.image.shape
    assert mask.get_data_dtype() == np.uint8
    assert np.allclose(mask.affine, phantom.affine)
    array = np.asarray(mask.dataobj)
    assert np.unique(array).tolist() == [0, 1]
    assert not np.delete(array, k, axis=2).any()
    assert _dice(array[:, :, k], phantom.labels[:, :, k] == LIVER) > 0.8
    voxels = int(array.sum())
    assert f"label 1: {voxels} voxels, {voxels * 3.6 * 3.6 * 12 / 1000:.2f} ml" in text(result)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["liver.json", "liver.nii.gz", "liver.tsv"]


def test_a_box_in_reverse_gives_the_same_mask_as_nrrd(
    phantom: Phantom, phantom_file: Path, tmp_path: Path
) -> None:
    i0, i1, j0, j1, k, _ = _box(phantom, LIVER, _middle(phantom, LIVER)).split(",")
    outs = [tmp_path / "a.nrrd", tmp_path / "b.nrrd"]
    for box, out in zip(
        (f"{i0},{i1},{j0},{j1},{k},{k}", f"{i1}, {i0}, {j1}, {j0}, {k}, {k}"), outs, strict=True
    ):
        result = run("predict", phantom_file, "--box", box, "-o", out)
        assert result.exit_code == 0, result.output
    first, second = (sitk.ReadImage(str(out)) for out in outs)
    assert np.array_equal(sitk.GetArrayFromImage(first), sitk.GetArrayFromImage(second))
    image = sitk.ReadImage(str(phantom_file))
    assert first.GetSize() == image.GetSize()
    assert first.GetOrigin() == pytest.approx(image.GetOrigin())
    assert first.GetSpacing() == pytest.approx(image.GetSpacing())
    assert first.GetDirection() == pytest.approx(image.GetDirection())


def test_volume_model_fills_the_liver(phantom: Phantom, phantom_file: Path, tmp_path: Path) -> None:
    box = _box(phantom, LIVER, _middle(phantom, LIVER))
    result = run(
        "predict", phantom_file, "--box", box, "--model", "classical_3d", "-o", tmp_path / "liver.nii.gz"
    )
    assert result.exit_code == 0, result.output
    array = np.asarray(nib.Nifti1Image.from_filename(tmp_path / "liver.nii.gz").dataobj)
    assert array.any(axis=(0, 1)).sum() > 3
    assert _dice(array, phantom.labels == LIVER) > 0.7


def test_a_click_gives_the_structure_around_it(phantom: Phantom, phantom_file: Path, tmp_path: Path) -> None:
    k = _middle(phantom, SPLEEN)
    i, j = np.argwhere(phantom.labels[:, :, k] == SPLEEN).mean(0).round().astype(int)
    result = run("predict", phantom_file, "--point", f"{i},{j},{k}", "-o", tmp_path / "spleen.nii.gz")
    assert result.exit_code == 0, result.output
    array = np.asarray(nib.Nifti1Image.from_filename(tmp_path / "spleen.nii.gz").dataobj)
    assert array[i, j, k] == 1
    assert _dice(array[:, :, k], phantom.labels[:, :, k] == SPLEEN) > 0.6


def test_a_background_click_stays_out(phantom: Phantom, phantom_file: Path, tmp_path: Path) -> None:
    k = _middle(phantom, LIVER)
    i, j = np.argwhere(phantom.labels[:, :, k] == LIVER).mean(0).round().astype(int)
    box = _box(phantom, LIVER, k)
    result = run(
        "predict", phantom_file, "--box", box, "--not-point", f"{i},{j},{k}", "-o", tmp_path / "a.nii.gz"
    )
    assert result.exit_code == 0, result.output
    array = np.asarray(nib.Nifti1Image.from_filename(tmp_path / "a.nii.gz").dataobj)
    assert array[i, j, k] == 0
    assert array.any()


def test_two_boxes_give_two_labels(phantom: Phantom, phantom_file: Path, tmp_path: Path) -> None:
    k = _middle(phantom, SPLEEN)
    boxes = ["--box", _box(phantom, LIVER, k), "--box", _box(phantom, SPLEEN, k)]
    result = run("predict", phantom_file, *boxes, "-o", tmp_path / "both.nii.gz")
    assert result.exit_code == 0, result.output
    array = np.asarray(nib.Nifti1Image.from_filename(tmp_path / "both.nii.gz").dataobj)[:, :, k]
    assert np.unique(array).tolist() == [0, 1, 2]
    for label in (LIVER, SPLEEN):
        assert _dice(array == label, phantom.labels[:, :, k] == label) > 0.75


def test_clicks_belong_to_the_box_around_them(phantom: Phantom, phantom_file: Path, tmp_path: Path) -> None:
    """Two boxes one above the other, with a click into the upper one: the lower object stays on its slice."""
    low, high = _middle(phantom, LIVER) - 2, _middle(phantom, LIVER) + 2
    i, j = np.argwhere(phantom.labels[:, :, high] == LIVER).mean(0).round().astype(int)
    boxes = ["--box", _box(phantom, LIVER, low), "--box", _box(phantom, LIVER, high)]
    result = run(
        "predict", phantom_file, *boxes, "--point", f"{i},{j},{high}", "-o", tmp_path / "both.nii.gz"
    )
    assert result.exit_code == 0, result.output
    array = np.asarray(nib.Nifti1Image.from_filename(tmp_path / "both.nii.gz").dataobj)
    assert np.unique(array[:, :, low]).tolist() == [0, 1]
    assert np.unique(array[:, :, high]).tolist() == [0, 2]


def test_a_previous_mask_is_refined(phantom: Phantom, phantom_file: Path, tmp_path: Path) -> None:
    k = _middle(phantom, LIVER)
    previous = np.zeros(phantom.image.shape, np.uint8)
    previous[:, :, k] = phantom.labels[:, :, k] == LIVER
    nib.save(nib.Nifti1Image(previous, phantom.affine), tmp_path / "previous.nii.gz")
    result = run(
        "predict", phantom_file, "--mask", tmp_path / "previous.nii.gz", "-o", tmp_path / "out.nii.gz"
    )
    assert result.exit_code == 0, result.output
    array = np.asarray(nib.Nifti1Image.from_filename(tmp_path / "out.nii.gz").dataobj)
    assert _dice(array[:, :, k], previous[:, :, k] > 0) > 0.8


def test_a_previous_mask_is_brought_onto_the_image_by_world_coordinates(
    phantom: Phantom, phantom_file: Path, tmp_path: Path
) -> None:
    k = _middle(phantom, LIVER)
    previous = np.zeros(phantom.image.shape, np.uint8)
    previous[:, :, k] = phantom.labels[:, :, k] == LIVER
    turned = phantom.affine @ np.array(
        [[-1, 0, 0, previous.shape[0] - 1], [0, 1, 0, 0], [0, 0, -1, previous.shape[2] - 1], [0, 0, 0, 1]]
    )
    nib.save(nib.Nifti1Image(previous, phantom.affine), tmp_path / "same.nii.gz")
    nib.save(
        nib.Nifti1Image(np.ascontiguousarray(previous[::-1, :, ::-1]), turned), tmp_path / "turned.nii.gz"
    )
    found = {}
    for name in ("same", "turned"):
        out = tmp_path / f"{name}-out.nii.gz"
        result = run(
            "predict", phantom_file, "--mask", tmp_path / f"{name}.nii.gz", "--model", "classical", "-o", out
        )
        assert result.exit_code == 0, result.output
        found[name] = np.asarray(nib.load(out).dataobj)
    assert found["same"].any() and np.array_equal(found["same"], found["turned"])
    away = phantom.affine.copy()
    away[:3, 3] += 5000
    nib.save(nib.Nifti1Image(previous, away), tmp_path / "away.nii.gz")
    result = run("predict", phantom_file, "--mask", tmp_path / "away.nii.gz", "-o", tmp_path / "never.nii.gz")
    assert result.exit_code == 2 and "its middle lies 8660 mm from that of the image" in text(result)
    assert not (tmp_path / "never.nii.gz").exists()


def test_names_and_colours_go_with_the_mask(phantom_file: Path, tmp_path: Path) -> None:
    boxes = ("--box", "20,40,20,40,8,8", "--box", "50,70,20,40,8,8", "--model", "classical")
    assert run("predict", phantom_file, *boxes, "-o", tmp_path / "a.nii.gz").exit_code == 0
    rows = (tmp_path / "a.tsv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "index\tname\tcolor" and [row.split("\t")[1] for row in rows[1:]] == [
        "object 1",
        "object 2",
    ]
    assert run("predict", phantom_file, *boxes, "-o", tmp_path / "a.seg.nrrd").exit_code == 0
    found, affine = read_segments(tmp_path / "a.seg.nrrd")
    assert [(s.name, s.value) for s in found.segments] == [("object 1", 1), ("object 2", 2)]
    assert np.array_equal(found.flat(), np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj))
    assert np.allclose(affine, nib.load(tmp_path / "a.nii.gz").affine, atol=1e-4)
    (tmp_path / "b.tsv").write_text("participant\tage\n")
    result = run("predict", phantom_file, *boxes, "-o", tmp_path / "b.nii.gz")
    assert result.exit_code == 2 and "b.tsv is not a table of label names" in text(result)


def test_a_picture_takes_four_numbers_and_gives_a_png(tmp_path: Path) -> None:
    yy, xx = np.mgrid[:60, :90]
    disc = (xx - 50) ** 2 + (yy - 25) ** 2 < 14**2
    pixels = np.where(disc, 200, 40) + np.random.default_rng(0).normal(0, 4, disc.shape)
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "a.png")
    for prompt in (
        ["--box", "34,66,9,41"],
        ["--box", "34,66,9,41,0,0"],
        ["--point", "50,25"],
        ["--point", "50,25,0"],
    ):
        result = run("predict", tmp_path / "a.png", *prompt, "-o", tmp_path / "mask.png")
        assert result.exit_code == 0, result.output
        found = np.asarray(Image.open(tmp_path / "mask.png"))
        assert found.shape == disc.shape
        assert set(np.unique(found)) == {0, 255}
        assert _dice(found > 0, disc) > 0.9


@pytest.mark.parametrize("model", ["", "medsam", "sam"])
def test_a_backbone_is_run(phantom_file: Path, tmp_path: Path, backbone: Path, model: str) -> None:
    options = ["--backbone", backbone, "--device", "cpu", *(["--model", model] if model else [])]
    result = run("predict", phantom_file, *BOX, *options, "-o", tmp_path / "a.nii.gz")
    assert result.exit_code == 0, result.output
    mask = nib.Nifti1Image.from_filename(tmp_path / "a.nii.gz")
    assert mask.shape == (96, 80, 16)
    assert not np.delete(np.asarray(mask.dataobj), 8, axis=2).any()


def test_a_click_beside_the_image_is_reported(phantom_file: Path, tmp_path: Path) -> None:
    clicks = ["--point", "30,35,9", "--point", "500,1,1"]
    result = run("predict", phantom_file, *clicks, "-o", tmp_path / "a.nii.gz")
    assert result.exit_code == 0, result.output
    assert "The click at (500, 1, 1) lies outside the image of 96×80×16 voxels and was ignored." in text(
        result
    )
