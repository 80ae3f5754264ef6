"""MONAI Label's batch inference, at once and in the background."""

from __future__ import annotations

import time
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import requests
from running import Server, Start

ROI = [10, 40, 12, 38, 2, 2]
BODY = {"roi": ROI, "save_label": True, "label_tag": "original", "multi_gpu": True, "device": "cuda"}


@pytest.fixture(scope="module")
def server(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Server:
    studies = tmp_path_factory.mktemp("studies")
    disc = np.hypot(*np.mgrid[-24:24, -24:24])[..., None] < 13
    for name, depth in (("first", 4), ("second", 4), ("thin", 1)):  # the box lies beside the thin one
        image = np.where(disc, 200, 40).repeat(depth, 2).astype(np.int16)
        nib.save(nib.Nifti1Image(image, np.eye(4)), studies / f"{name}.nii.gz")
    return start(studies, models="classical")


def _original(server: Server, name: str) -> Path:
    return server.studies / "labels" / "original" / f"{name}.nrrd"


def test_a_batch_at_once_tells_each_image(server: Server) -> None:
    url = f"{server.url}/batch/infer/classical?images=all&run_sync=true"
    answer = requests.post(url, json=BODY, timeout=120)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert set(told) == {"first", "second", "thin"}
    assert "lies outside the image" in told["thin"]["error"]
    for name in ("first", "second"):
        assert "error" not in told[name]
        assert nrrd.read(str(_original(server, name)))[0].any()
    assert not _original(server, "thin").exists()


def test_a_batch_needs_no_more_than_its_prompt(server: Server) -> None:
    _original(server, "first").unlink(missing_ok=True)
    url = f"{server.url}/batch/infer/classical?images=all&run_sync=true"
    told = requests.post(url, json={"roi": ROI}, timeout=120).json()
    assert "error" not in told["first"], told
    assert nrrd.read(str(_original(server, "first")))[0].any()


def test_a_batch_in_the_background_does_the_same(server: Server) -> None:
    for name in ("first", "second"):
        _original(server, name).unlink(missing_ok=True)
    begun = requests.post(f"{server.url}/batch/infer/classical?images=all", json=BODY, timeout=60)
    assert begun.status_code == 200, begun.text
    end = time.monotonic() + 120
    while requests.get(f"{server.url}/batch/infer?check_if_running=true", timeout=10).status_code == 200:
        assert time.monotonic() < end
        time.sleep(0.5)
    for name in ("first", "second"):
        assert nrrd.read(str(_original(server, name)))[0].any()
