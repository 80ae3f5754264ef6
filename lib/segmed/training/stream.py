"""An endless stream of training samples of phantoms: step n is the same whenever it is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from segmed.data.phantom.sample import PhantomBatch, PhantomConfig, generate
from segmed.data.phantom.visibility import visibility
from segmed.sam.evidence import encode_prompt_channels
from segmed.sam.window import sampling_grid, squares_around, to_window, windows_around
from segmed.training.prompts import PromptConfig, first_clicks, jittered_boxes, tight_boxes


@dataclass(frozen=True)
class PromptedBatch:
    """Model inputs, the object wanted in each, and the first prompts for it.

    Attributes:
        images: (B, 3, S, S) as the encoder gets them: windows by `encode_prompt_channels`, whole pictures as they are.
        truth: (B, S, S) boolean, none empty.
        boxes: (B, 4) in px of the model input.
        clicks: (B, 2) likewise, inside the object.
        boxed: the first so many samples are prompted with their box, the others with their click.
    """

    images: Tensor
    truth: Tensor
    boxes: Tensor
    clicks: Tensor
    boxed: int


@dataclass(frozen=True)
class StreamConfig:
    """What a step trains on.

    Attributes:
        batch: objects per step.
        size: side of the model input in px.
        drawn: side of the drawn pictures in px.
        objects: objects taken from one picture in a step.
        visible: how much targets that stand out are preferred, see `training_batch`; 0 not at all.
        reuse: steps in a row that share their pictures, which cost as much as training on them; turned and mirrored
            anew in each.
        box_share: share of objects prompted with a box, the others with a click.
        window_share: share of these shown in a window around their prompt, as at inference, with the box as a frame;
            the others are shown with the whole picture, as methods without windows do.
        box_zoom: smallest and largest side of windows around boxes, in sides of the box.
        click_zoom: likewise of windows around clicks, in sides of the object.
        phantom: what is drawn.
        prompts: how prompts are drawn.
    """

    batch: int = 32
    size: int = 64
    drawn: int = 160
    objects: int = 4
    visible: float = 2.0
    reuse: int = 3
    box_share: float = 0.65
    window_share: float = 0.85
    box_zoom: tuple[float, float] = (1.4, 2.0)
    click_zoom: tuple[float, float] = (1.0, 6.0)
    phantom: PhantomConfig = field(default_factory=PhantomConfig)
    prompts: PromptConfig = field(default_factory=PromptConfig)

    def __post_init__(self) -> None:
        if min(self.batch, self.objects, self.reuse) < 1:
            raise ValueError(f"batch {self.batch}, objects {self.objects} and reuse {self.reuse} must be at least 1.")
        for name in ("box_share", "window_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} is a share between 0 and 1.")
        for name in ("box_zoom", "click_zoom"):
            low, high = getattr(self, name)
            if not 1 <= low <= high:
                raise ValueError(f"{name} {(low, high)} must be two rising factors of at least 1.")


def training_batch(config: StreamConfig, seed: int, device: str = "cpu") -> PromptedBatch:
    """Draw one step; of the objects of a picture, those that can be seen are preferred.

    Args:
        config: what to draw.
        seed: of the step.
        device: where to draw.
    """
    generator = torch.Generator(device).manual_seed(seed)
    drawn = _pictures(config, seed // config.reuse, device)
    # people outline what they see; what they hardly see teaches the shape of boxes and little else
    liking = visibility(drawn.images, drawn.targets).clamp(max=config.visible)
    liking = liking + torch.rand(drawn.valid.shape, generator=generator, device=device)
    order = torch.where(drawn.valid, liking, -1.0).argsort(1, descending=True)[:, : config.objects]
    # pictures with fewer objects than asked for show their first one again
    order = torch.where(torch.gather(drawn.valid, 1, order), order, order[:, :1])
    picture = torch.arange(len(order), device=device)[:, None].expand_as(order)
    # objects of one picture are spread over the kinds of prompts
    picture, chosen = (t.T.flatten()[: config.batch] for t in (picture, order))
    images, truth = drawn.images[picture], drawn.targets[picture, chosen]
    turns, mirrored = torch.randint(0, 4, (2,), generator=generator, device=device).tolist()
    images, truth = (torch.rot90(t, turns, (-2, -1)) for t in (images, truth))
    if mirrored % 2:
        images, truth = images.flip(-1), truth.flip(-1)
    return prompted(images, truth, config, generator)


@lru_cache(maxsize=1)
def _pictures(config: StreamConfig, seed: int, device: str) -> PhantomBatch:
    return generate(-(-config.batch // config.objects), config.drawn, seed, device, config.phantom)


def prompted(images: Tensor, truth: Tensor, config: StreamConfig, generator: Generator) -> PromptedBatch:
    """Draw prompts and show each object as the model will see it.

    Args:
        images: (B, 3, H, H)
        truth: (B, H, H) boolean.
        config: shares and window sizes.
        generator: source of randomness.
    """
    count, side, device = len(images), images.shape[-1], images.device
    boxed = round(config.box_share * count)
    prompts = config.prompts
    boxes = jittered_boxes(truth, generator, prompts.box_inward, prompts.box_outward)
    clicks, _ = first_clicks(truth, generator, prompts)
    draw = torch.rand(3, count, generator=generator, device=device)
    tight = tight_boxes(truth)
    extent = (tight[:, 2:] - tight[:, :2] + 1).amax(1)
    around_box = windows_around(boxes, _between(draw[0], config.box_zoom))
    around_click = squares_around(clicks, (extent * _between(draw[0], config.click_zoom)).clamp(min=16))
    is_boxed = torch.arange(count, device=device) < boxed
    windows = torch.where(is_boxed[:, None], around_box, around_click)
    # a window wider than the picture would show little of anything
    whole = (draw[1] >= config.window_share) | (windows[:, 2:].amin(1) > 1.5 * side)
    windows = torch.where(whole[:, None], windows.new_tensor([0, 0, side, side]), windows)
    grid = sampling_grid(windows, side, side, config.size)
    shown = F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
    mask = F.grid_sample(truth.float()[:, None], grid, align_corners=False)[:, 0] > 0.5
    boxes, clicks = to_window(boxes, windows, config.size), to_window(clicks, windows, config.size)
    # an object that resampling loses keeps the pixel that was clicked
    lost = ~mask.flatten(1).any(1)
    place = clicks[lost].round().long().clamp(0, config.size - 1)
    mask[lost.nonzero()[:, 0], place[:, 1], place[:, 0]] = True
    valid = (grid.abs() <= 1).all(-1)
    told = torch.cat(
        [
            encode_prompt_channels(shown[:boxed], valid[:boxed], boxes[:boxed], None),
            encode_prompt_channels(shown[boxed:], valid[boxed:], None, clicks[boxed:]),
        ]
    )
    return PromptedBatch(torch.where(whole[:, None, None, None], shown, told), mask, boxes, clicks, boxed)


def _between(draw: Tensor, ends: tuple[float, float]) -> Tensor:
    """Uniform draws in [0, 1) to log-uniform ones between the ends."""
    low, high = ends
    return low * (high / low) ** draw
