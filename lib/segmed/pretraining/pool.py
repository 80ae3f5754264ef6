"""A pool of objects in training: each stays for some corrections and is then replaced by another one.

A step trains on all of them together, new ones and ones in their second to sixth round, so that corrections
need no separate forward passes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segmed.methods.segmed.prompt_channels import WindowPrompts
from segmed.pretraining.appearance import vary_appearance
from segmed.pretraining.objects import ObjectSource
from segmed.pretraining.windows import look_at, neighbour_of, show
from segmed.simulation.window_annotator import Prompted, click_in, correct, draw_box, roughen, scribble_in

# Kinds of first prompts: their share, and the probability of another correction after each round
KINDS = {
    "box": (0.33, 0.3),
    "click": (0.29, 0.68),
    "scribble": (0.13, 0.4),
    "mask": (0.05, 0.4),
    "neighbour": (0.20, 0.15),
}
_MOST_ROUNDS = 6  # largest number of rounds per object
_VANISHED = 0.18  # share of neighbour prompts for slices on which the object has ended
_BOUNDED = 0.35  # share of neighbour prompts with a box that bounds the object on all slices
_TRIES = 8  # attempts to open an object


@dataclass(frozen=True)
class Opened:
    """An object in its window with its prompts so far.

    Attributes:
        image: The window (3, S, S), float32 in [0, 1].
        truth: The true mask (S, S), float32 in [0, 1].
        valid: Boolean (S, S), true for pixels on the image.
        kind: Kind of the first prompt.
        prompted: The prompts so far.
        neighbour: Mask and grey values (2, S, S) of the neighbouring slice, or None. Before `refill` it holds
            the mask only, and the neighbour's image lies to the right of `image`.
        rounds: Number of rounds of prompting.
    """

    image: np.ndarray
    truth: np.ndarray
    valid: np.ndarray
    kind: str
    prompted: Prompted
    neighbour: np.ndarray | None = None
    rounds: int = 1


class ObjectPool:
    """A batch of opened objects.

    Args:
        source: The sequence of objects.
        batch: Number of opened objects.
        size: Side S of the windows in px.
        seed: Seed of all random draws; parallel processes need different ones.
        stride: Object numbers are `first + n * stride`, so that parallel processes train on different
            objects.
        first: Number of the first object.
    """

    def __init__(
        self,
        source: ObjectSource,
        batch: int,
        size: int = 128,
        seed: int = 0,
        stride: int = 1,
        first: int = 0,
    ) -> None:
        self.source, self.batch, self.size, self.seed = source, batch, size, seed
        self.stride, self.first = stride, first
        self.taken = 0
        self.turn = 0
        self.opened: list[Opened] = []

    def refill(self) -> None:
        """Open new objects until the batch is full, and vary their appearance together."""
        fresh: list[Opened] = []
        while len(self.opened) + len(fresh) < self.batch:
            fresh.append(self._open())
        if not fresh:
            return
        rng = np.random.default_rng((self.seed, 1, self.taken))
        single = [o for o in fresh if o.neighbour is None]
        self.opened += [
            replace(o, image=image) for o, image in zip(single, _varied(single, rng), strict=True)
        ]
        pairs = [o for o in fresh if o.neighbour is not None]
        for o, both in zip(pairs, _varied(pairs, rng), strict=True):
            # Slice and neighbour lie side by side, so that their appearance changes in the same way.
            image, near = both[..., : self.size], both[..., self.size :].mean(0)
            assert o.neighbour is not None
            neighbour = np.stack([o.neighbour[0], near]).astype(np.float32)
            valid = o.valid[:, : self.size]
            self.opened.append(
                replace(o, image=np.ascontiguousarray(image), valid=valid, neighbour=neighbour)
            )

    def correct(self, probability: np.ndarray) -> None:
        """Add corrections of the masks (B, S, S) from a step to the prompts, or remove objects.

        Objects are removed after their last round, when nothing is wrong, or when their mask is empty.
        """
        self.turn += 1
        rng = np.random.default_rng((self.seed, 2, self.turn))
        kept = []
        for opened, predicted in zip(self.opened, probability, strict=True):
            truth = opened.truth > 0.5
            if opened.rounds >= _MOST_ROUNDS or rng.random() >= KINDS[opened.kind][1] or not truth.any():
                continue
            correction = correct(opened.prompted, predicted, truth, rng)
            if correction is not None:
                kept.append(replace(opened, prompted=correction, rounds=opened.rounds + 1))
        self.opened = kept

    def correct_all(self, probability: np.ndarray) -> None:
        """Correct the masks of all objects without removing any, as far as there are errors."""
        self.turn += 1
        rng = np.random.default_rng((self.seed, 3, self.turn))
        for n, (opened, predicted) in enumerate(zip(self.opened, probability, strict=True)):
            truth = opened.truth > 0.5
            correction = correct(opened.prompted, predicted, truth, rng, forget=0.0) if truth.any() else None
            if correction is not None:
                self.opened[n] = replace(opened, prompted=correction, rounds=opened.rounds + 1)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, WindowPrompts, Tensor]:
        """Images (B, 3, S, S), truth and valid (B, S, S), prompts, and which are single clicks (B,)."""
        opened = self.opened
        clicks = max((len(o.prompted.points) for o in opened), default=0)
        prompts = WindowPrompts.nothing(len(opened), self.size, clicks)
        for n, o in enumerate(opened):
            given = o.prompted
            if given.box is not None:
                prompts.boxes[n] = torch.from_numpy(given.box)
            if given.points:
                prompts.points[n, : len(given.points)] = torch.tensor(given.points)
                prompts.labels[n, : len(given.points)] = torch.tensor(given.labels)
            if given.scribbles is not None:
                prompts.scribbles[n] = torch.from_numpy(given.scribbles)
        none = np.full((self.size, self.size), -1, np.float32)
        previous = np.stack([none if o.prompted.previous is None else o.prompted.previous for o in opened])
        near = [np.stack([none, none]) if o.neighbour is None else o.neighbour for o in opened]
        prompts = replace(
            prompts,
            previous=torch.from_numpy(previous),
            neighbour=torch.from_numpy(np.stack([n[0] for n in near])),
            neighbour_image=torch.from_numpy(np.stack([n[1] for n in near])),
        )
        return (
            torch.from_numpy(np.stack([o.image for o in opened])),
            torch.from_numpy(np.stack([o.truth for o in opened])),
            torch.from_numpy(np.stack([o.valid for o in opened])),
            prompts,
            torch.tensor([o.prompted.is_lone_click and o.neighbour is None for o in opened]),
        )

    def state(self) -> dict[str, Any]:
        """The state from which `restore` continues with the same objects."""
        return {"taken": self.taken, "turn": self.turn, "opened": self.opened}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        self.taken, self.turn, self.opened = state["taken"], state["turn"], list(state["opened"])

    def _open(self) -> Opened:
        for _ in range(_TRIES):
            number = self.first + self.taken * self.stride
            self.taken += 1
            rng = np.random.default_rng((self.seed, 0, number))
            opened = self._show(number, rng)
            if opened is not None:
                return opened
        raise ValueError(
            f"None of {_TRIES} objects in a row is visible in its window. "
            "Check the labels of the training images."
        )

    def _show(self, number: int, rng: np.random.Generator) -> Opened | None:
        """Open an object in a random window with a random prompt; None if the window loses it."""
        shown = self.source.object(number)
        names = list(KINDS)
        kind = names[rng.choice(len(names), p=[KINDS[name][0] for name in names])]
        if shown.kind == "superpixel" and kind in ("click", "neighbour"):
            kind = "box"  # a click does not define a superpixel
        if shown.kind == "tissue" and kind == "neighbour":
            kind = "box"  # the next slice of a tissue would be one of other branches
        on_click = kind == "click" or (kind == "scribble" and rng.random() < 0.5)
        zoom = (0.9, 8.0) if on_click else (1.25, 2.1)
        view = look_at(shown.mask, self.size, rng, zoom, on_click)
        window = show(shown.image, shown.mask, view)
        truth = window.truth > 0.5
        if truth.sum() < 6:
            return None
        prompt, neighbour = Prompted(), None
        if kind != "neighbour":
            prompt = _first_prompt(kind, truth, rng)
        else:
            # The window lies around the neighbour's object, as it does in propagation.
            near, window = window, show(shown.image, shown.mask, neighbour_of(view, rng))
            truth = window.truth > 0.5
            if truth.sum() < 6:
                return None
            neighbour = (near.truth if rng.random() < 0.6 else roughen(near.truth > 0.5, rng))[None]
            if rng.random() < _BOUNDED:
                widest = draw_box(truth | (near.truth > 0.5), rng, 0.0, 0.1)
                grown = rng.uniform(0.0, 0.5, 4) * np.tile(widest[2:] - widest[:2], 2) * (rng.random(4) < 0.6)
                prompt = replace(prompt, box=(widest + grown * np.array([-1, -1, 1, 1])).astype(np.float32))
        image, covered, valid = window.image, window.truth, window.valid
        if neighbour is not None:
            if rng.random() < _VANISHED:
                image, covered = _without(image, truth, rng), np.zeros_like(covered)
            image, valid = np.concatenate([image, near.image], 1), np.concatenate([valid, near.valid], 1)
        return Opened(
            np.ascontiguousarray(image.transpose(2, 0, 1)),
            covered.astype(np.float32),
            valid,
            kind,
            prompt,
            None if neighbour is None else neighbour.astype(np.float32),
        )


def _first_prompt(kind: str, truth: np.ndarray, rng: np.random.Generator) -> Prompted:
    """The first prompt of a kind for a boolean object (S, S)."""
    prompt = Prompted()
    if kind == "box":
        return replace(prompt, box=draw_box(truth, rng))
    if kind == "click":
        return prompt.with_click(click_in(truth, rng), 1)
    if kind == "scribble":
        return prompt.with_scribble(scribble_in(truth, rng), 1)
    return replace(prompt, previous=roughen(truth, rng))


def _varied(opened: list[Opened], rng: np.random.Generator) -> np.ndarray:
    """The images of opened objects with varied appearance, (B, 3, S, S or 2 S)."""
    if not opened:
        return np.zeros((0, 3, 1, 1), np.float32)
    images = torch.from_numpy(np.stack([o.image for o in opened]))
    valid = torch.from_numpy(np.stack([o.valid for o in opened]))
    return np.asarray(vary_appearance(images, valid, rng).numpy())


def _without(image: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Remove the object from an image (S, S, 3) by inpainting from its surroundings, with soft edges."""
    import cv2

    radius = int(np.sqrt(truth.sum() / np.pi)) + 2
    cover = cv2.dilate(truth.astype(np.uint8), np.ones((5, 5), np.uint8))
    byte = (image * 255).round().astype(np.uint8)
    filled = cv2.inpaint(byte, cover, 3, cv2.INPAINT_TELEA).astype(np.float32) / 255
    # Texture from elsewhere in the image, so that the filling is as rough as the image.
    shift = tuple(int(v) for v in rng.choice([-1, 1], 2) * rng.integers(radius, 2 * radius + 2, 2))
    moved = np.roll(image, shift, (0, 1))
    grain = moved - cv2.blur(moved, (7, 7))
    soft = cv2.blur(cover.astype(np.float32), (5, 5))[..., None]
    return np.asarray((image * (1 - soft) + (filled + grain) * soft).clip(0, 1), np.float32)
