"""One image in napari: its layers, and the work on it.

napari counts axes as arrays do, so that its coordinates (k, j, i) are voxels in reverse order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import nibabel as nib
import numpy as np
from napari.layers import Image, Labels, Points, Shapes
from napari.viewer import Viewer

from napari_segmed.client_of import client

_GREEN, _RED = "#009e73", "#d55e00"


class ImageWork:
    """The layers of an image and the work on it.

    Shapes in the layer `object` are rectangles (a box, over several slices if there are several), lines
    (scribbles) and polygons (a lasso); lines in the layer `beside` are scribbles beside the object.

    Args:
        viewer: Viewer to add the layers to.
        connected: Client that is connected.
        image: Identifier of the image.
        layer: Layer that already shows the image, in the order of its voxels; None to load it.

    Attributes:
        work: Workspace.
        labels: Layer with the label map; what is painted in it is sent with the next request.
    """

    def __init__(
        self, viewer: Viewer, connected: client.SegMedClient, image: str, layer: Image | None = None
    ) -> None:
        # before the rest: the server reads the image once for both
        content = connected.volume(image) if layer is None else b""
        self.work = connected.open(image)
        info = self.work.image
        if layer is None:
            scale = np.linalg.norm(np.array(info.affine)[:3, :3], axis=0)[::-1]
            voxels, rgb = _read_volume(content)
            low, high = (info.window or [float(voxels.min()), float(voxels.max())])[:2]
            layer = viewer.add_image(
                voxels,
                name=info.name,
                scale=scale,
                rgb=rgb,
                contrast_limits=None if rgb else (low, max(high, low + 1)),
            )
        self.image = layer
        where: dict[str, Any] = {
            "scale": np.r_[1.0, layer.scale][-3:],  # a picture has two axes, its label map three
            "translate": np.r_[0.0, layer.translate][-3:],
        }
        self.labels: Labels = viewer.add_labels(self.work.labels.T.copy(), name="labels", **where)
        self._shapes: dict[str, Shapes] = {}
        self._points: dict[str, Points] = {}
        for role, colour in (("object", _GREEN), ("beside", _RED)):
            self._points[role] = viewer.add_points(
                name=f"points {role}", face_color=colour, size=4, ndim=3, **where
            )
            self._shapes[role] = viewer.add_shapes(
                name=f"shapes {role}",
                edge_color=colour,
                face_color="transparent",
                edge_width=1,
                ndim=3,
                **where,
            )
        self._name_labels()

    def prompt(self, on_progress: Callable[[Any], None], model: str, label: str) -> Callable[[], Any]:
        """A function that sends everything that is drawn, to be called on any thread.

        Raises:
            ValueError: Nothing is drawn.
        """
        asked = self._drawn()
        if not asked:
            raise ValueError("Nothing is drawn. Draw a rectangle, a point, a line or a polygon first.")
        return lambda: self.work.prompt(model, label, on_progress=on_progress, **asked)

    def edited(self) -> bool:
        """Whether anything was painted in the layer of the labels."""
        return not np.array_equal(self.labels.data.T, self.work.labels)

    def send_edits(self, label: str) -> None:
        """Send what was painted.

        Args:
            label: Label for painted values that have no name yet.
        """
        painted, values = np.asarray(self.labels.data.T), self.work.values()
        unnamed = np.setdiff1d(np.unique(painted), [0, *values.values()])
        if unnamed.size:
            value = values.get(label) or min(set(range(1, 256)) - set(values.values()))
            painted = np.where(np.isin(painted, unnamed), value, painted)
        self.work.paint(painted.astype(np.uint8), label if unnamed.size else "")
        self.show()

    def clear(self) -> None:
        """Remove what was drawn."""
        for points in self._points.values():
            points.data = np.zeros((0, 3))
        for shapes in self._shapes.values():
            shapes.data = []

    def show(self, changes: Sequence[Any] | None = None) -> None:
        """Bring the layer of the labels up to date.

        Args:
            changes: Changed rectangles; None for everything.
        """
        if changes is None:
            self.labels.data[:] = self.work.labels.T
        else:
            target = self.labels.data.T
            for change in changes:
                change.put(target)
        self._name_labels()
        self.labels.refresh()

    def _name_labels(self) -> None:
        names = {0: "background", **{value: name for name, value in self.work.values().items()}}
        self.labels.features = {
            "index": list(names),
            "name": [names[value] for value in names],
        }

    def _drawn(self) -> dict[str, Any]:
        """What is drawn, as arguments of `Work.prompt`."""
        asked: dict[str, Any] = {}
        planes = bool(self.work.image.planes)
        strokes = []
        corners = []
        for role, shapes in self._shapes.items():
            for kind, vertices in zip(shapes.shape_type, shapes.data, strict=True):
                points = _voxels(vertices)
                if kind in ("path", "line"):
                    strokes += client.strokes_through(points, role == "object", planes=planes)
                elif role == "object" and kind in ("polygon", "ellipse"):
                    asked["lasso"] = client.lasso_through(points)
                elif role == "object":
                    corners.append(points)
        if strokes:
            asked["strokes"] = strokes
        if corners:
            asked["box"] = client.box_around(
                np.clip(np.concatenate(corners), 0, np.array(self.work.labels.shape) - 1)
            )
        for role, name in (("object", "foreground"), ("beside", "background")):
            if len(self._points[role].data):
                asked[name] = _voxels(self._points[role].data).round()
        return asked


def _voxels(coordinates: np.ndarray) -> np.ndarray:
    return np.asarray(coordinates, float)[:, -3:][:, ::-1]


def _read_volume(content: bytes) -> tuple[np.ndarray, bool]:
    """The voxels (K, J, I), or (K, J, I, 3) in colour, of a NIfTI file, and whether they are in colour."""
    voxels = np.asarray(nib.Nifti1Image.from_bytes(content).dataobj)
    if voxels.dtype.names:
        return np.stack([voxels[name] for name in voxels.dtype.names], -1).transpose(2, 1, 0, 3), True
    return voxels.reshape(voxels.shape[:3]).T, False
