"""The shipped default model on phantom volumes: it fills organs, stops at their ends, and corrections
help."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import ndimage
from segmed.data.phantom import make_phantom
from segmed.evaluation.metrics import Overlap
from segmed.imaging.intensity import to_uint8
from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Box, Prompt
from segmed.imaging.store import ByteBoundedStore
from segmed.imaging.volume import Volume
from segmed.inference.loading import BackboneConfig, Loader
from segmed.inference.predictor import Masks, Predictor

SHAPE = (96, 80, 24)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(Loader().get("segmed", BackboneConfig()), ByteBoundedStore(2**28))


@pytest.fixture(scope="module", params=["CT", "MR"])
def scan(request: pytest.FixtureRequest) -> tuple[Picture, np.ndarray]:
    phantom = make_phantom(request.param, SHAPE, (3.6, 3.6, 8.0), seed=5)
    picture = to_uint8(Volume(phantom.image, phantom.affine, request.param))
    return Picture(picture, phantom.affine, f"scan {request.param}", "auto"), np.asarray(phantom.labels)


def _box(truth: np.ndarray, flat: bool) -> Box:
    (i0, i1), (j0, j1), (k0, k1) = ((int(v.min()), int(v.max())) for v in np.nonzero(truth))
    if flat:
        k = int(truth.sum((0, 1)).argmax())
        x, y = (np.flatnonzero(truth[:, :, k].any(axis)) for axis in (1, 0))
        return Box((int(x[0]), int(x[-1])), (int(y[0]), int(y[-1])), (k, k))
    return Box((i0, i1), (j0, j1), (k0, k1))


def _volume(masks: Masks) -> np.ndarray:
    out = np.zeros(SHAPE, bool)
    for k, mask in masks.items():
        out[:, :, k] = mask.T
    return out


@pytest.mark.parametrize("flat", [True, False])
def test_a_box_fills_the_liver(predictor: Predictor, scan: tuple[Picture, np.ndarray], flat: bool) -> None:
    picture, labels = scan
    truth = labels == 1
    found = _volume(predictor.segment_volume(picture, Prompt(_box(truth, flat))))
    assert Overlap.of(found, truth).dice() > 0.75


def test_corrections_of_a_volume_do_no_harm(predictor: Predictor, scan: tuple[Picture, np.ndarray]) -> None:
    picture, labels = scan
    truth = labels == 1
    volume = _volume(predictor.segment_volume(picture, Prompt(_box(truth, True))))
    said: dict[int, list[tuple[int, int, int]]] = {0: [], 1: []}
    scores = [Overlap.of(volume, truth).dice()]
    for _ in range(4):
        depth = ndimage.distance_transform_edt(volume ^ truth)
        at = np.unravel_index(int(depth.argmax()), SHAPE)
        i, j, k = (int(v) for v in at)
        said[int(truth[i, j, k])].append((i, j, k))
        prompt = Prompt(None, tuple(said[1]), tuple(said[0]), volume)
        volume = _volume(predictor.segment_volume(picture, prompt))
        scores.append(Overlap.of(volume, truth).dice())
    losses = [before - after for before, after in itertools.pairwise(scores)]
    assert max(losses) <= 0.01
    assert scores[-1] >= scores[0]


def test_what_was_accepted_far_away_stays(predictor: Predictor, scan: tuple[Picture, np.ndarray]) -> None:
    picture, labels = scan
    truth = labels == 1
    former = truth.copy()
    ks = np.flatnonzero(truth.any((0, 1)))
    k = int(ks[len(ks) // 2])
    i, j = (
        int(v[0]) for v in np.nonzero(~truth[:, :, k] & ndimage.binary_dilation(truth[:, :, k], iterations=3))
    )
    former[max(0, i - 3) : i + 3, max(0, j - 3) : j + 3, k] = True
    found = _volume(predictor.segment_volume(picture, Prompt(None, (), ((i, j, k),), former)))
    assert not found[i, j, k]
    far = [n for n in range(SHAPE[2]) if abs(n - k) > 4]
    assert (found[:, :, far] == former[:, :, far]).all()
