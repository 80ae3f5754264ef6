"""The client of a SegMed server, which the napari plugin, the extension of 3D Slicer and scripts share.

It needs httpx and NumPy only, imports nothing else of SegMed, and runs on Python 3.9 or newer, because 3D
Slicer brings its own Python: `clients/python` packs this folder as `segmed_client`.

    with SegMedClient("http://127.0.0.1:8000", name="Dr Lee") as client:
        work = client.open("ct")
        work.prompt("segmed", "liver", box=[40, 90, 30, 80, 14, 14])
        work.save()
"""

from .answers import (
    ImageEntry,
    ImageInfo,
    LabelChange,
    Model,
    OpenPrompt,
    Progress,
    SavedLabel,
    ServerState,
    WorkAnswer,
)
from .client import SegMedClient
from .errors import (
    ApiVersionError,
    NoServerError,
    NotAllowedError,
    SegMedError,
    StaleWorkError,
)
from .geometry import Lasso, Stroke, box_around, lasso_through, strokes_through, to_voxels
from .monai_label import Mask
from .version import API_VERSION
from .work import Work

__all__ = [
    "API_VERSION",
    "ApiVersionError",
    "ImageEntry",
    "ImageInfo",
    "LabelChange",
    "Lasso",
    "Mask",
    "Model",
    "NoServerError",
    "NotAllowedError",
    "OpenPrompt",
    "Progress",
    "SavedLabel",
    "SegMedClient",
    "SegMedError",
    "ServerState",
    "StaleWorkError",
    "Stroke",
    "Work",
    "WorkAnswer",
    "box_around",
    "lasso_through",
    "strokes_through",
    "to_voxels",
]
