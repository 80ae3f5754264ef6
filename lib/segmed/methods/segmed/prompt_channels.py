"""Prompt channels: a prompt drawn as channels of the network's window, with the evidence from grey values.

Channels (each (S, S), 0 without such a prompt):

0. the box: 1 inside;
1. and 2. clicks and scribbles on the object and beside it, as soft dots of 2 px;
3. the previous mask, 2p - 1;
4. the mask of the neighbouring slice, 2p - 1;
5. the neighbouring slice itself, grey in [-1, 1];
6. and 7. evidence, refined and first: similarity of each pixel to the inside of the prompted object;
8. 1 for pixels that lie on the slice.

The evidence follows GrabCut (Rother et al., SIGGRAPH 2004) without its graph: histograms of the pixels that
are probably inside and of the rest, refined iteratively.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS = 9
EVIDENCE = (6, 7)  # channels with the evidence
_DOT = 2.0  # standard deviation of a click in px
_NEAR = 0.05  # standard deviation of a click's influence on its neighbourhood, as a share of the window
_FAR = 0.25  # standard deviation of the expected object around a single click, as a share of the window
_BINS = 24  # bins per histogram
_ROUNDS = 2  # refinements of the histograms


@dataclass(frozen=True)
class WindowPrompts:
    """The prompts of B windows, in px of the S × S window; NaN, 0 or negative where there is none.

    Attributes:
        boxes: Boxes (B, 4) as x0, y0, x1, y1 of pixel centres, or NaN.
        points: Clicks (B, N, 2) as x, y, or NaN.
        labels: Labels (B, N), 1 on the object and 0 beside it.
        scribbles: Strokes (B, 2, S, S) in [0, 1], on the object and beside it.
        previous: Probability of the previous mask (B, S, S), negative for windows without one.
        neighbour: Probability of the neighbouring slice's mask (B, S, S), negative for windows without one.
        neighbour_image: Grey values of the neighbouring slice (B, S, S) in [0, 1]; used with `neighbour`.
    """

    boxes: Tensor
    points: Tensor
    labels: Tensor
    scribbles: Tensor
    previous: Tensor
    neighbour: Tensor
    neighbour_image: Tensor

    @classmethod
    def nothing(
        cls, count: int, size: int, clicks: int = 0, device: torch.device | str = "cpu"
    ) -> WindowPrompts:
        """Empty prompts for B windows."""
        nan = float("nan")
        none = torch.full((count, size, size), -1.0, device=device)
        return cls(
            torch.full((count, 4), nan, device=device),
            torch.full((count, clicks, 2), nan, device=device),
            torch.zeros(count, clicks, dtype=torch.long, device=device),
            torch.zeros(count, 2, size, size, device=device),
            none,
            none,
            none,
        )

    def flipped(self, which: Tensor) -> WindowPrompts:
        """Mirror the windows selected by a boolean (B,) left to right."""
        size = self.previous.shape[-1]
        x0, y0, x1, y1 = self.boxes.unbind(1)
        boxes = torch.where(
            which[:, None], torch.stack([size - 1 - x1, y0, size - 1 - x0, y1], 1), self.boxes
        )
        points = torch.where(
            which[:, None, None],
            torch.stack([size - 1 - self.points[..., 0], self.points[..., 1]], -1),
            self.points,
        )

        def turn(maps: Tensor) -> Tensor:
            selected = which.view(-1, *[1] * (maps.dim() - 1))
            return torch.where(selected, maps.flip(-1), maps)

        return replace(
            self,
            boxes=boxes,
            points=points,
            scribbles=turn(self.scribbles),
            previous=turn(self.previous),
            neighbour=turn(self.neighbour),
            neighbour_image=turn(self.neighbour_image),
        )


def prompt_channels(images: Tensor, valid: Tensor, prompts: WindowPrompts) -> Tensor:
    """Draw prompts as channels.

    Args:
        images: Windows (B, 3, S, S) in [0, 1].
        valid: Boolean (B, S, S), true for pixels that lie on the slice.
        prompts: The prompts of the windows.

    Returns:
        The channels (B, 9, S, S) in [-1, 1], in the order given above.
    """
    size = images.shape[-1]
    dots = [_dots(prompts, label, size, _DOT) for label in (1, 0)]
    strokes = [torch.maximum(dot, prompts.scribbles[:, n]) for n, dot in enumerate(dots)]
    box = _inside(prompts.boxes, size)
    first, refined = evidence(images, valid, prompts)
    return torch.stack(
        [
            box,
            *strokes,
            _signed(prompts.previous),
            _signed(prompts.neighbour),
            torch.where(prompts.neighbour < 0, 0.0, prompts.neighbour_image * 2 - 1),
            refined.sigmoid() * 2 - 1,
            first.sigmoid() * 2 - 1,
            valid.float(),
        ],
        1,
    )


def evidence(images: Tensor, valid: Tensor, prompts: WindowPrompts) -> tuple[Tensor, Tensor]:
    """Log odds (B, S, S) of lying in the object: from histograms weighted by the prior, and refined.

    The prior depends on the prompt: a soft ellipse in the box, the neighbouring or previous mask with soft
    edges, or a Gaussian around clicks. All is computed at half the resolution.

    Args:
        images: Windows (B, 3, S, S) in [0, 1].
        valid: Boolean (B, S, S), true for pixels that lie on the slice.
        prompts: The prompts of the windows.
    """
    # E_0 = log h_in / h_out with weights sigmoid(2 prior); then twice with weights sigmoid(prior + E). Pixels
    # with a prior of -4 or less never count as inside. Returned are E_0 and prior + E_2.
    size = images.shape[-1]
    small = F.avg_pool2d(images, 2)
    counted = F.avg_pool2d(valid.float()[:, None], 2)[:, 0] > 0.5
    prior = _prior(_halved(prompts))
    first = _histogram_odds(small, (2 * prior).sigmoid() * (prior > -4), counted)
    refined = first
    for _ in range(_ROUNDS):
        refined = _histogram_odds(small, (prior + refined).sigmoid() * (prior > -4), counted)
    both = torch.stack([first, prior + refined], 1)
    both = F.interpolate(both, size=(size, size), mode="bilinear", align_corners=False)
    return both[:, 0], both[:, 1]


def _halved(prompts: WindowPrompts) -> WindowPrompts:
    """The same prompts in a window of half the resolution."""

    def small(maps: Tensor) -> Tensor:
        return F.avg_pool2d(maps.reshape(-1, 1, *maps.shape[-2:]), 2).reshape(*maps.shape[:-2], *half)

    half = tuple(n // 2 for n in prompts.previous.shape[-2:])
    strokes = F.max_pool2d(prompts.scribbles, 2)
    boxes, points = ((xy + 0.5) / 2 - 0.5 for xy in (prompts.boxes, prompts.points))
    image = prompts.neighbour_image  # not used for the prior
    return WindowPrompts(
        boxes, points, prompts.labels, strokes, small(prompts.previous), small(prompts.neighbour), image
    )


def _prior(prompts: WindowPrompts) -> Tensor:
    """Prior log odds (B, h, h) of lying in the object, from the prompt alone, in [-5, 5].

    The last of these that applies is used: 6 p - 3 with p a previous or neighbouring mask; an ellipse in a
    box without such a mask; 4 g - 3 with g a wide Gaussian around clicks or strokes without box or mask.
    Pixels outside of a box get -5. Foreground marks add 4 and background marks subtract 6 in their
    neighbourhood.
    """
    size = prompts.previous.shape[-1]
    boxed = ~prompts.boxes[:, 0].isnan()
    prior = torch.zeros_like(prompts.previous)
    for maps in (prompts.previous, prompts.neighbour):
        has_mask = (maps >= 0).flatten(1).all(1)[:, None, None]
        soft = F.avg_pool2d(maps.clamp(0, 1)[:, None], 5, 1, 2, count_include_pad=False)[:, 0]
        prior = torch.where(has_mask, 6 * soft - 3, prior)
    any_mask = ((prompts.previous >= 0) | (prompts.neighbour >= 0)).flatten(1).all(1)
    outside = _inside(prompts.boxes, size) < 0.5
    prior = torch.where((boxed & ~any_mask)[:, None, None], _ellipse(prompts.boxes, size), prior)
    prior = torch.where(boxed[:, None, None] & outside, torch.full_like(prior, -5.0), prior)
    far = torch.maximum(_dots(prompts, 1, size, _FAR * size), _spread(prompts.scribbles[:, 0]))
    prior = torch.where((~boxed & ~any_mask)[:, None, None], 4 * far - 3, prior)
    # The influence of strokes extends to the pixels within 2 px of them.
    strokes = (F.avg_pool2d(prompts.scribbles, 5, 1, 2) * 5).clamp(0, 1)
    near = torch.maximum(_dots(prompts, 1, size, _NEAR * size), strokes[:, 0])
    beside = torch.maximum(_dots(prompts, 0, size, _NEAR * size), strokes[:, 1])
    return (prior + 4 * near - 6 * beside).clamp(-5, 5)


def _spread(strokes: Tensor) -> Tensor:
    """Strokes (B, h, h) blurred as widely as a single click, with a peak of 1; 0 without strokes."""
    cells = strokes.shape[-1] // 4
    coarse = F.max_pool2d(strokes[:, None], 4)
    away = torch.arange(-cells, cells + 1, device=strokes.device, dtype=strokes.dtype)
    kernel = torch.exp(-(away**2) / (2 * (0.6 * _FAR * cells) ** 2))
    blurred = F.conv2d(coarse, kernel.view(1, 1, -1, 1), padding=(cells, 0))
    blurred = F.conv2d(blurred, kernel.view(1, 1, 1, -1), padding=(0, cells))
    blurred = blurred / blurred.amax((2, 3), keepdim=True).clamp(min=1e-6)
    return F.interpolate(blurred, size=strokes.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def _inside(boxes: Tensor, size: int) -> Tensor:
    """Share of each pixel that lies in the box, (B, S, S); 0 without a box.

    Boxes end half a pixel beyond the centres of their outermost pixels.
    """
    place = torch.arange(size, device=boxes.device, dtype=boxes.dtype)
    x0, y0, x1, y1 = (boxes[:, n, None] for n in range(4))
    x = (torch.minimum(place - x0, x1 - place) + 1).clamp(0, 1)
    y = (torch.minimum(place - y0, y1 - place) + 1).clamp(0, 1)
    return (y[:, :, None] * x[:, None, :]).nan_to_num(0.0)


def _ellipse(boxes: Tensor, size: int) -> Tensor:
    """Log odds 3 (1 - r), clipped to [-3, 3], with r the elliptic distance in half sides: (B, S, S)."""
    place = torch.arange(size, device=boxes.device, dtype=boxes.dtype)
    x0, y0, x1, y1 = (boxes[:, n, None] for n in range(4))
    x = (place - (x0 + x1) / 2) / ((x1 - x0 + 1) / 2)
    y = (place - (y0 + y1) / 2) / ((y1 - y0 + 1) / 2)
    radius = torch.hypot(y[:, :, None], x[:, None, :]).nan_to_num(2.0)
    return ((1 - radius) * 3).clamp(-3, 3)


def _dots(prompts: WindowPrompts, label: int, size: int, spread: float) -> Tensor:
    """Maximum of Gaussians with peak 1 around the clicks of a label, (B, S, S)."""
    place = torch.arange(size, device=prompts.points.device, dtype=torch.float32)
    count, clicks = prompts.labels.shape
    out = torch.zeros(count, size, size, device=prompts.points.device)
    for n in range(clicks):
        x = torch.exp(-((place - prompts.points[:, n, 0, None]) ** 2) / (2 * spread**2))
        y = torch.exp(-((place - prompts.points[:, n, 1, None]) ** 2) / (2 * spread**2))
        dot = (y[:, :, None] * x[:, None, :]).nan_to_num(0.0)
        out = torch.where((prompts.labels[:, n] == label)[:, None, None], torch.maximum(out, dot), out)
    return out


def _signed(probability: Tensor) -> Tensor:
    return torch.where(probability < 0, 0.0, probability * 2 - 1)


def _histogram_odds(images: Tensor, weight: Tensor, seen: Tensor) -> Tensor:
    """Log ratio of the histograms inside and outside, averaged over the channels, (B, h, w) in [-3, 3].

    Per channel, h(v) is the sum of the weights of the pixels with level v, smoothed over neighbouring levels
    and mixed with a uniform share; the result is log h_in(v) / h_out(v) per pixel, averaged over 3 × 3
    pixels.

    Args:
        images: Windows (B, C, h, w).
        weight: Weight of lying inside (B, h, w), in [0, 1].
        seen: Boolean (B, h, w), true for pixels that count.
    """
    count, channels, height, width = images.shape
    flat = images.flatten(2)
    low, high = flat.amin(2, keepdim=True), flat.amax(2, keepdim=True)
    level = ((flat - low) / (high - low).clamp(min=1e-3) * _BINS).long().clamp(max=_BINS - 1)
    counted = seen.flatten(1)[:, None].to(images.dtype)
    inside = weight.flatten(1)[:, None].to(images.dtype)
    kernel = images.new_tensor([0.1, 0.2, 0.4, 0.2, 0.1])[None, None]
    shares = []
    for part in (inside * counted, (1 - inside) * counted):
        total = images.new_zeros(count, channels, _BINS).scatter_add_(
            2, level, part.expand(-1, channels, -1).contiguous()
        )
        total = F.conv1d(F.pad(total.flatten(0, 1)[:, None], (2, 2), mode="replicate"), kernel)[:, 0]
        total = total + 0.02 * total.sum(1, keepdim=True) / _BINS + 1e-4
        shares.append((total / total.sum(1, keepdim=True)).unflatten(0, (count, channels)))
    odds = torch.gather((shares[0] / shares[1]).log(), 2, level).mean(1).clamp(-3, 3)
    return F.avg_pool2d(odds.view(count, 1, height, width), 3, 1, 1, count_include_pad=False)[:, 0]
