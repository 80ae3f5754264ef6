"""Saving and downloading the work of a workspace over HTTP: values, names, DICOM, and nothing left behind."""

from __future__ import annotations

import gzip
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests
from dicom_phantom import phantom_series
from page_client import Page, assert_refused, box_around, change_of
from running import Server, Start  # type: ignore[import-not-found]
from segmed.data.phantom import Phantom
from segmed.imaging.labels.provenance import Provenance

NAMES = ["Läsion 腫瘍", "spleen"]


def test_saved_labels_keep_their_values_and_are_named(
    server: Server, phantom: Phantom, tmp_path: Path
) -> None:
    page = Page(server, "Frau Müller saves", "ct for saving")
    page.do("clear")  # of what another test may have saved
    mine: dict[str, int] = {}
    for k, name in ((2, NAMES[0]), (3, "spleen")):
        mine[name] = page.do("paint", label=name, changes=[])["labels"][
            name
        ]  # an earlier label may have its own names
        page.do("paint", label=name, changes=[change_of(k, [5, 9], [6, 8], np.full((2, 4), mine[name]))])
    page.prompt("spleen", box=[20, 50, 20, 60, 10, 10])
    saved = page.post("save", tag="final").json()
    assert (saved["label"], saved["seg"], saved["note"]) == ("ct for saving", None, "")
    entry = server.client.datastore()["objects"]["ct for saving"]["labels"]["final"]["info"]
    values = {
        one["name"]: one["idx"] for one in entry["label_info"]
    }  # what an earlier label took stays taken
    assert set(values) == {"spleen", NAMES[0]}
    assert mine["spleen"] == 2  # as configured, though there is no liver
    assert entry["client_id"] == "Frau Müller saves"
    assert entry["model"] == "classical"
    assert entry["prompts"] == 1
    record = Provenance.from_json(entry["provenance"]["spleen"])  # not of the liver, which was painted
    assert (record.model, record.prompt["roi"], list(entry["provenance"])) == (
        "classical",
        [20, 50, 20, 60, 10, 10],
        ["spleen"],
    )
    assert 0 < entry["seconds"] < 600
    stored = requests.get(
        f"{server.url}/datastore/label", {"label": "ct for saving", "tag": "final"}, timeout=30
    )
    assert stored.status_code == 200, stored.text[:300]
    (tmp_path / "stored.nii.gz").write_bytes(stored.content)
    file = nib.load(tmp_path / "stored.nii.gz")
    assert np.allclose(file.affine, phantom.affine, atol=1e-4)
    for name, value in values.items():
        assert ((np.asarray(file.dataobj) == value) == (page.labels == mine[name])).all()
    images = {i["id"]: i["labelled"] for i in requests.get(f"{server.url}/api/images", timeout=30).json()}
    assert images["ct for saving"] is True

    # somebody else corrects it
    other = Page(server, "reviewer", "ct for saving")
    names = {value: name for name, value in other.told["labels"].items()}
    for name, value in mine.items():
        assert (np.vectorize(names.get)(other.labels[page.labels == value]) == name).all()
    assert not other.told["can_undo"]
    other.do("clear")
    kept = other.post("save").json()
    assert "empty" in kept["note"] and kept["seg"] is None
    assert (
        server.client.datastore()["objects"]["ct for saving"]["labels"]["final"]["info"]["label_info"] == []
    )

    # the first one comes back, has nothing unsaved, and sees what is stored now
    assert not page.there().any()
    page.do("paint", label="liver", changes=[change_of(0, [1, 3], [1, 3], np.ones((2, 2)))])
    other.do("paint", label="liver", changes=[change_of(9, [1, 3], [1, 3], np.ones((2, 2)))])
    other.post("save")
    assert page.there()[1, 1, 0] == 1
    assert "Another label" in page.told["warnings"][0]
    assert "replaced" in page.post("save").json()["note"]
    assert "Müller" not in server.log.read_text(encoding="utf-8")
    assert "腫瘍" not in server.log.read_text(encoding="utf-8")


def test_download_as_nifti(page: Page, phantom: Phantom, truth: np.ndarray, tmp_path: Path) -> None:
    page.prompt("spleen", box=box_around(truth))
    url = f"{page.url}/download"
    answer = requests.get(url, params={"client": page.client, "format": "nifti"}, timeout=60)
    assert answer.headers["content-disposition"] == 'attachment; filename="ct-nifti.nii.gz"'
    (tmp_path / "x.nii").write_bytes(gzip.decompress(answer.content))
    image = nib.load(tmp_path / "x.nii")
    assert np.allclose(image.affine, phantom.affine, atol=1e-4)
    assert (np.asarray(image.dataobj) == np.where(page.labels > 0, page.told["labels"]["spleen"], 0)).all()
    for format in ("seg", "rtstruct"):
        assert_refused(
            requests.get(url, params={"client": page.client, "format": format}, timeout=60),
            "no DICOM series",
            "NIfTI",
        )


def test_dicom_studies_from_prompt_to_segmentation(
    start: Start, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    folder = tmp_path_factory.mktemp("dicom")
    phantom_series(folder / "a")
    phantom_series(folder / "b", seed=2)
    for path in (folder / "b").iterdir():
        unsized = pydicom.dcmread(path)
        del unsized.PixelSpacing
        unsized.save_as(path)
    server = start(folder, "--conf", "models", "classical")
    images = requests.get(f"{server.url}/api/images", timeout=60).json()
    (listed,) = [one for one in images if one["id"] != unsized.SeriesInstanceUID]
    meta = requests.get(f"{server.url}/api/images/{unsized.SeriesInstanceUID}", timeout=60).json()
    assert "does not state the size of its pixels, and 1 mm is assumed" in meta["note"]
    assert str(folder) not in meta["note"] and unsized.SeriesInstanceUID not in meta["note"]
    assert listed["modality"] == "CT"
    page = Page(server, "dr", listed["id"])
    meta = requests.get(page.url, timeout=60).json()
    assert meta["series"] == listed["id"] and meta["note"] == ""
    size = page.shape
    page.prompt("Läsion", box=[size[0] // 4, 3 * size[0] // 4, size[1] // 4, 3 * size[1] // 4, 2, 2])
    assert page.labels.any()
    url = f"{page.url}/download"
    for format in ("seg", "rtstruct"):
        answer = requests.get(url, params={"client": "dr", "format": format}, timeout=60)
        assert answer.status_code == 200, answer.text[:300]
        (tmp_path / f"{format}.dcm").write_bytes(answer.content)
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert seg.StudyInstanceUID == meta["study"]
    assert [d.SegmentLabel for d in seg.SegmentSequence] == ["Läsion"]
    (algorithm,) = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    assert "classical" in algorithm.AlgorithmName
    assert all(
        f"{key}=" in algorithm.AlgorithmParameters for key in ("weights", "image", "prompt", "software")
    )
    assert int(seg.pixel_array.sum()) == int((page.labels > 0).sum())
    contours = pydicom.dcmread(tmp_path / "rtstruct.dcm")
    assert [r.ROIName for r in contours.StructureSetROISequence] == ["Läsion"]
    saved = page.post("save").json()
    assert saved["seg"]
    page.do("clear")
    empty = requests.get(url, params={"client": "dr", "format": "seg"}, timeout=60)
    assert_refused(empty, "empty")
    kept = page.post("save").json()
    assert kept["seg"] is None and "empty" in kept["note"]
    assert all(path.is_symlink() for path in server.left_behind())  # the series stay linked


def test_nothing_is_left_behind(server: Server) -> None:
    assert server.left_behind() == []
