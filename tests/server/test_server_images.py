"""Images that reach the server by sessions and uploads, and labels that return."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
import SimpleITK as sitk
from running import Server
from segmed.data.phantom import Phantom
from segmed.imaging.labels.provenance import read_provenance
from slicer_requests import infer, roi_of

LIVER, K = 1, 14


@pytest.fixture(scope="module")
def truth(phantom: Phantom) -> np.ndarray:
    return np.asarray(phantom.labels == LIVER)


def test_sessions(server: Server, truth: np.ndarray, phantom: Phantom, tmp_path: Path) -> None:
    volume = tmp_path / "loaded by hand.nii.gz"
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), volume)
    session = server.client.create_session(str(volume))["session_id"]
    assert server.client.get_session(session)
    roi = roi_of(truth[:, :, K : K + 1], (K, K))
    # the name of the volume's node comes as image and is not looked up
    by_session, _, _ = infer(server, "classical", {"roi": roi}, image="2: CT/Thorax", session_id=session)
    by_image, _, _ = infer(server, "classical", {"roi": roi})
    assert (by_session == by_image).all()
    server.client.remove_session(session)
    gone = requests.get(f"{server.url}/session/{session}", timeout=10)
    assert gone.status_code == 404


def test_dicom_session(server: Server, phantom: Phantom, tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(phantom.image[:, :, :6].transpose(2, 1, 0))
    image.SetSpacing((3.6, 3.6, 8.0))
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    files = []
    for k in range(6):
        part = image[:, :, k]
        for tag, value in {
            "0008|0060": "CT",
            "0020|000e": "1.2.826.0.1.3680043.2.1125.1",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.2",
            "0008|0018": f"1.2.826.0.1.3680043.2.1125.3.{k + 1}",
            "0020|0032": f"0\\0\\{8 * k}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0013": str(k),
        }.items():
            part.SetMetaData(tag, value)
        writer.SetFileName(str(tmp_path / f"{k}.dcm"))
        writer.Execute(part)
        files.append(("files", (f"IM{5 - k}.dcm", (tmp_path / f"{k}.dcm").read_bytes())))
    created = requests.put(f"{server.url}/session/", files=files, timeout=60).json()
    mask, header, told = infer(
        server, "classical", {"roi": [20, 50, 20, 60, 4, 4]}, session_id=created["session_id"]
    )
    assert mask.shape == (96, 80, 6)
    assert np.allclose(np.diag(header["space directions"]), [3.6, 3.6, 8.0])
    assert told["window"] == "ct-soft-tissue"
    assert "/" not in json.dumps(created)


def test_uploaded_file_and_2d_picture(server: Server) -> None:
    mask, _, _ = infer(server, "classical", {"foreground": [[30, 36]]}, image="photo")
    assert mask.shape == (96, 80, 1)
    file = {"file": ("photo.png", (server.studies / "photo.png").read_bytes())}
    params = {"params": json.dumps({"foreground": [[30, 36, 0]]})}
    answer = requests.post(f"{server.url}/infer/classical?output=image", files=file, data=params, timeout=60)
    assert answer.status_code == 200


def test_save_and_download_a_label(server: Server, phantom: Phantom, tmp_path: Path) -> None:
    label = tmp_path / "label.nii.gz"
    nib.save(nib.Nifti1Image(phantom.labels, phantom.affine), label)
    asked = {"foreground": [[30, 36, K]], "label": "liver", "client_id": "dr"}
    _, told = server.client.infer("classical", "ct for saving", asked)
    info = {"label_info": [{"name": "liver", "idx": 1}], "client_id": "dr", "provenance": {"liver": "forged"}}
    saved = server.client.save_label("ct for saving", str(label), params=info)
    assert saved["image"] == "ct for saving"
    beside = server.studies / "labels" / "final" / "ct for saving.json"
    assert read_provenance(beside, "liver").to_json() == told["provenance"]
    assert server.client.info()["datastore"]["completed"] == 1
    back = server.client.download_label("ct for saving", "final")
    assert (np.asarray(nib.load(back).dataobj) == phantom.labels).all()
    entry = server.client.datastore()["objects"]["ct for saving"]["labels"]["final"]["info"]
    assert entry["client_id"] == "user-xyz"
    pairs = requests.get(f"{server.url}/datastore/?output=train", timeout=10).json()
    assert pairs == [{"image": "ct for saving", "label": "ct for saving"}]


def test_upload_and_next_sample(server: Server, tmp_path: Path) -> None:
    copy = tmp_path / "new.nii.gz"
    shutil.copy(server.studies / "ct.nii.gz", copy)
    assert server.client.upload_image(str(copy), "Müller 2: CT, venös") == {"image": "Müller 2: CT, venös"}
    sample = server.client.next_sample("random", {})
    assert sample["id"] in server.client.datastore()["objects"]
    assert sample["path"] == ""
    download = requests.get(f"{server.url}/datastore/image?image={sample['id']}", timeout=30)
    assert download.status_code == 200
    requests.delete(f"{server.url}/datastore/image?id=Müller 2: CT, venös", timeout=10)


def test_nothing_is_left_behind(server: Server) -> None:
    assert server.left_behind() == []
