"""A training step of a promptable model: several rounds of prompts, masks and corrections on one encoding.

Source of the protocol: Kirillov et al., Segment Anything (2023), interactive training. In contrast to it,
boxes may cut into the object, the previous mask is omitted half of the time, as viewers send clicks without
it, and each round is the last with a probability above one half, as most prompts are never corrected. Losses
are computed at the decoder's own resolution against the share of each of its pixels that the object covers.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from segmed.methods.base.losses import iou_of, mask_loss
from segmed.pretraining.backbone.stream import PromptedBatch
from segmed.simulation.prompts import PromptConfig, correcting_clicks


class InteractiveStep(nn.Module):
    """The loss of a batch over its rounds, as a module, so that distributed wrappers see one forward pass.

    Args:
        model: A SamModel of any size.
        prompts: The settings of simulated prompts.
    """

    model: Any

    def __init__(self, model: nn.Module, prompts: PromptConfig | None = None) -> None:
        super().__init__()
        self.model = model
        self.prompts = prompts or PromptConfig()
        width = int(self.model.config.vision_config.output_channels)
        self.dense = nn.Conv2d(width, 16, 1)  # 4×4 pixels of the mask for each token

    def forward(self, batch: PromptedBatch, generator: Generator) -> tuple[Tensor, Tensor]:
        """Run all rounds.

        Args:
            batch: Model inputs with their objects and first prompts.
            generator: A random generator on the device of the images.

        Returns:
            The mean loss over samples and rounds, plus that of the mask from the encoder alone, and the IoU
            after each round, (rounds, B).
        """
        features = self.model.vision_encoder(batch.images).last_hidden_state
        count, boxed = len(batch.truth), batch.boxed
        rounds = self.rounds(generator, batch.images.device)
        wanted = F.adaptive_avg_pool2d(batch.truth.float()[:, None], 4 * features.shape[-1])
        # The window and its frame define the object for the encoder. An auxiliary head on its features trains
        # it more directly than the decoder does, and is discarded after training: (B, C, t, t) → (B, 16, t,
        # t) → (B, 1, 4t, 4t).
        losses, ious = [mask_loss(F.pixel_shuffle(self.dense(features).float(), 4), wanted).sum()], []
        for start, stop in ((0, boxed), (boxed, count)):
            if stop > start:
                part = slice(start, stop)
                boxes = batch.boxes[part, None] if start < boxed else None
                clicks = batch.clicks[part, None] if start >= boxed else batch.clicks[part, None][:, :0]
                scale = batch.truth.shape[-1] / wanted.shape[-1]
                loss, iou = self._play(features[part], wanted[part], boxes, clicks, scale, rounds, generator)
                losses.append(loss * (stop - start))
                ious.append(iou)
        return torch.stack(losses).sum() / count, torch.cat(ious, 1)

    def rounds(self, generator: Generator, device: torch.device) -> int:
        """Draw the number of rounds of a batch."""
        rounds = 1
        while rounds < self.prompts.max_rounds and torch.rand((), generator=generator, device=device) < 0.4:
            rounds += 1
        return rounds

    def _play(
        self,
        features: Tensor,
        wanted: Tensor,
        boxes: Tensor | None,
        clicks: Tensor,
        scale: float,
        rounds: int,
        generator: Generator,
    ) -> tuple[Tensor, Tensor]:
        """Run the rounds of samples with one kind of prompt, at the decoder's resolution.

        Each round has the loss mask_loss(chosen mask) + mean (predicted IoU - IoU)², and the mask with the
        highest predicted IoU is corrected in the next round.

        Args:
            features: Features of the images, (B, C, t, t).
            wanted: Share of each pixel that the object covers, (B, 1, 4t, 4t).
            boxes: Box prompts (B, 1, 4) in px of the model input, or None.
            clicks: Click prompts (B, N, 2) in px of the model input.
            scale: Px of the model input per px of the masks.
            rounds: Number of rounds.
            generator: A random generator on the device of the features.

        Returns:
            The mean loss over the rounds, and the IoU after each round, (rounds, B).
        """
        count, truth = len(wanted), wanted[:, 0] >= 0.5
        labels = torch.ones(clicks.shape[:2], dtype=torch.long, device=wanted.device)
        previous: Tensor | None = None
        losses, ious = [], []
        for turn in range(rounds):
            if turn:
                assert previous is not None
                place, label = correcting_clicks(previous[:, 0] > 0, truth, generator, self.prompts)
                place = (place + 0.5) * scale - 0.5
                clicks, labels = (
                    torch.cat([clicks, place[:, None]], 1),
                    torch.cat([labels, label[:, None]], 1),
                )
            with_previous = previous is not None and bool(
                torch.rand((), generator=generator, device=wanted.device) < 0.5
            )
            single_click = boxes is None and clicks.shape[1] == 1
            out = self.model(
                image_embeddings=features,
                input_points=clicks[:, None] if clicks.shape[1] else None,
                input_labels=labels[:, None] if clicks.shape[1] else None,
                input_boxes=boxes,
                input_masks=previous if with_previous else None,
                multimask_output=single_click,
            )
            low, quality = out.pred_masks[:, 0].float(), out.iou_scores[:, 0].float()
            per_mask = mask_loss(low, wanted)
            iou = iou_of(low, truth[:, None].float())
            # A single click is ambiguous: the best of its masks is trained, and all of them a little, so that
            # none degenerates.
            best = (
                per_mask.argmin(1)
                if single_click
                else torch.zeros(count, dtype=torch.long, device=wanted.device)
            )
            rows = torch.arange(count, device=wanted.device)
            mask_term = per_mask[rows, best].mean() + (0.1 * per_mask.mean() if single_click else 0.0)
            losses.append(mask_term + F.mse_loss(quality, iou))
            chosen = quality.argmax(1)
            ious.append(iou[rows, chosen])
            previous = low[rows, chosen][:, None].detach()
        return torch.stack(losses).mean(), torch.stack(ious)
