"""Labels in a PACS, against a real Orthanc: each version once, those of others, and pairs for training."""

from __future__ import annotations

import io
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_phantom import PLANES
from orthanc import Pacs
from pacs_place import INFO, label_map, put_series, studies_of
from segmed.dicom.segmentation import read_segmentation, write_segmentation
from segmed.dicom.series import open_series
from segmed.imaging.reading import read_volume
from segmed.server.datastores import dicomweb
from segmed.server.http.errors import BadRequest
from segmed.server.tasks.train import MethodTrainTask
from study_folder import NAMES, nifti_file


@pytest.mark.parametrize("plane", PLANES)
def test_a_label_goes_into_the_pacs_and_comes_back(pacs: Pacs, tmp_path: Path, plane: str) -> None:
    folder, phantom, uid = put_series(pacs, tmp_path / "s", plane=plane, shape=(24, 20, 16))
    store = studies_of(pacs, tmp_path / "cache")
    path = store.get_image_uri(uid)
    volume, sent = read_volume(path), read_volume(folder)
    assert np.array_equal(volume.array, sent.array) and np.array_equal(volume.affine, sent.affine)
    assert sorted(volume.shape) == sorted(phantom.image.shape)
    labels, info = label_map(volume.shape), dict(INFO)
    store.save_label(uid, nifti_file(tmp_path / "l.nii.gz", labels, volume.affine), "final", info)
    study = str(pydicom.dcmread(folder / "000.dcm").StudyInstanceUID)
    (content,) = pacs.series("SEG", study)
    (tmp_path / "seg.dcm").write_bytes(content)
    found, names = read_segmentation(tmp_path / "seg.dcm", open_series(folder))
    assert np.array_equal(found, labels) and list(names.values()) == NAMES
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (info["seg_sop"], info["seg_series"]) == (seg.SOPInstanceUID, seg.SeriesInstanceUID)
    assert uid in store.get_labeled_images()

    stranger = studies_of(pacs, tmp_path / "elsewhere")  # another server, which has nothing but the PACS
    assert not stranger.has_label(uid, "final")
    assert stranger.get_label_by_image_id(uid, "final") == uid and uid in stranger.get_labeled_images()
    assert not (stranger.root / "series").exists()  # nothing is fetched before it is wanted
    assert np.array_equal(read_volume(stranger.get_label_uri(uid, "final")).array, labels)
    told = stranger.get_label_info(uid, "final")
    assert [item["name"] for item in told["label_info"]] == NAMES and told[
        "seg_series"
    ] == seg.SeriesInstanceUID


def test_the_newest_seg_counts_and_a_removed_label_stays_away(pacs: Pacs, tmp_path: Path) -> None:
    _, phantom, uid = put_series(pacs, tmp_path / "s")
    first, second = label_map(), np.where(label_map() == 1, 1, 0).astype(np.uint8)
    theirs = studies_of(pacs, tmp_path / "theirs")
    for n, labels in enumerate((first, second)):
        theirs.save_label(
            uid, nifti_file(tmp_path / f"{n}.nii.gz", labels, phantom.affine), "final", dict(INFO)
        )
    store = studies_of(pacs, tmp_path / "cache")
    assert np.array_equal(read_volume(store.get_label_uri(uid, "final")).array, second)
    store.remove_label(uid, "final")
    assert store.get_label_uri(uid, "final") == "" and uid not in store.get_labeled_images()


def test_a_pacs_that_froze_has_each_version_once(
    mine: Pacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may carry out later what it did not answer, and the second try must not become another version."""
    monkeypatch.setattr(dicomweb, "_STORE", 1.0)
    _, phantom, uid = put_series(mine, tmp_path / "s")
    store = studies_of(mine, tmp_path / "cache")
    label = nifti_file(tmp_path / "label.nii.gz", label_map(), phantom.affine)
    store.get_image_uri(uid)
    mine.freeze()
    try:
        with pytest.raises(BadRequest, match="does not answer in time"):
            store.save_label(uid, label, "final", dict(INFO))
    finally:
        mine.thaw()
    time.sleep(1.1)  # as long as a list is believed
    for number in (1, 2):
        info = dict(INFO)
        store.save_label(uid, label, "final", info)
        assert info["seg_edition"] == number
        stored = [pydicom.dcmread(io.BytesIO(seg)) for seg in mine.series("SEG")]
        assert sorted(str(seg.SeriesDescription) for seg in stored) == [
            f"Segmentation version {n} by SegMed medsam" for n in range(1, number + 1)
        ]


def test_segs_of_others_are_found_behind_the_list(pacs: Pacs, tmp_path: Path) -> None:
    folder, _, uid = put_series(pacs, tmp_path / "s")
    (tmp_path / "seg").mkdir()
    write_segmentation(label_map(), NAMES, open_series(folder), tmp_path / "seg" / "seg.dcm")
    pacs.upload(tmp_path / "seg")
    store = studies_of(pacs, tmp_path / "cache")
    deadline = time.monotonic() + 30
    while uid not in store.get_labeled_images():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (store.root / "series").exists()
    asked: list[Any] = []
    again = studies_of(pacs, tmp_path / "cache")
    again.pacs.reference = lambda *uids: asked.append(uids)  # type: ignore[method-assign, assignment, return-value]
    assert uid in again.get_labeled_images() and not asked  # what a SEG is about is remembered


def test_a_seg_that_names_no_series_is_left_out_with_a_reason(
    pacs: Pacs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, _, uid = put_series(pacs, tmp_path / "s")
    (tmp_path / "seg").mkdir()
    write_segmentation(label_map(), NAMES, open_series(folder), tmp_path / "seg" / "seg.dcm")
    seg = pydicom.dcmread(tmp_path / "seg" / "seg.dcm")
    del seg.ReferencedSeriesSequence
    seg.save_as(tmp_path / "seg" / "seg.dcm")
    pacs.upload(tmp_path / "seg")
    store = studies_of(pacs, tmp_path / "cache")
    reason, deadline = f"{seg.SeriesInstanceUID} in the PACS does not name the series", time.monotonic() + 30
    while reason not in caplog.text:
        assert time.monotonic() < deadline
        store.get_labeled_images()
        time.sleep(0.05)
    assert uid not in store.get_labeled_images() and caplog.text.count(reason) == 1


def test_an_empty_mask_is_kept_here_alone(pacs: Pacs, tmp_path: Path) -> None:
    folder, phantom, uid = put_series(pacs, tmp_path / "s")
    store, info = studies_of(pacs, tmp_path / "cache"), dict(INFO)
    store.save_label(uid, nifti_file(tmp_path / "l.nii.gz", label_map() * 0, phantom.affine), "final", info)
    assert "empty" in info["seg_note"] and store.has_label(uid, "final")
    assert pacs.series("SEG", str(pydicom.dcmread(folder / "000.dcm").StudyInstanceUID)) == []


def test_training_pairs_of_a_pacs(pacs: Pacs, tmp_path: Path) -> None:
    _, phantom, uid = put_series(pacs, tmp_path / "s")
    theirs = studies_of(pacs, tmp_path / "theirs")
    theirs.save_label(
        uid, nifti_file(tmp_path / "l.nii.gz", label_map(), phantom.affine), "final", dict(INFO)
    )
    store = studies_of(pacs, tmp_path / "cache")
    engine = SimpleNamespace(settings=SimpleNamespace(structures={NAMES[1]: 4}, patient=None))
    data = MethodTrainTask._data(SimpleNamespace(engine=engine), store)  # type: ignore[arg-type]
    n = next(n for n, volume in enumerate(data.volumes) if volume.name == uid)
    assert np.array_equal(data.read(n)[1], np.where(label_map() == 2, 4, 0))
    store._cache.max_bytes = 1
    store._cache.just_used = 0
    other = put_series(pacs, tmp_path / "other")[2]
    store.refresh()
    store.get_image_uri(other)
    assert data.volumes[n].image.is_dir()  # what is trained on is in use
