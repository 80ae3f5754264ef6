"""The embedded method: windows are cut and put back at the right place, whatever the prompt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segmed.imaging.prompts import SlicePrompt
from segmed.methods.segmed.segmenter import Segmed
from segmed.methods.segmed.views import View, best_box, cut_out
from segmed.sam.tiny import initialised, tiny_config
from torch import Tensor


@pytest.fixture(scope="module")
def model() -> Segmed:
    shape = tiny_config(64, hidden=32, heads=2, width=32, stem_channels=(16, 16, 24), stem_depths=(0, 1, 0))
    torch.manual_seed(0)
    return Segmed(initialised(shape, 0).eval(), "test")


def _slice(height: int = 90, width: int = 140) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    disc = (x - 60) ** 2 + (y - 40) ** 2 < 15**2
    return (40 + 120 * disc + np.random.default_rng(0).integers(0, 20, disc.shape)).astype(np.uint8)


def _click(*xy: tuple[int, int], labels: tuple[int, ...] = ()) -> SlicePrompt:
    return SlicePrompt(points=np.array(xy, np.float32), labels=np.array(labels or [1] * len(xy), np.int64))


class Painter(Segmed):
    """Finds exactly the box of a view, so that what is left to test is geometry."""

    def _look(self, embedding: object, views: list[View]) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        side = 256
        place = (torch.arange(side) + 0.5) / side
        masks = []
        for view in views:
            left, top, width, height = view.window
            x, y = left + place * width, top + place * height
            assert view.box is not None
            inside_x = (x >= view.box[0]) & (x <= view.box[2] + 1)
            inside_y = (y >= view.box[1]) & (y <= view.box[3] + 1)
            masks.append(torch.where(inside_y[:, None] & inside_x, 5.0, -5.0))
        return torch.stack(masks), torch.ones(len(views))


@pytest.mark.parametrize("box", [(45, 25, 75, 55), (0, 0, 30, 12), (100, 60, 139, 89), (10, 40, 120, 49)])
@pytest.mark.parametrize("scale", [1, 2])
def test_masks_return_to_their_place(model: Segmed, box: tuple[int, int, int, int], scale: int) -> None:
    painter = Painter(model.model)
    embedding = painter.embed([_slice()])
    logits = painter.decode(embedding, [[SlicePrompt(box=box)]], (90 * scale, 140 * scale))
    wanted = np.zeros((90 * scale, 140 * scale), bool)
    wanted[box[1] * scale : (box[3] + 1) * scale, box[0] * scale : (box[2] + 1) * scale] = True
    found = (logits.masks[0, 0] > 0).numpy()
    assert np.mean(found != wanted) < 0.002


def test_windows_show_what_lies_there(model: Segmed) -> None:
    image = _slice()
    window = torch.tensor([[30.0, 10, 64, 64]])
    views = [View(0, window[0], None, torch.zeros(1, 2), torch.ones(1))]
    shown, valid = cut_out(torch.from_numpy(image)[None, None], views, window, 64)
    assert np.allclose(shown[0, 0].numpy() * 255, image[10:74, 30:94], atol=0.01)
    assert valid.all()
    over = torch.tensor([[-32.0, -32, 64, 64]])
    shown, valid = cut_out(torch.from_numpy(image)[None, None], views, over, 64)
    assert valid[0].sum() == 32 * 32
    assert np.allclose(shown[0, 0, 32:, 32:].numpy() * 255, image[:32, :32], atol=0.01)


def test_large_windows_are_averaged_not_sampled() -> None:
    board = torch.from_numpy((np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8))[None, None]
    window = torch.tensor([[0.0, 0, 512, 512]])
    shown, _ = cut_out(board, [View(0, window[0], None, torch.zeros(0, 2), torch.zeros(0))], window, 64)
    assert (shown - 0.5).abs().max() < 0.01


@torch.inference_mode()
def test_a_mirrored_slice_gives_the_mirrored_mask(model: Segmed) -> None:
    image = _slice()
    box = (42.0, 23.0, 78.0, 57.0)
    plain = model.decode(model.embed([image]), [[SlicePrompt(box=box)]], (90, 140)).masks[0, 0]
    other = (139 - box[2], box[1], 139 - box[0], box[3])
    flipped = model.decode(model.embed([image[:, ::-1].copy()]), [[SlicePrompt(box=other)]], (90, 140)).masks[0, 0]
    assert torch.allclose(plain, flipped.flip(1), atol=2e-3)


@torch.inference_mode()
def test_prompts_do_not_influence_each_other(model: Segmed) -> None:
    prompts = [SlicePrompt(box=(45, 25, 75, 55)), _click((60, 40)), _click((60, 40), (20, 70), labels=(1, 0))]
    embedding = model.embed([_slice(), _slice()[::-1].copy()])
    together = model.decode(embedding, [prompts, prompts], (90, 140))
    assert together.masks.shape == (2, 3, 90, 140)
    assert together.quality is not None
    for b, alone in enumerate(embedding.split()):
        for k, prompt in enumerate(prompts):
            one = model.decode(alone, [[prompt]], (90, 140)).masks[0, 0]
            assert torch.allclose(one, together.masks[b, k], atol=1e-3)


@torch.inference_mode()
def test_a_box_is_stretched_to_clicks_beside_it(model: Segmed) -> None:
    prompt = SlicePrompt((50, 30, 70, 50), np.array([[90, 40], [5, 5]], np.float32), np.array([1, 0]))
    embedding = model.embed([_slice()])
    assert model._boxes(embedding, [(0, prompt)])[0].tolist() == [50, 30, 90, 50]
    views = model._views(0, torch.tensor([50.0, 30, 90, 50]), prompt)
    assert all(view.points.tolist() == [[90, 40]] for view in views)  # the other click is out of sight


def test_the_best_window_is_not_cut_through() -> None:
    masks = torch.full((2, 32, 32), -1.0)
    masks[0, 8:24, 0:24] = 1  # runs into the left side of its window
    masks[1, 12:20, 10:20] = 1
    views = [
        View(0, torch.tensor([50.0, 50, 32, 32]), None, torch.zeros(1, 2), torch.ones(1)),
        View(0, torch.tensor([34.0, 34, 64, 64]), None, torch.zeros(1, 2), torch.ones(1)),
    ]
    quality = torch.tensor([0.80, 0.75])
    assert best_box(masks, quality, views, [0, 1], 200, 200).tolist() == [54, 58, 73, 73]
    # at the border of the slice nothing is cut
    views[0] = View(0, torch.tensor([0.0, 50, 32, 32]), None, torch.zeros(1, 2), torch.ones(1))
    assert best_box(masks, quality, views, [0, 1], 200, 200).tolist() == [0, 58, 23, 73]


@torch.inference_mode()
@pytest.mark.parametrize("image", [np.zeros((64, 64), np.uint8), np.full((3, 200), 255, np.uint8)])
def test_empty_slices_give_finite_masks(model: Segmed, image: np.ndarray) -> None:
    for prompt in (SlicePrompt(box=(0, 0, 2, 2)), _click((1, 1))):
        masks = model.decode(model.embed([image]), [[prompt]], (image.shape[0], image.shape[1])).masks
        assert torch.isfinite(masks).all()


def test_it_needs_a_prompt(model: Segmed) -> None:
    with pytest.raises(ValueError, match="needs a prompt"):
        model.decode(model.embed([_slice()]), None, (90, 140))
    with pytest.raises(ValueError, match="do not fit"):
        model.decode(model.embed([_slice()]), [], (90, 140))
