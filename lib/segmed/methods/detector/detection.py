"""Box detectors: those of torchvision, and the interface that any other has to implement.

Sources: Ren et al., Faster R-CNN, 2015; Lin et al., Focal Loss for Dense Object Detection (RetinaNet), 2017;
Tian et al., FCOS, 2019; Howard et al., Searching for MobileNetV3, 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from segmed.imaging.labels.maps import boxes_of_pieces
from segmed.methods.detector.boxes import Boxes


def _fcos_resnet18(**arguments: object) -> nn.Module:
    """Torchvision's FCOS on a backbone that is small enough to train on a CPU."""
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    for name in ("weights", "weights_backbone"):
        arguments.pop(name)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=nn.BatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    return FCOS(backbone, **arguments)


# names of functions of torchvision, which is imported when a detector is built
ARCHITECTURES = {
    "fcos_resnet18": "",
    "fasterrcnn_mobilenet": "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50": "fasterrcnn_resnet50_fpn_v2",
    "retinanet_resnet50": "retinanet_resnet50_fpn_v2",
    "fcos_resnet50": "fcos_resnet50_fpn",
}
_TWO_STAGES = ("fasterrcnn_mobilenet", "fasterrcnn_resnet50")


class Detector(Protocol):
    """An `nn.Module` that is called as torchvision's detectors are.

    In training mode it returns the terms of the loss by name; in evaluation mode, without targets, a
    dictionary with `boxes`, `labels` and `scores` for each image.
    """

    def __call__(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]: ...


def build_torchvision(architecture: str, classes: int, image_size: int) -> nn.Module:
    """Build an untrained detector; nothing is downloaded.

    Args:
        architecture: A key of `ARCHITECTURES`.
        classes: Number of classes of objects, without the background.
        image_size: Length in px to which the longer side of an image is scaled.
    """
    from torchvision.models import detection

    own = (
        {"box_score_thresh": 0.0, "box_detections_per_img": 100}
        if architecture in _TWO_STAGES
        else {"score_thresh": 0.0, "detections_per_img": 100}
    )
    build: Callable[..., nn.Module] = getattr(detection, ARCHITECTURES[architecture], _fcos_resnet18)
    return build(
        weights=None,
        weights_backbone=None,
        num_classes=classes + 1,
        min_size=image_size,
        max_size=image_size,
        image_mean=[0.3] * 3,  # mean and standard deviation of windowed slices, roughly
        image_std=[0.25] * 3,
        **own,
    )


def select(
    found: dict[str, Tensor], size: tuple[int, int], confidence: float, overlap: float, most: int
) -> Boxes:
    """Select the detections to prompt with: confident, at least 1 px wide and high, without duplicates.

    Args:
        found: The output of a `Detector` for one image.
        size: Rows and columns (H, W) to which boxes are clipped.
        confidence: Lowest allowed score.
        overlap: IoU above which the lower-scored of two boxes of a class is dropped.
        most: Largest number of boxes to keep.
    """
    from torchvision.ops import batched_nms, clip_boxes_to_image

    sure = found["scores"] >= confidence
    corners = clip_boxes_to_image(found["boxes"][sure].float(), size)
    labels, scores = found["labels"][sure], found["scores"][sure].float()
    wide = ((corners[:, 2:] - corners[:, :2]) >= 1).all(dim=1)
    corners, labels, scores = corners[wide], labels[wide], scores[wide]
    kept = batched_nms(corners, scores, labels, overlap)[:most]
    return Boxes(corners[kept], labels[kept], scores[kept])


def boxes_of(labels: np.ndarray, min_area: int) -> dict[str, Tensor]:
    """The targets of a detector for a label map (H, W): `boxes` and `labels` in torchvision's format."""
    corners, kinds = boxes_of_pieces(labels, min_area)
    return {"boxes": torch.from_numpy(corners), "labels": torch.from_numpy(kinds)}
