"""MONAI Label's own start command, without our web application, keeps working."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
from running import ROOT, free_port
from segmed.data.phantom import Phantom


@pytest.fixture(scope="module")
def url(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    work = tmp_path_factory.mktemp("plain")
    (work / "studies").mkdir()
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), work / "studies" / "ct.nii.gz")
    port = free_port()
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", str(ROOT / "apps/segmed")]
    command += ["--studies", str(work / "studies"), "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        **os.environ,
        "MONAI_LABEL_SESSION_PATH": str(work / "sessions"),
        "MONAI_LABEL_TRACKING_ENABLED": "false",
        "TMPDIR": str(work),
    }
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=work)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                requests.get(f"{address}/info/", timeout=5)
                break
            except requests.ConnectionError:
                assert process.poll() is None, (work / "log").read_text(encoding="utf-8")
                assert time.monotonic() < deadline
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def test_models_are_offered(url: str) -> None:
    assert set(requests.get(f"{url}/info/", timeout=10).json()["models"]) == {
        "segmed",
        "segmed_3d",
        "segmed_scribbles",
        "segmed_scribbles_3d",
        "classical",
        "classical_3d",
    }


def test_inference_by_image_and_by_session(url: str, phantom: Phantom, tmp_path: Path) -> None:
    params = {"params": json.dumps({"roi": [60, 20, 70, 20, 10, 10], "result_extension": ".nrrd"})}
    by_image = requests.post(f"{url}/infer/classical?image=ct&output=image", data=params, timeout=60)
    assert by_image.content.startswith(b"NRRD")
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), tmp_path / "x.nii.gz")
    files = {"files": ("x.nii.gz", (tmp_path / "x.nii.gz").read_bytes())}
    session = requests.put(f"{url}/session/", files=files, timeout=30).json()["session_id"]
    by_session = requests.post(
        f"{url}/infer/classical?session_id={session}&output=image", data=params, timeout=60
    )
    voxels = [
        answer.content.split(b"\n\n", 1)[1] for answer in (by_image, by_session)
    ]  # headers tell the time
    assert voxels[0] == voxels[1]


def test_a_path_is_not_an_image(url: str, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((9, 9, 9), np.int16), np.eye(4)), tmp_path / "secret.nii.gz")
    path = str(tmp_path / "secret.nii.gz")
    params = {"roi": [1, 5, 1, 5, 1, 1], "image": path, "image_path": path}
    for query in ({"image": path}, {"image": "ct"}):
        answer = requests.post(
            f"{url}/infer/classical", params=query, data={"params": json.dumps(params)}, timeout=30
        )
        assert answer.status_code >= 400
