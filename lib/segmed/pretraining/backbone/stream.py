"""An endless, reproducible stream of training samples from synthetic images."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from segmed.data.synthetic.sample import PhantomBatch, PhantomConfig, generate
from segmed.data.synthetic.visibility import visibility
from segmed.sam.evidence import encode_prompt_channels
from segmed.sam.window import sampling_grid, squares_around, to_window, windows_around
from segmed.simulation.prompts import PromptConfig, first_clicks, jittered_boxes, tight_boxes


@dataclass(frozen=True)
class PromptedBatch:
    """Model inputs, the object of each, and its first prompts.

    Attributes:
        images: Inputs (B, 3, S, S) of the encoder: windows encoded by `encode_prompt_channels`, or whole
            images.
        truth: Masks (B, S, S), boolean, none of them empty.
        boxes: Boxes (B, 4) as x0, y0, x1, y1 in px of the model input.
        clicks: Clicks (B, 2) as x, y in px of the model input, inside the object.
        boxed: Number of first samples that are prompted with their box; the others are prompted with their
            click.
    """

    images: Tensor
    truth: Tensor
    boxes: Tensor
    clicks: Tensor
    boxed: int


@dataclass(frozen=True)
class StreamConfig:
    """The settings of the training samples.

    Attributes:
        batch: Objects per step.
        size: Side of the model input in px.
        drawn: Side of the synthetic images in px.
        objects: Number of objects taken from one image in a step.
        visible: Largest preference for clearly visible objects, see `training_batch`; 0 for none.
        reuse: Number of successive steps that share their images, because generating them costs as much as
            training; they are rotated and mirrored again in each step.
        box_share: Share of objects prompted with a box; the others are prompted with a click.
        window_share: Share of objects shown in a window around their prompt, as in inference, with the box as
            a frame; the others are shown in the whole image, as in methods without windows.
        box_zoom: Smallest and largest side of windows around boxes, in sides of the box.
        click_zoom: Smallest and largest side of windows around clicks, in sides of the object.
        phantom: Settings of the synthetic images.
        prompts: Settings of simulated prompts.
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
            raise ValueError(
                f"batch is {self.batch}, objects {self.objects} and reuse {self.reuse}; "
                "each must be at least 1."
            )
        for name in ("box_share", "window_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed are shares from 0 to 1.")
        for name in ("box_zoom", "click_zoom"):
            low, high = getattr(self, name)
            if not 1 <= low <= high:
                raise ValueError(f"{name} is {(low, high)}; give two rising factors of at least 1.")


def training_batch(config: StreamConfig, seed: int, device: str = "cpu") -> PromptedBatch:
    """Generate the batch of one step, with a preference for clearly visible objects.

    Args:
        config: The settings of the samples.
        seed: Seed of the step.
        device: Device on which the batch is generated.
    """
    generator = torch.Generator(device).manual_seed(seed)
    drawn = _pictures(config, seed // config.reuse, device)
    # Users segment what they see; hardly visible objects teach little more than the shape of boxes.
    preference = visibility(drawn.images, drawn.targets).clamp(max=config.visible)
    preference = preference + torch.rand(drawn.valid.shape, generator=generator, device=device)
    order = torch.where(drawn.valid, preference, -1.0).argsort(1, descending=True)[:, : config.objects]
    # Images with too few objects repeat their first one.
    order = torch.where(torch.gather(drawn.valid, 1, order), order, order[:, :1])
    picture = torch.arange(len(order), device=device)[:, None].expand_as(order)
    # The objects of one image are distributed over the kinds of prompts.
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
    """Draw prompts, and resample each object in its window.

    Args:
        images: Images (B, 3, H, H) in [0, 1].
        truth: Masks (B, H, H), boolean.
        config: The settings of the samples, with shares and sizes of windows.
        generator: A random generator on the device of the images.
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
    # In a window much larger than the image everything would be small; the whole image is shown instead.
    whole = (draw[1] >= config.window_share) | (windows[:, 2:].amin(1) > 1.5 * side)
    windows = torch.where(whole[:, None], windows.new_tensor([0, 0, side, side]), windows)
    grid = sampling_grid(windows, side, side, config.size)
    windowed = F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
    mask = F.grid_sample(truth.float()[:, None], grid, align_corners=False)[:, 0] > 0.5
    boxes, clicks = to_window(boxes, windows, config.size), to_window(clicks, windows, config.size)
    # An object that is lost by resampling keeps its clicked pixel.
    lost = ~mask.flatten(1).any(1)
    place = clicks[lost].round().long().clamp(0, config.size - 1)
    mask[lost.nonzero()[:, 0], place[:, 1], place[:, 0]] = True
    valid = (grid.abs() <= 1).all(-1)
    with_prompts = torch.cat(
        [
            encode_prompt_channels(windowed[:boxed], valid[:boxed], boxes[:boxed], None),
            encode_prompt_channels(windowed[boxed:], valid[boxed:], None, clicks[boxed:]),
        ]
    )
    return PromptedBatch(
        torch.where(whole[:, None, None, None], windowed, with_prompts), mask, boxes, clicks, boxed
    )


def _between(draw: Tensor, ends: tuple[float, float]) -> Tensor:
    """Convert uniform draws in [0, 1) to log-uniform ones between the ends."""
    low, high = ends
    return low * (high / low) ** draw
