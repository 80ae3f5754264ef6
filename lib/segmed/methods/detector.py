"""From boxes that nobody draws to masks: a detector finds the objects, a promptable method outlines them.

Sources: Ma et al., Segment Anything in Medical Images, 2024 (boxes as prompts); Khanam and Hussain, What is YOLOv5,
2024, for the usual thresholds of confidence and overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from segmed.imaging.prompts import SlicePrompt
from segmed.methods import find_method
from segmed.methods.boxes import Boxes
from segmed.methods.class_head import ClassConfig
from segmed.methods.detection import ARCHITECTURES, boxes_of, build_torchvision, select
from segmed.methods.method import Parts, Training
from segmed.methods.segmenter import Logits
from segmed.methods.trainable import Recipe, TrainableSegmenter
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame

if TYPE_CHECKING:
    from transformers import SamModel

_PROMPTERS = ("segmed", "medsam", "sam")
_FRAME = 1024  # px; the margin is in a frame of this side
_NOTHING = -20.0  # logit where no box is


@dataclass(frozen=True)
class DetectorConfig(ClassConfig):
    """The detector, and what is made of its boxes.

    Attributes:
        architecture: one of torchvision's, or `yolo:` and the name of a configuration of ultralytics, such as
            `yolo:yolov5s.yaml`, if that package is installed.
        image_size: longer side in px that the detector sees; 640 is usual on GPUs.
        prompter: what outlines the boxes: segmed, with its own weights, or medsam or sam, on the base weights.
        confidence: lowest score of a box.
        overlap: IoU from which on the less certain one of two boxes is dropped.
        most: boxes per slice.
        margin: px, in a frame of 1024, by which boxes are widened.
        min_area: px; smaller pieces of a label teach nothing.
    """

    architecture: str = "fcos_resnet18"
    image_size: int = 320
    prompter: str = "segmed"
    confidence: float = 0.25
    overlap: float = 0.45
    most: int = 5
    margin: float = 0.0
    min_area: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.architecture not in ARCHITECTURES and not self.architecture.startswith("yolo:"):
            raise ValueError(
                f"architecture {self.architecture!r} is none of {', '.join(ARCHITECTURES)}, nor yolo:NAME.yaml."
            )
        if self.prompter not in _PROMPTERS:
            raise ValueError(f"prompter {self.prompter!r} must be one of {', '.join(_PROMPTERS)}.")
        shares = 0 <= self.confidence < 1 and 0 < self.overlap <= 1
        if not shares or self.image_size < 64 or self.most < 1 or self.margin < 0 or self.min_area < 1:
            raise ValueError(
                f"{self} is not usable: confidence from 0 to below 1, overlap above 0 and up to 1, image_size 64 or "
                "more, most and min_area 1 or more, margin 0 or more."
            )


class DetectorSegmenter(TrainableSegmenter):
    """Every structure of a slice without a prompt; where nothing is detected, nothing is there.

    Args:
        model: SAM weights for the prompter; they do not train.
        config: detector and thresholds.
        version: names the weights.
    """

    name: ClassVar[str] = "detector"
    config: DetectorConfig
    keep_aspect = True
    keeps_slices = True
    finds_boxes = True

    def __init__(self, model: SamModel, config: DetectorConfig | None = None, version: str = "0") -> None:
        super().__init__()
        self.config = config or DetectorConfig()
        self.model, self.version = model, version
        self.labels, self.input_size = self.config.labels, self.config.image_size
        prompter = find_method(self.config.prompter)
        assert prompter.build is not None
        if prompter.read:  # it has weights of its own
            own, own_version = prompter.read(prompter.weights, None, torch.float32)
            self.prompter = prompter.build(own.requires_grad_(False), own_version)
        else:
            self.prompter = prompter.build(model, version)
        self.detector = _build(self.config)
        # `loss_from` gives the detector's own loss; that of the recipe is not used
        rates, decay = {"": 5e-4}, 5e-4
        self.recipe = Recipe(rates, "dice_ce", "adamw", decay, "poly", warmup=100, epochs=100, prompted=False)

    def trained_names(self) -> list[str]:
        return [f"detector.{name}" for name, _ in self.detector.named_parameters()]

    def extra_buffers(self) -> list[str]:
        kept = self.detector.state_dict()
        return [f"detector.{name}" for name, _ in self.detector.named_buffers() if name in kept]

    def encode(self, images: Tensor) -> Embedding:
        """Keep the slices (B, 3, S, S) as they are."""
        height, width = images.shape[2:]
        return Embedding((images * 255).round().to(torch.uint8), Frame(height, width, max(height, width)))

    def embed(self, images: Sequence[np.ndarray]) -> Embedding:
        stack = np.stack([i[None].repeat(3, 0) if i.ndim == 2 else i.transpose(2, 0, 1) for i in images])
        height, width = stack.shape[2:]
        device = next(self.parameters()).device
        return Embedding(torch.from_numpy(stack).to(device), Frame(height, width, max(height, width)))

    @torch.no_grad()
    def detect(self, embedding: Embedding, confidence: float | None = None, most: int | None = None) -> list[Boxes]:
        """The boxes of each slice, in its pixels; `confidence` and `most` in place of those of the configuration."""
        pictures = [picture.float() / 255 for picture in embedding.features]
        size, config = (embedding.frame.height, embedding.frame.width), self.config
        found: Any = self.detector(pictures)
        least = config.confidence if confidence is None else confidence
        return [select(one, size, least, config.overlap, most or config.most) for one in found]

    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        """Logits of background (0) and each label, (B, C, H, W); with prompts, what the prompter makes of them."""
        if prompts is not None:
            return self.prompter.decode(self.prompter.embed(_as_arrays(embedding)), prompts, size)
        out = torch.full((len(embedding), self.config.classes, *size), _NOTHING, device=embedding.features.device)
        out[:, 0] = 0
        for b, boxes in enumerate(self.detect(embedding)):
            if len(boxes):
                asked = [[SlicePrompt(box=box) for box in self._prompt_boxes(boxes, embedding.frame)]]
                seen = self.prompter.embed(_as_arrays(embedding)[b : b + 1])
                masks = self.prompter.decode(seen, asked, size).masks[0].to(out)
                for mask, kind in zip(masks, boxes.labels.tolist(), strict=True):
                    out[b, kind] = torch.maximum(out[b, kind], mask)
        return Logits(out)

    def loss_from(
        self,
        embedding: Embedding,
        prompts: Sequence[Sequence[SlicePrompt]] | None,
        truth: Tensor,
        progress: float = 1.0,
    ) -> Tensor:
        """The detector's loss for the boxes around the pieces of each label.

        Args:
            embedding: slices in the square.
            prompts: not used.
            truth: (B, 1, S, S) classes.
            progress: not used.
        """
        targets = [boxes_of(one[0].cpu().numpy(), self.config.min_area) for one in truth]
        targets = [{key: value.to(truth.device) for key, value in target.items()} for target in targets]
        parts: Any = self.detector([picture.float() / 255 for picture in embedding.features], targets)
        return torch.stack(list(parts.values())).sum()

    def _prompt_boxes(self, boxes: Boxes, frame: Frame) -> list[tuple[float, float, float, float]]:
        """Corners as prompts have them, the last row and column inside, widened and within the slice."""
        margin = self.config.margin * max(frame.height, frame.width) / _FRAME
        low = (boxes.corners[:, :2] - margin).clamp(min=0)
        high = boxes.corners[:, 2:] - 1 + margin
        high = torch.minimum(high, torch.tensor([frame.width - 1.0, frame.height - 1.0], device=high.device))
        return [(x0, y0, x1, y1) for x0, y0, x1, y1 in torch.cat([low, high], dim=1).tolist()]


def _build(config: DetectorConfig) -> nn.Module:
    classes = len(config.labels)
    if config.architecture.startswith("yolo:"):
        from segmed.methods.yolo import build_yolo  # an extra, of another licence

        return build_yolo(config.architecture.removeprefix("yolo:"), classes, config.image_size)
    return build_torchvision(config.architecture, classes, config.image_size)


def _as_arrays(embedding: Embedding) -> list[np.ndarray]:
    return list(embedding.features.permute(0, 2, 3, 1).cpu().numpy())


PARTS = Parts(training=Training(DetectorSegmenter, DetectorConfig))
