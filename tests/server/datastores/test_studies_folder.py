"""Studies folders in which the server may not write, and those that go away while it runs, asked over
HTTP."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import bombs
import nibabel as nib
import numpy as np
import psutil
import pytest
import requests
from dicom_phantom import phantom_series
from running import Server, Start, free_port, stop, wait_for
from segmed.data.phantom import Phantom
from segmed.server.config.dicomweb_settings import DicomwebSettings
from segmed.server.datastores.dicom_folder import DicomFolderStudies
from segmed.server.datastores.folder_datastore import FolderDatastore
from segmed.server.datastores.studies import state_folder
from segmed.server.http.errors import MAY_ONLY_READ, BadRequest

# root may write everywhere, so that the server gives up that right (CAP_DAC_OVERRIDE, 1) before it begins
AS_ANYBODY = """
import ctypes, os, sys
if os.getuid() == 0:
    libc, head = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(head, sets) == 0
    for n in (0, 1):
        sets[n] &= ~0b110
    assert libc.capset(head, sets) == 0, os.strerror(ctypes.get_errno())
from segmed.cli import app
app(sys.argv[1:])
"""
BOX = {"params": json.dumps({"roi": [20, 60, 20, 60, 10, 10]})}


def _image(path: Path, phantom: Phantom) -> bytes:
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), path)
    return path.read_bytes()


def _label(phantom: Phantom, folder: Path) -> bytes:
    labels = np.zeros(phantom.image.shape, np.uint8)
    labels[20:40, 20:40, 5:8] = 1
    nib.save(nib.Nifti1Image(labels, phantom.affine), folder / "label.nii.gz")
    return (folder / "label.nii.gz").read_bytes()


def _everything(root: Path) -> set[tuple[str, int]]:
    return {(str(path), path.stat().st_mtime_ns) for path in (root, *root.rglob("*"))}


def _serve(studies: Path, work: Path) -> tuple[str, subprocess.Popen[bytes], Path]:
    """A server that may not write where rights do not let it."""
    port, log = free_port(), work / "log"
    words = ["serve", "--studies", str(studies), "--port", str(port), "--conf", "models", "classical"]
    words += ["--conf", "registry", str(work / "registry")]
    environment = {**os.environ, "TMPDIR": str(work), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", AS_ANYBODY, *words]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=work)
    return f"http://127.0.0.1:{port}", process, log


@pytest.mark.skipif(os.getuid() == 0 and sys.platform != "linux", reason="root may write everywhere here")
def test_a_folder_that_may_only_be_read_is_served(phantom: Phantom, tmp_path: Path) -> None:
    studies, work = tmp_path / "studies", tmp_path / "work"
    studies.mkdir()
    work.mkdir()
    try:
        image = _image(studies / "ct.nii.gz", phantom)
        studies.chmod(0o555)
        before = _everything(studies)
        url, process, log = _serve(studies, work)
        try:
            said = wait_for("SegMed is ready", log, process)
            assert said.count("may only read its studies folder") == 1
            assert list(requests.get(f"{url}/datastore/?output=all", timeout=60).json()["objects"]) == ["ct"]
            assert requests.get(f"{url}/datastore/image?image=ct", timeout=60).content == image
            assert requests.get(f"{url}/api/images/ct", timeout=60).json()["shape"] == list(
                phantom.image.shape
            )
            mask = requests.post(f"{url}/infer/classical?image=ct&output=image", data=BOX, timeout=120)
            assert mask.status_code == 200 and mask.content.startswith(b"NRRD")
            prompt = {"client": "a", "model": "classical", "label": "liver", "box": [20, 60, 20, 60, 10, 10]}
            worked = requests.post(f"{url}/api/images/ct/prompt", json=prompt, timeout=120)
            assert worked.status_code == 200, worked.text
            kept = requests.get(f"{url}/api/images/ct/work?client=a", timeout=60).json()
            assert "liver" in json.dumps(kept)
            files = {"label": ("label.nii.gz", _label(phantom, work))}
            answers = [
                requests.post(f"{url}/api/images/ct/save", json={"client": "a"}, timeout=60),
                requests.put(
                    f"{url}/datastore/label?image=ct", data={"params": "{}"}, files=files, timeout=60
                ),
                requests.put(
                    f"{url}/datastore/image?image=b", files={"file": ("b.nii.gz", image)}, timeout=60
                ),
            ]
            assert [(a.status_code, a.json()["detail"]) for a in answers] == [(403, MAY_ONLY_READ)] * 3
            assert requests.post(f"{url}/activelearning/random", json={}, timeout=60).status_code == 200
            assert process.poll() is None
        finally:
            stop(process)
        assert _everything(studies) == before
    finally:
        studies.chmod(0o755)


def _may_not_write(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("read_only", "folder_list", "dicom_folder", "studies"):
        monkeypatch.setattr(f"segmed.server.datastores.{module}.can_write", lambda folder: False)


def test_labels_of_a_folder_that_may_only_be_read_are_listed(
    phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _image(tmp_path / "ct.nii.gz", phantom)
    (tmp_path / "l").mkdir()
    _label(phantom, tmp_path / "l")
    first = FolderDatastore.of_folder(tmp_path, auto_reload=False)
    first.save_label("ct", str(tmp_path / "l" / "label.nii.gz"), "final", {"client_id": "anna"})
    before = _everything(tmp_path)
    _may_not_write(monkeypatch)
    store = FolderDatastore.of_folder(tmp_path, auto_reload=False)
    assert store.list_images() == store.get_labeled_images() == ["ct"]
    assert store.get_label_info("ct", "final")["client_id"] == "anna"
    assert (
        Path(store.get_label_uri("ct", "final")).read_bytes()
        == (tmp_path / "labels/final/ct.nii.gz").read_bytes()
    )
    assert Path(store.get_image_uri("ct")) == tmp_path / "ct.nii.gz"
    refusals: list[Any] = [
        lambda: store.save_label("ct", str(tmp_path / "l" / "label.nii.gz"), "original", {}),
        lambda: store.remove_label("ct", "final"),
        lambda: store.update_label_info("ct", "final", {}),
        lambda: store.update_image_info("ct", {}),
        lambda: store.add_image("b", str(tmp_path / "ct.nii.gz"), {}),
    ]
    for refuse in refusals:
        with pytest.raises(BadRequest, match="may only read") as caught:
            refuse()
        assert caught.value.status == 403
    assert _everything(tmp_path) == before
    assert tmp_path not in state_folder(store, None).parents
    _image(tmp_path / "new.nii.gz", phantom)
    assert set(store.list_images()) == {"ct", "new"}


def test_so_are_dicom_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phantom_series(tmp_path / "s" / "ct", shape=(24, 20, 6))
    _may_not_write(monkeypatch)
    store = DicomFolderStudies(tmp_path / "s", DicomwebSettings().modalities)
    assert len(store.list_images()) == 1
    assert "may only read" in store.state()["message"]
    folder = state_folder(store, None)
    assert tmp_path not in folder.parents and state_folder(store, None) == folder
    assert state_folder(store, tmp_path / "chosen") == tmp_path / "chosen"


@pytest.fixture(scope="module")
def small(start: Start, phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Server:
    studies = tmp_path_factory.mktemp("studies") / "of" / "mine"
    studies.mkdir(parents=True)
    _image(studies / "ct.nii.gz", phantom)
    return start(studies, "--conf", "models", "classical")


def test_a_folder_that_goes_away_is_not_made_anew(small: Server, phantom: Phantom, tmp_path: Path) -> None:
    url, away = small.url, small.studies.with_name("away")
    image, label = _image(tmp_path / "b.nii.gz", phantom), _label(phantom, tmp_path)

    def save(name: str) -> list[requests.Response]:
        files = {"label": ("label.nii.gz", label)}
        prompt = {"client": "a", "model": "classical", "label": "liver", "box": [20, 60, 20, 60, 10, 10]}
        requests.post(f"{url}/api/images/ct/prompt", json=prompt, timeout=120)
        return [
            requests.put(
                f"{url}/datastore/image?image={name}", files={"file": ("b.nii.gz", image)}, timeout=60
            ),
            requests.put(f"{url}/datastore/label?image=ct", data={"params": "{}"}, files=files, timeout=60),
            requests.post(f"{url}/api/images/ct/save", json={"client": "a"}, timeout=60),
        ]

    assert [answer.status_code for answer in save("one")] == [200, 200, 200]
    small.studies.rename(away)
    try:
        answers = save("two")
        assert [answer.status_code for answer in answers] == [503] * 3, [answer.text for answer in answers]
        assert all("mounting its drive" in answer.json()["detail"] for answer in answers)
        told = requests.get(f"{url}/info/", timeout=60)
        assert told.status_code == 200 and "mounting its drive" in told.json()["datastore"]["message"]
        assert requests.get(f"{url}/datastore/?output=all", timeout=60).status_code == 200
        assert not small.studies.exists()
    finally:
        shutil.rmtree(small.studies, ignore_errors=True)
        away.rename(small.studies)
    assert [answer.status_code for answer in save("two")] == [200, 200, 200]
    assert {"ct", "one", "two"} <= set(
        requests.get(f"{url}/datastore/?output=all", timeout=60).json()["objects"]
    )
    assert small.process.poll() is None


SENT = {
    "a.nii.gz": bombs.nifti,
    "a.nii": bombs.nifti,
    "a.nrrd": bombs.nrrd,
    "deflated.dcm": bombs.deflated_dicom,
    "wide.dcm": bombs.wide_dicom,
    "frames.dcm": bombs.many_frames_dicom,
}


@pytest.mark.parametrize("name", SENT)
def test_a_bomb_that_is_sent_is_refused(small: Server, name: str, tmp_path: Path) -> None:
    SENT[name](tmp_path / name)
    content, process = (tmp_path / name).read_bytes(), psutil.Process(small.process.pid)
    before = process.memory_info().rss
    asked = [
        requests.put(f"{small.url}/session/", files={"files": (name, content)}, timeout=120),
        requests.post(f"{small.url}/infer/classical", data=BOX, files={"file": (name, content)}, timeout=120),
    ]
    if not name.endswith(".dcm"):
        label = {"label": (name, content)}
        asked += [
            requests.put(
                f"{small.url}/datastore/image?image=b", files={"file": (name, content)}, timeout=120
            ),
            requests.put(
                f"{small.url}/datastore/label?image=ct", data={"params": "{}"}, files=label, timeout=120
            ),
            requests.post(f"{small.url}/infer/classical?image=ct", data=BOX, files=label, timeout=120),
        ]
    assert all(400 <= one.status_code < 500 for one in asked), [
        (one.status_code, one.text[:200]) for one in asked
    ]
    assert all(len(one.json()["detail"]) > 60 for one in asked)
    assert process.memory_info().rss - before < 300 * 2**20
    mask = requests.post(f"{small.url}/infer/classical?image=ct&output=image", data=BOX, timeout=120)
    assert mask.content.startswith(b"NRRD")
