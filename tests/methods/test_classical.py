"""The method without weights, on shapes with known truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segmed.evaluation.metrics import Overlap
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.classical import Classical, ClassicalConfig


def _scene(contrast: int = 60, noise: float = 8.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A bean in noise: picture (120, 140) uint8 and truth."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:120, :140]
    truth = ((x - 70) / 34) ** 2 + ((y - 60 - 0.006 * (x - 70) ** 2) / 20) ** 2 < 1
    return (80 + contrast * truth + rng.normal(0, noise, truth.shape)).clip(0, 255).astype(np.uint8), truth


def _box(mask: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])


def _segment(picture: np.ndarray, prompt: SlicePrompt) -> np.ndarray:
    method = Classical()
    logits = method.decode(method.embed([picture]), [[prompt]], picture.shape[:2])
    return np.asarray(logits.masks[0, 0].numpy() > 0)


@pytest.mark.parametrize("contrast", [60, -60, 25])
def test_box_beats_the_inscribed_ellipse(contrast: int) -> None:
    picture, truth = _scene(contrast)
    x0, y0, x1, y1 = _box(truth)
    y, x = np.mgrid[:120, :140]
    ellipse = ((x - (x0 + x1) / 2) / ((x1 - x0) / 2)) ** 2 + ((y - (y0 + y1) / 2) / ((y1 - y0) / 2)) ** 2 <= 1
    found = _segment(picture, SlicePrompt(box=(x0, y0, x1, y1)))
    assert Overlap.of(found, truth).dice() > max(0.9, Overlap.of(ellipse, truth).dice())
    assert not found[: int(y0)].any()
    assert not found[:, int(x1) + 1 :].any()


def test_click_fills_the_object() -> None:
    picture, truth = _scene()
    found = _segment(picture, SlicePrompt(points=np.array([[70, 60]], np.float32), labels=np.array([1])))
    assert Overlap.of(found, truth).dice() > 0.9


def test_clicks_are_obeyed() -> None:
    picture, truth = _scene()
    points = np.array([[70, 60], [12, 10], [45, 65]], np.float32)
    found = _segment(picture, SlicePrompt(points=points, labels=np.array([1, 0, 0])))
    assert found[60, 70]
    assert not found[10, 12]
    assert not found[65, 45]
    inside_out = SlicePrompt(box=_box(truth), points=points[2:], labels=np.array([0]))
    assert not _segment(picture, inside_out)[65, 45]


def test_a_mask_of_the_neighbour_slice_guides() -> None:
    picture, truth = _scene(contrast=12)
    x0, y0, x1, y1 = _box(truth)
    wide = (x0 - 5, y0 - 5, x1 + 5, y1 + 5)
    alone = Overlap.of(_segment(picture, SlicePrompt(box=wide)), truth).dice()
    guided = Overlap.of(_segment(picture, SlicePrompt(box=wide, mask=truth)), truth).dice()
    assert guided > max(alone, 0.95)


def test_constant_picture_gives_the_ellipse_for_a_box_and_the_click_for_a_click() -> None:
    flat = np.full((60, 60), 90, np.uint8)
    found = _segment(flat, SlicePrompt(box=(10, 20, 50, 40)))
    assert 0.6 * 41 * 21 < found.sum() < 0.9 * 41 * 21
    click = _segment(flat, SlicePrompt(points=np.array([[30, 30]], np.float32), labels=np.array([1])))
    assert click[30, 30]
    assert click.sum() <= 9


def test_colour_and_output_size() -> None:
    picture, truth = _scene()
    method = Classical()
    logits = method.decode(
        method.embed([np.stack([picture] * 3, -1)]), [[SlicePrompt(box=_box(truth))]], (60, 70)
    )
    assert logits.masks.shape == (1, 1, 60, 70)
    assert Overlap.of((logits.masks[0, 0] > 0).numpy(), truth[::2, ::2]).dice() > 0.85


def test_it_needs_a_prompt_and_sane_settings() -> None:
    method = Classical()
    with pytest.raises(ValueError, match="needs a box or a click"):
        method.decode(method.encode(torch.zeros(1, 3, 8, 8)), None, (8, 8))
    with pytest.raises(ValueError, match="bins"):
        ClassicalConfig(bins=1)
    with pytest.raises(ValueError, match="max_area"):
        ClassicalConfig(max_area=0)
