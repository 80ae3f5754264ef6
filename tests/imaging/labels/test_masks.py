"""Writing label maps whole or not at all, and their clean-ups."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
from PIL import Image
from segmed.imaging.labels import masks
from segmed.imaging.labels.masks import (
    bounding_box,
    largest_component,
    mask_extension,
    stack_slices,
    write_mask,
    write_nrrd_slices,
)

AFFINE = np.array([[-0.8, 0, 0, 40], [0, -0.9, 0, 50], [0, 0, 2.5, -30], [0, 0, 0, 1.0]])


@pytest.fixture
def mask() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, (9, 7, 5)).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "extension"),
    [
        ("a.nii.gz", ".nii.gz"),
        ("a.nii", ".nii"),
        ("A.NRRD", ".nrrd"),
        ("b/c.d.png", ".png"),
        ("a.NII.GZ", ".nii.gz"),
    ],
)
def test_extension(name: str, extension: str) -> None:
    assert mask_extension(name) == extension


@pytest.mark.parametrize("name", ["a.jpg", "a.gz", "a", "a.nii.zip", "nii.gz/a", "a.dcm"])
def test_other_extensions_are_refused(tmp_path: Path, mask: np.ndarray, name: str) -> None:
    sentence = r"written as \.nrrd, \.nii\.gz, \.nii, \.png, not as"
    with pytest.raises(ValueError, match=sentence):
        mask_extension(name)
    with pytest.raises(ValueError, match=sentence):
        write_mask(mask, AFFINE, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("extension", [".nii.gz", ".nii"])
def test_nifti(tmp_path: Path, mask: np.ndarray, extension: str, order: str) -> None:
    path = tmp_path / f"mask{extension}"
    write_mask(np.asarray(mask, order="F" if order == "F" else "C"), AFFINE, str(path))
    image = nib.Nifti1Image.from_filename(path)
    assert image.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(image.dataobj), mask)
    assert np.allclose(image.affine, AFFINE)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("compress", "encoding"), [(False, "raw"), (True, "gzip")])
def test_nrrd(tmp_path: Path, mask: np.ndarray, compress: bool, encoding: str, order: str) -> None:
    write_mask(np.asarray(mask, order="F" if order == "F" else "C"), AFFINE, tmp_path / "mask.nrrd", compress)
    stored, header = nrrd.read(str(tmp_path / "mask.nrrd"))
    assert header["encoding"] == encoding
    assert header["type"] in ("uint8", "unsigned char")
    assert header["space"] == "left-posterior-superior"
    assert np.array_equal(stored, mask)
    assert np.allclose(header["space origin"], [-40, -50, -30])
    assert np.allclose(header["space directions"], np.diag([0.8, 0.9, 2.5]))
    assert [p.name for p in tmp_path.iterdir()] == ["mask.nrrd"]


@pytest.mark.parametrize(
    ("labels", "greys"), [((0, 1), (0, 255)), ((0, 1, 2), (0, 127, 254)), ((0, 200), (0, 200))]
)
def test_png_shows_labels_as_grey(tmp_path: Path, labels: tuple[int, ...], greys: tuple[int, ...]) -> None:
    mask = np.zeros((6, 4, 1), np.uint8)
    for n, value in enumerate(labels):
        mask[n, n, 0] = value
    write_mask(mask, np.eye(4), tmp_path / "mask.png")
    picture = np.asarray(Image.open(tmp_path / "mask.png"))
    assert picture.shape == (4, 6)
    assert picture.dtype == np.uint8
    assert [int(picture[n, n]) for n in range(len(labels))] == list(greys)
    assert np.count_nonzero(picture) == len(labels) - 1


def test_an_empty_mask_is_written(tmp_path: Path) -> None:
    write_mask(np.zeros((6, 4, 1), np.uint8), np.eye(4), tmp_path / "mask.png")
    assert not np.asarray(Image.open(tmp_path / "mask.png")).any()


def test_png_of_several_slices_is_refused(tmp_path: Path, mask: np.ndarray) -> None:
    with pytest.raises(
        ValueError, match=r"A PNG holds one slice, this mask has 5. Write \.nii\.gz or \.nrrd"
    ):
        write_mask(mask, AFFINE, tmp_path / "mask.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4, 4), bool), np.zeros((4, 4, 4), np.int16), np.zeros((4, 4), np.uint8)]
)
def test_only_uint8_volumes_are_written(tmp_path: Path, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="A label map is a 3-D uint8 array"):
        write_mask(wrong, AFFINE, tmp_path / "mask.nrrd")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("extension", [".nrrd", ".nii.gz"])
@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(
    tmp_path: Path, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch, extension: str, error: BaseException
) -> None:
    path = tmp_path / f"mask{extension}"
    write_mask(mask, AFFINE, path)
    before = path.read_bytes()

    def fail(*args: object, **kwargs: object) -> None:
        next(Path(a) for a in args if isinstance(a, str)).write_bytes(b"half")
        raise error

    monkeypatch.setattr(masks.nrrd, "write", fail)
    monkeypatch.setattr(masks.nib, "save", fail)
    with pytest.raises(type(error)):
        write_mask(mask + 1, AFFINE, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_missing_folder_is_an_error(tmp_path: Path, mask: np.ndarray) -> None:
    with pytest.raises(OSError):
        write_mask(mask, AFFINE, tmp_path / "nowhere" / "mask.nrrd")
    assert list(tmp_path.iterdir()) == []


def test_others_may_read_the_file_as_the_umask_says(tmp_path: Path, mask: np.ndarray) -> None:
    before = os.umask(0o027)
    try:
        write_mask(mask, AFFINE, tmp_path / "mask.nrrd")
    finally:
        os.umask(before)
    assert oct((tmp_path / "mask.nrrd").stat().st_mode & 0o777) == oct(0o640)


# --- a few slices of a volume ---


def test_slices_are_stacked() -> None:
    found = np.zeros((7, 9), bool)
    found[2, 5] = True
    stacked = stack_slices({3: found}, (9, 7, 5))
    assert (stacked.shape, stacked.dtype, stacked.flags.f_contiguous) == ((9, 7, 5), np.uint8, True)
    assert np.argwhere(stacked).tolist() == [[5, 2, 3]]
    assert not stack_slices({}, (9, 7, 5)).any()


@pytest.mark.parametrize("ks", [[], [0], [4], [1, 3], [3, 1], [0, 1, 2, 3, 4]])
def test_nrrd_of_a_few_slices_is_that_of_the_volume(tmp_path: Path, ks: list[int]) -> None:
    slices = {k: np.random.default_rng(k).random((7, 9)) < 0.5 for k in ks}
    write_nrrd_slices(slices, (9, 7, 5), AFFINE, tmp_path / "few.nrrd")
    write_mask(stack_slices(slices, (9, 7, 5)), AFFINE, tmp_path / "all.nrrd")
    few, few_header = nrrd.read(str(tmp_path / "few.nrrd"))
    whole, header = nrrd.read(str(tmp_path / "all.nrrd"))
    assert np.array_equal(few, whole)
    assert few_header.keys() == header.keys()
    assert all(np.array_equal(few_header[key], header[key]) for key in header)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all.nrrd", "few.nrrd"]


def test_a_failed_write_of_slices_leaves_nothing(tmp_path: Path) -> None:
    write_nrrd_slices({0: np.ones((7, 9), bool)}, (9, 7, 5), AFFINE, tmp_path / "a.nrrd")
    before = (tmp_path / "a.nrrd").read_bytes()
    with pytest.raises(ValueError):
        write_nrrd_slices({0: np.array([["no number"]])}, (9, 7, 5), AFFINE, tmp_path / "a.nrrd")
    assert (tmp_path / "a.nrrd").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.nrrd"]


# --- clean-ups ---


def test_largest_component() -> None:
    mask = np.zeros((12, 12), bool)
    mask[1:3, 1:3] = True
    mask[5:9, 5:9] = True
    mask[9, 9] = True  # touches by its corner
    kept = largest_component(mask)
    assert kept.dtype == bool
    assert kept.sum() == 17
    assert kept[9, 9]
    assert not kept[1, 1]


def test_largest_component_of_one_part_and_of_none() -> None:
    one = np.zeros((5, 5, 5), bool)
    assert not largest_component(one).any()
    one[1, 1, 1] = one[2, 2, 2] = True
    assert np.array_equal(largest_component(one), one)


def test_bounding_box() -> None:
    mask = np.zeros((9, 8, 7), np.uint8)
    assert bounding_box(mask) is None
    mask[2, 3, 4] = 5
    assert bounding_box(mask) == ((2, 2), (3, 3), (4, 4))
    mask[6, 1, 6] = 1
    assert bounding_box(mask) == ((2, 6), (1, 3), (4, 6))
    assert bounding_box(mask[:, :, 4] > 0) == ((2, 2), (3, 3))
