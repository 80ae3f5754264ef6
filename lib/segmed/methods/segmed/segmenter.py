"""The default model as a segmenter: prompts become windows around them, masks of windows one mask.

It never encodes a whole slice: a window of about 1.6 times the box is resampled to the network's input
together with the prompt drawn as channels, and the mask is resampled to the slice. For clicks and scribbles,
windows of several sizes are evaluated first; the mask that agrees best with all of their masks defines the
box of the final windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.graph import Graph, Run
from segmed.methods.base.segmenter import Logits, Segmenter
from segmed.methods.segmed.click_hypotheses import (
    CUT_OFF,
    MOST_CLICKS,
    Hypotheses,
    first_clicks,
    hypotheses_of,
)
from segmed.methods.segmed.graphs import RunPromptNetwork, network_graph
from segmed.methods.segmed.network import PromptNetwork
from segmed.methods.segmed.prompt_channels import prompt_channels
from segmed.methods.segmed.views import (
    CLICK_SIDES,
    View,
    around_box,
    around_clicks,
    clicks_of,
    found_in,
    is_lone_click,
    marked_on_object,
    network_inputs,
    place,
)
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame
from segmed.sam.prompt_rules import enforce_clicks, fill_box

_VIEWS = 16  # windows per batch of the network


@dataclass(frozen=True)
class LookConfig:
    """The settings of inference.

    Attributes:
        size: Side of the network's input in px, a multiple of 32.
        zooms: Sides of the windows around a box, in sides of the box; the masks of all windows are averaged.
        flips: Whether each window is also evaluated mirrored.
        quick_zoom: Side of the only window, not mirrored, for one of many slices and for slices that are
            reached from their neighbour.
        fill_boxes: Whether masks that do not reach the sides of their box are grown to it.
        pull_to_clicks: Whether masks are changed to match each click where the image is similar.
    """

    size: int = 128
    zooms: tuple[float, ...] = (1.4, 1.75)
    flips: bool = True
    quick_zoom: float = 1.55
    fill_boxes: bool = True
    pull_to_clicks: bool = True


class Segmed(Segmenter):
    """The default model.

    Args:
        network: The network, see `network.PromptNetwork`.
        version: Version of the weights.
        look: The settings of inference.
    """

    no_graphs = ""
    margin = 0
    keeps_slices = True
    takes_scribbles = True
    follows_neighbours = True
    corrects_masks = True

    def __init__(
        self,
        network: PromptNetwork,
        version: str = "0",
        look: LookConfig | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.version = version
        self.look = look or LookConfig()
        self.choice = network.choice

    def encode(self, images: Tensor) -> Embedding:
        """Store slices (B, 3, S, S) in [0, 1] as uint8; windows are encoded per prompt."""
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
            raise ValueError("This model needs a prompt: draw a box or click on the object.")
        if len(prompts) != len(embedding) or len({len(p) for p in prompts}) != 1:
            raise ValueError(
                f"{len(prompts)} lists of prompts do not fit {len(embedding)} slices; give one list per "
                "slice, all of the same length."
            )
        items = [(b, prompt) for b, row in enumerate(prompts) for prompt in row]
        framed = self._framed(embedding, items)
        views, owner = [], []
        for n, ((b, prompt), (frame, previous)) in enumerate(zip(items, framed, strict=True)):
            once = prompt.quick or prompt.neighbour is not None
            zooms = (self.look.quick_zoom,) if once else self.look.zooms
            item_views = around_box(b, prompt, frame, zooms, self.look.flips and not once, previous)
            views += item_views
            owner += [n] * len(item_views)
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

    def candidates(
        self, embedding: Embedding, prompts: Sequence[SlicePrompt], size: tuple[int, int]
    ) -> Logits:
        """Decode the masks of each size of window for clicks, the largest first.

        The scores of masks that are cut off by their window are reduced.
        """
        if any(p.box is not None or p.mask is not None or p.neighbour is not None for p in prompts):
            return super().candidates(embedding, prompts, size)
        height, width = embedding.frame.height, embedding.frame.width
        views = [view for prompt in prompts for view in around_clicks(0, prompt, max(height, width))]
        masks, quality = self._look(embedding, views)
        out, scores = [], []
        for view, hypotheses, trust in zip(views, masks, quality, strict=True):
            for head in (
                range(1, masks.shape[1]) if is_lone_click(view.prompt) else [0] * (masks.shape[1] - 1)
            ):
                extent = found_in(hypotheses[head], view.window, height, width)
                out.append(place(hypotheses[head][None], [view.window], (height, width), size))
                scores.append(trust[head] - CUT_OFF * (extent[1] if extent else 0))
        shape = (len(prompts), len(CLICK_SIDES) * (masks.shape[1] - 1))
        return Logits(torch.stack(out).unflatten(0, shape), torch.stack(scores).unflatten(0, shape))

    def graphs(self) -> tuple[Graph, ...]:
        return (network_graph(self.network, self.look.size),)

    def run_by(self, runs: Mapping[str, Run]) -> None:
        self.network = cast(PromptNetwork, RunPromptNetwork(runs["network"]))

    def _framed(
        self, embedding: Embedding, items: Sequence[tuple[int, SlicePrompt]]
    ) -> list[tuple[Tensor, Tensor | None]]:
        """The box (4,) of each prompt for its windows, and the probability (H, W) of its previous mask.

        The box is the user's, the previous mask's or the neighbour's, extended to the marks on the object;
        for clicks and scribbles alone it is that of the best first guess, which then becomes the previous
        mask.
        """
        framed: list[tuple[Tensor, Tensor | None] | None] = []
        for _, prompt in items:
            previous = prompt.mask if prompt.mask is not None and prompt.mask.any() else None
            shown = previous
            if shown is None and prompt.neighbour is not None:
                shown = prompt.neighbour.mask
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
                frame = torch.cat(
                    [torch.minimum(frame[:2], marks.amin(0)), torch.maximum(frame[2:], marks.amax(0))]
                )
            framed.append((frame, None if previous is None else torch.from_numpy(previous).float()))
        clicked = [n for n, entry in enumerate(framed) if entry is None]
        for n, guess in zip(clicked, self._guess(embedding, [items[n] for n in clicked]), strict=True):
            framed[n] = guess
        return [entry for entry in framed if entry is not None]

    def _guess(
        self, embedding: Embedding, items: Sequence[tuple[int, SlicePrompt]]
    ) -> list[tuple[Tensor, Tensor | None]]:
        """Box and probability (H, W) of a first mask for clicks and scribbles, from windows of several sizes.

        Strokes are represented by clicks, see `first_clicks`. Each window and mask head gives a hypothesis.
        For a few clicks the choice that was trained for them takes one. Otherwise the one with the highest
        expected Dice over all of them is taken, see `views.expected_dice`, for many clicks times the trust in
        it.
        """
        items = [(b, first_clicks(prompt)) for b, prompt in items]
        height, width = embedding.frame.height, embedding.frame.width
        views = [view for b, prompt in items for view in around_clicks(b, prompt, max(height, width))]
        if not views:
            return []
        masks, quality = self._look(embedding, views)
        guesses: list[tuple[Tensor, Tensor | None]] = []
        for n, (b, prompt) in enumerate(items):
            rows = slice(n * len(CLICK_SIDES), (n + 1) * len(CLICK_SIDES))
            found = hypotheses_of(embedding, b, prompt, views[rows], masks[rows], quality[rows])
            best = int(self._scores(found, prompt).argmax())
            row, head = found.places[best]
            window, frame = views[rows][row].window, found.extents[best]
            if frame is None:  # all masks are empty: take a small box around the click
                centre = window[:2] + window[2:] / 2
                guesses.append((torch.cat([centre - 8, centre + 8]), None))
            else:
                placed = place(masks[rows][row, head][None], [window], (height, width), (height, width))
                guesses.append((frame, placed.sigmoid()))
        return guesses

    def _scores(self, found: Hypotheses, prompt: SlicePrompt) -> Tensor:
        """Score hypotheses (N,), the meant one highest."""
        few = 0 < len(prompt.points) <= MOST_CLICKS
        if self.choice is not None and few:
            return self.choice(torch.from_numpy(found.features())).cpu()
        # Many clicks leave less doubt about the object: the window that shows it best counts as well.
        lone = is_lone_click(prompt)
        return torch.from_numpy(found.agreement if lone else found.agreement * found.trust)

    @staticmethod
    def _chosen(masks: Tensor, quality: Tensor, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        """Choose one of four masks (V, 4, t, t) per view by predicted IoU: (V, t, t), and that IoU (V,)."""
        lone = torch.tensor([is_lone_click(view.prompt) for view in views], device=masks.device)
        used = quality.clone()
        used[lone, 0] = -1
        used[~lone, 1:] = -1
        best = used.argmax(1)
        rows = torch.arange(len(views), device=masks.device)
        return masks[rows, best], quality[rows, best]

    def _look(self, embedding: Embedding, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        """Evaluate views: logits (V, 4, t, t) in their windows, mirrored back, and predicted IoU (V, 4)."""
        masks, scores = [], []
        for start in range(0, len(views), _VIEWS):
            batch = views[start : start + _VIEWS]
            images, valid, prompts = network_inputs(embedding, batch, self.look.size)
            channels = prompt_channels(images, valid, prompts)
            images, channels = (t.contiguous(memory_format=torch.channels_last) for t in (images, channels))
            logits, quality = self.network(self.network.features(images), images, channels)
            flips = torch.tensor([view.flip for view in batch], device=logits.device)
            masks.append(torch.where(flips[:, None, None, None], logits.flip(-1), logits).float())
            scores.append(quality.float())
        return torch.cat(masks), torch.cat(scores)

    def _by_rules(
        self, logits: Tensor, embedding: Embedding, b: int, prompt: SlicePrompt, frame: Tensor
    ) -> Tensor:
        """Apply the rules of `sam.prompt_rules` for the user's box and clicks to logits (H, W)."""
        rows, columns = logits.shape
        scale = torch.tensor([columns / embedding.frame.width, rows / embedding.frame.height])
        if prompt.box is not None and self.look.fill_boxes and not prompt.loose:
            logits = fill_box(logits, frame * scale.repeat(2))
        points, labels = clicks_of(prompt)
        if len(points) and self.look.pull_to_clicks:
            image = F.interpolate(embedding.features[b : b + 1].float(), (rows, columns))[0]
            logits = enforce_clicks(logits, image, points * scale, labels, frame * scale.repeat(2))
        return logits
