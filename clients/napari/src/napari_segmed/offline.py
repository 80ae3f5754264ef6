"""Work without a server: SegMed runs in this process, on a temporary folder of the images that are open."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from napari.layers import Image

from napari_segmed.client_of import client


@cache
def own_server() -> str:
    """Address of the server in this process, which is started when it is first needed.

    Raises:
        ModuleNotFoundError: SegMed itself is not installed beside napari.
    """
    try:
        from segmed.server.embedded import start_embedded
    except ImportError as error:
        raise ModuleNotFoundError(
            "To work offline, install SegMed itself into napari's environment (Python 3.11): pip install "
            "segmed. With a server elsewhere, its address is enough."
        ) from error
    studies = Path(tempfile.mkdtemp(prefix="napari-segmed-"))
    return str(start_embedded(studies).url)


def send(connected: client.SegMedClient, layer: Image) -> str:
    """Add the image of a layer to the studies of a server.

    Args:
        connected: Client that is connected.
        layer: Layer with a grey image (J, I) or volume (K, J, I), or one of these in colour.

    Returns:
        Identifier of the image.

    Raises:
        ValueError: The layer has other dimensions.
    """
    voxels: Any = np.asarray(layer.data)
    if layer.rgb:
        voxels = voxels[..., :3].mean(-1)
    if voxels.ndim not in (2, 3):
        raise ValueError(
            f"The layer {layer.name} has {voxels.ndim} dimensions. Take one time point or channel of it: an "
            "image has 2 and a volume 3."
        )
    if voxels.ndim == 2:
        voxels = voxels[None]
    if voxels.dtype not in (np.uint8, np.int16, np.uint16, np.float32):
        voxels = voxels.astype(np.float32)
    edges = [*([1.0] * 3), *(float(s) for s in layer.scale)][-3:][::-1]
    with tempfile.TemporaryDirectory(prefix="napari-segmed-") as folder:
        path = Path(folder) / "image.nii.gz"
        nib.save(nib.Nifti1Image(voxels.T, np.diag([*edges, 1.0])), path)
        name = "".join(c if c.isalnum() or c in " -_" else "_" for c in layer.name).strip() or "image"
        return connected.monai.add_image(path, name, new_name=True)
