"""A folder of DICOM files as studies: what is listed, what is left out, how it is read."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_jpls  # noqa: F401 - lets Pillow write JPEG-LS
import pydicom
import pytest
from dicom_phantom import phantom_series
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless, RLELossless, generate_uid
from segmed.data.phantom import Phantom
from segmed.dicom.segmentation import read_segmentation
from segmed.dicom.series import open_series
from segmed.imaging.reading import read_volume
from segmed.server.datastores.dicom_folder import is_dicom_folder, left_out
from segmed.server.http.errors import BadRequest
from study_folder import (
    INFO,
    SHAPE,
    change_file,
    label_map_of,
    nifti_file,
    open_studies,
    series_of_kind,
    series_uid,
)


def test_series_are_told_apart_wherever_their_files_lie(scattered: tuple[Path, Phantom]) -> None:
    root, phantom = scattered
    store = open_studies(root)
    assert len(store.list_images()) == 3
    uid = series_uid(root / "a")
    path = store.get_image_uri(uid)
    assert np.array_equal(read_volume(path).array, phantom.image)
    assert store.get_image_uri(uid) == path  # no copy for each request
    info = store.get_image_info(uid)
    assert (info["modality"], info["description"], info["slices"]) == ("CT", "phantom", SHAPE[2])
    assert info["SeriesInstanceUID"] == uid and info["StudyInstanceUID"]
    with pytest.raises(BadRequest, match="no series") as missing:
        store.get_image_uri("1.2.3")
    assert missing.value.status == 404
    with pytest.raises(BadRequest, match="not a DICOM UID"):
        store.get_image_uri("../../etc")


def test_files_that_come_and_go_are_noticed(tmp_path: Path) -> None:
    phantom_series(tmp_path / "s" / "a", shape=SHAPE, seed=1)
    store = open_studies(tmp_path / "s")
    first = store.list_images()
    grown = phantom_series(tmp_path / "s" / "b", shape=SHAPE, seed=2)
    (second,) = set(store.list_images()) - set(first)
    assert np.array_equal(read_volume(store.get_image_uri(second)).array, grown.image)
    (tmp_path / "s" / "b" / "005.dcm").unlink()
    assert read_volume(store.get_image_uri(second)).shape == (*SHAPE[:2], 5)
    shutil.rmtree(tmp_path / "s" / "a")
    assert store.list_images() == [second]


def test_a_copied_file_counts_once_and_other_modalities_are_not_listed(tmp_path: Path) -> None:
    phantom_series(tmp_path / "s", shape=SHAPE)
    shutil.copytree(tmp_path / "s", tmp_path / "s" / "again")
    for kind in ("SR", "RTSTRUCT", "KO"):
        series_of_kind(tmp_path / "s" / kind, kind)
    store = open_studies(tmp_path / "s")
    (image,) = store.list_images()
    assert read_volume(store.get_image_uri(image)).shape == SHAPE
    with pytest.raises(BadRequest, match="kind SR, which holds no image"):
        store.get_image_uri(series_uid(tmp_path / "s" / "SR"))


@pytest.mark.parametrize("modality", ["CT", "MR", "US", "CR", "DX", "MG", "XA"])
def test_radiographs_and_ultrasound_are_listed_and_labelled(tmp_path: Path, modality: str) -> None:
    phantom = series_of_kind(tmp_path / "s", modality)
    store = open_studies(tmp_path / "s")
    (image,) = store.list_images()
    labels = np.zeros((24, 20, 1), np.uint8)
    labels[5:9, 4:8] = 1
    store.save_label(image, nifti_file(tmp_path / "l.nii.gz", labels, phantom.affine), "final", dict(INFO))
    seg = pydicom.dcmread(tmp_path / "s" / "labels" / "seg" / f"{image}.dcm")
    assert np.array_equal(seg.pixel_array.reshape(20, 24).T > 0, labels[..., 0] > 0)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing slice": (lambda f: (f / "002.dcm").unlink(), "missing, doubled or damaged"),
    "doubled position": (lambda f: _double(f), "missing, doubled or damaged"),
    "mixed orientations": (
        lambda f: change_file(
            f / "003.dcm", lambda d: setattr(d, "ImageOrientationPatient", [1, 0, 0, 0, 0, -1])
        ),
        "same direction",
    ),
    "mixed sizes": (lambda f: change_file(f / "003.dcm", lambda d: _crop(d)), "differ in size"),
    "cut off": (
        lambda f: (f / "005.dcm").write_bytes((f / "005.dcm").read_bytes()[:-200]),
        "1 of the 6 DICOM files",
    ),
    "compression that is unknown": (lambda f: _htj2k(f), "compressed as High-Throughput JPEG 2000"),
}


def _double(folder: Path) -> None:
    data = pydicom.dcmread(folder / "002.dcm")
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.save_as(folder / "again.dcm")


def _crop(data: Dataset) -> None:
    data.Rows, data.PixelData = 10, data.PixelData[: 2 * 10 * data.Columns]


def _htj2k(folder: Path) -> None:
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.PixelData = encapsulate([b"no code stream at all"])
        data["PixelData"].is_undefined_length = True
        data.file_meta.TransferSyntaxUID = JPEG2000Lossless
        data.save_as(path)
        content = path.read_bytes()  # pydicom does not know the newer one
        length = int.from_bytes(content[140:144], "little") + 2
        content = content[:140] + length.to_bytes(4, "little") + content[144:]
        path.write_bytes(
            content.replace(b"UI\x16\x001.2.840.10008.1.2.4.90", b"UI\x18\x001.2.840.10008.1.2.4.201\0", 1)
        )


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_used_says_why(tmp_path: Path, kind: str) -> None:
    phantom_series(tmp_path / "s", shape=SHAPE)
    spoil, reason = BAD[kind]
    spoil(tmp_path / "s")
    store = open_studies(tmp_path / "s")
    (image,) = store.list_images()
    with pytest.raises(ValueError, match=reason):
        read_volume(store.get_image_uri(image))


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_series_are_read(tmp_path: Path, syntax: UID) -> None:
    phantom = phantom_series(tmp_path / "s", shape=SHAPE)
    for path in (tmp_path / "s").iterdir():
        data = pydicom.dcmread(path)
        pixels = (data.pixel_array.astype(np.int32) + 1024).astype(np.uint16)
        data.PixelRepresentation, data.RescaleIntercept = 0, "-1024"
        if syntax == RLELossless:
            data.PixelData = pixels.tobytes()
            data.compress(RLELossless)
        else:
            code, how = (
                io.BytesIO(),
                {"irreversible": False, "no_jp2": True} if syntax == JPEG2000Lossless else {},
            )
            Image.fromarray(pixels).save(code, "JPEG2000" if how else "JPEG-LS", **how)
            data.PixelData = encapsulate([code.getvalue()])
            data["PixelData"].is_undefined_length = True
            data.file_meta.TransferSyntaxUID = syntax
        data.save_as(path)
    store = open_studies(tmp_path / "s")
    (image,) = store.list_images()
    assert np.array_equal(read_volume(store.get_image_uri(image)).array, phantom.image)


def test_a_tilted_gantry_is_read_as_it_lies(tmp_path: Path) -> None:
    phantom = phantom_series(tmp_path / "s", shape=SHAPE)

    def tilt(k: int) -> Callable[[Dataset], None]:
        def move(data: Dataset) -> None:
            x, y, z = (float(v) for v in data.ImagePositionPatient)
            data.ImagePositionPatient = [x, y + 1.5 * k, z]

        return move

    for k in range(SHAPE[2]):
        change_file(tmp_path / "s" / f"{k:03d}.dcm", tilt(k))
    store = open_studies(tmp_path / "s")
    (image,) = store.list_images()
    volume = read_volume(store.get_image_uri(image))
    assert np.array_equal(volume.array, phantom.image)
    assert volume.affine[:3, 2] == pytest.approx(phantom.affine[:3, 2] + [0, -1.5, 0])
    labels = label_map_of(phantom)
    store.save_label(image, nifti_file(tmp_path / "l.nii.gz", labels, volume.affine), "final", dict(INFO))
    found, _ = read_segmentation(
        tmp_path / "s" / "labels" / "seg" / f"{image}.dcm", open_series(store.get_image_uri(image))
    )
    assert np.array_equal(found, labels)


def test_which_folders_are_dicom(tmp_path: Path) -> None:
    def folder(name: str, *files: str, dicom: str = "") -> Path:
        root = tmp_path / name
        root.mkdir()
        for file in files:
            (root / file).write_bytes(b"x")
        if dicom:
            phantom_series(root / dicom, shape=(8, 8, 2))
        return root

    assert is_dicom_folder(folder("deep", "README", dicom="a/b/c"))
    assert not is_dicom_folder(folder("none", "readme.txt"))
    assert not is_dicom_folder(folder("ours", dicom="labels/final"))
    mixed = folder("mixed", "ct.nii.gz", dicom=".")
    assert not is_dicom_folder(mixed)
    assert "left out" in left_out(mixed) and left_out(tmp_path / "none") == ""


def test_what_is_left_out_of_a_dicom_folder_is_told(tmp_path: Path) -> None:
    root = tmp_path / "s"
    phantom_series(root / "ct", shape=SHAPE)
    series_of_kind(root / "pet", "PT")
    phantom_series(root / "cine", shape=(8, 8, 4))
    for n, path in enumerate(sorted((root / "cine").iterdir())):
        change_file(path, lambda d, n=n: setattr(d, "ImagePositionPatient", ["0", "0", "5"]))
        change_file(path, lambda d, n=n: setattr(d, "TriggerTime", str(40 * n)))
    (root / "logo.png").write_bytes(b"x")
    (root / "ct" / "damaged.dcm").write_bytes(bytes(128) + b"DICM" + b"\x08\0\x05\0UL\xff")
    assert is_dicom_folder(root)  # a picture on a disc makes no folder of pictures
    store = open_studies(root)
    assert store.list_images() == [series_uid(root / "ct")]
    state = store.state()
    reasons = {one["name"]: one["reason"] for one in state["left_out"]}
    assert "--conf modalities PT" in reasons["1 series of the modality PT"]
    assert "4 cardiac phases (TriggerTime)" in reasons["series 1"]
    assert "these studies are DICOM" in reasons["logo.png"]
    assert state["message"].count("left out") >= 1 and store.status()["left_out"] == state["left_out"]
    with pytest.raises(ValueError, match="holds 4 images at one place"):
        read_volume(store.get_image_uri(series_uid(root / "cine")))


def test_a_folder_of_pictures_stays_one(tmp_path: Path) -> None:
    phantom_series(tmp_path / "dicom", shape=(8, 8, 2))
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes(b"x")
    assert not is_dicom_folder(tmp_path)
    (tmp_path / "DICOMDIR").write_bytes(b"x")
    assert is_dicom_folder(tmp_path)
