"""A PACS as studies, against a real Orthanc: listing, fetching, and what happens when it goes away."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import requests
from dicom_phantom import phantom_series
from orthanc import Pacs
from pacs_place import INFO, Place, label_map, put_series, studies_of
from running import Server, Start, free_port
from segmed.dicom.segmentation import read_segmentation
from segmed.dicom.series import open_series
from segmed.imaging.reading import read_volume
from segmed.server.http.errors import BadRequest
from study_folder import NAMES, SHAPE, nifti_file


def test_series_are_listed_by_modality_and_filter(mine: Pacs, tmp_path: Path) -> None:
    ct = put_series(mine, tmp_path / "ct")[2]
    mr = put_series(mine, tmp_path / "mr", modality="MR")[2]
    store = studies_of(mine, tmp_path / "cache")
    assert set(store.list_images()) == {ct, mr}
    assert store.state() == {"kind": "pacs", "state": "ok", "message": ""}
    info = store.get_image_info(ct)
    assert (info["modality"], info["description"], info["slices"]) == ("CT", "phantom", SHAPE[2])
    assert studies_of(mine, tmp_path / "cache", modalities="mr").list_images() == [mr]
    past = studies_of(mine, tmp_path / "cache", dicomweb_filter='{"StudyDate": "-20200101"}')
    assert past.list_images() == []
    assert read_volume(past.get_image_uri(ct)).shape == SHAPE  # a viewer may open what the filter leaves out
    with pytest.raises(BadRequest, match="no series") as missing:
        store.get_image_uri("1.2.3")
    assert missing.value.status == 404
    third = put_series(mine, tmp_path / "third")[2]
    time.sleep(1.1)  # as long as a list is believed
    assert third in store.list_images()


def test_a_series_that_grows_is_fetched_anew(mine: Pacs, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    phantom = phantom_series(folder, shape=SHAPE)
    late = (folder / "005.dcm").read_bytes()
    (folder / "005.dcm").unlink()
    mine.upload(folder)
    store = studies_of(mine, tmp_path / "cache")
    (uid,) = store.list_images()
    assert read_volume(store.get_image_uri(uid)).shape == (*SHAPE[:2], 5)
    (folder / "005.dcm").write_bytes(late)
    mine.upload(folder)
    store.refresh()
    store.list_images()
    assert np.array_equal(read_volume(store.get_image_uri(uid)).array, phantom.image)


def test_a_pacs_that_goes_and_comes_back(mine: Pacs, tmp_path: Path) -> None:
    _, phantom, uid = put_series(mine, tmp_path / "s")
    other = put_series(mine, tmp_path / "other")[2]
    mine.stop()
    store = studies_of(mine, tmp_path / "cache")
    assert store.state()["state"] == "down" and "cannot be reached" in store.state()["message"]
    assert store.status() == {
        "total": 0,
        "completed": 0,
        "label_tags": {},
        "message": store.state()["message"],
    }
    with pytest.raises(BadRequest, match="cannot be reached") as down:
        store.list_images()
    assert down.value.status == 424
    mine.start()
    time.sleep(2.1)  # after which it is asked again
    assert store.state()["state"] == "ok" and uid in store.list_images()
    before = read_volume(store.get_image_uri(uid)).array
    mine.stop()
    assert np.array_equal(read_volume(store.get_image_uri(uid)).array, before)  # work goes on
    with pytest.raises(BadRequest) as down:
        store.get_image_uri(other)
    assert down.value.status == 424 and store.state()["state"] == "down"
    label = nifti_file(tmp_path / "l.nii.gz", label_map(), phantom.affine)
    with pytest.raises(BadRequest) as down:
        store.save_label(uid, label, "final", dict(INFO))
    assert down.value.status == 424
    assert not store.has_label(uid, "final")  # nothing half saved
    mine.start()
    time.sleep(2.1)
    store.save_label(uid, label, "final", dict(INFO))
    assert store.get_labeled_images() == [uid] and len(mine.series("SEG")) == 1


@pytest.fixture(scope="module")
def hospital(
    start: Start, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Pacs, Place, Path]]:
    """A server that was started while its PACS was down."""
    if shutil.which("Orthanc") is None:
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    home = tmp_path_factory.mktemp("hospital")
    one = Pacs(home, port=free_port())
    words = {"models": "classical,lora", "dicomweb_cache": str(home / "cache"), "dicomweb_list_seconds": "1"}
    server = start(one.url, *(w for key, value in words.items() for w in ("--conf", key, value)))
    assert "cannot be reached" in server.log.read_text(encoding="utf-8")
    one.start()
    yield server, one, put_series(one, home / "series"), home
    one.stop()


def test_a_server_on_a_pacs(hospital: tuple[Server, Pacs, Place, Path], tmp_path: Path) -> None:
    server, pacs, (folder, phantom, uid), home = hospital
    deadline = time.monotonic() + 30
    while requests.get(f"{server.url}/datastore/").json()["total"] != 1:  # without a restart
        assert time.monotonic() < deadline
        time.sleep(0.2)
    sample = requests.post(f"{server.url}/activelearning/sequential", json={}).json()
    assert (
        sample["id"] == uid
        and sample["StudyInstanceUID"] == pydicom.dcmread(folder / "000.dcm").StudyInstanceUID
    )
    answer = requests.post(
        f"{server.url}/infer/classical",
        params={"image": uid, "output": "image"},
        data={"params": json.dumps({"roi": [18, 4, 15, 3, 2, 2], "result_extension": ".nii"})},
    )
    assert answer.status_code == 200, answer.text
    assert np.asarray(nib.Nifti1Image.from_bytes(answer.content).dataobj).shape == SHAPE
    label = Path(nifti_file(tmp_path / "l.nii.gz", label_map(), phantom.affine)).read_bytes()

    def save() -> requests.Response:
        return requests.put(
            f"{server.url}/datastore/label",
            params={"image": uid},
            data={"params": json.dumps({"label_info": INFO["label_info"]})},
            files={"label": ("label.nii.gz", label)},
        )

    assert save().status_code == 200
    (content,) = pacs.series("SEG")
    (tmp_path / "seg.dcm").write_bytes(content)
    found, names = read_segmentation(tmp_path / "seg.dcm", open_series(folder))
    assert np.array_equal(found, label_map()) and list(names.values()) == NAMES
    back = requests.get(f"{server.url}/datastore/label", params={"label": uid, "tag": "final"})
    (tmp_path / "back.nii.gz").write_bytes(back.content)
    assert np.array_equal(read_volume(tmp_path / "back.nii.gz").array, label_map())
    assert requests.get(f"{server.url}/datastore/").json()["completed"] == 1
    pacs.stop()
    refused = save()
    assert refused.status_code == 424 and "PACS" in refused.json()["detail"]
    assert requests.get(f"{server.url}/info/").status_code == 200
    pacs.start()
    time.sleep(2.1)
    assert save().status_code == 200 and len(pacs.series("SEG")) == 2
    log = server.log.read_text(encoding="utf-8")
    assert not [word for word in ("Phantom", "phantom^", NAMES[1]) if word in log]
    assert not server.left_behind()
    assert (next((home / "cache").iterdir()).stat().st_mode & 0o777) == 0o700
