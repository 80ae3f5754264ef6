"""The embedded default: a small SAM that looks at a window around the prompt, trained on drawn pictures only.

It never encodes a whole slice: a window of about 1.6 times the box is resampled to its input together with what grey
values or colours say about the box (`sam.evidence`), and the mask is put back at the slice's resolution. A click opens
windows of several sizes; the one with the most trustworthy mask is kept, boxed, and looked at again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import SamModel

from segmed.imaging.prompts import SlicePrompt
from segmed.methods.segmenter import Logits, Segmenter
from segmed.sam.embedding import Embedding
from segmed.sam.evidence import show_prompt
from segmed.sam.frame import Frame
from segmed.sam.prompt_rules import fill_box, heed_clicks
from segmed.sam.window import sampling_grid, squares_around, to_window, windows_around

_NOTHING = -20.0  # logit outside of the window
_VIEWS = 32  # windows encoded together
_CUT = 0.15  # of predicted IoU that a mask loses on each axis on which its window cuts it off
_CLICK_SIDES = (1.0, 0.5, 0.25, 0.125)  # windows around clicks, in longer sides of the slice


@dataclass(frozen=True)
class View:
    """One window on one slice with what is asked for in it.

    Attributes:
        b: the slice's place in its embedding.
        window: (4,) left, top, width, height in px of the slice.
        box: (4,) x0, y0, x1, y1 in px of the slice, or None.
        points: (N, 2) px of the slice.
        labels: (N,)
        flip: whether the window is mirrored left to right.
    """

    b: int
    window: Tensor
    box: Tensor | None
    points: Tensor
    labels: Tensor
    flip: bool = False


class Segmed(Segmenter):
    """Box or clicks → window → mask.

    Args:
        model: a small SAM trained with frames and windows, see `training.stream`.
        version: names the weights.
        zooms: windows around a box, in sides of the box; their masks are averaged.
        flips: whether each window is also seen mirrored.
    """

    margin = 1  # it takes boxes for tight
    keeps_slices = True

    def __init__(
        self, model: SamModel, version: str = "0", zooms: Sequence[float] = (1.5, 1.8), flips: bool = True
    ) -> None:
        super().__init__()
        self.model = model
        self.version = version
        self.zooms = tuple(zooms)
        self.flips = flips
        self.side = int(model.config.vision_config.image_size)

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
        boxes = self._boxes(embedding, items)
        views, owner = [], []
        for n, (b, prompt) in enumerate(items):
            for view in self._views(b, boxes[n], prompt):
                views.append(view)
                owner.append(n)
        masks, quality = self._look(embedding, views)
        height, width = embedding.frame.height, embedding.frame.width
        out = torch.full((len(items), *size), _NOTHING, device=masks.device)
        score = torch.zeros(len(items), device=masks.device)
        for n in range(len(items)):
            mine = [v for v, of in enumerate(owner) if of == n]
            placed = self._place(masks[mine], [views[v].window for v in mine], (height, width), size)
            out[n] = self._keep_promises(placed, embedding, *items[n], boxes[n])
            score[n] = quality[mine].mean()
        shape = (len(prompts), len(prompts[0]))
        return Logits(out.unflatten(0, shape), score.unflatten(0, shape))

    def candidates(self, embedding: Embedding, prompts: Sequence[SlicePrompt], size: tuple[int, int]) -> Logits:
        """For clicks one mask from each size of window, the largest first; masks that a window cuts off count less."""
        if any(p.box is not None or p.mask is not None for p in prompts):
            return super().candidates(embedding, prompts, size)
        height, width = embedding.frame.height, embedding.frame.width
        views = [view for prompt in prompts for view in _around_clicks(0, prompt, max(height, width))]
        masks, quality = self._look(embedding, views)
        found = [_found_in(mask, view.window, height, width) for mask, view in zip(masks, views, strict=True)]
        lost = quality.new_tensor([_CUT * one[1] if one else 0.0 for one in found])
        placed = [self._place(masks[n : n + 1], [view.window], (height, width), size) for n, view in enumerate(views)]
        shape = (len(prompts), len(_CLICK_SIDES))
        return Logits(torch.stack(placed).unflatten(0, shape), (quality - lost).unflatten(0, shape))

    def _keep_promises(
        self, logits: Tensor, embedding: Embedding, b: int, prompt: SlicePrompt, found: Tensor
    ) -> Tensor:
        """Logits (H, W) after the rules of `sam.prompt_rules`, for the box the user drew and the clicks."""
        rows, columns = logits.shape
        scale = torch.tensor([columns / embedding.frame.width, rows / embedding.frame.height])
        if prompt.box is not None:
            logits = fill_box(logits, found * scale.repeat(2))
        points, labels = _points(prompt)
        if len(points) > 1 or (len(points) and (prompt.box is not None or prompt.mask is not None)):
            image = F.interpolate(embedding.features[b : b + 1].float(), (rows, columns))[0]
            logits = heed_clicks(logits, image, points * scale, labels, found * scale.repeat(2))
        return logits

    def _views(self, b: int, box: Tensor, prompt: SlicePrompt) -> list[View]:
        """The windows around a box; clicks that lie outside of a window say nothing about it."""
        views = []
        for zoom in self.zooms:
            window = windows_around(box[None], zoom)[0]
            points, labels = _points(prompt)
            inside = ((points + 0.5 >= window[:2]) & (points + 0.5 < window[:2] + window[2:])).all(1)
            for flip in (False, True) if self.flips else (False,):
                views.append(View(b, window, box, points[inside], labels[inside], flip))
        return views

    def _boxes(self, embedding: Embedding, items: Sequence[tuple[int, SlicePrompt]]) -> list[Tensor]:
        """The box of each prompt: the user's, stretched to the clicks into the object, or the model's own guess."""
        boxes: list[Tensor | None] = []
        for _, prompt in items:
            box = None if prompt.box is None else torch.tensor(prompt.box, dtype=torch.float32)
            if box is None and prompt.mask is not None and prompt.mask.any():
                y, x = (torch.from_numpy(v) for v in np.nonzero(prompt.mask))
                box = torch.stack([x.min(), y.min(), x.max(), y.max()]).float()
            if box is not None and len(prompt.foreground):
                points = torch.from_numpy(prompt.foreground).float()
                box = torch.cat([torch.minimum(box[:2], points.amin(0)), torch.maximum(box[2:], points.amax(0))])
            boxes.append(box)
        clicked = [n for n, box in enumerate(boxes) if box is None]
        for n, box in zip(clicked, self._guess(embedding, [items[n] for n in clicked]), strict=True):
            boxes[n] = box
        return [box for box in boxes if box is not None]

    def _guess(self, embedding: Embedding, items: Sequence[tuple[int, SlicePrompt]]) -> list[Tensor]:
        """Boxes of what the clicks mean, by windows of several sizes around them."""
        if not items:
            return []
        views: list[View] = []
        height, width = embedding.frame.height, embedding.frame.width
        for b, prompt in items:
            views += _around_clicks(b, prompt, max(height, width))
        masks, quality = self._look(embedding, views)
        boxes = []
        for n in range(len(items)):
            rows = range(n * len(_CLICK_SIDES), (n + 1) * len(_CLICK_SIDES))
            boxes.append(_best_box(masks, quality, views, list(rows), height, width))
        return boxes

    def _look(self, embedding: Embedding, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        """Logits (V, t, t) of views in their windows, not mirrored any more, and predicted IoU (V,)."""
        device = embedding.features.device
        masks: list[Tensor] = [torch.empty(0)] * len(views)
        scores: list[Tensor] = [torch.empty(0)] * len(views)
        kinds: dict[tuple[bool, int], list[int]] = defaultdict(list)
        for n, view in enumerate(views):
            kinds[view.box is not None, len(view.labels)].append(n)
        for (boxed, count), members in kinds.items():
            for start in range(0, len(members), _VIEWS):
                rows = members[start : start + _VIEWS]
                batch = [views[n] for n in rows]
                windows = torch.stack([v.window for v in batch])
                images, valid = _show(embedding.features, batch, windows, self.side)
                drawn = [v.box for v in batch if v.box is not None]
                boxes = to_window(torch.stack(drawn), windows, self.side) if boxed else None
                points = torch.stack([to_window(v.points, v.window.expand(count, 4), self.side) for v in batch])
                if boxes is not None:
                    images = show_prompt(images, valid, boxes.to(device), None)
                else:
                    images = show_prompt(images, valid, None, _first_clicks(points, batch).to(device))
                mirrored = torch.tensor([v.flip for v in batch])
                if mirrored.any():
                    images = torch.where(mirrored[:, None, None, None].to(device), images.flip(-1), images)
                    points[mirrored, :, 0] = self.side - 1 - points[mirrored, :, 0]
                    if boxes is not None:
                        boxes[mirrored] = torch.stack(
                            [self.side - 1 - boxes[:, 2], boxes[:, 1], self.side - 1 - boxes[:, 0], boxes[:, 3]], 1
                        )[mirrored]
                lone = not boxed and count == 1
                labels = torch.stack([v.labels for v in batch])
                out = self.model(
                    image_embeddings=self.model.vision_encoder(images).last_hidden_state.float(),
                    input_points=points[:, None].to(device) if count else None,
                    input_labels=labels[:, None].to(device) if count else None,
                    input_boxes=boxes[:, None].to(device) if boxes is not None else None,
                    multimask_output=lone,
                )
                best = out.iou_scores[:, 0].argmax(-1)
                for row, n in enumerate(rows):
                    mask = out.pred_masks[row, 0, best[row]].float()
                    masks[n] = mask.flip(-1) if views[n].flip else mask
                    scores[n] = out.iou_scores[row, 0, best[row]].float()
        return torch.stack(masks), torch.stack(scores)

    def _place(
        self, masks: Tensor, windows: Sequence[Tensor], slice_size: tuple[int, int], size: tuple[int, int]
    ) -> Tensor:
        """The mean of masks (V, t, t) where their windows lie, (H, W)."""
        scale = torch.tensor([size[1] / slice_size[1], size[0] / slice_size[0]] * 2)
        total = torch.zeros(size, device=masks.device)
        for mask, window in zip(masks, windows, strict=True):
            left, top, width, height = (window * scale).tolist()
            x0, x1 = max(0, int(left)), min(size[1], int(np.ceil(left + width)))
            y0, y1 = max(0, int(top)), min(size[0], int(np.ceil(top + height)))
            full = torch.full(size, _NOTHING, device=masks.device)
            if x1 > x0 and y1 > y0:
                x = (torch.arange(x0, x1, device=masks.device) + 0.5 - left) / width * 2 - 1
                y = (torch.arange(y0, y1, device=masks.device) + 0.5 - top) / height * 2 - 1
                grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
                full[y0:y1, x0:x1] = F.grid_sample(mask[None, None], grid, padding_mode="border", align_corners=False)[
                    0, 0
                ]
            total += full
        return total / len(masks)


def _around_clicks(b: int, prompt: SlicePrompt, longest: int) -> list[View]:
    """Windows of several sizes around the clicks into an object; `longest` is the longer side of the slice."""
    points, labels = _points(prompt)
    wanted = points[labels == 1]
    middle = (wanted.amin(0) + wanted.amax(0)) / 2
    spread = float((wanted.amax(0) - wanted.amin(0)).max())
    views = []
    for share in _CLICK_SIDES:
        window = squares_around(middle[None], max(share * longest, 2 * spread, 24.0))[0]
        inside = ((points + 0.5 >= window[:2]) & (points + 0.5 < window[:2] + window[2:])).all(1)
        views.append(View(b, window, None, points[inside], labels[inside]))
    return views


def _points(prompt: SlicePrompt) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(prompt.points).float(), torch.from_numpy(prompt.labels).long()


def _first_clicks(points: Tensor, views: Sequence[View]) -> Tensor:
    """The first click into the object of each view, (V, 2) out of points (V, N, 2)."""
    return torch.stack([p[int((v.labels == 1).nonzero()[0, 0])] for p, v in zip(points, views, strict=True)])


def _show(features: Tensor, views: Sequence[View], windows: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Windows of uint8 slices (B, C, H, W), shrunken ones smoothed before.

    Returns:
        (V, 3, side, side) in [0, 1], and which pixels lie on the slice, (V, side, side) boolean.
    """
    height, width = features.shape[2:]
    shown, valid = [], []
    for view, window in zip(views, windows, strict=True):
        image = features[view.b : view.b + 1]
        left, top = (int(v) for v in window[:2].floor().clamp(min=0))
        right, bottom = (int(v) for v in (window[:2] + window[2:]).ceil())
        left, top = max(0, min(left - 2, width - 1)), max(0, min(top - 2, height - 1))
        part = image[:, :, top : max(bottom + 2, top + 1), left : max(right + 2, left + 1)].float() / 255
        moved = window - window.new_tensor([left, top, 0, 0])
        factor = int(window[2:].min() / side)
        if factor > 1:
            # edges are repeated, so that the average of the last pixels is not darkened
            pad = [-part.shape[3] % factor, -part.shape[2] % factor]
            part = F.avg_pool2d(F.pad(part, (0, pad[0], 0, pad[1]), mode="replicate"), factor)
            moved = moved / factor
        grid = sampling_grid(moved[None].to(part.device), part.shape[2], part.shape[3], side)
        shown.append(F.grid_sample(part, grid, padding_mode="zeros", align_corners=False)[0].expand(3, -1, -1))
        valid.append((grid[0].abs() <= 1).all(-1))
    return torch.stack(shown), torch.stack(valid)


def _best_box(
    masks: Tensor, quality: Tensor, views: Sequence[View], rows: Sequence[int], height: int, width: int
) -> Tensor:
    """The box of the most trustworthy mask; one that runs into the sides of its window is cut off there."""
    best, found = -1.0, None
    for n in rows:
        there = _found_in(masks[n], views[n].window, height, width)
        if there and (score := float(quality[n]) - _CUT * there[1]) > best:
            best, found = score, there[0]
    if found is None:  # nothing anywhere: a small box around the click
        centre = views[rows[0]].window[:2] + views[rows[0]].window[2:] / 2
        found = torch.cat([centre - 8, centre + 8])
    return found


def _found_in(mask: Tensor, window: Tensor, height: int, width: int) -> tuple[Tensor, int] | None:
    """The box of a mask (t, t) on its slice, and the number of axes on which its window cuts it off; None if empty."""
    x, y = (mask > 0).any(0).nonzero()[:, 0], (mask > 0).any(1).nonzero()[:, 0]
    if not len(x):
        return None
    step = window[2:] / mask.shape[-1]
    low = window[:2] + torch.stack([x[0], y[0]]).cpu() * step
    high = window[:2] + (torch.stack([x[-1], y[-1]]).cpu() + 1) * step
    limit = torch.tensor([width, height])
    edge, end = 1.5 * step, window[:2] + window[2:]
    cut = ((low < window[:2] + edge) & (low > edge)) | ((high > end - edge) & (high < limit - edge))
    return torch.cat([low.clamp(min=0), torch.minimum(high, limit) - 1]), int(cut.sum())
