"""The default model's network, trained from scratch on synthetic images that are drawn on the device."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from segmed.data.synthetic.sample import generate
from segmed.methods.segmed.losses import step_loss
from segmed.methods.segmed.network import PromptNetwork
from segmed.methods.segmed.prompt_channels import WindowPrompts, prompt_channels
from segmed.sam.window import sampling_grid, to_window, windows_around
from segmed.simulation.prompts import tight_boxes
from torch import Tensor, nn

from gpu.roofline import wait

WINDOW = 128  # px, input of the default model


def train_default_model(device: torch.device, objects: int, minutes: float) -> dict[str, Any]:
    """Train the network for some minutes, for two steps at least.

    Args:
        device: where images are drawn and the network is trained.
        objects: objects per training step.
        minutes: length of the training.

    Returns:
        Steps, samples per second, share of time for drawing, and loss and IoU of its first and last tenth.

    Raises:
        ValueError: Its loss is not finite.
    """
    torch.manual_seed(0)
    network = PromptNetwork().to(device).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.02)
    half = device.type == "cuda"
    log: list[tuple[float, float]] = []
    drawing, begun = 0.0, time.perf_counter()
    while len(log) < 2 or time.perf_counter() - begun < minutes * 60:
        start = time.perf_counter()
        images, channels, truth = windows(objects, len(log), device)
        wait(device)
        drawing += time.perf_counter() - start
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            logits, quality = network(network.features(images), images, channels)
        lone = torch.zeros(len(images), dtype=torch.bool, device=device)
        loss, iou, _ = step_loss(logits.float(), quality.float(), truth, lone)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        log.append((float(loss.detach()), float(iou.mean())))
    seconds = time.perf_counter() - begun
    tenth = max(1, len(log) // 10)
    first, last = (torch.tensor(part).mean(0).tolist() for part in (log[:tenth], log[-tenth:]))
    if not bool(torch.tensor(log).isfinite().all()):
        raise ValueError(f"the loss is not finite after {len(log)} steps")
    return {
        "steps": len(log),
        "samples_per_s": len(log) * objects / seconds,
        "share_of_time_drawing": drawing / seconds,
        "loss": {"first_tenth": first[0], "last_tenth": last[0]},
        "iou": {"first_tenth": first[1], "last_tenth": last[1]},
    }


def windows(count: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Training samples of the default model: objects of synthetic images in windows around their boxes.

    Returns:
        Windows (B, 3, S, S) in [0, 1], prompt channels (B, 9, S, S) and masks (B, S, S) in [0, 1].
    """
    generator = torch.Generator(device).manual_seed(seed)
    drawn = generate(count, 160, seed, device)
    first = drawn.valid.float().argmax(1)
    truth = drawn.targets[torch.arange(count, device=device), first]
    boxes = tight_boxes(truth)
    zoom = 1.4 + 0.35 * torch.rand(count, 1, generator=generator, device=device)
    around = windows_around(boxes, zoom)
    grid = sampling_grid(around, 160, 160, WINDOW)
    valid = (grid.abs() <= 1).all(-1)
    images = nn.functional.grid_sample(drawn.images, grid, align_corners=False)
    masks = nn.functional.grid_sample(truth.float()[:, None], grid, align_corners=False)[:, 0]
    nothing = WindowPrompts.nothing(count, WINDOW, device=device)
    channels = prompt_channels(images, valid, replace(nothing, boxes=to_window(boxes, around, WINDOW)))
    return images, channels, masks
