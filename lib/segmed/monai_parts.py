"""What SegMed uses of MONAI, the only file that imports it; import it late, and before MONAI Label.

`import monai` imports all of MONAI, and with it those of the packages below that are installed: they take
longer than all the rest and hundreds of MB, for trackers, plots and networks that nothing here uses. MONAI
runs without them, as it is told here that they are not there. They can be imported as usual afterwards.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_NOT_NEEDED = (
    "cv2",
    "gdown",
    "ignite",
    "matplotlib",
    "mlflow",
    "pandas",
    "scipy.signal",
    "sklearn",
    "tensorboard",
    "torch.utils.tensorboard",
    "torchvision",
    "transformers",
)


@contextmanager
def _as_if_missing(names: tuple[str, ...]) -> Iterator[None]:
    """Importing these fails as if they were not installed; those that are imported already stay."""
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    hidden = [name for name in names if name not in modules]
    modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]


with _as_if_missing(_NOT_NEEDED):
    from monai.apps.detection.metrics.coco import COCOMetric
    from monai.apps.detection.metrics.matching import matching_batch
    from monai.data.box_utils import box_iou
    from monai.losses import DiceCELoss, DiceLoss, FocalLoss
    from monai.metrics import get_mask_edges, get_surface_distance
    from monai.transforms import FillHoles, KeepLargestConnectedComponent

__all__ = [
    "COCOMetric",
    "DiceCELoss",
    "DiceLoss",
    "FillHoles",
    "FocalLoss",
    "KeepLargestConnectedComponent",
    "box_iou",
    "get_mask_edges",
    "get_surface_distance",
    "matching_batch",
]
