"""One image that is open in 3D Slicer, and the work on it: markups in, segments out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import slicer

from .markups import box_in_voxels, corners_of, curve_of, points_of


class Session:
    """The work of the user on one image of the server.

    Args:
        module: Module of the client.
        client: Client that is connected.
        image: Identifier of the image.
        volume: Volume node that already shows the image; None to download it.

    Attributes:
        work: Workspace.
        volume: Volume node.
        segmentation: Segmentation node with a segment for each label.
    """

    def __init__(self, module: ModuleType, client: Any, image: str, volume: Any = None) -> None:
        self._module = module
        self.work = client.open(image)
        self.volume = volume if volume is not None else self._download(client, image)
        self.segmentation = slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLSegmentationNode", f"SegMed {self.work.image.name}"
        )
        self.segmentation.CreateDefaultDisplayNodes()
        self.segmentation.SetReferenceImageGeometryParameterFromVolumeNode(self.volume)
        self._shown = np.zeros_like(self.work.labels)
        self.work.on_change = lambda changes: self.show()
        self.show()

    def prompt(
        self, model: str, label: str, markups: dict[str, Any], on_progress: Callable[[Any], None]
    ) -> list[str]:
        """Segment with what was drawn, and remove the drawings.

        Args:
            model: Model that takes prompts.
            label: Name of the structure.
            markups: Nodes by role: `box`, `foreground`, `background`, `scribble`, `anti_scribble`, `lasso`.
            on_progress: Called while the server works.

        Returns:
            Messages for the user.

        Raises:
            ValueError: Nothing was drawn.
        """
        drawn = {role: node for role, node in markups.items() if node.GetNumberOfControlPoints()}
        if not drawn:
            raise ValueError("Nothing is drawn. Draw a box, a point, a scribble or a lasso first.")
        planes = bool(self.work.image.planes)
        strokes = [
            stroke
            for role in ("scribble", "anti_scribble")
            if role in drawn
            for stroke in self._module.strokes_through(
                self._voxels(curve_of(drawn[role])), role == "scribble", planes=planes
            )
        ]
        asked: dict[str, Any] = {"strokes": strokes}
        if "box" in drawn:
            asked["box"] = box_in_voxels(self._voxels(corners_of(drawn["box"])), self.work.labels.shape)
        if "lasso" in drawn:
            asked["lasso"] = self._module.lasso_through(self._voxels(curve_of(drawn["lasso"])))
        for role in ("foreground", "background"):
            if role in drawn:
                asked[role] = self._voxels(points_of(drawn[role])).round()
        answer = self.work.prompt(model, label, on_progress=on_progress, **asked)
        for node in drawn.values():
            node.RemoveAllControlPoints()
        return list(answer.warnings)

    def show(self) -> None:
        """Bring the segments up to date; only those that have changed are written."""
        differs = self.work.labels != self._shown
        if not differs.any():
            return
        changed = {*np.unique(self.work.labels[differs]).tolist(), *np.unique(self._shown[differs]).tolist()}
        names = {value: name for name, value in self.work.values().items()}
        segments = self.segmentation.GetSegmentation()
        for value in sorted(changed & names.keys()):
            name = names[value]
            if not segments.GetSegmentIdBySegmentName(name):
                segments.AddEmptySegment(name, name)
            slicer.util.updateSegmentBinaryLabelmapFromArray(
                np.ascontiguousarray((self.work.labels == value).T).astype(np.uint8),
                self.segmentation,
                segments.GetSegmentIdBySegmentName(name),
                self.volume,
            )
        self._shown = self.work.labels.copy()

    def take_edits(self, label: str) -> None:
        """Send what was edited in the Segment Editor to the server, as strokes of a brush.

        Args:
            label: Name of the label that was edited.
        """
        edited = self.work.labels.copy()
        segments = self.segmentation.GetSegmentation()
        for name, value in self.work.values().items():
            if segment := segments.GetSegmentIdBySegmentName(name):
                mask = (
                    slicer.util.arrayFromSegmentBinaryLabelmap(self.segmentation, segment, self.volume).T > 0
                )
                edited[(edited == value) & ~mask] = 0
                edited[mask] = value
        self.work.paint(edited, label if label in self.work.values() else "")

    def _voxels(self, positions: np.ndarray) -> np.ndarray:
        return np.asarray(self._module.to_voxels(positions, self.work.image.affine))

    def _download(self, client: Any, image: str) -> Any:
        with tempfile.TemporaryDirectory(prefix="segmed-") as folder:
            path = Path(folder) / "image.nii"
            path.write_bytes(client.volume(image))
            volume = slicer.util.loadVolume(str(path))
        volume.SetName(self.work.image.name)
        return volume
