"""The server as 3D Slicer and OHIF use it."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pytest
import requests
import segmed
import SimpleITK as sitk
from monailabel.client import MONAILabelClient
from running import Server
from segmed.data.phantom import Phantom
from segmed.evaluation.metrics import Overlap
from segmed.imaging.labels.provenance import Provenance
from segmed.registry.reproduction import reproduce
from slicer_requests import SLICER, infer, roi_of

LIVER, K = 1, 14


@pytest.fixture(scope="module")
def truth(phantom: Phantom) -> np.ndarray:
    return np.asarray(phantom.labels == LIVER)


def test_info_is_what_the_viewers_need(server: Server) -> None:
    info = server.client.info()
    assert not info.get("config")
    assert info["labels"] == ["liver", "spleen"]
    prompted = {n + s for n in ("segmed", "classical", "sam", "medsam") for s in ("", "_3d")}
    scribbled = {"segmed_scribbles", "segmed_scribbles_3d"}
    assert set(info["models"]) == prompted | scribbled
    for name, model in info["models"].items():
        assert model["type"] == ("scribbles" if name in scribbled else "deepgrow")
        assert model["dimension"] == (3 if name.endswith("_3d") or name in scribbled else 2)
        assert model["description"]
        assert all(isinstance(v, list) and v for v in model["config"].values())


@pytest.mark.parametrize("model", ["segmed", "classical", "sam", "medsam"])
def test_box_fills_the_prompted_slice(
    server: Server, model: str, truth: np.ndarray, phantom: Phantom
) -> None:
    roi = roi_of(truth[:, :, K : K + 1], (K - 2, K + 2))
    mask, header, told = infer(
        server, model, {"roi": roi, "label": "liver", "foreground": [], "background": []}
    )
    assert mask.shape == phantom.image.shape
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 1}
    assert np.flatnonzero(mask.any(axis=(0, 1))).tolist() in ([K], [])
    assert told["label_names"] == {"liver": 1}
    assert header["encoding"] == "raw"
    assert told["warnings"] == [] or model in ("sam", "medsam")  # random weights may find nothing
    record = Provenance.from_json(told["provenance"])
    assert (record.model, record.version, record.software) == (model, "untrained", segmed.__version__)
    assert record.prompt == {"roi": roi} and len(record.weights) > 3
    if model in ("segmed", "classical"):
        assert Overlap.of(mask[:, :, K] > 0, truth[:, :, K]).dice() > 0.85


def test_mask_lies_on_the_object_in_world_coordinates(
    server: Server, truth: np.ndarray, phantom: Phantom
) -> None:
    file, _ = server.client.infer(
        "classical", "ct", {**SLICER, "roi": roi_of(truth[:, :, K : K + 1], (K, K))}
    )
    image = sitk.ReadImage(file)
    there = sitk.GetArrayFromImage(image).transpose(2, 1, 0) > 0
    centre = image.TransformContinuousIndexToPhysicalPoint(np.argwhere(there).mean(axis=0).tolist())
    slab = np.argwhere(truth & (np.arange(truth.shape[2]) == K)).mean(axis=0)
    expected = (phantom.affine @ [*slab, 1])[:3] * [-1, -1, 1]
    assert np.abs(np.array(centre) - expected).max() < 4


def test_the_default_takes_clicks_and_fills_volumes(server: Server, truth: np.ndarray) -> None:
    assert next(iter(server.client.info()["models"])) == "segmed"
    i, j = (int(v) for v in np.argwhere(truth[:, :, K]).mean(axis=0))
    mask, _, _ = infer(server, "segmed", {"foreground": [[i, j, K]]})
    assert mask[i, j, K] == 1
    ks = np.flatnonzero(truth.any(axis=(0, 1)))
    thick, _, _ = infer(server, "segmed_3d", {"roi": roi_of(truth, (int(ks[0]), int(ks[-1])))})
    assert Overlap.of(thick > 0, truth).dice() > 0.7
    flat, _, _ = infer(server, "segmed_3d", {"roi": roi_of(truth[:, :, K : K + 1], (K, K))})
    assert Overlap.of(flat > 0, truth).dice() > 0.7


def test_clicks_and_box_with_clicks(server: Server, truth: np.ndarray) -> None:
    i, j = (int(v) for v in np.argwhere(truth[:, :, K]).mean(axis=0))
    click = {"foreground": [[i, j, K]], "background": [[90, 5, K]]}
    mask, _, _ = infer(server, "classical", click)
    assert mask[i, j, K] == 1
    assert Overlap.of(mask[:, :, K] > 0, truth[:, :, K]).dice() > 0.7
    mask, _, _ = infer(server, "classical", {**click, "roi": roi_of(truth[:, :, K : K + 1], (K, K))})
    assert Overlap.of(mask[:, :, K] > 0, truth[:, :, K]).dice() > 0.85


def test_several_slices_in_one_request(server: Server, truth: np.ndarray) -> None:
    points = []
    for k in (K, K + 2):
        i, j = (int(v) for v in np.argwhere(truth[:, :, k]).mean(axis=0))
        points.append([i, j, k])
    mask, _, _ = infer(server, "classical", {"foreground": points})
    assert np.flatnonzero(mask.any(axis=(0, 1))).tolist() == [K, K + 2]


def test_3d_from_a_thick_box_and_from_a_flat_one(server: Server, truth: np.ndarray) -> None:
    ks = np.flatnonzero(truth.any(axis=(0, 1)))
    thick, _, _ = infer(server, "classical_3d", {"roi": roi_of(truth, (int(ks[0]), int(ks[-1])))})
    flat, _, _ = infer(server, "classical_3d", {"roi": roi_of(truth[:, :, K : K + 1], (K, K))})
    for mask in (thick, flat):
        found = np.flatnonzero(mask.any(axis=(0, 1)))
        assert found[0] >= ks[0] - 1
        assert found[-1] <= ks[-1] + 1
    assert Overlap.of(thick > 0, truth).dice() > 0.7
    assert Overlap.of(flat > 0, truth).dice() > 0.75
    mask, _, _ = infer(server, "medsam_3d", {"roi": roi_of(truth, (K, K + 3))})
    assert mask.shape == truth.shape


def test_ohif_request_gives_bare_nrrd(server: Server) -> None:
    params = {
        "foreground": [[30, 36, K]],
        "background": [],
        "result_extension": ".nrrd",
        "restore_label_idx": False,
    }
    answer = requests.post(
        f"{server.url}/infer/classical?image=ct&output=image",
        files={"params": (None, json.dumps(params))},
        timeout=60,
    )
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.content.startswith(b"NRRD")
    record = Provenance.from_json(json.loads(answer.headers["X-SegMed-Provenance"]))
    assert record.prompt == {"foreground": [[30, 36, K]]}


def test_a_mask_is_made_again_from_the_record_of_its_answer(
    server: Server, truth: np.ndarray, phantom: Phantom, tmp_path: Path
) -> None:
    image = server.studies / "ct.nii.gz"
    i, j = (int(v) for v in np.argwhere(truth[:, :, K]).mean(axis=0))
    box = {"roi": roi_of(truth[:, :, K : K + 1], (K - 2, K + 2))}
    prompts: list[tuple[str, dict[str, Any]]] = [
        ("segmed", box | {"refinement": "outline", "background": [[90, 5, K]]}),
        ("segmed_3d", {"foreground": [[i, j, K]], "denoise": "gaussian"}),
    ]
    for model, params in prompts:
        mask, _, told = infer(server, model, params)
        assert mask.any()
        found = reproduce(Provenance.from_json(told["provenance"]), image, tmp_path)
        assert (found.labels == mask).all()
        assert found.warnings == ()


def test_other_answers(server: Server, tmp_path: Path) -> None:
    params = {"foreground": [[30, 36, K]], "result_extension": ".nii.gz"}
    url = f"{server.url}/infer/classical?image=ct"
    told = requests.post(f"{url}&output=json", data={"params": json.dumps(params)}, timeout=60).json()
    assert told["label_names"] == {"liver": 1}
    answer = requests.post(f"{url}&output=image", data={"params": json.dumps(params)}, timeout=60)
    (tmp_path / "mask.nii.gz").write_bytes(answer.content)
    assert nib.load(tmp_path / "mask.nii.gz").get_data_dtype() == np.uint8
    params = {**params, "result_extension": ".nrrd", "result_compress": True}
    answer = requests.post(f"{url}&output=image", data={"params": json.dumps(params)}, timeout=60)
    assert b"encoding: gzip" in answer.content[:600]


def test_eight_clients_at_once(server: Server, truth: np.ndarray) -> None:
    roi = roi_of(truth[:, :, K : K + 1], (K, K))
    expected = {m: infer(server, m, {"roi": roi})[0] for m in ("classical", "medsam")}
    failures: list[object] = []

    def work(n: int, folder: Path) -> None:
        model = ("classical", "medsam")[n % 2]
        try:
            for _ in range(3):
                client = MONAILabelClient(server.url, str(folder), f"user-{n}")
                file, _ = client.infer(model, "ct", {**SLICER, "roi": roi})
                if not (nrrd.read(file)[0] == expected[model]).all():
                    failures.append((n, "another mask"))
        except Exception as error:
            failures.append((n, error))

    threads = []
    for n in range(8):
        folder = server.temporary.parent / f"client-{n}"
        folder.mkdir(exist_ok=True)
        threads.append(threading.Thread(target=work, args=(n, folder)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_server_answers_others_while_it_segments(server: Server, truth: np.ndarray) -> None:
    """An inference over the whole volume runs; /info must come back before it ends, not behind it."""
    done = threading.Event()

    def work() -> None:
        roi = [0, 95, 0, 79, 0, 23]
        requests.post(
            f"{server.url}/infer/classical_3d?image=ct&output=json",
            data={"params": json.dumps({"roi": roi, "window": "minmax"})},
            timeout=120,
        )
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    answered = 0
    while not done.is_set():
        before = done.is_set()
        assert requests.get(f"{server.url}/info/", timeout=30).status_code == 200
        answered += int(not before and not done.is_set())
        time.sleep(0.005)
    thread.join()
    assert answered >= 2


def test_nothing_is_left_behind(server: Server) -> None:
    assert server.left_behind() == []
