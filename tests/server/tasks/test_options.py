"""The options `refinement` and `denoise` of the models, as the viewers send them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import pytest
import requests
from running import Server, Start
from segmed.data.phantom import Phantom
from segmed.denoising.dncnn import DnCnn, DnCnnConfig, save_dncnn
from segmed.evaluation.metrics import Overlap

K = 14
REFINEMENTS = ("nothing", "outline", "crf", "level set")


def _roi(mask: np.ndarray) -> list[int]:
    i, j = (np.flatnonzero(mask.any(axis=a)) for a in (1, 0))
    return [int(i[0]), int(i[-1]), int(j[0]), int(j[-1]), K, K]


def _mask(server: Server, params: dict[str, Any]) -> np.ndarray:
    file, _ = server.client.infer("segmed", "ct", {"result_extension": ".nrrd", "device": "cpu", **params})
    return np.asarray(nrrd.read(file)[0])


def test_each_finish_gives_a_mask_of_its_own(server: Server, phantom: Phantom) -> None:
    assert server.client.info()["models"]["segmed"]["config"]["refinement"] == list(REFINEMENTS)
    truth = phantom.labels[:, :, K] == 1
    masks = {
        name: _mask(server, {"roi": _roi(truth), "refinement": name})[:, :, K] > 0 for name in REFINEMENTS
    }
    assert all(Overlap.of(mask, truth).dice() > 0.85 for mask in masks.values())
    assert len({mask.tobytes() for mask in masks.values()}) > 1  # the guard may keep some as they are
    plain = _mask(server, {"roi": _roi(truth)})
    assert np.array_equal(plain[:, :, K] > 0, masks["nothing"])


def test_slices_are_denoised_for_the_model(server: Server, phantom: Phantom) -> None:
    truth = phantom.labels[:, :, K] == 1
    plain, blurred = (
        _mask(server, {"roi": _roi(truth), "denoise": d})[:, :, K] > 0 for d in ("nothing", "gaussian")
    )
    assert not np.array_equal(plain, blurred)
    assert Overlap.of(blurred, truth).dice() > 0.85
    again = _mask(server, {"roi": _roi(truth)})[:, :, K] > 0
    assert np.array_equal(again, plain)  # what was kept of the blurred slice is not taken for the other


@pytest.mark.parametrize(
    ("key", "value"), [("refinement", "magic"), ("denoise", "salt"), ("denoise", "dncnn")]
)
def test_what_is_not_offered_is_refused(server: Server, key: str, value: str) -> None:
    answer = requests.post(
        f"{server.url}/infer/segmed?image=ct",
        data={"params": f'{{"foreground": [[40, 40, {K}]], "{key}": "{value}"}}'},
        timeout=60,
    )
    assert answer.status_code == 400
    assert key in answer.json()["detail"]


def test_a_denoiser_of_ones_own(start: Start, server: Server, phantom: Phantom, tmp_path: Path) -> None:
    save_dncnn(DnCnn(DnCnnConfig(3, 4)), tmp_path / "own.safetensors", {})
    own = start(
        server.studies, "--conf", "models", "segmed", "--conf", "denoiser", str(tmp_path / "own.safetensors")
    )
    assert own.client.info()["models"]["segmed"]["config"]["denoise"] == ["nothing", "gaussian", "dncnn"]
    roi = _roi(phantom.labels[:, :, K] == 1)
    # untaught, it changes nothing
    assert np.array_equal(_mask(own, {"roi": roi, "denoise": "dncnn"}), _mask(own, {"roi": roi}))
