"""The embedded default: a small SAM that looks at a window around the prompt, trained on drawn pictures only.

It never encodes a whole slice: a window of about 1.6 times the box is resampled to its input together with what grey
values or colours say about the box (`sam.evidence`), and the mask is put back at the slice's resolution. A click opens
windows of several sizes; the one with the most trustworthy mask is kept, boxed, and looked at again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import SamModel

from segmed.imaging.prompts import SlicePrompt
from segmed.methods.segmed.views import (
    CLICK_SIDES,
    CUT_OFF,
    View,
    around_clicks,
    best_box,
    clicks_of,
    cut_out,
    first_clicks,
    found_in,
)
from segmed.methods.segmenter import Logits, Segmenter
from segmed.sam.embedding import Embedding
from segmed.sam.evidence import show_prompt
from segmed.sam.frame import Frame
from segmed.sam.prompt_rules import fill_box, heed_clicks
from segmed.sam.window import to_window, windows_around

_NOTHING = -20.0  # logit outside of the window
_VIEWS = 32  # windows encoded together


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
        views = [view for prompt in prompts for view in around_clicks(0, prompt, max(height, width))]
        masks, quality = self._look(embedding, views)
        found = [found_in(mask, view.window, height, width) for mask, view in zip(masks, views, strict=True)]
        lost = quality.new_tensor([CUT_OFF * one[1] if one else 0.0 for one in found])
        placed = [self._place(masks[n : n + 1], [view.window], (height, width), size) for n, view in enumerate(views)]
        shape = (len(prompts), len(CLICK_SIDES))
        return Logits(torch.stack(placed).unflatten(0, shape), (quality - lost).unflatten(0, shape))

    def _keep_promises(
        self, logits: Tensor, embedding: Embedding, b: int, prompt: SlicePrompt, found: Tensor
    ) -> Tensor:
        """Logits (H, W) after the rules of `sam.prompt_rules`, for the box the user drew and the clicks."""
        rows, columns = logits.shape
        scale = torch.tensor([columns / embedding.frame.width, rows / embedding.frame.height])
        if prompt.box is not None:
            logits = fill_box(logits, found * scale.repeat(2))
        points, labels = clicks_of(prompt)
        if len(points) > 1 or (len(points) and (prompt.box is not None or prompt.mask is not None)):
            image = F.interpolate(embedding.features[b : b + 1].float(), (rows, columns))[0]
            logits = heed_clicks(logits, image, points * scale, labels, found * scale.repeat(2))
        return logits

    def _views(self, b: int, box: Tensor, prompt: SlicePrompt) -> list[View]:
        """The windows around a box; clicks that lie outside of a window say nothing about it."""
        views = []
        for zoom in self.zooms:
            window = windows_around(box[None], zoom)[0]
            points, labels = clicks_of(prompt)
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
            views += around_clicks(b, prompt, max(height, width))
        masks, quality = self._look(embedding, views)
        boxes = []
        for n in range(len(items)):
            rows = range(n * len(CLICK_SIDES), (n + 1) * len(CLICK_SIDES))
            boxes.append(best_box(masks, quality, views, list(rows), height, width))
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
                images, valid = cut_out(embedding.features, batch, windows, self.side)
                drawn = [v.box for v in batch if v.box is not None]
                boxes = to_window(torch.stack(drawn), windows, self.side) if boxed else None
                points = torch.stack([to_window(v.points, v.window.expand(count, 4), self.side) for v in batch])
                if boxes is not None:
                    images = show_prompt(images, valid, boxes.to(device), None)
                else:
                    images = show_prompt(images, valid, None, first_clicks(points, batch).to(device))
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
