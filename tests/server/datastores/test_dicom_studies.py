"""A folder of DICOM files as studies: listing, reading, labels that become DICOM SEG, training pairs."""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pillow_jpls  # noqa: F401 - lets Pillow write JPEG-LS
import pydicom
import pytest
import requests
from dicom_phantom import phantom_series
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless, RLELossless, generate_uid
from running import Start
from segmed.data.datastore import load_datastore
from segmed.data.phantom import Phantom
from segmed.dicom.segmentation import read_segmentation, write_segmentation
from segmed.dicom.series import open_series
from segmed.imaging.reading import read_volume
from segmed.server.config.dicomweb_settings import DicomwebSettings
from segmed.server.datastores.dicom_folder import DicomFolderStudies, is_dicom_folder, left_out
from segmed.server.datastores.series_cache import SeriesCache
from segmed.server.http.errors import BadRequest
from segmed.server.tasks.train import MethodTrainTask

SHAPE = (24, 20, 6)
NAMES = ["liver", "Milz größer"]
INFO = {"label_info": [{"name": name, "idx": 7 + n} for n, name in enumerate(NAMES)], "model": "medsam"}


def _uid(folder: Path) -> str:
    return str(pydicom.dcmread(next(folder.rglob("*.dcm")), stop_before_pixels=True).SeriesInstanceUID)


def _change(path: Path, change: Callable[[Dataset], None]) -> None:
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(path)


def _of_kind(folder: Path, modality: str) -> Phantom:
    """One slice under the name of a modality."""
    phantom = phantom_series(folder, shape=(24, 20, 1))
    _change(folder / "000.dcm", lambda data: setattr(data, "Modality", modality))
    return phantom


def _labels(phantom: Phantom) -> np.ndarray:
    labels = np.zeros(phantom.image.shape, np.uint8)
    labels[3:9, 4:10, 1:4] = 1
    labels[12:20, 8:15, 2:6] = 2
    return labels


def _nifti(path: Path, labels: np.ndarray, affine: np.ndarray) -> str:
    nib.save(nib.Nifti1Image(labels, affine), path)
    return str(path)


def _open(root: Path) -> DicomFolderStudies:
    store = DicomFolderStudies(root, DicomwebSettings().modalities)
    store.files.every = 0
    return store


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


def test_series_are_told_apart_wherever_their_files_lie(scattered: tuple[Path, Phantom]) -> None:
    root, phantom = scattered
    store = _open(root)
    assert len(store.list_images()) == 3
    uid = _uid(root / "a")
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
    store = _open(tmp_path / "s")
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
        _of_kind(tmp_path / "s" / kind, kind)
    store = _open(tmp_path / "s")
    (image,) = store.list_images()
    assert read_volume(store.get_image_uri(image)).shape == SHAPE
    with pytest.raises(BadRequest, match="kind SR, which holds no image"):
        store.get_image_uri(_uid(tmp_path / "s" / "SR"))


@pytest.mark.parametrize("modality", ["CT", "MR", "US", "CR", "DX", "MG", "XA"])
def test_radiographs_and_ultrasound_are_listed_and_labelled(tmp_path: Path, modality: str) -> None:
    phantom = _of_kind(tmp_path / "s", modality)
    store = _open(tmp_path / "s")
    (image,) = store.list_images()
    labels = np.zeros((24, 20, 1), np.uint8)
    labels[5:9, 4:8] = 1
    store.save_label(image, _nifti(tmp_path / "l.nii.gz", labels, phantom.affine), "final", dict(INFO))
    seg = pydicom.dcmread(tmp_path / "s" / "labels" / "seg" / f"{image}.dcm")
    assert np.array_equal(seg.pixel_array.reshape(20, 24).T > 0, labels[..., 0] > 0)


def test_a_final_label_becomes_a_dicom_seg_beside_the_labels(
    scattered: tuple[Path, Phantom], tmp_path: Path
) -> None:
    root, phantom = scattered
    store, uid, labels = _open(root), _uid(root / "a"), _labels(phantom)
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}
    info: dict[str, Any] = {**INFO, "model": {"name": "lora", "version": "007-abc"}, "seg_sop": "a lie"}
    assert store.save_label(uid, _nifti(tmp_path / "l.nii.gz", labels, phantom.affine), "final", info) == uid
    file = root / "labels" / "seg" / f"{uid}.dcm"
    seg = pydicom.dcmread(file)
    assert [s.SegmentLabel for s in seg.SegmentSequence] == NAMES
    algorithm = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("SegMed lora", "007-abc")
    found, names = read_segmentation(file, open_series(store.get_image_uri(uid)))
    assert np.array_equal(found, labels) and names == {1: NAMES[0], 2: NAMES[1]}
    assert info["seg_sop"] == store.get_label_info(uid, "final")["seg_sop"] == seg.SOPInstanceUID
    assert info["seg_series"] == seg.SeriesInstanceUID
    assert np.array_equal(read_volume(store.get_label_uri(uid, "final")).array, labels)
    assert store.get_labeled_images() == [uid] and len(store.list_images()) == 3
    assert set(before) == {p for p in before if p.stat().st_mtime_ns == before[p]}
    assert {p.relative_to(root).parts[0] for p in set(root.rglob("*")) - set(before) if p.is_file()} <= {
        "labels",
        "datastore_v2.json",
        ".lock",
    }
    again = _open(root)  # another server finds the same
    assert (
        again.get_labeled_images() == [uid]
        and again.get_label_info(uid, "final")["label_info"][1]["name"] == NAMES[1]
    )


def test_a_smaller_label_map_is_brought_onto_the_image(
    scattered: tuple[Path, Phantom], tmp_path: Path
) -> None:
    """3D Slicer exports the box around the segments only."""
    root, phantom = scattered
    store, uid, labels = _open(root), _uid(root / "a"), _labels(phantom)
    cut = (slice(2, 21), slice(3, 16), slice(1, 6))
    affine = phantom.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [2, 3, 1]
    store.save_label(uid, _nifti(tmp_path / "l.nii.gz", labels[cut], affine), "final", dict(INFO))
    assert np.array_equal(read_volume(store.get_label_uri(uid, "final")).array, labels)


def test_an_empty_mask_is_kept_without_a_seg_and_an_original_one_makes_none(
    scattered: tuple[Path, Phantom], tmp_path: Path
) -> None:
    root, phantom = scattered
    store, uid = _open(root), _uid(root / "a")
    info = dict(INFO)
    empty = _nifti(tmp_path / "empty.nii.gz", np.zeros(SHAPE, np.uint8), phantom.affine)
    store.save_label(uid, empty, "final", info)
    assert "empty" in info["seg_note"] and "seg_sop" not in info
    store.save_label(
        uid, _nifti(tmp_path / "l.nii.gz", _labels(phantom), phantom.affine), "original", dict(INFO)
    )
    assert not (root / "labels" / "seg").exists()
    assert store.get_labels_by_image_id(uid) == {"final": uid, "original": uid}


def test_a_label_on_multi_frame_dicom_is_kept_and_says_why_there_is_no_seg(tmp_path: Path) -> None:
    _of_kind(tmp_path / "s", "US")

    def cine(data: Dataset) -> None:
        data.NumberOfFrames, data.PixelData = 4, data.PixelData * 4
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = (
            pydicom.uid.UltrasoundMultiFrameImageStorage
        )
        del data.ImagePositionPatient, data.ImageOrientationPatient

    _change(tmp_path / "s" / "000.dcm", cine)
    store = _open(tmp_path / "s")
    (image,) = store.list_images()
    volume = read_volume(store.get_image_uri(image))
    assert volume.shape == (24, 20, 4)
    labels = np.zeros(volume.shape, np.uint8)
    labels[5:9, 4:8, 1] = 1
    info = dict(INFO)
    store.save_label(image, _nifti(tmp_path / "l.nii.gz", labels, volume.affine), "final", info)
    assert "multi-frame" in info["seg_note"]
    assert np.array_equal(read_volume(store.get_label_uri(image, "final")).array, labels)


def test_a_seg_of_others_in_the_folder_is_the_label(scattered: tuple[Path, Phantom], tmp_path: Path) -> None:
    root, phantom = scattered
    store, uid, labels = _open(root), _uid(root / "a"), _labels(phantom)
    series = open_series(store.get_image_uri(uid))
    shifted = np.where(labels, labels + 3, 0).astype(np.uint8)  # values 4 and 5
    write_segmentation(shifted, {4: "Niere", 5: "Blase"}, series, root / "rest" / "theirs.dcm")
    assert store.get_labeled_images() == [uid]
    assert not store.has_label(uid, "final") and store.get_label_by_image_id(uid, "final") == uid
    assert np.array_equal(read_volume(store.get_label_uri(uid, "final")).array, labels)
    assert [item["name"] for item in store.get_label_info(uid, "final")["label_info"]] == ["Niere", "Blase"]
    store.remove_label(uid, "final")
    assert store.get_labeled_images() == [] and store.get_label_uri(uid, "final") == ""
    assert (root / "rest" / "theirs.dcm").exists()


def test_training_pairs_of_a_dicom_folder(scattered: tuple[Path, Phantom], tmp_path: Path) -> None:
    root, phantom = scattered
    store, uid, labels = _open(root), _uid(root / "a"), _labels(phantom)
    store.save_label(uid, _nifti(tmp_path / "l.nii.gz", labels, phantom.affine), "final", dict(INFO))
    other = _uid(root / "deep")
    write_segmentation(
        np.where(labels == 1, 1, 0).astype(np.uint8),
        ["liver"],
        open_series(store.get_image_uri(other)),
        root / "x.dcm",
    )
    engine = SimpleNamespace(settings=SimpleNamespace(structures={"liver": 5}, patient=None))
    from_server = MethodTrainTask._data(SimpleNamespace(engine=engine), store)  # type: ignore[arg-type]
    from_shell = load_datastore(root, labels={"liver": 5})
    number = store.facts(uid).patient
    assert number and store.facts(other).patient == number
    for data in (from_server, from_shell):
        assert set(data.images) == {uid, other}
        assert len(data.patients) == 1 and number not in data.patients[0]
        n = next(n for n, volume in enumerate(data.volumes) if volume.name == uid)
        assert np.array_equal(data.read(n)[1], np.where(labels == 1, 5, 0))
        assert data.volumes[n].spacing == pytest.approx((5.4, 5.4, 8.0))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing slice": (lambda f: (f / "002.dcm").unlink(), "missing, doubled or damaged"),
    "doubled position": (lambda f: _double(f), "missing, doubled or damaged"),
    "mixed orientations": (
        lambda f: _change(
            f / "003.dcm", lambda d: setattr(d, "ImageOrientationPatient", [1, 0, 0, 0, 0, -1])
        ),
        "same direction",
    ),
    "mixed sizes": (lambda f: _change(f / "003.dcm", lambda d: _crop(d)), "differ in size"),
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
    store = _open(tmp_path / "s")
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
    store = _open(tmp_path / "s")
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
        _change(tmp_path / "s" / f"{k:03d}.dcm", tilt(k))
    store = _open(tmp_path / "s")
    (image,) = store.list_images()
    volume = read_volume(store.get_image_uri(image))
    assert np.array_equal(volume.array, phantom.image)
    assert volume.affine[:3, 2] == pytest.approx(phantom.affine[:3, 2] + [0, -1.5, 0])
    labels = _labels(phantom)
    store.save_label(image, _nifti(tmp_path / "l.nii.gz", labels, volume.affine), "final", dict(INFO))
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
    _of_kind(root / "pet", "PT")
    phantom_series(root / "cine", shape=(8, 8, 4))
    for n, path in enumerate(sorted((root / "cine").iterdir())):
        _change(path, lambda d, n=n: setattr(d, "ImagePositionPatient", ["0", "0", "5"]))
        _change(path, lambda d, n=n: setattr(d, "TriggerTime", str(40 * n)))
    (root / "logo.png").write_bytes(b"x")
    (root / "ct" / "damaged.dcm").write_bytes(bytes(128) + b"DICM" + b"\x08\0\x05\0UL\xff")
    assert is_dicom_folder(root)  # a picture on a disc makes no folder of pictures
    store = _open(root)
    assert store.list_images() == [_uid(root / "ct")]
    state = store.state()
    reasons = {one["name"]: one["reason"] for one in state["left_out"]}
    assert "--conf modalities PT" in reasons["1 series of the modality PT"]
    assert "4 cardiac phases (TriggerTime)" in reasons["series 1"]
    assert "these studies are DICOM" in reasons["logo.png"]
    assert state["message"].count("left out") >= 1 and store.status()["left_out"] == state["left_out"]
    with pytest.raises(ValueError, match="holds 4 images at one place"):
        read_volume(store.get_image_uri(_uid(root / "cine")))


def test_a_folder_of_pictures_stays_one(tmp_path: Path) -> None:
    phantom_series(tmp_path / "dicom", shape=(8, 8, 2))
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes(b"x")
    assert not is_dicom_folder(tmp_path)
    (tmp_path / "DICOMDIR").write_bytes(b"x")
    assert is_dicom_folder(tmp_path)


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"modalities": "CT,SEG"}, "'SEG' is no modality of images"),
        ({"modalities": " "}, "empty"),
        ({"dicomweb_filter": "StudyDate=2026"}, "must be JSON"),
        ({"dicomweb_filter": '{"Modality": "CT"}'}, "--conf modalities"),
        ({"dicomweb_list_seconds": "0"}, "from 1 to 3600"),
        ({"dicomweb_cache_mb": "-1"}, "above 0"),
        ({"dicomweb_ca": "/nowhere.pem"}, "is not there"),
    ],
)
def test_settings_are_checked(conf: dict[str, str], reason: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        DicomwebSettings.from_conf(conf)


def test_the_password_comes_from_the_environment_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_LABEL_DICOMWEB_USERNAME", "ann")
    with pytest.raises(ValueError, match="both"):
        DicomwebSettings.from_conf({})
    monkeypatch.setenv("MONAI_LABEL_DICOMWEB_PASSWORD", "secret")
    settings = DicomwebSettings.from_conf({})
    assert settings.user == ("ann", "secret") and "secret" not in repr(settings)


# ---- the cache of fetched series


def _fetch(size: int, calls: list[str], name: str = "x") -> Callable[[Path], None]:
    def fetch(folder: Path) -> None:
        calls.append(name)
        (folder / "a.dcm").write_bytes(bytes(size))

    return fetch


def _use(cache: SeriesCache, series: str, size: int, calls: list[str], state: str = "") -> None:
    with cache.use(series, state, _fetch(size, calls, series)) as folder:
        assert (folder / "a.dcm").stat().st_size == size


def test_the_cache_is_bounded_and_the_least_recently_used_series_goes(tmp_path: Path) -> None:
    cache, calls = SeriesCache(tmp_path / "c", 250, just_used=0), list[str]()
    for n, series in enumerate(("1.1", "1.2", "1.1", "1.3")):
        _use(cache, series, 100, calls)
        os.utime(tmp_path / "c" / f"{series}.lock", (n, n))
    assert calls == ["1.1", "1.2", "1.3"]
    assert cache.size() == 200
    assert sorted(p.name for p in (tmp_path / "c").iterdir() if p.is_dir()) == ["1.1", "1.3"]
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700


def test_a_series_in_use_is_never_removed(tmp_path: Path) -> None:
    cache, calls = SeriesCache(tmp_path / "c", 150, just_used=0), list[str]()
    other = SeriesCache(tmp_path / "c", 150, just_used=0)  # as of another process
    with cache.use("1.1", "", _fetch(100, calls)) as folder:
        os.utime(tmp_path / "c" / "1.1.lock", (0, 0))
        _use(other, "1.2", 100, calls)
        assert (folder / "a.dcm").exists()
    os.utime(tmp_path / "c" / "1.1.lock", (0, 0))
    _use(other, "1.3", 100, calls)
    assert not folder.exists()
    lately = SeriesCache(tmp_path / "c", 150)
    _use(lately, "1.4", 100, calls)
    assert (tmp_path / "c" / "1.3").exists()  # who was just given its path still reads it
    for series in ("1.2", "1.3", "1.4"):  # noted when the clock was a week ahead
        os.utime(tmp_path / "c" / f"{series}.lock", (time.time() + 7 * 86400,) * 2)
    _use(lately, "1.5", 100, calls)
    assert lately.size() == 100


def test_a_download_that_breaks_off_is_not_taken_for_a_series(tmp_path: Path) -> None:
    cache, calls = SeriesCache(tmp_path / "c", 10**6), list[str]()

    def break_off(folder: Path) -> None:
        (folder / "a.dcm").write_bytes(b"half")
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError), cache.use("1.1", "", break_off):
        pass
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["1.1.lock"]
    (tmp_path / "c" / "1.1").mkdir()  # a process that was killed after the last step but one
    (tmp_path / "c" / "1.9.part").mkdir()
    _use(cache, "1.1", 7, calls)
    assert calls == ["1.1"] and not (tmp_path / "c" / "1.9.part").exists()


def test_a_series_is_fetched_once_by_many_and_again_when_it_has_grown(tmp_path: Path) -> None:
    cache, calls = SeriesCache(tmp_path / "c", 10**6), list[str]()

    def slow(folder: Path) -> None:
        time.sleep(0.2)
        _fetch(5, calls, "1.1")(folder)

    def work() -> None:
        with cache.use("1.1", "3", slow) as folder:
            assert (folder / "a.dcm").exists()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == ["1.1"]
    _use(cache, "1.1", 9, calls, "4")
    assert calls == ["1.1", "1.1"]
    with cache.use("1.1", "", _fetch(0, calls)):
        _use(cache, "1.1", 9, calls, "5")  # somebody reads the older state: it is used once more
    assert calls == ["1.1", "1.1"]


# ---- through a server


@pytest.fixture(scope="module")
def clinic(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Phantom, Path]]:
    root = tmp_path_factory.mktemp("dicom")
    phantom = phantom_series(root / "one" / "two", shape=SHAPE, seed=4)
    conf = ("--conf", "models", "classical", "--conf", "labels", "liver,spleen")
    yield start(root, *conf), phantom, root


def test_a_server_on_a_folder_of_dicom_files(clinic: tuple[Any, Phantom, Path], tmp_path: Path) -> None:
    server, phantom, root = clinic
    uid = _uid(root)
    assert requests.get(f"{server.url}/datastore/").json() == {"total": 1, "completed": 0, "label_tags": {}}
    sample = requests.post(f"{server.url}/activelearning/sequential", json={}).json()
    assert sample["id"] == uid and sample["name"] == f"{uid}.nii" and sample["StudyInstanceUID"]
    (tmp_path / sample["name"]).write_bytes(
        requests.get(f"{server.url}/datastore/image", params={"image": uid}).content
    )
    loaded = read_volume(tmp_path / sample["name"])  # as 3D Slicer loads it
    assert np.array_equal(loaded.array, phantom.image)
    assert loaded.affine == pytest.approx(phantom.affine, abs=1e-4)
    assert requests.head(f"{server.url}/datastore/image", params={"image": uid}).status_code == 200
    assert requests.head(f"{server.url}/datastore/image", params={"image": "1.2"}).status_code == 404
    answer = requests.post(
        f"{server.url}/infer/classical",
        params={"image": uid, "output": "image"},
        data={"params": json.dumps({"roi": [18, 4, 15, 3, 2, 2], "result_extension": ".nii"})},
    )
    assert answer.status_code == 200, answer.text
    mask = np.asarray(nib.Nifti1Image.from_bytes(answer.content).dataobj)
    assert mask.shape == SHAPE and mask.any()
    labels = _labels(phantom)
    with (tmp_path / "l.nii.gz").open("wb") as file:
        file.write(Path(_nifti(tmp_path / "m.nii.gz", labels, phantom.affine)).read_bytes())
    for _ in range(2):  # the second save takes the place of the first
        with (tmp_path / "l.nii.gz").open("rb") as file:
            saved = requests.put(
                f"{server.url}/datastore/label",
                params={"image": uid},
                data={"params": json.dumps({"label_info": INFO["label_info"]})},
                files={"label": ("label.nii.gz", file)},
            )
        assert saved.status_code == 200, saved.text
    found, names = read_segmentation(
        root / "labels" / "seg" / f"{uid}.dcm", open_series(root / "one" / "two")
    )
    assert np.array_equal(found, labels) and list(names.values()) == NAMES
    assert requests.get(f"{server.url}/datastore/").json()["completed"] == 1
    back = requests.get(f"{server.url}/datastore/label", params={"label": uid, "tag": "final"})
    (tmp_path / "back.nii.gz").write_bytes(back.content)
    assert np.array_equal(read_volume(tmp_path / "back.nii.gz").array, labels)
    refused = requests.delete(f"{server.url}/datastore/", params={"id": uid})
    assert refused.status_code == 403 and "not deleted from here" in refused.json()["detail"]
    with (tmp_path / "m.nii.gz").open("rb") as file:
        refused = requests.put(
            f"{server.url}/datastore/", params={"image": "x"}, files={"file": ("x.nii.gz", file)}
        )
    assert refused.status_code == 400 and "These studies are DICOM" in refused.json()["detail"]
    log = server.log.read_text(encoding="utf-8")
    assert not [
        word for word in ("Phantom", "phantom^", NAMES[1], "liver") if word in log.replace(str(root), "")
    ]
