"""Automatic segmentation: a detector finds the objects as boxes, a promptable method outlines them.

Sources: Ma et al., Segment Anything in Medical Images, 2024 (boxes as prompts); Khanam and Hussain, What is
YOLOv5, 2024, for the usual thresholds of confidence and overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from segmed.imaging.prompts import SlicePrompt
from segmed.methods.base.method import LOCAL, Parts, Training
from segmed.methods.base.segmenter import Logits
from segmed.methods.base.trainable import Recipe, TrainableSegmenter
from segmed.methods.detector.boxes import Boxes
from segmed.methods.detector.detection import ARCHITECTURES, boxes_of, build_torchvision, select
from segmed.methods.detector.prompter import build_prompter
from segmed.methods.detector.start import start_from
from segmed.methods.sam.class_head import ClassConfig
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame

if TYPE_CHECKING:
    from transformers import SamModel

_PROMPTERS = ("segmed", "medsam", "sam")
_FRAME = 1024  # longer side in px of the slice that the margin refers to
_NO_OBJECT = -20.0  # logit outside of all masks


@dataclass(frozen=True)
class DetectorConfig(ClassConfig):
    """The detector and the use of its boxes.

    Attributes:
        architecture: One of torchvision's detectors, or `yolo:` and the name of a configuration of
            ultralytics, such as `yolo:yolov5s.yaml`, if that package is installed.
        start: File of weights with which the training of the detector starts, "" for random ones, see
            `start_from`.
        image_size: Longer side in px of the detector's input; 640 is usual on GPUs.
        prompter: The method that outlines the boxes: segmed, with its own weights, or medsam or sam.
        prompter_weights: SAM weights of the prompter (a folder, a file or a published name), or a folder of a
            trained version of medsam or sam on the base weights; "" for the base weights. Trained weights of
            the detector belong to them, but do not hold them.
        confidence: Lowest score of a box.
        overlap: IoU above which the lower-scored of two boxes is dropped.
        most: Largest number of boxes per slice.
        margin: Margin by which boxes are widened, in px of a slice whose longer side has 1024 px.
        min_area: Smallest area in px of a piece of a label that is used for training.
    """

    architecture: str = "fcos_resnet18"
    start: str = field(default="", metadata=LOCAL)
    image_size: int = 320
    prompter: str = "segmed"
    prompter_weights: str = field(default="", metadata=LOCAL)
    confidence: float = 0.25
    overlap: float = 0.45
    most: int = 5
    margin: float = 0.0
    min_area: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.architecture not in ARCHITECTURES and not self.architecture.startswith("yolo:"):
            raise ValueError(
                f"architecture is {self.architecture!r}; allowed are {', '.join(ARCHITECTURES)}, and "
                "yolo:NAME.yaml."
            )
        if self.prompter not in _PROMPTERS:
            raise ValueError(f"prompter is {self.prompter!r}; allowed are {', '.join(_PROMPTERS)}.")
        if self.prompter_weights and self.prompter == "segmed":
            raise ValueError(
                "prompter_weights are for the prompters medsam and sam; segmed has its own. Leave them out."
            )
        shares = 0 <= self.confidence < 1 and 0 < self.overlap <= 1
        if not shares or self.image_size < 64 or self.most < 1 or self.margin < 0 or self.min_area < 1:
            raise ValueError(
                f"{self} is not allowed: confidence must be from 0 to below 1, overlap above 0 and up to 1, "
                "image_size 64 or more, most and min_area 1 or more, and margin 0 or more."
            )


class DetectorSegmenter(TrainableSegmenter):
    """A segmenter of all structures of a slice without prompts; pixels without a detection are background.

    Args:
        model: The SAM for the prompter; its weights are not trained.
        config: The detector and its thresholds.
        version: Version of the weights.
    """

    name: ClassVar[str] = "detector"
    config: DetectorConfig
    no_graphs = "it consists of a detector and of another method, which can be exported by itself"
    keep_aspect = True
    keeps_slices = True
    finds_boxes = True

    def __init__(self, model: SamModel, config: DetectorConfig | None = None, version: str = "0") -> None:
        super().__init__()
        self.config = config or DetectorConfig()
        self.model, self.version = model, version
        self.labels, self.input_size = self.config.labels, self.config.image_size
        self.prompter = build_prompter(self.config.prompter, self.config.prompter_weights, model, version)
        self.detector = _build(self.config)
        # `loss_from` returns the detector's own loss; the loss of the recipe is not used.
        if self.config.architecture.startswith("yolo:"):  # as published for YOLOv5
            self.recipe = Recipe(
                {"": 0.01}, "dice_ce", "sgd", 5e-4, "linear", epochs=100, batch=16, prompted=False
            )
        else:
            self.recipe = Recipe(
                {"": 5e-4}, "dice_ce", "adamw", 5e-4, "poly", warmup=100, epochs=100, prompted=False
            )

    def begin(self) -> None:
        """Load the weights of the config's `start` into the detector."""
        if self.config.start:
            start_from(getattr(self.detector, "network", self.detector), Path(self.config.start))

    def trained_names(self) -> list[str]:
        return [f"detector.{name}" for name, _ in self.detector.named_parameters()]

    def extra_buffers(self) -> list[str]:
        kept = self.detector.state_dict()
        return [f"detector.{name}" for name, _ in self.detector.named_buffers() if name in kept]

    def encode(self, images: Tensor) -> Embedding:
        """Store slices (B, 3, S, S) in [0, 1] as uint8; the detector encodes them itself."""
        height, width = images.shape[2:]
        return Embedding((images * 255).round().to(torch.uint8), Frame(height, width, max(height, width)))

    def embed(self, images: Sequence[np.ndarray]) -> Embedding:
        stack = np.stack([i[None].repeat(3, 0) if i.ndim == 2 else i.transpose(2, 0, 1) for i in images])
        height, width = stack.shape[2:]
        device = next(self.parameters()).device
        return Embedding(torch.from_numpy(stack).to(device), Frame(height, width, max(height, width)))

    @torch.no_grad()
    def detect(
        self, embedding: Embedding, confidence: float | None = None, most: int | None = None
    ) -> list[Boxes]:
        """Detect the boxes of each slice, in px of the slice.

        Args:
            embedding: The slices.
            confidence: Lowest score of a box, or None for that of the configuration.
            most: Largest number of boxes per slice, or None for that of the configuration.
        """
        pictures = [picture.float() / 255 for picture in embedding.features]
        size, config = (embedding.frame.height, embedding.frame.width), self.config
        detections: Any = self.detector(pictures)
        threshold = config.confidence if confidence is None else confidence
        return [select(found, size, threshold, config.overlap, most or config.most) for found in detections]

    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        """Logits of background (index 0) and labels, (B, C, H, W); with prompts, those of the prompter."""
        if prompts is not None:
            return self.prompter.decode(self.prompter.embed(_as_arrays(embedding)), prompts, size)
        out = torch.full(
            (len(embedding), self.config.classes, *size), _NO_OBJECT, device=embedding.features.device
        )
        out[:, 0] = 0
        for b, boxes in enumerate(self.detect(embedding)):
            if len(boxes):
                box_prompts = [[SlicePrompt(box=box) for box in self._prompt_boxes(boxes, embedding.frame)]]
                embedded = self.prompter.embed(_as_arrays(embedding)[b : b + 1])
                masks = self.prompter.decode(embedded, box_prompts, size).masks[0].to(out)
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
        """Compute the detector's loss for the boxes around the pieces of each label.

        Args:
            embedding: The slices, S × S px.
            prompts: Not used.
            truth: Class indices (B, 1, S, S).
            progress: Not used.

        Returns:
            The sum of the terms of the detector's loss.
        """
        targets = [boxes_of(one[0].cpu().numpy(), self.config.min_area) for one in truth]
        targets = [{key: value.to(truth.device) for key, value in target.items()} for target in targets]
        parts: Any = self.detector([picture.float() / 255 for picture in embedding.features], targets)
        return torch.stack(list(parts.values())).sum()

    def _prompt_boxes(self, boxes: Boxes, frame: Frame) -> list[tuple[float, float, float, float]]:
        """Boxes as prompts, their last row and column inside: widened and clipped to the slice."""
        margin = self.config.margin * max(frame.height, frame.width) / _FRAME
        low = (boxes.corners[:, :2] - margin).clamp(min=0)
        high = boxes.corners[:, 2:] - 1 + margin
        high = torch.minimum(high, torch.tensor([frame.width - 1.0, frame.height - 1.0], device=high.device))
        return [(x0, y0, x1, y1) for x0, y0, x1, y1 in torch.cat([low, high], dim=1).tolist()]


def _build(config: DetectorConfig) -> nn.Module:
    classes = len(config.labels)
    if config.architecture.startswith("yolo:"):
        from segmed.methods.detector.yolo import build_yolo  # an extra, of another licence

        return build_yolo(config.architecture.removeprefix("yolo:"), classes, config.image_size)
    return build_torchvision(config.architecture, classes, config.image_size)


def _as_arrays(embedding: Embedding) -> list[np.ndarray]:
    return list(embedding.features.permute(0, 2, 3, 1).cpu().numpy())


PARTS = Parts(training=Training(DetectorSegmenter, DetectorConfig))
