"""Nodes of 3D Slicer's scene, and parts of VTK, without 3D Slicer; see `slicer_stub`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import SimpleITK as sitk

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine_of(image: sitk.Image) -> np.ndarray:
    """Voxel to RAS mm, (4, 4)."""
    out = np.eye(4)
    out[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    out[:3, 3] = image.GetOrigin()
    return np.asarray(LPS @ out)


class Matrix:
    """vtkMatrix4x4."""

    def __init__(self) -> None:
        self.values = np.eye(4)

    def MultiplyDoublePoint(self, point: Sequence[float]) -> list[float]:
        return list((self.values @ np.asarray(point, float)).tolist())

    def GetElement(self, row: int, column: int) -> float:
        return float(self.values[row, column])


class Mutable:
    """vtk.mutable of a text."""

    def __init__(self, value: str) -> None:
        self.value = value

    def __str__(self) -> str:
        return self.value


class Node(MagicMock):
    """A node of the scene with a name; volumes have an image, ROIs a box, lists of points their points."""

    def __init__(self, kind: str = "", image: sitk.Image | None = None, **more: Any) -> None:
        super().__init__(**more)
        self.kind, self.image, self.name = kind, image, kind
        self.points: list[list[float]] = []
        self.box: tuple[np.ndarray, np.ndarray] | None = None
        self.segmentation = Segmentation(self)

    def _get_child_mock(self, **more: Any) -> MagicMock:
        return MagicMock(**more)

    def GetName(self) -> str:
        return str(self.name)

    def SetName(self, name: str) -> None:
        self.name = name

    def GetID(self) -> str:
        return f"{self.kind}1"

    def GetIJKToRASMatrix(self, out: Matrix) -> None:
        assert self.image is not None
        out.values = affine_of(self.image)

    def GetRASToIJKMatrix(self, out: Matrix) -> None:
        assert self.image is not None
        out.values = np.linalg.inv(affine_of(self.image))

    # lists of points
    def GetNumberOfControlPoints(self) -> int:
        return len(self.points) or int(self.box is not None)

    def GetNthControlPointPosition(self, n: int) -> list[float]:
        return self.points[n]

    def AddControlPoint(self, point: Sequence[float]) -> None:
        self.points.append([float(v) for v in point])

    def GetNthControlPointPositionWorld(self, n: int, out: list[float]) -> None:
        out[:] = self.points[n]

    def RemoveAllControlPoints(self) -> None:
        self.points, self.box = [], None

    # boxes
    def GetControlPointPlacementComplete(self) -> bool:
        return self.box is not None

    def GetCenter(self, out: list[float]) -> None:
        assert self.box is not None
        out[:] = ((self.box[0] + self.box[1]) / 2).tolist()

    def GetSize(self) -> list[float]:
        assert self.box is not None
        return list((self.box[1] - self.box[0]).tolist())

    def GetObjectToWorldMatrix(self) -> Matrix:
        assert self.box is not None
        matrix = Matrix()
        matrix.values[:3, 3] = (self.box[0] + self.box[1]) / 2
        return matrix

    # segmentations
    def GetSegmentation(self) -> Segmentation:
        return self.segmentation

    def SetReferenceImageGeometryParameterFromVolumeNode(self, volume: Node) -> None:
        self.image = volume.image

    def RemoveSegment(self, name: str) -> None:
        self.segmentation.segments.pop(name, None)

    def GetBinaryLabelmapRepresentation(self, name: str, out: Any) -> None:
        out.mask = self.segmentation.segments[name].mask


class Segment:
    """A segment with its voxels (I, J, K) and tags."""

    def __init__(self, name: str, mask: np.ndarray) -> None:
        self.name, self.mask, self.tags, self.colour = name, mask, dict[str, str](), (0.5, 0.5, 0.5)

    def GetName(self) -> str:
        return self.name

    def SetTag(self, tag: str, value: str) -> None:
        self.tags[tag] = value

    def GetTag(self, tag: str, out: Mutable) -> None:
        out.value = self.tags.get(tag, "")


class Segmentation:
    """The segments of a node by id, which is the name."""

    def __init__(self, node: Node) -> None:
        self.node, self.segments = node, dict[str, Segment]()

    def AddEmptySegment(self, name: str, *_: Any) -> str:
        assert self.node.image is not None
        self.segments[name] = Segment(name, np.zeros(self.node.image.GetSize(), bool))
        return name

    def GetNumberOfSegments(self) -> int:
        return len(self.segments)

    def GetNthSegmentID(self, n: int) -> str:
        return list(self.segments)[n]

    def GetSegment(self, name: str) -> Segment | None:
        return self.segments.get(name)

    def GetSegmentIdBySegmentName(self, name: str) -> str:
        return name if name in self.segments else ""

    def GetSegmentIDs(self, out: list[str] | None = None) -> list[str]:
        if out is not None:
            out.extend(self.segments)
        return list(self.segments)

    def DeepCopy(self, other: Segmentation) -> None:
        self.segments = other.segments


class Strings(list[str]):
    """vtkStringArray."""

    InsertNextValue = list.append
