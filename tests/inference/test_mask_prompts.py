"""What methods make of a mask as prompt: a mask near it, unless clicks say otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from segmed.data.phantom import make_phantom
from segmed.evaluation.metrics import Overlap
from segmed.imaging.intensity import to_uint8
from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Box, Prompt, SlicePrompt
from segmed.imaging.store import ByteBoundedStore
from segmed.imaging.volume import Volume
from segmed.inference.loading import BackboneConfig, Loader
from segmed.inference.predictor import Predictor
from segmed.methods.base.segmenter import Segmenter
from segmed.methods.classical import Classical
from segmed.methods.sam.medsam import MedSam
from segmed.methods.sam.sam import Sam
from tiny_sam import tiny_sam

K = 24


@pytest.fixture(scope="module")
def methods() -> dict[str, Segmenter]:
    segmed, warning = Loader().get_or_fallback("segmed", BackboneConfig(), "cpu", None, ("object",))
    assert not warning
    return {"segmed": segmed, "classical": Classical()}


@pytest.fixture(scope="module")
def scan() -> tuple[Picture, np.ndarray]:
    phantom = make_phantom("CT", seed=3)
    picture = to_uint8(Volume(phantom.image, phantom.affine, "CT"))
    return Picture(picture, phantom.affine, "scan", "ct-soft-tissue"), np.asarray(phantom.labels == 1)


def _volume(mask: np.ndarray, shape: tuple[int, ...], *ks: int) -> np.ndarray:
    out = np.zeros(shape, bool)
    for k in ks:
        out[:, :, k] = mask
    return out


@pytest.mark.parametrize("method", ["segmed", "classical"])
@pytest.mark.parametrize("change", ["wider", "narrower", "aside"])
def test_a_mask_alone_gives_a_better_mask_near_it(
    methods: dict[str, Segmenter], scan: tuple[Picture, np.ndarray], method: str, change: str
) -> None:
    picture, labels = scan
    truth = labels[:, :, K]
    steps = max(2, round(np.sqrt(truth.sum()) / 15))
    mask = {
        "wider": ndimage.binary_dilation(truth, iterations=steps),
        "narrower": ndimage.binary_erosion(truth, iterations=steps),
        "aside": np.roll(truth, steps, 0),
    }[change]
    predictor = Predictor(methods[method], ByteBoundedStore(2**28))
    masks = predictor.segment_slices(picture, Prompt(mask=_volume(mask, labels.shape, K)))
    assert list(masks) == [K]
    assert Overlap.of(masks[K].T, mask).dice() > 0.8
    assert Overlap.of(masks[K].T, truth).dice() > Overlap.of(mask, truth).dice()


@pytest.mark.parametrize("method", ["segmed", "classical"])
def test_a_background_click_takes_a_spill_away(
    methods: dict[str, Segmenter], scan: tuple[Picture, np.ndarray], method: str
) -> None:
    picture, labels = scan
    truth = labels[:, :, K]
    i, j = (int(v[np.nonzero(truth)[0].argmax()]) for v in np.nonzero(truth))
    ii, jj = np.mgrid[: truth.shape[0], : truth.shape[1]]
    spill = (np.hypot(ii - i - 7, jj - j) < 7) & ~truth
    prompt = Prompt(mask=_volume(truth | spill, labels.shape, K), background=((i + 6, j, K),))
    assert prompt.slices() == [K]
    found = Predictor(methods[method], ByteBoundedStore(2**28)).segment_slices(picture, prompt)[K].T
    assert not found[i + 5 : i + 8, j - 1 : j + 2].any()
    assert (found & spill).sum() < 0.3 * spill.sum()
    assert Overlap.of(found, truth).dice() > 0.9


def test_masks_on_several_slices_are_kept_to_and_carried_on(scan: tuple[Picture, np.ndarray]) -> None:
    picture, labels = scan
    predictor = Predictor(Classical(), ByteBoundedStore(2**28))
    mask = np.zeros(labels.shape, bool)
    mask[:, :, [K - 3, K + 3]] = labels[:, :, [K - 3, K + 3]]
    masks = predictor.segment_volume(picture, Prompt(mask=mask))
    assert set(range(K - 4, K + 5)) <= set(masks)
    for k in range(K - 3, K + 4):
        assert Overlap.of(masks[k].T, labels[:, :, k]).dice() > 0.85
    i, j, _ = (int(v) for v in np.argwhere(labels[:, :, K : K + 1]).mean(0))
    clicked = predictor.segment_slices(picture, Prompt(foreground=((i, j, K),), mask=mask))
    assert list(clicked) == [K]
    away = predictor.segment_slices(
        picture, Prompt(Box((1, 9), (1, 9), (K, K)), mask=mask, background=((0, 0, K + 3),))
    )
    assert sorted(away) == [K, K + 3]


@pytest.mark.parametrize("kind", [Sam, MedSam])
def test_sam_is_told_where_a_lone_mask_lies(kind: type[Sam]) -> None:
    method = kind(tiny_sam())
    image = np.random.default_rng(0).integers(0, 255, (120, 90), np.uint8)
    mask = np.zeros((120, 90), bool)
    mask[30:80, 20:61] = True
    beside = {"points": np.array([[5, 5]], np.float32), "labels": np.array([0])}

    @torch.inference_mode()
    def logits(**prompt: object) -> torch.Tensor:
        return method.decode(method.embed([image]), [[SlicePrompt(**prompt)]], (120, 90)).masks  # type: ignore[arg-type]

    box = (20.0, 30.0, 60.0, 79.0)
    assert torch.allclose(logits(mask=mask), logits(mask=mask, box=box))
    assert torch.allclose(logits(mask=mask, **beside), logits(mask=mask, box=box, **beside))
    assert not torch.allclose(logits(mask=mask), logits(box=box), atol=1e-3)
    into = {"points": np.array([[40, 50]], np.float32), "labels": np.array([1])}
    assert not torch.allclose(logits(mask=mask, **into), logits(mask=mask, box=box, **into), atol=1e-3)
