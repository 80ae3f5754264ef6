"""The `segmed` command, from boxes and clicks to masks on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import segmed
import SimpleITK as sitk
from PIL import Image
from segmed.cli import app
from segmed.data.phantom import Phantom
from segmed.evaluation.metrics import Overlap
from segmed.imaging.formats.seg_nrrd import read_segments
from segmed.imaging.labels.masks import bounding_box
from segmed.methods import METHODS
from tiny_sam import save_folder, tiny_sam
from typer.testing import CliRunner, Result

LIVER, SPLEEN = 1, 2
BOX = ("--box", "10,40,10,40,8,8")


def _run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args])


def _text(result: Result) -> str:
    """The output without the line breaks of the terminal."""
    return " ".join(result.output.split())


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


def _assert_refused(result: Result, folder: Path, sentence: str, before: tuple[str, ...] = ()) -> None:
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert sentence in _text(result)
    assert "Traceback" not in result.output
    assert sorted(p.name for p in folder.iterdir()) == sorted(before)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tiny_sam(), tmp_path_factory.mktemp("sam"))


# --- masks ---


def test_a_box_gives_the_liver_on_the_grid_of_the_image(
    phantom: Phantom, phantom_file: Path, tmp_path: Path
) -> None:
    k = _middle(phantom, LIVER)
    result = _run("predict", phantom_file, "--box", _box(phantom, LIVER, k), "-o", tmp_path / "liver.nii.gz")
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
    assert f"label 1: {voxels} voxels, {voxels * 3.6 * 3.6 * 12 / 1000:.2f} ml" in _text(result)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["liver.json", "liver.nii.gz", "liver.tsv"]


def test_a_box_in_reverse_gives_the_same_mask_as_nrrd(
    phantom: Phantom, phantom_file: Path, tmp_path: Path
) -> None:
    i0, i1, j0, j1, k, _ = _box(phantom, LIVER, _middle(phantom, LIVER)).split(",")
    outs = [tmp_path / "a.nrrd", tmp_path / "b.nrrd"]
    for box, out in zip(
        (f"{i0},{i1},{j0},{j1},{k},{k}", f"{i1}, {i0}, {j1}, {j0}, {k}, {k}"), outs, strict=True
    ):
        result = _run("predict", phantom_file, "--box", box, "-o", out)
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
    result = _run(
        "predict", phantom_file, "--box", box, "--model", "classical_3d", "-o", tmp_path / "liver.nii.gz"
    )
    assert result.exit_code == 0, result.output
    array = np.asarray(nib.Nifti1Image.from_filename(tmp_path / "liver.nii.gz").dataobj)
    assert array.any(axis=(0, 1)).sum() > 3
    assert _dice(array, phantom.labels == LIVER) > 0.7


def test_a_click_gives_the_structure_around_it(phantom: Phantom, phantom_file: Path, tmp_path: Path) -> None:
    k = _middle(phantom, SPLEEN)
    i, j = np.argwhere(phantom.labels[:, :, k] == SPLEEN).mean(0).round().astype(int)
    result = _run("predict", phantom_file, "--point", f"{i},{j},{k}", "-o", tmp_path / "spleen.nii.gz")
    assert result.exit_code == 0, result.output
    array = np.asarray(nib.Nifti1Image.from_filename(tmp_path / "spleen.nii.gz").dataobj)
    assert array[i, j, k] == 1
    assert _dice(array[:, :, k], phantom.labels[:, :, k] == SPLEEN) > 0.6


def test_a_background_click_stays_out(phantom: Phantom, phantom_file: Path, tmp_path: Path) -> None:
    k = _middle(phantom, LIVER)
    i, j = np.argwhere(phantom.labels[:, :, k] == LIVER).mean(0).round().astype(int)
    box = _box(phantom, LIVER, k)
    result = _run(
        "predict", phantom_file, "--box", box, "--not-point", f"{i},{j},{k}", "-o", tmp_path / "a.nii.gz"
    )
    assert result.exit_code == 0, result.output
    array = np.asarray(nib.Nifti1Image.from_filename(tmp_path / "a.nii.gz").dataobj)
    assert array[i, j, k] == 0
    assert array.any()


def test_two_boxes_give_two_labels(phantom: Phantom, phantom_file: Path, tmp_path: Path) -> None:
    k = _middle(phantom, SPLEEN)
    boxes = ["--box", _box(phantom, LIVER, k), "--box", _box(phantom, SPLEEN, k)]
    result = _run("predict", phantom_file, *boxes, "-o", tmp_path / "both.nii.gz")
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
    result = _run(
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
    result = _run(
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
        result = _run(
            "predict", phantom_file, "--mask", tmp_path / f"{name}.nii.gz", "--model", "classical", "-o", out
        )
        assert result.exit_code == 0, result.output
        found[name] = np.asarray(nib.load(out).dataobj)
    assert found["same"].any() and np.array_equal(found["same"], found["turned"])
    away = phantom.affine.copy()
    away[:3, 3] += 5000
    nib.save(nib.Nifti1Image(previous, away), tmp_path / "away.nii.gz")
    result = _run(
        "predict", phantom_file, "--mask", tmp_path / "away.nii.gz", "-o", tmp_path / "never.nii.gz"
    )
    assert result.exit_code == 2 and "its middle lies 8660 mm from that of the image" in _text(result)
    assert not (tmp_path / "never.nii.gz").exists()


def test_names_and_colours_go_with_the_mask(phantom_file: Path, tmp_path: Path) -> None:
    boxes = ("--box", "20,40,20,40,8,8", "--box", "50,70,20,40,8,8", "--model", "classical")
    assert _run("predict", phantom_file, *boxes, "-o", tmp_path / "a.nii.gz").exit_code == 0
    rows = (tmp_path / "a.tsv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "index\tname\tcolor" and [row.split("\t")[1] for row in rows[1:]] == [
        "object 1",
        "object 2",
    ]
    assert _run("predict", phantom_file, *boxes, "-o", tmp_path / "a.seg.nrrd").exit_code == 0
    found, affine = read_segments(tmp_path / "a.seg.nrrd")
    assert [(s.name, s.value) for s in found.segments] == [("object 1", 1), ("object 2", 2)]
    assert np.array_equal(found.flat(), np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj))
    assert np.allclose(affine, nib.load(tmp_path / "a.nii.gz").affine, atol=1e-4)
    (tmp_path / "b.tsv").write_text("participant\tage\n")
    result = _run("predict", phantom_file, *boxes, "-o", tmp_path / "b.nii.gz")
    assert result.exit_code == 2 and "b.tsv is not a table of label names" in _text(result)


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
        result = _run("predict", tmp_path / "a.png", *prompt, "-o", tmp_path / "mask.png")
        assert result.exit_code == 0, result.output
        found = np.asarray(Image.open(tmp_path / "mask.png"))
        assert found.shape == disc.shape
        assert set(np.unique(found)) == {0, 255}
        assert _dice(found > 0, disc) > 0.9


@pytest.mark.parametrize("model", ["", "medsam", "sam"])
def test_a_backbone_is_run(phantom_file: Path, tmp_path: Path, backbone: Path, model: str) -> None:
    options = ["--backbone", backbone, "--device", "cpu", *(["--model", model] if model else [])]
    result = _run("predict", phantom_file, *BOX, *options, "-o", tmp_path / "a.nii.gz")
    assert result.exit_code == 0, result.output
    mask = nib.Nifti1Image.from_filename(tmp_path / "a.nii.gz")
    assert mask.shape == (96, 80, 16)
    assert not np.delete(np.asarray(mask.dataobj), 8, axis=2).any()


def test_a_click_beside_the_image_is_reported(phantom_file: Path, tmp_path: Path) -> None:
    clicks = ["--point", "30,35,9", "--point", "500,1,1"]
    result = _run("predict", phantom_file, *clicks, "-o", tmp_path / "a.nii.gz")
    assert result.exit_code == 0, result.output
    assert "The click at (500, 1, 1) lies outside the image of 96×80×16 voxels and was ignored." in _text(
        result
    )


# --- refusals ---


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
    _assert_refused(_run("predict", phantom_file, *options, "-o", tmp_path / "a.nii.gz"), tmp_path, sentence)


def test_a_missing_image_is_refused(tmp_path: Path) -> None:
    result = _run("predict", "nowhere.nii.gz", *BOX, "-o", tmp_path / "a.nii.gz")
    _assert_refused(result, tmp_path, "There is no image at nowhere.nii.gz")


def test_a_damaged_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.nii.gz").write_bytes(b"nothing")
    result = _run("predict", tmp_path / "bad.nii.gz", *BOX, "-o", tmp_path / "a.nii.gz")
    _assert_refused(result, tmp_path, "bad.nii.gz cannot be read", before=("bad.nii.gz",))


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.nii.gz.zip"])
def test_an_output_of_another_kind_is_refused(phantom_file: Path, tmp_path: Path, name: str) -> None:
    result = _run("predict", phantom_file, *BOX, "-o", tmp_path / name)
    _assert_refused(result, tmp_path, "Masks are written as .nrrd, .nii.gz, .nii, .png, not as")


def test_a_png_of_a_volume_is_refused(phantom_file: Path, tmp_path: Path) -> None:
    result = _run("predict", phantom_file, *BOX, "-o", tmp_path / "a.png")
    _assert_refused(result, tmp_path, "A PNG holds one slice, this mask has 16")


def test_a_missing_output_folder_is_refused(phantom_file: Path, tmp_path: Path) -> None:
    result = _run("predict", phantom_file, *BOX, "-o", tmp_path / "nowhere" / "a.nii.gz")
    _assert_refused(result, tmp_path, "does not exist. Make it first.")


def test_an_output_that_is_a_folder_is_refused(phantom_file: Path, tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").mkdir()
    result = _run("predict", phantom_file, *BOX, "-o", tmp_path / "a.nii.gz")
    _assert_refused(result, tmp_path, "a.nii.gz", before=("a.nii.gz",))


@pytest.mark.parametrize(
    ("option", "value"), [("--device", "abacus"), ("--device", "cuda:99"), ("--precision", "fp7")]
)
def test_a_device_or_precision_that_is_none_is_refused(
    phantom_file: Path, tmp_path: Path, backbone: Path, option: str, value: str
) -> None:
    options = ("--backbone", backbone, "--model", "medsam", option, value)
    _assert_refused(
        _run("predict", phantom_file, *BOX, *options, "-o", tmp_path / "a.nii.gz"), tmp_path, value
    )


def test_a_mask_of_another_size_is_refused(phantom_file: Path, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "m.nii.gz")
    result = _run("predict", phantom_file, "--mask", tmp_path / "m.nii.gz", "-o", tmp_path / "a.nii.gz")
    _assert_refused(result, tmp_path, "does not lie on the image", before=("m.nii.gz",))


# --- the other commands ---


def test_info_lists_methods_and_keys() -> None:
    result = _run("info")
    assert result.exit_code == 0, result.output
    assert segmed.__version__ in result.output
    assert all(name in result.output for name in METHODS)
    assert all(key in result.output for key in ("backbone", "window", "picture_cache_mb"))


def test_info_checks_settings() -> None:
    result = _run("info", "--conf", "models=classical")
    assert result.exit_code == 0, result.output
    assert "this server would offer: classical, classical_3d" in _text(result)
    for conf, sentence in (("colour=red", "Unknown --conf colour"), ("models=medsam", "needs SAM weights")):
        result = _run("info", "--conf", conf)
        assert (result.exit_code, "Traceback" in result.output) == (2, False)
        assert sentence in _text(result)


def test_info_explains_a_setting_without_value() -> None:
    result = _run("info", "--conf", "models")
    assert result.exit_code == 2
    assert "KEY=VALUE" in _text(result)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--conf", "models"), "Settings are given as --conf KEY VALUE"),
        (("--colour", "red"), "Settings are given as --conf KEY VALUE"),
        (("--conf", "models", "vnet"), "There is no method 'vnet'"),
        (("--conf", "batch", "0"), "--conf batch '0' must be a whole number above 0"),
    ],
)
def test_serve_refuses_bad_settings_before_it_starts(args: tuple[str, ...], sentence: str) -> None:
    result = _run("serve", *args)
    assert result.exit_code == 2, result.output
    assert sentence in _text(result)
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("command", "word"),
    [((), "predict"), (("predict",), "--not-point"), (("info",), "--conf"), (("serve",), "--port")],
)
def test_help(command: tuple[str, ...], word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = _run(*command, "--help")
    assert result.exit_code == 0
    assert word in result.output


def _python(code: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(segmed.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", env=environment, check=False
    )


def test_help_answers_without_loading_torch() -> None:
    code = (
        "import sys; from segmed.cli import main; sys.argv = ['segmed', '--help']\n"
        "try: main()\nfinally: print(sorted({'torch', 'numpy', 'monailabel'} & set(sys.modules)))"
    )
    done = _python(code)
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout
    assert done.stdout.rstrip().endswith("[]")


def test_a_refusal_has_no_traceback_in_a_real_process(tmp_path: Path) -> None:
    words = ["segmed", "predict", "a.png", "-o", str(tmp_path / "a.gif")]
    done = _python(f"import sys; from segmed.cli import main; sys.argv = {words!r}; main()")
    assert done.returncode == 2
    assert "Masks are written as" in done.stderr
    assert "Traceback" not in done.stderr


def test_phantom_writes_a_sheet(tmp_path: Path) -> None:
    result = _run("phantom", "--sheet", tmp_path / "a.png", "--seed", 3, "--rows", 1, "--columns", 2)
    assert result.exit_code == 0, result.output
    assert f"wrote {tmp_path / 'a.png'}".replace(" ", "") in result.output.replace("\n", "").replace(" ", "")
    assert np.asarray(Image.open(tmp_path / "a.png")).std() > 0


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("a.gif", (), "A sheet is written as .png, not as 'a.gif'."),
        ("a.png", ("--rows", "0"), "A sheet of 0 rows and 8 columns is empty."),
        ("nowhere/a.png", (), "does not exist. Make it first."),
    ],
)
def test_phantom_refuses(tmp_path: Path, name: str, options: tuple[str, ...], sentence: str) -> None:
    _assert_refused(_run("phantom", "--sheet", tmp_path / name, *options), tmp_path, sentence)
