"""Labels of a folder of DICOM files: kept as DICOM SEG, read from others, used in training, served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests
from dicom_phantom import phantom_series
from pydicom.dataset import Dataset
from running import Start
from segmed.data.datastore import load_datastore
from segmed.data.phantom import Phantom
from segmed.dicom.segmentation import read_segmentation, write_segmentation
from segmed.dicom.series import open_series
from segmed.imaging.reading import read_volume
from segmed.server.tasks.train import MethodTrainTask
from study_folder import (
    INFO,
    NAMES,
    SHAPE,
    change_file,
    label_map_of,
    nifti_file,
    open_studies,
    series_of_kind,
    series_uid,
)


def test_a_final_label_becomes_a_dicom_seg_beside_the_labels(
    scattered: tuple[Path, Phantom], tmp_path: Path
) -> None:
    root, phantom = scattered
    store, uid, labels = open_studies(root), series_uid(root / "a"), label_map_of(phantom)
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}
    info: dict[str, Any] = {**INFO, "model": {"name": "lora", "version": "007-abc"}, "seg_sop": "a lie"}
    assert (
        store.save_label(uid, nifti_file(tmp_path / "l.nii.gz", labels, phantom.affine), "final", info) == uid
    )
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
    again = open_studies(root)  # another server finds the same
    assert (
        again.get_labeled_images() == [uid]
        and again.get_label_info(uid, "final")["label_info"][1]["name"] == NAMES[1]
    )


def test_a_smaller_label_map_is_brought_onto_the_image(
    scattered: tuple[Path, Phantom], tmp_path: Path
) -> None:
    """3D Slicer exports the box around the segments only."""
    root, phantom = scattered
    store, uid, labels = open_studies(root), series_uid(root / "a"), label_map_of(phantom)
    cut = (slice(2, 21), slice(3, 16), slice(1, 6))
    affine = phantom.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [2, 3, 1]
    store.save_label(uid, nifti_file(tmp_path / "l.nii.gz", labels[cut], affine), "final", dict(INFO))
    assert np.array_equal(read_volume(store.get_label_uri(uid, "final")).array, labels)


def test_an_empty_mask_is_kept_without_a_seg_and_an_original_one_makes_none(
    scattered: tuple[Path, Phantom], tmp_path: Path
) -> None:
    root, phantom = scattered
    store, uid = open_studies(root), series_uid(root / "a")
    info = dict(INFO)
    empty = nifti_file(tmp_path / "empty.nii.gz", np.zeros(SHAPE, np.uint8), phantom.affine)
    store.save_label(uid, empty, "final", info)
    assert "empty" in info["seg_note"] and "seg_sop" not in info
    store.save_label(
        uid, nifti_file(tmp_path / "l.nii.gz", label_map_of(phantom), phantom.affine), "original", dict(INFO)
    )
    assert not (root / "labels" / "seg").exists()
    assert store.get_labels_by_image_id(uid) == {"final": uid, "original": uid}


def test_a_label_on_multi_frame_dicom_is_kept_and_says_why_there_is_no_seg(tmp_path: Path) -> None:
    series_of_kind(tmp_path / "s", "US")

    def cine(data: Dataset) -> None:
        data.NumberOfFrames, data.PixelData = 4, data.PixelData * 4
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = (
            pydicom.uid.UltrasoundMultiFrameImageStorage
        )
        del data.ImagePositionPatient, data.ImageOrientationPatient

    change_file(tmp_path / "s" / "000.dcm", cine)
    store = open_studies(tmp_path / "s")
    (image,) = store.list_images()
    volume = read_volume(store.get_image_uri(image))
    assert volume.shape == (24, 20, 4)
    labels = np.zeros(volume.shape, np.uint8)
    labels[5:9, 4:8, 1] = 1
    info = dict(INFO)
    store.save_label(image, nifti_file(tmp_path / "l.nii.gz", labels, volume.affine), "final", info)
    assert "multi-frame" in info["seg_note"]
    assert np.array_equal(read_volume(store.get_label_uri(image, "final")).array, labels)


@pytest.mark.parametrize(
    ("instances", "twin", "moved", "frame", "reason"),
    [
        (True, False, 0, True, ""),
        (True, True, 0, True, ""),
        (False, False, 0, True, ""),
        (False, True, 0, True, "2 series have its frame of reference"),
        (False, False, 1, True, "its frames do not lie on the slices"),
        (True, False, 0, False, "no series have its frame of reference"),
    ],
)
def test_a_seg_that_names_no_series_is_shown_where_it_fits(
    tmp_path: Path, instances: bool, twin: bool, moved: float, frame: bool, reason: str
) -> None:
    phantom = phantom_series(tmp_path / "s" / "ct", shape=SHAPE)
    labels, file = label_map_of(phantom), tmp_path / "s" / "theirs.dcm"
    series = open_series(tmp_path / "s" / "ct")
    write_segmentation(labels, NAMES, series, file)
    data = pydicom.dcmread(file)
    del data.ReferencedSeriesSequence
    if not instances:
        data.pop("SourceImageSequence", None)
    if not frame:
        del data.FrameOfReferenceUID
    for group in data.PerFrameFunctionalGroupsSequence:
        group.PlanePositionSequence[0].ImagePositionPatient[2] += moved
        if not instances:
            del group.DerivationImageSequence
    data.save_as(file)
    if twin:
        phantom_series(tmp_path / "s" / "twin", shape=SHAPE, seed=2)
        uid = series.headers[0].FrameOfReferenceUID
        for path in (tmp_path / "s" / "twin").iterdir():
            change_file(path, lambda data: setattr(data, "FrameOfReferenceUID", uid))
    store, image = open_studies(tmp_path / "s"), series_uid(tmp_path / "s" / "ct")
    told = [one.reason for one in store.left_out() if one.name.startswith("DICOM SEG")]
    assert store.get_labeled_images() == ([] if reason else [image])
    if reason:
        assert len(told) == 1 and reason in told[0] and "Export it again" in told[0]
    else:
        assert not told
        assert np.array_equal(read_volume(store.get_label_uri(image, "final")).array, labels)


def test_a_seg_of_others_in_the_folder_is_the_label(scattered: tuple[Path, Phantom], tmp_path: Path) -> None:
    root, phantom = scattered
    store, uid, labels = open_studies(root), series_uid(root / "a"), label_map_of(phantom)
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
    store, uid, labels = open_studies(root), series_uid(root / "a"), label_map_of(phantom)
    store.save_label(uid, nifti_file(tmp_path / "l.nii.gz", labels, phantom.affine), "final", dict(INFO))
    other = series_uid(root / "deep")
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


@pytest.fixture(scope="module")
def clinic(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Phantom, Path]]:
    root = tmp_path_factory.mktemp("dicom")
    phantom = phantom_series(root / "one" / "two", shape=SHAPE, seed=4)
    conf = ("--conf", "models", "classical", "--conf", "labels", "liver,spleen")
    yield start(root, *conf), phantom, root


def test_a_server_on_a_folder_of_dicom_files(clinic: tuple[Any, Phantom, Path], tmp_path: Path) -> None:
    server, phantom, root = clinic
    uid = series_uid(root)
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
    labels = label_map_of(phantom)
    with (tmp_path / "l.nii.gz").open("wb") as file:
        file.write(Path(nifti_file(tmp_path / "m.nii.gz", labels, phantom.affine)).read_bytes())
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


def test_of_several_segmentations_of_a_series_the_others_are_told(tmp_path: Path) -> None:
    phantom = phantom_series(tmp_path / "s" / "ct", shape=SHAPE)
    series, labels = open_series(tmp_path / "s" / "ct"), label_map_of(phantom)
    for n, name in enumerate(NAMES, 1):
        file = tmp_path / "s" / f"{n}.dcm"
        write_segmentation((labels == n).astype(np.uint8), [name], series, file)
        change_file(file, lambda data, n=n: setattr(data, "ContentDate", f"2026010{n}"))
    store, image = open_studies(tmp_path / "s"), series_uid(tmp_path / "s" / "ct")
    assert np.array_equal(read_volume(store.get_label_uri(image, "final")).array > 0, labels == 2)
    (told,) = [one for one in store.left_out() if one.name.startswith("DICOM SEG")]
    assert "a newer segmentation of series" in told.reason and "merge them" in told.reason
    store.save_label(image, nifti_file(tmp_path / "l.nii.gz", labels, phantom.affine), "final", dict(INFO))
    assert not [one for one in store.left_out() if one.name.startswith("DICOM SEG")]
