"""The default model: windows are cut and put back at the right place, whatever the prompt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from segmed.imaging.prompts import Neighbour, SlicePrompt
from segmed.methods.segmed.network import MASKS, PromptNetwork
from segmed.methods.segmed.segmenter import LookConfig, Segmed
from segmed.methods.segmed.views import (
    View,
    around_clicks,
    found_in,
    is_lone_click,
    network_inputs,
)
from segmed.sam.embedding import Embedding
from torch import Tensor


@pytest.fixture(scope="module")
def model() -> Segmed:
    torch.manual_seed(0)
    return Segmed(PromptNetwork().eval(), "test", LookConfig(size=64))


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
        step = (torch.arange(side) + 0.5) / side
        masks = []
        for view in views:
            left, top, width, height = view.window
            x, y = left + step * width, top + step * height
            assert view.box is not None
            inside_x = (x >= view.box[0]) & (x <= view.box[2] + 1)
            inside_y = (y >= view.box[1]) & (y <= view.box[3] + 1)
            masks.append(torch.where(inside_y[:, None] & inside_x, 5.0, -5.0).expand(MASKS, -1, -1))
        return torch.stack(masks), torch.ones(len(views), MASKS)


class Chooser(Segmed):
    """Gives masks and predicted IoU that a test sets, in the windows around a click."""

    answer: tuple[Tensor, Tensor]

    def _look(self, embedding: object, views: list[View]) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return self.answer


@pytest.mark.parametrize("box", [(45, 25, 75, 55), (0, 0, 30, 12), (100, 60, 139, 89), (10, 40, 120, 49)])
@pytest.mark.parametrize("scale", [1, 2])
def test_masks_return_to_their_place(model: Segmed, box: tuple[int, int, int, int], scale: int) -> None:
    painter = Painter(model.network)
    embedding = painter.embed([_slice()])
    logits = painter.decode(embedding, [[SlicePrompt(box=box)]], (90 * scale, 140 * scale))
    wanted = np.zeros((90 * scale, 140 * scale), bool)
    wanted[box[1] * scale : (box[3] + 1) * scale, box[0] * scale : (box[2] + 1) * scale] = True
    found = (logits.masks[0, 0] > 0).numpy()
    assert np.mean(found != wanted) < 0.002


@torch.inference_mode()
def test_a_mirrored_slice_gives_the_mirrored_mask(model: Segmed) -> None:
    image = _slice()
    box = (42.0, 23.0, 78.0, 57.0)
    plain = model.decode(model.embed([image]), [[SlicePrompt(box=box)]], (90, 140)).masks[0, 0]
    other = (139 - box[2], box[1], 139 - box[0], box[3])
    flipped = model.decode(model.embed([image[:, ::-1].copy()]), [[SlicePrompt(box=other)]], (90, 140)).masks[
        0, 0
    ]
    assert torch.allclose(plain, flipped.flip(1), atol=2e-3)


@torch.inference_mode()
def test_prompts_do_not_influence_each_other(model: Segmed) -> None:
    strokes = np.zeros((90, 140), np.int8)
    strokes[38:42, 50:70], strokes[80, 20:30] = 1, -1
    prompts = [
        SlicePrompt(box=(45, 25, 75, 55)),
        _click((60, 40)),
        _click((60, 40), (20, 70), labels=(1, 0)),
        SlicePrompt(scribbles=strokes),
        SlicePrompt(mask=_slice() > 100),
        SlicePrompt(neighbour=Neighbour(_slice() > 100, _slice())),
    ]
    embedding = model.embed([_slice(), _slice()[::-1].copy()])
    together = model.decode(embedding, [prompts, prompts], (90, 140))
    assert together.masks.shape == (2, len(prompts), 90, 140)
    assert together.quality is not None
    for b, alone in enumerate(embedding.split()):
        for k, prompt in enumerate(prompts):
            one = model.decode(alone, [[prompt]], (90, 140)).masks[0, 0]
            assert torch.allclose(one, together.masks[b, k], atol=1e-3)


@torch.inference_mode()
def test_one_of_many_slices_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Painter(PromptNetwork().eval(), "test", LookConfig(size=64))
    seen: list[int] = []
    look = model._look

    def counted(embedding: object, views: list[View]) -> tuple[Tensor, Tensor]:
        seen.append(len(views))
        return look(embedding, views)

    monkeypatch.setattr(model, "_look", counted)
    box = SlicePrompt(box=(45, 25, 75, 55))
    near = Neighbour(_slice() > 100, _slice())
    for prompt in (box, replace(box, quick=True), replace(box, neighbour=near, loose=True)):
        model.decode(model.embed([_slice()]), [[prompt]], (90, 140))
    assert seen == [4, 1, 1]


@torch.inference_mode()
def test_a_box_is_stretched_to_clicks_and_strokes_beside_it(model: Segmed) -> None:
    prompt = SlicePrompt((50, 30, 70, 50), np.array([[90, 40], [5, 5]], np.float32), np.array([1, 0]))
    embedding = model.embed([_slice()])
    assert model._framed(embedding, [(0, prompt)])[0][0].tolist() == [50, 30, 90, 50]
    strokes = np.zeros((90, 140), np.int8)
    strokes[60, 40:60], strokes[10, 100] = 1, -1
    assert model._framed(embedding, [(0, replace(prompt, scribbles=strokes))])[0][0].tolist() == [
        40,
        30,
        90,
        60,
    ]


@torch.inference_mode()
def test_clicks_beyond_a_window_are_left_out_of_it(model: Segmed) -> None:
    prompt = SlicePrompt((50, 30, 70, 50), np.array([[90, 40], [5, 5]], np.float32), np.array([1, 0]))
    view = View(0, torch.tensor([40.0, 20, 60, 60]), prompt, torch.tensor([50.0, 30, 90, 50]))
    _, _, told = network_inputs(model.embed([_slice()]), [view], model.look.size)
    assert told.points[0, 0].tolist() == pytest.approx(
        [(90.5 - 40) * 64 / 60 - 0.5, (40.5 - 20) * 64 / 60 - 0.5]
    )
    assert told.points[0, 1].isnan().all()


def test_the_best_window_is_not_cut_through(model: Segmed) -> None:
    masks = torch.full((4, MASKS, 32, 32), -1.0)
    masks[1, 1, 8:24, 0:24] = 1  # runs into the left side of its window
    masks[2, 2, 12:20, 10:20] = 1
    quality = torch.zeros(4, MASKS)
    quality[1, 1], quality[2, 2] = 0.80, 0.75
    quality[:, 0] = 0.9  # is not for lone clicks
    chooser = Chooser(model.network)
    chooser.answer = (masks, quality)
    embedding = Embedding(
        torch.zeros(1, 1, 400, 400, dtype=torch.uint8), model.embed([_slice(400, 400)]).frame
    )
    prompt = _click((200, 200))
    windows = [view.window for view in around_clicks(0, prompt, 400)]
    frame, previous = chooser._guess(embedding, [(0, prompt)])[0]
    expected = found_in(masks[2, 2], windows[2], 400, 400)
    assert expected is not None
    assert frame.tolist() == expected[0].tolist()
    assert expected[1] == 0
    assert previous is not None
    assert previous.max() > 0.5


@pytest.mark.parametrize(
    ("prompt", "lone"),
    [
        (_click((3, 3)), True),
        (_click((3, 3), (5, 5)), False),
        (replace(_click((3, 3)), box=(0.0, 0.0, 5.0, 5.0)), False),
        (replace(_click((3, 3)), mask=np.ones((9, 9), bool)), False),
        (replace(_click((3, 3)), scribbles=np.ones((9, 9), np.int8)), False),
    ],
)
def test_a_lone_click_is_ambiguous_and_nothing_else(prompt: SlicePrompt, lone: bool) -> None:
    assert is_lone_click(prompt) is lone


@torch.inference_mode()
@pytest.mark.parametrize("image", [np.zeros((64, 64), np.uint8), np.full((3, 200), 255, np.uint8)])
def test_empty_slices_give_finite_masks(model: Segmed, image: np.ndarray) -> None:
    prompts = [SlicePrompt(box=(0, 0, 2, 2)), SlicePrompt(box=(1, 1, 1, 1)), _click((1, 1))]
    prompts.append(SlicePrompt(mask=np.ones(image.shape, bool)))
    prompts.append(SlicePrompt(neighbour=Neighbour(np.ones(image.shape, bool), image)))
    for prompt in prompts:
        masks = model.decode(model.embed([image]), [[prompt]], (image.shape[0], image.shape[1])).masks
        assert torch.isfinite(masks).all()


@torch.inference_mode()
def test_hundreds_of_clicks_and_contradicting_ones_give_a_mask(model: Segmed) -> None:
    rng = np.random.default_rng(0)
    points = np.stack([rng.integers(0, 140, 300), rng.integers(0, 90, 300)], 1).astype(np.float32)
    many = SlicePrompt(points=points, labels=rng.integers(0, 2, 300))
    both = SlicePrompt(points=np.array([[60, 40], [60, 40]], np.float32), labels=np.array([1, 0]))
    corner = _click((139, 89))
    embedding = model.embed([_slice()])
    for prompt in (many, both, corner):
        assert torch.isfinite(model.decode(embedding, [[prompt]], (90, 140)).masks).all()


@torch.inference_mode()
def test_colour_slices_and_other_output_sizes(model: Segmed) -> None:
    image = np.stack([_slice(), _slice() // 2, 255 - _slice()], -1)
    masks = model.decode(model.embed([image]), [[SlicePrompt(box=(45, 25, 75, 55))]], (45, 70)).masks
    assert masks.shape == (1, 1, 45, 70)


@torch.inference_mode()
def test_candidates_of_a_click_come_from_every_size_of_window(model: Segmed) -> None:
    logits = model.candidates(model.embed([_slice()]), [_click((60, 40)), _click((10, 80))], (90, 140))
    assert logits.masks.shape == (2, 12, 90, 140)
    assert logits.quality is not None
    assert logits.quality.shape == (2, 12)


def test_it_needs_a_prompt(model: Segmed) -> None:
    with pytest.raises(ValueError, match="needs a prompt"):
        model.decode(model.embed([_slice()]), None, (90, 140))
    with pytest.raises(ValueError, match="do not fit"):
        model.decode(model.embed([_slice()]), [], (90, 140))


@torch.inference_mode()
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (40, 50)])
def test_clicks_on_flat_and_tiny_slices_give_finite_masks(model: Segmed, size: tuple[int, int]) -> None:
    embedding = model.embed([np.full(size, 7, np.uint8)])
    for x, y in ((0, 0), (size[1] - 1, size[0] - 1)):
        logits = model.decode(embedding, [[_click((x, y))]], size).masks[0, 0]
        assert torch.isfinite(logits).all()
        assert logits[y, x] > 0
