"""What of a studies folder is offered, and why the rest is not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from segmed.data.left_out import (
    LeftOut,
    fault_of_id,
    image_names,
    left_out_beside_dicom,
    left_out_files,
    sentence,
)
from segmed.data.phantom import dicom
from segmed.dicom.files import DicomFiles
from segmed.imaging.reading import read_volume

VOXELS = np.random.default_rng(0).integers(0, 900, (9, 7, 4)).astype(np.int16)
AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def _reasons(root: Path) -> dict[str, str]:
    return {one.name: one.reason for one in left_out_files(root, image_names(root).values())}


def test_extensions_count_in_any_case_and_one_file_of_each_name(tmp_path: Path) -> None:
    _touch(
        tmp_path,
        "plain.nii.gz",
        "CASE.NII.GZ",
        "Photo.Jpg",
        "same.png",
        "same.nii.gz",
        "same.nrrd",
        "notes.txt",
    )
    assert image_names(tmp_path) == {
        "plain": "plain.nii.gz",
        "CASE": "CASE.NII.GZ",
        "Photo": "Photo.Jpg",
        "same": "same.nii.gz",
    }
    assert {name: "same.nii.gz has the same name" in why for name, why in _reasons(tmp_path).items()} == {
        "same.png": True,
        "same.nrrd": True,
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("._plain.nii.gz", "hidden file, as macOS leaves"),
        ("two..dots.nii.gz", "no two dots in a row"),
        ('quo"te.nii.gz', "wildcards or quotes"),
        ("x" * 140 + ".nii.gz", "1 to 128 characters"),
        ("a.seg.nrrd", "segmentation of 3D Slicer and no image"),
        ("a.nii.bz2", "its kind is not read. Save it as one of .nii.gz"),
        ("a.img", "its kind is not read"),
        ("a.seg.nii.gz", "names do not end with .seg"),
        ("slice.dcm", "DICOM files lie beside other images"),
        ("sub-01/anat/T1w.nii.gz", "1 images lie in a folder of the studies"),
        ("deep/er/slice.dcm", "DICOM files lie beside other images"),
    ],
)
def test_each_reason_is_told(tmp_path: Path, name: str, words: str) -> None:
    _touch(tmp_path, "plain.nii.gz", name)
    assert image_names(tmp_path) == {"plain": "plain.nii.gz"}
    ((told, why),) = _reasons(tmp_path).items()
    assert words in why and told == (f"{name.split('/')[0]}/" if "/" in name else name)
    assert why.strip().endswith(".")


@pytest.mark.parametrize(
    "name", [".hidden.nii.gz", ".segmed/state.png", "labels/final/plain.nii.gz", "readme.txt", "x/y.txt"]
)
def test_what_is_no_study_is_not_told(tmp_path: Path, name: str) -> None:
    _touch(tmp_path, "plain.nii.gz", name)
    assert _reasons(tmp_path) == {}


def test_dicom_beside_images_is_found_by_its_content(tmp_path: Path) -> None:
    _touch(tmp_path, "plain.nii.gz")
    dicom.write_series(tmp_path / "cd", VOXELS, AFFINE, [f"IM{k}" for k in range(4)])
    shutil.copy(tmp_path / "cd" / "IM0", tmp_path / "IM0")
    found = left_out_files(tmp_path, ["plain.nii.gz"])
    assert {(one.name, one.count) for one in found} == {("IM0", 1), ("cd/", 4)}


def test_links_to_nowhere_and_pipes_are_told(tmp_path: Path) -> None:
    (tmp_path / "gone.nii.gz").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.nii.gz")
    assert all("no regular file" in why for why in _reasons(tmp_path).values()) or not image_names(tmp_path)
    assert len(left_out_files(tmp_path, [])) == 2


def test_images_beside_dicom_are_told_by_folder(tmp_path: Path) -> None:
    dicom.write_series(tmp_path / "ct", VOXELS, AFFINE)
    _touch(
        tmp_path, "logo.png", "DICOMDIR", "autorun.inf", "ct/._000.dcm", "n/a.nii.gz", "n/b.nii.gz", "n/c.png"
    )
    found = {one.name: one for one in left_out_beside_dicom(tmp_path)}
    assert set(found) == {"logo.png", "n/a.nii.gz, b.nii.gz", "n/c.png"}
    assert found["n/a.nii.gz, b.nii.gz"].count == 2 and "these studies are DICOM" in found["logo.png"].reason


def test_a_sentence_names_the_first_reasons() -> None:
    assert sentence([]) == ""
    assert sentence([LeftOut("a", "why. Do that.")]) == "1 file is left out: a (why. Do that)."
    text = sentence([LeftOut(f"f{n}", "because.", 2) for n in range(5)])
    assert text.startswith("10 files are left out: f0 (because); f1") and text.endswith("and 2 more.")


def test_names_that_cannot_be_ids() -> None:
    assert not fault_of_id("Müller 2: CT, venös") and not fault_of_id("a.b")
    assert all(map(fault_of_id, ["", "a" * 129, ".x", "a..b", "a/b", "a\\b", 'a"b', "a*b", "a\nb"]))


# --- DICOM files ---


def _series(root: Path) -> DicomFiles:
    return DicomFiles(root, every=0)


def test_series_without_a_uid_get_one_of_their_folder(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        for path in dicom.write_series(tmp_path / folder, VOXELS, AFFINE):
            data = pydicom.dcmread(path)
            del data.SeriesInstanceUID
            data.save_as(path)
    found = _series(tmp_path).series()
    assert len(found) == 2 and {one.facts.slices for one in found.values()} == {4}
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in found)
    again = _series(tmp_path)
    assert set(again.series()) == set(found)
    for uid in found:
        assert np.array_equal(read_volume(again.folder_of(uid)).array, VOXELS)


def test_equal_instance_uids_keep_every_slice_and_copies_count_once(tmp_path: Path) -> None:
    for path in dicom.write_series(tmp_path / "a", VOXELS, AFFINE):
        data = pydicom.dcmread(path)
        data.SOPInstanceUID = "1.2.3"
        data.save_as(path)
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    files = _series(tmp_path)
    ((uid, found),) = files.series().items()
    assert len(found.files) == found.facts.slices == 4
    assert np.array_equal(read_volume(files.folder_of(uid)).array, VOXELS)


def test_files_without_preamble_are_found_and_pipes_are_not_waited_for(tmp_path: Path) -> None:
    for path in dicom.write_series(tmp_path / "a", VOXELS, AFFINE):
        data = pydicom.dcmread(path)
        bare = pydicom.Dataset()
        bare.update({element.tag: element for element in data})
        bare.is_little_endian, bare.is_implicit_VR = True, True
        path.unlink()
        bare.save_as(path.with_suffix(""), write_like_original=True)
    os.mkfifo(tmp_path / "a" / "pipe")
    files = _series(tmp_path)
    ((uid, found),) = files.series().items()
    assert found.facts.slices == 4
    assert np.array_equal(read_volume(files.folder_of(uid)).array, VOXELS)
    assert files.damaged() == []


@pytest.mark.parametrize(
    ("times", "repeated"), [((0, 0, 1, 1), True), ((0, 0, 0, 0), True), ((0, 1, 1, 2), False)]
)
def test_series_of_several_times_are_told_from_damaged_ones(
    tmp_path: Path, times: tuple[int, ...], repeated: bool
) -> None:
    for place, path in zip(times, dicom.write_series(tmp_path / "a", VOXELS, AFFINE), strict=True):
        data = pydicom.dcmread(path)
        data.ImagePositionPatient = ["0", "0", str(2 * place)]
        data.save_as(path)
    ((_, found),) = _series(tmp_path).series().items()
    assert found.repeated == repeated
