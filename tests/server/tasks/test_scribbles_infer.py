"""Scribbles as 3D Slicer sends them, and label maps that are refined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import pytest
import requests
from running import Server  # type: ignore[import-not-found]
from scipy import ndimage
from segmed.data.phantom import Phantom
from segmed.evaluation.metrics import Overlap

K = 14
SEGMENTS = ["Läsion", "liver", "background_scribbles", "foreground_scribbles"]
LIVER, BACKGROUND, FOREGROUND = 2, 3, 4


@pytest.fixture(scope="module")
def truth(phantom: Phantom) -> np.ndarray:
    return np.asarray(phantom.labels == 1)


@pytest.fixture
def strokes(truth: np.ndarray) -> np.ndarray:
    """A line inside of the liver on slice K, and one beside it."""
    depth = ndimage.distance_transform_edt(np.pad(truth[:, :, K], 1))[1:-1, 1:-1]
    i, j = np.unravel_index(depth.argmax(), depth.shape)
    labels = np.zeros(truth.shape, np.uint8)
    labels[i - 3 : i + 4, j, K] = FOREGROUND
    labels[2, 10:70, K] = BACKGROUND
    return labels


def _ask(
    server: Server, folder: Path, labels: np.ndarray | None, affine: np.ndarray, model: str, **params: Any
) -> requests.Response:
    """Everything that the module sends, in the file format that it chooses."""
    told = {
        "device": "cpu",
        "window": "auto",
        "roi": [],
        "label_info": [{"name": name, "id": n} for n, name in enumerate(SEGMENTS, 1)],
        "selected_label_name": "liver",
        "result_extension": ".nrrd",
        "result_dtype": "uint8",
        "client_id": "user-xyz",
        "reset_state": True,
        **params,
    }
    files = {}
    if labels is not None:
        nib.save(nib.Nifti1Image(labels, affine), folder / "scribbles.nii.gz")
        files = {"label": ("scribbles.nii.gz", (folder / "scribbles.nii.gz").read_bytes())}
    url = f"{server.url}/infer/{model}?image=ct&output=image"
    return requests.post(url, data={"params": json.dumps(told)}, files=files, timeout=120)


def _mask(answer: requests.Response, folder: Path) -> np.ndarray:
    assert answer.status_code == 200, answer.text[:500]
    (folder / "mask.nrrd").write_bytes(answer.content)
    return np.asarray(nrrd.read(str(folder / "mask.nrrd"))[0])


def test_strokes_find_the_object(
    server: Server, phantom: Phantom, truth: np.ndarray, strokes: np.ndarray, tmp_path: Path
) -> None:
    mask = _mask(_ask(server, tmp_path, strokes, phantom.affine, "segmed_scribbles"), tmp_path)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 1}
    assert np.flatnonzero(mask.any((0, 1))).tolist() == [K]
    assert Overlap.of(mask[:, :, K] > 0, truth[:, :, K]).dice() > 0.8
    assert mask[strokes == FOREGROUND].all()
    assert not mask[strokes == BACKGROUND].any()


def test_scribbles_through_the_volume(
    server: Server, phantom: Phantom, truth: np.ndarray, strokes: np.ndarray, tmp_path: Path
) -> None:
    mask = _mask(_ask(server, tmp_path, strokes, phantom.affine, "segmed_scribbles_3d"), tmp_path)
    assert Overlap.of(mask > 0, truth).dice() > 0.7


def test_the_present_label_is_corrected_where_it_was_scribbled_on(
    server: Server, phantom: Phantom, truth: np.ndarray, strokes: np.ndarray, tmp_path: Path
) -> None:
    labels = np.where(truth, LIVER, 0).astype(np.uint8)
    i, j = np.nonzero(truth[:, :, K])
    i, j = int(i.max()), int(j[i.argmax()])
    labels[i + 2 : i + 9, j - 3 : j + 4, K] = LIVER  # a spill
    labels[0:4, 0:4, 3] = 1  # another label
    labels[i + 5 : i + 7, j - 2 : j + 3, K] = BACKGROUND
    mask = _mask(_ask(server, tmp_path, labels, phantom.affine, "segmed_scribbles"), tmp_path)
    others = np.arange(truth.shape[2]) != K
    assert (mask[:, :, others] == (labels[:, :, others] == LIVER)).all()
    assert not mask[i + 5 : i + 7, j - 2 : j + 3, K].any()
    assert Overlap.of(mask[:, :, K] > 0, truth[:, :, K]).dice() > 0.85


def test_scribbles_on_a_flipped_grid_and_within_a_region(
    server: Server, phantom: Phantom, truth: np.ndarray, strokes: np.ndarray, tmp_path: Path
) -> None:
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = truth.shape[0] - 1
    there = _mask(
        _ask(server, tmp_path, strokes[::-1].copy(), phantom.affine @ flip, "segmed_scribbles"), tmp_path
    )
    plain = _mask(_ask(server, tmp_path, strokes, phantom.affine, "segmed_scribbles"), tmp_path)
    assert (there == plain).all()
    i, j, _ = (np.flatnonzero(truth.any(axis)) for axis in ((1, 2), (0, 2), (0, 1)))
    roi = [int(i[-1]), int(i[0]), int(j[-1]), int(j[0]), K - 3, K + 3]
    boxed = _mask(_ask(server, tmp_path, strokes, phantom.affine, "segmed_scribbles", roi=roi), tmp_path)
    assert np.flatnonzero(boxed.any((0, 1))).tolist() == [K]


def test_wrong_scribbles(server: Server, phantom: Phantom, strokes: np.ndarray, tmp_path: Path) -> None:
    def refused(answer: requests.Response, *words: str) -> None:
        assert answer.status_code == 400, answer.text[:300]
        assert all(word in answer.json()["detail"] for word in words), answer.text

    ask = "segmed_scribbles"
    refused(_ask(server, tmp_path, None, phantom.affine, ask), "no scribbles")
    empty = np.where(strokes == BACKGROUND, strokes, 0).astype(np.uint8)
    refused(_ask(server, tmp_path, empty, phantom.affine, ask), "foreground brush")
    refused(_ask(server, tmp_path, strokes, phantom.affine, ask, label_info=[]), "foreground brush")
    refused(_ask(server, tmp_path, strokes, phantom.affine, ask, label_info="x"), "label_info")
    refused(_ask(server, tmp_path, strokes[:50, :50], phantom.affine, ask), "does not lie")
    data = {"params": "{}"}
    url = f"{server.url}/infer/{ask}?image=ct"
    refused(requests.post(url, data=data, files={"label": ("x.exe", b"x")}, timeout=30), "exe")
    refused(requests.post(url, data=data, files={"label": ("x.nii.gz", b"x")}, timeout=30), "cannot be read")
    assert server.left_behind() == []


@pytest.mark.parametrize("model", ["classical", "segmed"])
def test_a_sent_label_map_is_a_mask_prompt(
    server: Server, phantom: Phantom, truth: np.ndarray, model: str, tmp_path: Path
) -> None:
    rough = np.zeros(truth.shape, np.uint8)
    rough[:, :, K] = 2 * ndimage.binary_dilation(truth[:, :, K], iterations=2)
    rough[0, 0, 0] = 1
    mask = _mask(_ask(server, tmp_path, rough, phantom.affine, model), tmp_path)
    assert np.flatnonzero(mask.any((0, 1))).tolist() == [K]
    before = Overlap.of(rough[:, :, K] > 0, truth[:, :, K]).dice()
    assert Overlap.of(mask[:, :, K] > 0, truth[:, :, K]).dice() > max(0.85, before)
