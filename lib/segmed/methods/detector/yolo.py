"""YOLO detectors of ultralytics, an extra under AGPL-3.0 that only this module imports.

The package is configured not to use the network and to keep its settings within the app. Source: Jocher,
Ultralytics YOLOv5, 2020.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert

from segmed.places import WORK

_FOLDER = WORK / "model" / "ultralytics"
_STRIDE = 32  # px; the sides of the input are multiples of it
_BEST = 300  # largest number of boxes per image


def build_yolo(name: str, classes: int, image_size: int) -> nn.Module:
    """Build an untrained YOLO that is called as torchvision's detectors are.

    Args:
        name: Name of a configuration in the package, such as `yolov5s.yaml` or `yolov8n.yaml`.
        classes: Number of classes of objects.
        image_size: Longer side in px of its input, rounded up to a multiple of 32.

    Raises:
        ValueError: If the package is not installed, or has no such configuration.
    """
    os.environ.update({"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"})
    os.environ.setdefault("YOLO_CONFIG_DIR", str(_FOLDER))
    Path(os.environ["YOLO_CONFIG_DIR"]).mkdir(parents=True, exist_ok=True)
    try:
        import ultralytics
        from ultralytics.cfg import get_cfg
        from ultralytics.nn.tasks import DetectionModel
    except ImportError as error:
        raise ValueError(
            "The package ultralytics is not installed. It is under AGPL-3.0; if that suits you: pip install "
            "'segmed[yolo]', or -r requirements-yolo.txt in a checkout. Else take another architecture, "
            "such as fcos_resnet18."
        ) from error
    ultralytics.settings.update({"sync": False})
    try:
        network: Any = DetectionModel(name, ch=3, nc=classes, verbose=False)
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise ValueError(
            f"ultralytics has no configuration {name!r}. Take yolov5s.yaml, for instance."
        ) from error
    network.args = get_cfg()
    return Yolo(network, -(-image_size // _STRIDE) * _STRIDE)


class Yolo(nn.Module):
    """A YOLO with the interface of `detection.Detector`.

    Args:
        network: A detection model of the package.
        side: Side of its square input in px.
    """

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network = network
        self.side = side

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Compute the loss by name if targets are given, else boxes in px of each image (3, H, W) in [0, 1].

        Targets are converted from corners in px of the image to centres and sizes in shares of the square
        input, and classes from 1 … n to 0 … n - 1.
        """
        scales = [self.side / max(image.shape[1:]) for image in images]
        batch = torch.stack([self._fit(image, scale) for image, scale in zip(images, scales, strict=True)])
        if targets is None:
            return [self._read(one, scale) for one, scale in zip(self.network(batch)[0], scales, strict=True)]
        boxes = [
            box_convert(t["boxes"] * s, "xyxy", "cxcywh") / self.side
            for t, s in zip(targets, scales, strict=True)
        ]
        owner = [torch.full((len(t["labels"]),), float(n)) for n, t in enumerate(targets)]
        network: Any = self.network
        loss, _ = network.loss(
            {
                "img": batch,
                "cls": torch.cat([t["labels"] for t in targets])[:, None].float() - 1,
                "bboxes": torch.cat(boxes),
                "batch_idx": torch.cat(owner).to(batch.device),
            }
        )
        return {"yolo": loss.sum() / len(images)}

    def _fit(self, image: Tensor, scale: float) -> Tensor:
        height, width = (max(1, round(n * scale)) for n in image.shape[1:])
        small = F.interpolate(
            image[None], (height, width), mode="bilinear", align_corners=False, antialias=True
        )[0]
        return F.pad(small, (0, self.side - width, 0, self.side - height))

    def _read(self, found: Tensor, scale: float) -> dict[str, Tensor]:
        """Convert the network's output (4 + classes, N) of boxes and scores to torchvision's format."""
        scores, kinds = found[4:].max(dim=0)
        scores, best = scores.topk(min(_BEST, len(scores)))
        boxes = box_convert(found[:4, best].T, "cxcywh", "xyxy") / scale
        return {"boxes": boxes, "labels": kinds[best] + 1, "scores": scores}
