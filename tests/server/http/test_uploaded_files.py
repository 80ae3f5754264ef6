"""What clients send as files: nothing outside of the upload is read for it, whatever stands in it."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import requests
import SimpleITK as sitk
from fastapi import UploadFile
from running import Server, Start
from segmed.cli import app
from segmed.data.phantom import Phantom, dicom
from segmed.server.http import session_routes
from segmed.server.http.errors import BadRequest
from typer.testing import CliRunner

NRRD = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 16 16 2\nspacings: 1 1 1\nencoding: raw\nendian: little\n"
META = "ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 16 16 2\nElementType = MET_UCHAR\n"
VOXELS = np.random.default_rng(0).integers(0, 900, (9, 8, 7)).astype(np.int16)
SECRET = b"SECRET OF THE SERVER " * 40


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("elsewhere") / "secret.txt"
    path.write_bytes(SECRET)
    return path


@pytest.mark.parametrize("name", ["evil.nrrd", "evil.nhdr", "evil.mha", "evil.mhd", "evil.png", "evil.nii"])
def test_a_header_of_another_file_is_refused_everywhere(server: Server, secret: Path, name: str) -> None:
    text = META + f"ElementDataFile = {secret}\n" if ".mh" in name else NRRD + f"data file: {secret}\n"
    file = (name, text.encode())
    label = {"file": ("a.nrrd", b"x"), "label": file}
    params = {"params": json.dumps({"roi": [2, 9, 2, 9, 0, 0]})}
    calls = [
        requests.put(f"{server.url}/datastore/image?image=evil", files={"file": file}, timeout=60),
        requests.put(f"{server.url}/datastore/label?image=ct", files={"label": file}, timeout=60),
        requests.put(f"{server.url}/session/", files={"files": file}, timeout=60),
        requests.put(
            f"{server.url}/session/", files=[("files", ("a", text)), ("files", ("b.dcm", text))], timeout=60
        ),
        requests.post(f"{server.url}/infer/classical", files={"file": file}, data=params, timeout=60),
        requests.post(f"{server.url}/infer/classical?image=ct", files=label, data=params, timeout=60),
    ]
    for answer in calls:
        assert answer.status_code == 400, answer.text
        detail = answer.json()["detail"]
        assert "SECRET" not in detail and str(secret.parent) not in detail
    assert "evil" not in requests.get(f"{server.url}/datastore/?output=all", timeout=10).json()["objects"]
    if name != "evil.png":
        assert "voxels lie in another file" in calls[0].json()["detail"]


@pytest.fixture(scope="module")
def odd(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server on images of two files, and on files that it cannot offer."""
    studies = tmp_path_factory.mktemp("odd")
    place = {
        "space": "left-posterior-superior",
        "space directions": np.diag([1, 1, 2.0]),
        "space origin": [3, 4, 5.0],
    }
    nrrd.write(str(studies / "det.nhdr"), VOXELS, {**place, "encoding": "raw"})
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS.T), str(studies / "meta.mhd"))
    nib.save(nib.Nifti1Image(VOXELS, np.eye(4)), studies / "a.nii.gz")
    (studies / "a.nii.gz").rename(studies / "CASE.NII.GZ")
    (studies / "deep" / "er").mkdir(parents=True)
    for name in ("._CASE.nii.gz", "two..dots.nii.gz", "det.png", "deep/er/T1w.nii.gz"):
        (studies / name).write_bytes(b"x")
    return start(studies, "--conf", "models", "classical")


@pytest.mark.parametrize("name", ["det", "meta"])
def test_an_image_of_two_files_is_given_to_viewers_whole(odd: Server, name: str, tmp_path: Path) -> None:
    answer = requests.get(f"{odd.url}/datastore/image?image={name}", timeout=60)
    assert answer.status_code == 200 and f'filename="{name}.nii"' in answer.headers["content-disposition"]
    got = tmp_path / f"{name}.nii"
    got.write_bytes(answer.content)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(got))).T, VOXELS)
    if name == "det":
        assert np.allclose(sitk.ReadImage(str(got)).GetOrigin(), (3, 4, 5))


def test_what_is_left_out_is_told_everywhere(odd: Server) -> None:
    left = {"._CASE.nii.gz", "two..dots.nii.gz", "det.png", "deep/"}
    state = requests.get(f"{odd.url}/api/state", timeout=60).json()["studies"]
    assert {one["name"] for one in state["left_out"]} == left
    assert all(one["reason"] for one in state["left_out"]) and state["message"].startswith(
        "4 files are left out"
    )
    info = requests.get(f"{odd.url}/info/", timeout=60).json()["datastore"]
    assert info["left_out"] == state["left_out"] and info["total"] == 3
    assert {one["id"] for one in requests.get(f"{odd.url}/api/images", timeout=60).json()} == {
        "CASE",
        "det",
        "meta",
    }
    for _ in range(4):
        sample = requests.post(
            f"{odd.url}/activelearning/sequential", json={"client_id": "a"}, timeout=60
        ).json()
        if sample:
            assert (
                requests.get(f"{odd.url}/datastore/image?image={sample['id']}", timeout=60).status_code == 200
            )
    log = odd.log.read_text(encoding="utf-8")
    assert all(name in log for name in left) and "4 files are left out" in log
    shown = CliRunner().invoke(app, ["info", "--studies", str(odd.studies)], env={"COLUMNS": "200"})
    assert shown.exit_code == 0 and "3 image files" in shown.output
    assert all(name in shown.output for name in left)


def test_an_upload_replaces_nothing(odd: Server, tmp_path: Path) -> None:
    for n, name in enumerate(("one", "two")):
        nib.save(nib.Nifti1Image(VOXELS + np.int16(1000 * n), np.eye(4)), tmp_path / f"{name}.nii.gz")
    url, one, two = f"{odd.url}/datastore/image", tmp_path / "one.nii.gz", tmp_path / "two.nii.gz"
    content = {path: {"file": (path.name, path.read_bytes())} for path in (one, two)}
    assert requests.put(f"{url}?image=Volume", files=content[one], timeout=60).json() == {"image": "Volume"}
    refused = requests.put(f"{url}?image=Volume", files=content[two], timeout=60)
    assert refused.status_code == 409 and "is not replaced" in refused.json()["detail"]
    assert requests.get(f"{url}?image=Volume", timeout=60).content == one.read_bytes()
    for taken in ("CASE", "det", "two..dots"):  # of another extension, or not even listed
        assert requests.put(f"{url}?image={taken}", files=content[two], timeout=60).status_code in (400, 409)
    new = requests.put(f"{url}?image=Volume&new_name=true", files=content[two], timeout=60)
    assert new.status_code == 200 and new.json() == {"image": "Volume_2"}
    assert requests.get(f"{url}?image=Volume_2", timeout=60).content == two.read_bytes()
    assert requests.get(f"{url}?image=Volume", timeout=60).content == one.read_bytes()


def test_work_on_a_deleted_image_is_not_that_of_a_new_one(odd: Server, tmp_path: Path) -> None:
    image, url = tmp_path / "x.nii.gz", f"{odd.url}/datastore/image"
    nib.save(nib.Nifti1Image(VOXELS, np.eye(4)), image)
    file = {"file": ("x.nii.gz", image.read_bytes())}
    assert requests.put(f"{url}?image=gone", files=file, timeout=60).status_code == 200
    body = {"client": "ann", "model": "classical", "label": "object", "box": [1, 7, 1, 6, 2, 2]}
    drawn = requests.post(f"{odd.url}/api/images/gone/prompt", json=body, timeout=120)
    assert drawn.status_code == 200, drawn.text
    assert requests.delete(f"{url}?id=gone", timeout=60).status_code == 200
    assert requests.put(f"{url}?image=gone", files=file, timeout=60).status_code == 200
    work = requests.get(f"{odd.url}/api/images/gone/work?client=ann", timeout=60).json()
    assert work["changes"] == [] and not work["can_undo"]


def _zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def _session_of(server: Server, archive: bytes, name: str = "series.zip") -> requests.Response:
    url = f"{server.url}/session/?uncompress=true"
    return requests.put(url, files={"files": (name, archive)}, timeout=60)


def test_a_session_on_a_zip(server: Server, phantom: Phantom, tmp_path: Path) -> None:
    """Of a series in folders, or of one image; what a name in it leads to does not matter."""
    series = dicom.write_series(tmp_path, phantom.image, phantom.affine)
    image = (server.studies / "ct.nii.gz").read_bytes()
    zips = (
        _zipped({f"a/../../b/{n}.dcm": path.read_bytes() for n, path in enumerate(series)}),
        _zipped({"scans/": b"", "scans/ct.nii.gz": image}),
    )
    box = json.dumps({"roi": [10, 60, 10, 60, 12, 12], "result_extension": ".nii.gz"})
    for archive in zips:
        opened = _session_of(server, archive)
        assert opened.status_code == 200, opened.text
        url = f"{server.url}/infer/classical?session_id={opened.json()['session_id']}&output=json"
        assert requests.post(url, data={"params": box}, timeout=60).status_code == 200
    assert server.left_behind() == []


@pytest.mark.parametrize(
    ("archive", "name", "why"),
    [
        (b"PK no zip", "a.zip", "cannot be unpacked"),
        (_zipped({}), "a.zip", "holds 0 files"),
        (_zipped({"a.nii.gz": b"x", "evil.py": b"import os"}), "a.zip", "not taken"),
        (_zipped({"a.mhd": b"ElementDataFile = /etc/passwd"}), "a.zip", "header whose voxels"),
        (_zipped({"a.nii.gz": b"x"}), "a.tar", "Only one .zip file"),
        (_zipped({"a.nii.gz": b"0" * 10_000})[:-90] + b"\0" * 90, "a.zip", "cannot be unpacked"),
    ],
)
def test_zips_that_hold_no_image_are_refused(server: Server, archive: bytes, name: str, why: str) -> None:
    refused = _session_of(server, archive, name)
    assert refused.status_code == 400 and why in refused.json()["detail"], refused.text
    assert server.left_behind() == []


def test_a_zip_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(session_routes, "MAX_BODY", 3 * 2**20)
    bomb = UploadFile(io.BytesIO(_zipped({f"{n}.dcm": bytes(2**20) for n in range(4)})), filename="a.zip")
    with pytest.raises(BadRequest, match="unpacks to more than"):
        session_routes._unpacked([bomb], tmp_path)
