"""A training step of a promptable model: prompt, look at the mask, correct it, several rounds on one encoding.

Source of the protocol: Kirillov et al., Segment Anything (2023), interactive training; ours draws boxes that may cut
into the object and forgets the previous mask half of the time, as viewers send clicks without it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from segmed.training.losses import iou_of, mask_loss
from segmed.training.prompts import PromptConfig, correcting_clicks, first_clicks, jittered_boxes


class InteractiveStep(nn.Module):
    """The loss of a batch over its rounds; a module, so that distributed wrappers see one forward pass.

    Args:
        model: a SamModel of any size.
        prompts: how prompts are drawn.
    """

    model: Any

    def __init__(self, model: nn.Module, prompts: PromptConfig | None = None) -> None:
        super().__init__()
        self.model = model
        self.prompts = prompts or PromptConfig()

    def forward(self, images: Tensor, truth: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Play all rounds.

        Args:
            images: (B, 3, S, S) in [0, 1].
            truth: (B, S, S) boolean, one object each.
            generator: source of randomness, on the device of the images.

        Returns:
            Mean loss over samples and rounds, and the IoU after each round (rounds, B); samples change order: those
            that start with a box come first.
        """
        features = self.model.vision_encoder(images).last_hidden_state
        config = self.prompts
        rounds = self.rounds(generator, images.device)
        boxed = round(config.box_share * len(images))
        clicked = round(config.click_with_box * boxed)
        groups = [(0, clicked, True, True), (clicked, boxed, True, False), (boxed, len(images), False, True)]
        losses, ious = [], []
        for start, stop, with_box, with_click in groups:
            if stop > start:
                part = slice(start, stop)
                loss, iou = self._play(features[part], truth[part], with_box, with_click, rounds, generator)
                losses.append(loss * (stop - start))
                ious.append(iou)
        return torch.stack(losses).sum() / len(images), torch.cat(ious, 1)

    def rounds(self, generator: Generator, device: torch.device) -> int:
        """How often this batch is prompted."""
        return int(torch.randint(1, self.prompts.max_rounds + 1, (), generator=generator, device=device))

    def _play(
        self, features: Tensor, truth: Tensor, with_box: bool, with_click: bool, rounds: int, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        config, count = self.prompts, len(truth)
        boxes = jittered_boxes(truth, generator, config.box_inward, config.box_outward)[:, None] if with_box else None
        clicks = torch.zeros(count, 0, 2, device=truth.device)
        labels = torch.zeros(count, 0, dtype=torch.long, device=truth.device)
        wanted = truth.float()[:, None]
        previous: Tensor | None = None
        losses, ious = [], []
        for turn in range(rounds):
            if turn or with_click:
                place, label = (
                    first_clicks(truth, generator, config)
                    if previous is None
                    else correcting_clicks(self._full(previous, truth)[:, 0] > 0, truth, generator, config)
                )
                clicks, labels = torch.cat([clicks, place[:, None]], 1), torch.cat([labels, label[:, None]], 1)
            remember = previous is not None and bool(torch.rand((), generator=generator, device=truth.device) < 0.5)
            lone_click = boxes is None and clicks.shape[1] == 1
            out = self.model(
                image_embeddings=features,
                input_points=clicks[:, None] if clicks.shape[1] else None,
                input_labels=labels[:, None] if clicks.shape[1] else None,
                input_boxes=boxes,
                input_masks=previous if remember else None,
                multimask_output=lone_click,
            )
            low, quality = out.pred_masks[:, 0].float(), out.iou_scores[:, 0].float()
            full = self._full(low, truth)
            per_mask = mask_loss(full, wanted)
            iou = iou_of(full, wanted)
            # a lone click is ambiguous: the best of its masks is taught, the others a little so that none is lost
            best = per_mask.argmin(1) if lone_click else torch.zeros(count, dtype=torch.long, device=truth.device)
            rows = torch.arange(count, device=truth.device)
            taught = per_mask[rows, best].mean() + (0.1 * per_mask.mean() if lone_click else 0.0)
            losses.append(taught + F.mse_loss(quality, iou))
            chosen = quality.argmax(1)
            ious.append(iou[rows, chosen])
            previous = low[rows, chosen][:, None].detach()
        return torch.stack(losses).mean(), torch.stack(ious)

    @staticmethod
    def _full(low: Tensor, truth: Tensor) -> Tensor:
        size = (truth.shape[-2], truth.shape[-1])
        return F.interpolate(low, size, mode="bilinear", align_corners=False)
