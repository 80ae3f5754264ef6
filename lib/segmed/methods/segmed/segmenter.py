"""The default model: a box, clicks, scribbles, a mask or the neighbouring slice's mask → a window → a mask.

It never encodes a whole slice: a window of about 1.6 times the box is resampled to the network's input together with
the prompt drawn as channels, and the mask is put back at the slice's resolution. Clicks and scribbles open windows of
several sizes; the mask that agrees best with all of their masks is framed and looked at again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.imaging.prompts import SlicePrompt
from segmed.methods.segmed.network import PromptNetwork
from segmed.methods.segmed.prompt_channels import WindowPrompts, prompt_channels
from segmed.methods.segmed.views import (
    CLICK_SIDES,
    View,
    around_box,
    around_clicks,
    clicks_of,
    found_in,
    is_lone_click,
    marked_on_object,
    most_expected,
    on_slice,
    place,
    sample,
)
from segmed.methods.segmenter import Logits, Segmenter
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame
from segmed.sam.prompt_rules import enforce_clicks, fill_box
from segmed.sam.window import to_window

_VIEWS = 16  # windows that go through the network together
_LEAST_TRUST = 0.01  # of a mask that is not empty
_CUT_OFF = 0.15  # of predicted IoU that a mask loses on each axis on which its window cuts it off


@dataclass(frozen=True)
class LookConfig:
    """How the network is used.

    Attributes:
        size: side of the windows in px, a multiple of 32.
        zooms: windows around a box, in sides of the box; their masks are averaged.
        flips: whether each window is also seen mirrored.
        fill_boxes: whether masks that do not reach the sides of their box are grown to it.
        pull_to_clicks: whether masks are pulled to each click where the image looks alike.
    """

    size: int = 128
    zooms: tuple[float, ...] = (1.4, 1.75)
    flips: bool = True
    fill_boxes: bool = True
    pull_to_clicks: bool = True


class Segmed(Segmenter):
    """The default model.

    Args:
        network: see `network.PromptNetwork`.
        version: names the weights.
        look: how the network is used.
    """

    margin = 0
    keeps_slices = True
    takes_scribbles = (
        False  # clicks spread along strokes gave better masks than strokes as channels, see docs/results.md
    )
    follows_neighbours = True
    corrects_masks = True

    def __init__(self, network: PromptNetwork, version: str = "0", look: LookConfig | None = None) -> None:
        super().__init__()
        self.network = network
        self.version = version
        self.look = look or LookConfig()

    def encode(self, images: Tensor) -> Embedding:
        """Keep the slices (B, 3, S, S) as they are; windows are encoded when a prompt says where to look."""
        height, width = images.shape[2:]
        return Embedding((images * 255).round().to(torch.uint8), Frame(height, width, max(height, width)))

    def embed(self, images: Sequence[np.ndarray]) -> Embedding:
        stack = np.stack([i[None] if i.ndim == 2 else i.transpose(2, 0, 1) for i in images])
        height, width = stack.shape[2:]
        device = next(self.parameters()).device
        return Embedding(torch.from_numpy(stack).to(device), Frame(height, width, max(height, width)))

    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        if prompts is None:
            raise ValueError("This model needs a prompt: draw a box or click into the object.")
        if len(prompts) != len(embedding) or len({len(p) for p in prompts}) != 1:
            raise ValueError(
                f"{len(prompts)} lists of prompts do not fit {len(embedding)} slices of equal prompt count."
            )
        items = [(b, prompt) for b, row in enumerate(prompts) for prompt in row]
        framed = self._framed(embedding, items)
        views, owner = [], []
        for n, ((b, prompt), (frame, previous)) in enumerate(zip(items, framed, strict=True)):
            mine = around_box(b, prompt, frame, self.look.zooms, self.look.flips, previous)
            views += mine
            owner += [n] * len(mine)
        masks, quality = self._look(embedding, views)
        slice_size = embedding.frame.height, embedding.frame.width
        out, score = [], []
        for n, (b, prompt) in enumerate(items):
            rows = [v for v, of in enumerate(owner) if of == n]
            placed = place(masks[rows, 0], [views[v].window for v in rows], slice_size, size)
            out.append(self._by_rules(placed, embedding, b, prompt, framed[n][0]))
            score.append(quality[rows, 0].mean())
        shape = (len(prompts), len(prompts[0]))
        return Logits(torch.stack(out).unflatten(0, shape), torch.stack(score).unflatten(0, shape))

    def candidates(self, embedding: Embedding, prompts: Sequence[SlicePrompt], size: tuple[int, int]) -> Logits:
        """For clicks the masks from each size of window, the largest first; masks that a window cuts off count less."""
        if any(p.box is not None or p.mask is not None or p.neighbour is not None for p in prompts):
            return super().candidates(embedding, prompts, size)
        height, width = embedding.frame.height, embedding.frame.width
        views = [view for prompt in prompts for view in around_clicks(0, prompt, max(height, width))]
        masks, quality = self._look(embedding, views)
        out, scores = [], []
        for view, hypotheses, trust in zip(views, masks, quality, strict=True):
            for head in range(1, masks.shape[1]) if is_lone_click(view.prompt) else [0] * (masks.shape[1] - 1):
                found = found_in(hypotheses[head], view.window, height, width)
                out.append(place(hypotheses[head][None], [view.window], (height, width), size))
                scores.append(trust[head] - _CUT_OFF * (found[1] if found else 0))
        shape = (len(prompts), len(CLICK_SIDES) * (masks.shape[1] - 1))
        return Logits(torch.stack(out).unflatten(0, shape), torch.stack(scores).unflatten(0, shape))

    def _framed(
        self, embedding: Embedding, items: Sequence[tuple[int, SlicePrompt]]
    ) -> list[tuple[Tensor, Tensor | None]]:
        """For each prompt the box (4,) to look around, and the probability (H, W) of its previous mask or None.

        The box is the user's, the previous mask's or the neighbour's, stretched to what was marked on the object; for
        clicks and scribbles alone it is that of the best first guess, which counts as previous mask from then on.
        """
        framed: list[tuple[Tensor, Tensor | None] | None] = []
        for _, prompt in items:
            previous = prompt.mask if prompt.mask is not None and prompt.mask.any() else None
            shown = previous if previous is not None else None if prompt.neighbour is None else prompt.neighbour.mask
            if prompt.box is not None and not (prompt.loose and shown is not None):
                frame = torch.tensor(prompt.box, dtype=torch.float32)
            elif shown is not None:
                y, x = (torch.from_numpy(v) for v in np.nonzero(shown))
                frame = torch.stack([x.min(), y.min(), x.max(), y.max()]).float()
            else:
                framed.append(None)
                continue
            marks = marked_on_object(prompt)
            if len(marks):
                frame = torch.cat([torch.minimum(frame[:2], marks.amin(0)), torch.maximum(frame[2:], marks.amax(0))])
            framed.append((frame, None if previous is None else torch.from_numpy(previous).float()))
        clicked = [n for n, found in enumerate(framed) if found is None]
        for n, guess in zip(clicked, self._guess(embedding, [items[n] for n in clicked]), strict=True):
            framed[n] = guess
        return [found for found in framed if found is not None]

    def _guess(
        self, embedding: Embedding, items: Sequence[tuple[int, SlicePrompt]]
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Box and probability (H, W) of what clicks and scribbles mean, by windows of several sizes around them."""
        height, width = embedding.frame.height, embedding.frame.width
        views = [view for b, prompt in items for view in around_clicks(b, prompt, max(height, width))]
        if not views:
            return []
        masks, quality = self._look(embedding, views)
        guesses: list[tuple[Tensor, Tensor | None]] = []
        for n, (_, prompt) in enumerate(items):
            rows = range(n * len(CLICK_SIDES), (n + 1) * len(CLICK_SIDES))
            heads = range(1, masks.shape[1]) if is_lone_click(prompt) else range(1)
            places = [(row, head) for row in rows for head in heads]
            found = [found_in(masks[row, head], views[row].window, height, width) for row, head in places]
            trust = [
                max(float(quality[row, head]) - _CUT_OFF * one[1], _LEAST_TRUST) if one else 0.0
                for (row, head), one in zip(places, found, strict=True)
            ]
            windows = [views[row].window for row, _ in places]
            best = most_expected(torch.stack([masks[at] for at in places]), windows, trust, (height, width))
            frame = found[best]
            if frame is None:  # nothing anywhere: a small box around the click
                centre = windows[0][:2] + windows[0][2:] / 2
                guesses.append((torch.cat([centre - 8, centre + 8]), None))
            else:
                placed = place(masks[places[best]][None], [windows[best]], (height, width), (height, width))
                guesses.append((frame[0], placed.sigmoid()))
        return guesses

    @staticmethod
    def _chosen(masks: Tensor, quality: Tensor, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        """One of the four masks (V, 4, t, t) of each view, (V, t, t), and its predicted IoU (V,)."""
        lone = torch.tensor([is_lone_click(view.prompt) for view in views], device=masks.device)
        used = quality.clone()
        used[lone, 0] = -1
        used[~lone, 1:] = -1
        best = used.argmax(1)
        rows = torch.arange(len(views), device=masks.device)
        return masks[rows, best], quality[rows, best]

    def _look(self, embedding: Embedding, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        """Logits (V, 4, t, t) of views in their windows, not mirrored any more, and predicted IoU (V, 4)."""
        masks, scores = [], []
        for start in range(0, len(views), _VIEWS):
            batch = views[start : start + _VIEWS]
            images, valid, prompts = self._inputs(embedding, batch)
            channels = prompt_channels(images, valid, prompts)
            images, channels = (t.contiguous(memory_format=torch.channels_last) for t in (images, channels))
            found, quality = self.network(self.network.features(images), images, channels)
            flips = torch.tensor([view.flip for view in batch], device=found.device)
            masks.append(torch.where(flips[:, None, None, None], found.flip(-1), found).float())
            scores.append(quality.float())
        return torch.cat(masks), torch.cat(scores)

    def _inputs(self, embedding: Embedding, views: Sequence[View]) -> tuple[Tensor, Tensor, WindowPrompts]:
        """Windows (V, 3, t, t) in [0, 1], where they lie on their slices (V, t, t), and their prompts; mirrored."""
        side, device = self.look.size, embedding.features.device
        height, width = embedding.frame.height, embedding.frame.width
        flips = torch.tensor([view.flip for view in views], device=device)
        most = max(len(view.prompt.labels) for view in views)
        prompts = WindowPrompts.nothing(len(views), side, most, device)
        previous, neighbour, near = (prompts.previous.clone() for _ in range(3))
        images, valid = [], []
        for n, view in enumerate(views):
            image = embedding.features[view.b]
            seen = on_slice(view.window, height, width, side).to(device)
            images.append((sample(image, view.window, side) / 255).expand(3, -1, -1) * seen)
            valid.append(seen)
            if view.box is not None:
                prompts.boxes[n] = to_window(view.box[None], view.window[None], side)[0].to(device)
            points, labels = clicks_of(view.prompt)
            # clicks beyond the window say nothing about it
            inside = ((points + 0.5 >= view.window[:2]) & (points + 0.5 < view.window[:2] + view.window[2:])).all(1)
            points, labels = points[inside], labels[inside]
            prompts.points[n, : len(points)] = to_window(points, view.window.expand(len(points), 4), side).to(device)
            prompts.labels[n, : len(points)] = labels.to(device)
            if view.prompt.scribbles is not None:
                strokes = torch.from_numpy(view.prompt.scribbles)
                both = torch.stack([strokes == 1, strokes == -1]).float().to(device)
                prompts.scribbles[n] = sample(both, view.window, side, "max") * seen
            if view.previous is not None:
                previous[n] = sample(view.previous.to(device)[None], view.window, side)[0] * seen
            if view.prompt.neighbour is not None:
                mask = torch.from_numpy(view.prompt.neighbour.mask).float().to(device)
                neighbour[n] = sample(mask[None], view.window, side)[0] * seen
                other = torch.from_numpy(view.prompt.neighbour.image).to(device)
                other = other[None] if other.dim() == 2 else other.permute(2, 0, 1)
                near[n] = sample(other, view.window, side).mean(0) / 255 * seen
        told = WindowPrompts(
            prompts.boxes, prompts.points, prompts.labels, prompts.scribbles, previous, neighbour, near
        ).flipped(flips)
        shown = torch.stack(images)
        shown = torch.where(flips[:, None, None, None], shown.flip(-1), shown)
        where = torch.stack(valid)
        return shown, torch.where(flips[:, None, None], where.flip(-1), where), told

    def _by_rules(self, logits: Tensor, embedding: Embedding, b: int, prompt: SlicePrompt, frame: Tensor) -> Tensor:
        """Logits (H, W) after the rules of `sam.prompt_rules`, for the box that the user drew and the clicks."""
        rows, columns = logits.shape
        scale = torch.tensor([columns / embedding.frame.width, rows / embedding.frame.height])
        if prompt.box is not None and self.look.fill_boxes and not prompt.loose:
            logits = fill_box(logits, frame * scale.repeat(2))
        points, labels = clicks_of(prompt)
        if len(points) and self.look.pull_to_clicks:
            image = F.interpolate(embedding.features[b : b + 1].float(), (rows, columns))[0]
            logits = enforce_clicks(logits, image, points * scale, labels, frame * scale.repeat(2))
        return logits
