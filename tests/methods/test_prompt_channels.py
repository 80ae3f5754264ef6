"""Prompts drawn as channels, and the evidence of grey values."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from segmed.methods.segmed.prompt_channels import CHANNELS, WindowPrompts, evidence, prompt_channels
from torch import Tensor

S = 64


def _images(contrast: float = 0.4) -> tuple[Tensor, Tensor]:
    """A bright disc of 12 px in the middle of noise, and where it is."""
    y, x = torch.meshgrid(torch.arange(S), torch.arange(S), indexing="ij")
    disc = (x - 32) ** 2 + (y - 32) ** 2 < 12**2
    noise = torch.randn(S, S, generator=torch.Generator().manual_seed(0)) * 0.05
    return (0.3 + contrast * disc + noise).clamp(0, 1).expand(1, 3, S, S), disc


def _said(**what: Tensor) -> WindowPrompts:
    return replace(WindowPrompts.nothing(1, S, what["points"].shape[1] if "points" in what else 0), **what)


BOX = torch.tensor([[18.0, 18, 46, 46]])
CLICK = {"points": torch.tensor([[[32.0, 32]]]), "labels": torch.ones(1, 1, dtype=torch.long)}


def _map(disc: Tensor) -> Tensor:
    return disc.float()[None]


@pytest.mark.parametrize("kind", ["box", "click", "scribble", "previous", "neighbour"])
def test_every_prompt_makes_evidence_of_what_looks_like_it(kind: str) -> None:
    images, disc = _images()
    strokes = torch.zeros(1, 2, S, S)
    strokes[0, 0, 30:34, 26:38] = 1
    rough = torch.roll(_map(disc), 3, -1)
    prompts = {
        "box": _said(boxes=BOX),
        "click": _said(**CLICK),
        "scribble": _said(scribbles=strokes),
        "previous": _said(previous=rough),
        "neighbour": _said(neighbour=rough, neighbour_image=images[:, 0]),
    }[kind]
    _, refined = evidence(images, torch.ones(1, S, S, dtype=torch.bool), prompts)
    found = refined[0] > 0
    dice = 2 * (found & disc).sum() / (found.sum() + disc.sum())
    assert dice > 0.85  # computed at half of the resolution


def test_nothing_beyond_a_box_is_likely() -> None:
    images = torch.full((1, 3, S, S), 0.5)
    _, refined = evidence(images, torch.ones(1, S, S, dtype=torch.bool), _said(boxes=BOX))
    outside = torch.ones(S, S, dtype=torch.bool)
    outside[17:48, 17:48] = False
    assert refined[0][outside].max() < 0
    assert torch.isfinite(refined).all()


def test_pixels_beside_the_slice_do_not_count() -> None:
    images, _ = _images()
    dark = images.clone()
    dark[..., :10] = 0.7  # as bright as the disc
    valid = torch.ones(1, S, S, dtype=torch.bool)
    seen = valid.clone()
    seen[..., :10] = False
    without, _ = evidence(dark, seen, _said(boxes=BOX))
    counted, _ = evidence(dark, valid, _said(boxes=BOX))
    assert without[0, 32, 32] > counted[0, 32, 32]


def test_a_click_beside_the_object_speaks_against_its_surroundings() -> None:
    images, _ = _images(0.0)
    two = {"points": torch.tensor([[[32.0, 32], [44.0, 32]]]), "labels": torch.tensor([[1, 0]])}
    lone, _ = evidence(images, torch.ones(1, S, S, dtype=torch.bool), _said(**CLICK))
    _, alone = evidence(images, torch.ones(1, S, S, dtype=torch.bool), _said(**CLICK))
    _, both = evidence(images, torch.ones(1, S, S, dtype=torch.bool), _said(**two))
    assert both[0, 32, 44] < alone[0, 32, 44] - 2
    assert torch.isfinite(lone).all()


def test_channels_show_what_was_said_and_are_silent_else() -> None:
    images, disc = _images()
    valid = torch.ones(1, S, S, dtype=torch.bool)
    silent = prompt_channels(images, valid, _said(**CLICK))
    assert silent.shape == (1, CHANNELS, S, S)
    assert silent[0, 1, 32, 32] == pytest.approx(1)
    assert silent[0, 1, 32, 44] < 0.01
    assert silent[0, [0, 2, 3, 4, 5]].abs().max() == 0
    told = _said(boxes=BOX, previous=_map(disc), neighbour=_map(disc), neighbour_image=images[:, 0])
    shown = prompt_channels(images, valid, told)
    assert shown[0, 0].sum() == pytest.approx(29 * 29)  # pixels 18 to 46
    assert (shown[0, 3][disc] == 1).all()
    assert (shown[0, 4][~disc] == -1).all()
    assert torch.allclose(shown[0, 5], images[0, 0] * 2 - 1)


def test_mirrored_prompts_are_drawn_mirrored() -> None:
    images, disc = _images()
    strokes = torch.zeros(1, 2, S, S)
    strokes[0, 0, 30, 20:30] = 1
    told = _said(boxes=torch.tensor([[10.0, 18, 40, 46]]), scribbles=strokes, previous=_map(disc), **CLICK)
    valid = torch.ones(1, S, S, dtype=torch.bool)
    plain = prompt_channels(images, valid, told)
    turned = prompt_channels(images.flip(-1), valid, told.flipped(torch.tensor([True])))
    assert torch.allclose(plain.flip(-1), turned, atol=1e-4)
    same = told.flipped(torch.tensor([False]))
    assert torch.equal(same.scribbles, told.scribbles)
