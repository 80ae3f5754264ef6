"""Detectors of boxes: torchvision's, and what any other one has to look like.

Sources: Ren et al., Faster R-CNN, 2015; Lin et al., Focal Loss for Dense Object Detection (RetinaNet), 2017; Tian et
al., FCOS, 2019; Howard et al., Searching for MobileNetV3, 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from segmed.imaging.label_maps import boxes_of_pieces
from segmed.methods.boxes import Boxes


def _fcos_resnet18(**arguments: object) -> nn.Module:
    """FCOS as torchvision has it, on a backbone that a CPU can train."""
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
    """A network that is called as torchvision's are, and is an `nn.Module`.

    In training mode it gives the parts of the loss by name; in evaluation mode, without targets, a dictionary with
    `boxes`, `labels` and `scores` for each picture.
    """

    def __call__(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]: ...


def build_torchvision(architecture: str, classes: int, image_size: int) -> nn.Module:
    """An untrained detector; nothing is downloaded.

    Args:
        architecture: out of `ARCHITECTURES`.
        classes: kinds of objects, background not among them.
        image_size: side in px to which the longer side of a picture is brought.
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
        image_mean=[0.3] * 3,  # of windowed slices, roughly
        image_std=[0.25] * 3,
        **own,
    )


def select(found: dict[str, Tensor], size: tuple[int, int], confidence: float, overlap: float, most: int) -> Boxes:
    """The boxes worth prompting with.

    Args:
        found: of one picture, as a `Detector` gives it.
        size: (H, W) to which boxes are cut.
        confidence: lowest score.
        overlap: IoU from which on the less certain one of two boxes of a class is dropped.
        most: boxes that are kept.
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
    """What a detector should find in a label map (H, W): `boxes` and `labels`, as torchvision wants its targets."""
    corners, kinds = boxes_of_pieces(labels, min_area)
    return {"boxes": torch.from_numpy(corners), "labels": torch.from_numpy(kinds)}
