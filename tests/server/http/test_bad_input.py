"""What users and attackers get wrong: a 4xx that tells what to do, and a server that lives on."""

from __future__ import annotations

import io
import json
import tarfile
import uuid
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests
from running import Server

ROI = [20, 50, 20, 60, 10, 10]


def _infer(
    server: Server, params: Any = None, model: str = "classical", query: str = "image=ct", **more: Any
) -> Any:
    text = params if isinstance(params, str) else json.dumps(params or {"roi": ROI})
    return requests.post(f"{server.url}/infer/{model}?{query}", data={"params": text}, timeout=60, **more)


def _refused(answer: Any, *words: str, status: int = 400) -> None:
    assert answer.status_code == status, (answer.status_code, answer.text[:300])
    told = answer.json()["detail"]
    assert isinstance(told, str)
    assert len(told) > 20
    for word in words:
        assert word in told, told


@pytest.fixture(autouse=True)
def _server_lives_on(server: Server) -> Any:
    before = sorted(p.name for p in server.studies.rglob("*") if p.name != ".lock")
    yield
    assert _infer(server).status_code == 200
    assert sorted(p.name for p in server.studies.rglob("*") if p.name != ".lock") == before
    assert server.left_behind() == []


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"roi": []}, ["draw a box or click"]),
        ({"foreground": [], "background": [[5, 5, 5]]}, ["foreground"]),
        ({"foreground": [[500, 5, 5]]}, ["outside the image"]),
        ({"foreground": [[-3, 5, 5]]}, ["outside the image"]),
        ({"roi": [200, 300, 20, 60, 10, 10]}, ["outside the image"]),
        ({"roi": [20, 20, 20, 60, 10, 10]}, ["empty"]),
        ({"roi": [1, 2, 3]}, ["six"]),
        ({"foreground": [["a", 1, 2]]}, ["params.foreground"]),
        ({"foreground": "everywhere"}, ["params.foreground"]),
        ({"foreground": [[1, 2]]}, ["three"]),
        ('{"foreground": [[NaN, 1, 2]]}', ["finite"]),
        ("{not json", ["not JSON"]),
        ("[1, 2]", ["JSON object"]),
        ({"roi": ROI, "window": "x-ray"}, ["window", "ct-lung"]),
        ({"roi": ROI, "device": "TPU"}, ["device"]),
        ({"roi": ROI, "result_extension": "/../../x.py"}, ["result_extension", ".nrrd"]),
        ({"roi": ROI, "result_extension": ".seg.nrrd", "output": "uncertainty"}, ["uncertainty", ".nii.gz"]),
    ],
)
def test_wrong_params(server: Server, params: Any, words: list[str]) -> None:
    for model in ("classical", "classical_3d"):
        _refused(_infer(server, params, model), *words)


def test_reversed_and_overhanging_boxes_and_stray_clicks_are_understood(server: Server) -> None:
    url = f"{server.url}/infer/classical?image=ct&output=image"

    def mask(params: dict[str, Any]) -> bytes:
        return requests.post(url, data={"params": json.dumps(params)}, timeout=60).content

    assert mask({"roi": [50, 20, 60, 20, 10, 10]}) == mask({"roi": ROI})
    assert mask({"roi": [-40, 50, 20, 900, 10, 10]}) == mask({"roi": [0, 50, 20, 79, 10, 10]})
    answer = _infer(server, {"roi": ROI, "foreground": [[900, 5, 5]]}, query="image=ct&output=json")
    assert "was ignored" in answer.json()["warnings"][0]


def test_unknown_names(server: Server) -> None:
    _refused(_infer(server, model="vnet"), "classical", status=404)
    _refused(_infer(server, query="image=nobody"), "no image 'nobody'", status=404)
    _refused(_infer(server, query=f"image=ct&session_id={uuid.uuid4()}"), "session", status=404)
    _refused(_infer(server, query=""), "no image")
    _refused(requests.post(f"{server.url}/activelearning/oracle", json={}, timeout=10), "random", status=404)


def test_broken_image(server: Server) -> None:
    _refused(_infer(server, query="image=broken"), "cannot be read")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((20, 20, 5, 3), np.int16),
        np.full((20, 20, 5), np.nan, np.float32),
        np.zeros((20, 20, 5), np.complex64),
    ],
)
def test_images_that_cannot_be_segmented(server: Server, array: np.ndarray, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "x.nii.gz")
    data = (tmp_path / "x.nii.gz").read_bytes()
    post = requests.post(f"{server.url}/infer/classical", files={"file": ("x.nii.gz", data)}, timeout=60)
    _refused(post, "file of its own" if array.ndim == 4 or np.iscomplexobj(array) else "no finite voxel")
    put = requests.put(f"{server.url}/session/", files={"files": ("x.nii.gz", data)}, timeout=60)
    assert put.status_code == 400
    put = requests.put(f"{server.url}/datastore/?image=x", files={"file": ("x.nii.gz", data)}, timeout=60)
    assert put.status_code == 400


@pytest.mark.parametrize("kind", ["single slice", "nan", "constant", "rgb"])
def test_odd_images_have_a_defined_result(server: Server, kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array: np.ndarray = rng.normal(100, 5, (40, 40, 6)).astype(np.float32)
    array[10:25, 12:30] += 80
    if kind == "single slice":
        array = array[:, :, :1]
    elif kind == "nan":
        array[0:3] = np.nan
        array[5, 5] = np.inf
    elif kind == "constant":
        array[:] = 7
    elif kind == "rgb":
        array = np.stack([array.clip(0, 255).astype(np.uint8)] * 3, -1)
        array = array.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "x.nii.gz")
    for model in ("classical", "classical_3d", "medsam"):
        answer = requests.post(
            f"{server.url}/infer/{model}?output=json",
            files={"file": ("x.nii.gz", (tmp_path / "x.nii.gz").read_bytes())},
            data={"params": json.dumps({"roi": [9, 25, 11, 30, 0, 0]})},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text


PATHS = [
    "/etc/passwd",
    "../ct",
    "..",
    "labels/../ct",
    "ct/../../x",
    "..\\ct",
    ".lock",
    "a" * 200,
    "x\0y",
    "datastore_v2.json",
]


@pytest.mark.parametrize("name", PATHS)
def test_no_name_is_a_path(server: Server, name: str) -> None:
    ct = (server.studies / "ct.nii.gz").read_bytes()
    calls = [
        requests.post(
            f"{server.url}/infer/classical", params={"image": name}, data={"params": "{}"}, timeout=30
        ),
        requests.get(f"{server.url}/datastore/image", params={"image": name}, timeout=30),
        requests.head(f"{server.url}/datastore/image", params={"image": name}, timeout=30),
        requests.get(f"{server.url}/datastore/image/info", params={"image": name}, timeout=30),
        requests.delete(f"{server.url}/datastore/image", params={"id": name}, timeout=30),
        requests.get(f"{server.url}/datastore/label", params={"label": name, "tag": "final"}, timeout=30),
        requests.put(
            f"{server.url}/datastore/label",
            params={"image": name},
            files={"label": ("l.nii.gz", ct)},
            timeout=30,
        ),
        requests.post(f"{server.url}/infer/classical", params={"session_id": name}, timeout=30),
    ]
    if name != "datastore_v2.json":  # a harmless name, but no image
        calls.append(
            requests.delete(f"{server.url}/datastore/label", params={"id": name, "tag": "final"}, timeout=30)
        )
        calls.append(
            requests.put(
                f"{server.url}/datastore/image",
                params={"image": name},
                files={"file": ("x.nii.gz", ct)},
                timeout=30,
            )
        )
    assert [c.status_code // 100 for c in calls] == [4] * len(calls), [(c.url, c.status_code) for c in calls]


def test_tags_extensions_and_archives(server: Server) -> None:
    ct = (server.studies / "ct.nii.gz").read_bytes()
    label = {"label": ("l.nii.gz", ct)}
    put = requests.put(f"{server.url}/datastore/label?image=ct&tag=../../x", files=label, timeout=30)
    _refused(put, "tag")
    script = {"file": ("main.py", b"import os")}
    _refused(requests.put(f"{server.url}/datastore/image?image=main", files=script, timeout=30), ".nii.gz")
    broken = {"label": ("l.nii.gz", b"half a file")}
    _refused(
        requests.put(f"{server.url}/datastore/label?image=ct", files=broken, timeout=30), "cannot be read"
    )
    _refused(
        requests.put(f"{server.url}/datastore/label?image=ct", files=label, data={"params": "{"}, timeout=30),
        "JSON",
    )
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../evil"), io.BytesIO(b""))
    put = requests.put(
        f"{server.url}/session/?uncompress=true", files={"files": ("x.tar", archive.getvalue())}, timeout=30
    )
    _refused(put, "Only one .zip file is unpacked")


def test_params_cannot_name_models_images_or_files(server: Server) -> None:
    params = {
        "roi": ROI,
        "model": "medsam",
        "image": "/etc/passwd",
        "image_path": "/etc/passwd",
        "label_tag": "../x",
    }
    answer = _infer(server, {**params, "save_label": True, "session": {}}, query="image=ct&output=json")
    assert answer.json()["model"] == "classical"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("post", "/reload"),
        ("post", "/reload/"),
        ("put", "/model/classical"),
        ("delete", "/model/classical"),
        ("get", "/model/..%2f..%2fmain.py"),
        ("post", "/infer/wsi/classical"),
        ("get", "/datastore/dataset"),
        ("post", "/proxy/dicom/stow/studies"),
        ("get", "/session/..%2f.."),
        ("get", "/ohif/..%2f..%2f..%2fapp.py"),
    ],
)
def test_closed_doors(server: Server, method: str, path: str) -> None:
    answer = requests.request(method, server.url + path, timeout=10)
    assert answer.status_code in (400, 403, 404)
    assert len(answer.json()["detail"]) > 20


def test_proxy_without_a_pacs(server: Server) -> None:
    _refused(requests.get(f"{server.url}/proxy/dicom/qido/studies", timeout=10), "DICOMweb URL", status=404)


def test_foreign_pages_are_refused(server: Server) -> None:
    foreign = requests.get(f"{server.url}/info/", headers={"Origin": "https://example.org"}, timeout=10)
    _refused(foreign, "example.org", status=403)
    assert "access-control-allow-origin" not in foreign.headers
    rebound = requests.get(f"{server.url}/info/", headers={"Host": "example.org"}, timeout=10)
    _refused(rebound, "127.0.0.1", status=403)
    own = requests.get(f"{server.url}/info/", headers={"Origin": server.url}, timeout=10)
    assert own.status_code == 200


def test_batch_inference_is_checked_too(server: Server, tmp_path: Path) -> None:
    url = f"{server.url}/batch/infer/classical?images=all&run_sync=true"
    body = {"roi": ROI, "label_tag": "../../x", "save_label": True, "multi_gpu": False}
    requests.post(url, json=body, timeout=60)
    assert not (server.studies.parent / "x").exists()
    # The box lies on this image alone, so that a mask would show that it had been read.
    elsewhere = tmp_path / "other.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((300, 300, 24), np.int16), np.eye(4)), elsewhere)
    body = {"roi": [200, 250, 200, 250, 10, 10], "image": str(elsewhere), "image_path": str(elsewhere)}
    task = requests.post(url, json={**body, "session": {"name": "../.."}, "multi_gpu": False}, timeout=60)
    assert task.status_code in (200, 400)
    assert '"window"' not in task.text
