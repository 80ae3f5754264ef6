"""The parts of 3D Slicer's Python interface that its MONAI Label module and our extension call, without 3D
Slicer.

What nodes and widgets do is kept only as far as it decides what is sent to a server, and what becomes of
its answers; everything else is a mock that takes any call.
"""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar
from unittest.mock import MagicMock

import nrrd
import numpy as np
import SimpleITK as sitk

_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine_of(image: sitk.Image) -> np.ndarray:
    """Voxel to RAS mm, (4, 4)."""
    out = np.eye(4)
    out[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    out[:3, 3] = image.GetOrigin()
    return np.asarray(_RAS @ out)


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


class Combo:
    """QComboBox."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self.currentIndex = -1

    def __getattr__(self, name: str) -> Any:
        return MagicMock()

    @property
    def count(self) -> int:
        return len(self.items)

    @property
    def currentText(self) -> str:
        return self.items[self.currentIndex] if 0 <= self.currentIndex < len(self.items) else ""

    @currentText.setter
    def currentText(self, text: str) -> None:
        if text not in self.items:
            self.items.append(text)
        self.currentIndex = self.items.index(text)

    def clear(self) -> None:
        self.items, self.currentIndex = [], -1

    def addItem(self, text: str, *_: Any) -> None:
        self.items.append(text)
        self.currentIndex = max(self.currentIndex, 0)

    def addItems(self, texts: Sequence[str]) -> None:
        for text in texts:
            self.addItem(text)

    def setCurrentText(self, text: str) -> None:
        self.currentText = text

    def itemText(self, n: int) -> str:
        return self.items[n] if 0 <= n < len(self.items) else ""

    def findText(self, text: str) -> int:
        return self.items.index(text) if text in self.items else -1

    def setCurrentIndex(self, n: int) -> None:
        self.currentIndex = n


class Table:
    """QTableWidget of two columns."""

    def __init__(self) -> None:
        self.items: dict[tuple[int, int], Any] = {}
        self.widgets: dict[tuple[int, int], Any] = {}
        self.rowCount = 0

    def __getattr__(self, name: str) -> Any:
        return MagicMock()

    def clear(self) -> None:
        self.items, self.widgets = {}, {}

    def setRowCount(self, n: int) -> None:
        self.rowCount = n

    def setItem(self, row: int, column: int, item: Any) -> None:
        self.items[row, column] = item

    def item(self, row: int, column: int) -> Any:
        return self.items.get((row, column))

    def setCellWidget(self, row: int, column: int, widget: Any) -> None:
        self.widgets[row, column] = widget

    def cellWidget(self, row: int, column: int) -> Any:
        return self.widgets.get((row, column))


class Item(MagicMock):
    """QTableWidgetItem."""

    def __init__(self, text: str = "", **more: Any) -> None:
        super().__init__(**more)
        self.content = text

    def _get_child_mock(self, **more: Any) -> MagicMock:
        return MagicMock(**more)

    def text(self) -> str:
        return self.content


class Text(MagicMock):
    """QLineEdit and QLabel."""

    Password = 2

    def __init__(self, text: str = "", **more: Any) -> None:
        super().__init__(**more)
        self.text = text

    def _get_child_mock(self, **more: Any) -> MagicMock:
        return MagicMock(**more)

    def setText(self, text: str) -> None:
        self.text = text


class Button(MagicMock):
    """QPushButton; `pressed` are the functions to call, by the text of the button."""

    pressed: ClassVar[dict[str, Callable[[], None]]] = {}

    def __init__(self, text: str = "", **more: Any) -> None:
        super().__init__(**more)
        self.caption = text

    def _get_child_mock(self, **more: Any) -> MagicMock:
        return MagicMock(**more)

    def connect(self, _: str, slot: Callable[[], None]) -> None:
        self.pressed[self.caption] = slot


class CheckBox(MagicMock):
    """QCheckBox."""

    checked = False

    def setChecked(self, value: bool) -> None:
        self.checked = value


class Widgets:
    """The widgets of a .ui file, by the names that say what they are."""

    def __getattr__(self, name: str) -> Any:
        endings = {"Selector": Combo, "Box": Combo, "optionsSection": Combo, "optionsName": Combo}
        endings |= {"configTable": Table}
        kind = next((kind for end, kind in endings.items() if name.endswith(end)), MagicMock)
        widget = CheckBox() if name.endswith(("CheckBox", "Checkbox")) else kind()
        setattr(self, name, widget)
        return widget


class SegmentEditor(MagicMock):
    """The embedded segment editor, with the effect that adds a label map to a segment."""

    chosen: str = ""
    node: Any = None

    def setSegmentationNode(self, node: Node) -> None:
        self.node = node

    def setCurrentSegmentID(self, name: str) -> None:
        self.chosen = name

    def effectByName(self, _: str) -> SegmentEditor:
        return self

    def selectedSegmentLabelmap(self) -> SegmentEditor:
        return self

    def GetDimensions(self) -> tuple[int, ...]:
        return tuple(self._segment().mask.shape)

    def SetScalarComponentFromDouble(self, i: int, j: int, k: int, *_: Any) -> None:
        self._segment().mask[i, j, k] = False

    def modifySelectedSegmentByLabelmap(self, labelmap: Any, mode: str) -> None:
        segment = self._segment()
        segment.mask = labelmap.mask.copy() if mode == "set" else segment.mask | labelmap.mask

    def _segment(self) -> Segment:
        return self.node.segmentation.segments[self.chosen]  # type: ignore[no-any-return]


class Scene(MagicMock):
    """slicer.mrmlScene."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.nodes: list[Node] = []
        self.on_close: Callable[[], None] = lambda: None

    def _get_child_mock(self, **more: Any) -> MagicMock:
        return MagicMock(**more)

    def AddNewNodeByClass(self, kind: str, name: str = "") -> Node:
        node = Node(kind)
        node.name = name or kind
        self.nodes.append(node)
        return node

    def GetFirstNodeByClass(self, kind: str) -> Node | None:
        return next((node for node in self.nodes if node.kind == kind), None)

    def GetNodesByClass(self, kind: str) -> MagicMock:
        found = [node for node in self.nodes if node.kind == kind]
        return MagicMock(
            GetNumberOfItems=lambda: len(found),
            GetItemAsObject=lambda n: found[n],
            __iter__=lambda _: iter(found),
        )

    def RemoveNode(self, node: Node) -> None:
        self.nodes = [other for other in self.nodes if other is not node]

    def Clear(self, _: int = 0) -> None:
        self.on_close()
        self.nodes = []


class Stub:
    """A running 3D Slicer.

    Args:
        folder: for temporary files.

    Attributes:
        scene: its nodes.
        settings: of the application.
        shown: messages that the user saw.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.scene = folder, Scene()
        self.settings: dict[str, Any] = {}
        self.shown: list[str] = []
        self.modules = self._modules()

    def volume(self, path: Path, name: str) -> Node:
        """A volume node from a file, as *Add Data* makes one."""
        node = self.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        node.image = sitk.ReadImage(str(path))
        return node

    @contextmanager
    def imported(self) -> Iterator[None]:
        """3D Slicer's modules can be imported."""
        before = {name: sys.modules.get(name) for name in self.modules}
        sys.modules.update(self.modules)
        try:
            yield
        finally:
            for name, module in before.items():
                if module is None:
                    sys.modules.pop(name, None)
                else:
                    sys.modules[name] = module

    def _modules(self) -> dict[str, ModuleType]:
        slicer, util = _module("slicer"), _module("slicer.util")
        names = ("", "Widget", "Logic", "Test")
        parts = {f"ScriptedLoadableModule{name}": _Base for name in names}
        loadable = _module("slicer.ScriptedLoadableModule", **parts)
        util.__dict__.update(
            VTKObservationMixin=type("Mixin", (), {"__init__": lambda self: None}),
            settingsValue=lambda key, default, converter=None: self.settings.get(key, default),
            toBool=bool,
            confirmOkCancelDisplay=lambda *a, **k: True,
            tempDirectory=lambda *a: str(self.folder),
            getNodesByClass=lambda kind: [node for node in self.scene.nodes if node.kind == kind],
            saveNode=self._save,
            arrayFromVTKMatrix=lambda matrix: matrix.values,
            arrayFromMarkupsCurvePoints=lambda node, world: np.array(node.points),
            updateSegmentBinaryLabelmapFromArray=self._set_segment,
            arrayFromSegmentBinaryLabelmap=lambda node, name, volume: node.segmentation.segments[name].mask.T,
            loadVolume=lambda path: self.volume(Path(path), Path(path).name),
            **{f"{kind}Display": self._show for kind in ("error", "warning", "info")},
        )
        logic = MagicMock(
            ExportSegmentsToLabelmapNode=self._export,
            ImportLabelmapToSegmentationNode=self._import,
            LoadSegmentationFromFile=self._load_segments,
        )
        slicer.__dict__.update(
            util=util,
            mrmlScene=self.scene,
            vtkOrientedImageData=MagicMock,
            qSlicerSegmentEditorAbstractEffect=MagicMock(
                ModificationModeSet="set", ModificationModeAdd="add"
            ),
        )
        red = slicer.app.layoutManager.return_value.sliceWidget.return_value.sliceLogic.return_value
        red.GetSliceOffset.return_value = 0.0
        slicer.modules.segmentations.logic = lambda: logic  # type: ignore[attr-defined]
        qt = _module(
            "qt",
            QLineEdit=Text,
            QLabel=Text,
            QPushButton=Button,
            QDialog=object,
            QCheckBox=CheckBox,
            QComboBox=Combo,
            QTableWidgetItem=Item,
        )
        qt.QSettings = lambda: MagicMock(value=self.settings.get, setValue=self.settings.__setitem__)  # type: ignore[attr-defined]
        vtk = _module("vtk", vtkMatrix4x4=Matrix, mutable=Mutable, vtkStringArray=Strings)
        made = [slicer, util, loadable, qt, vtk, _module("ctk", ctkSettingsPanel=object)]
        made += [_module("slicer.i18n", tr=lambda text: text, translate=lambda _, text: text)]
        made += [_module("vtkSegmentationCore"), _module("sitkUtils", PushVolumeToSlicer=self._push)]
        made += [_module("SampleData", SampleDataLogic=lambda: MagicMock(downloadFromURL=self._download))]
        return {module.__name__: module for module in made}

    def _show(self, text: str, **_: Any) -> None:
        self.shown.append(text)

    @staticmethod
    def _set_segment(array: np.ndarray, node: Node, name: str, volume: Node) -> None:
        assert volume.image is not None and array.shape[::-1] == volume.image.GetSize()
        node.segmentation.segments[name].mask = array.T > 0

    def _download(self, nodeNames: str, fileNames: str, uris: str, checksums: str | None) -> list[Node]:
        path = self.folder / fileNames
        urllib.request.urlretrieve(uris, path)
        return [self.volume(path, nodeNames)]

    def _push(self, image: sitk.Image, _: Any, className: str) -> Node:
        node = self.scene.AddNewNodeByClass(className)
        node.image = image
        return node

    def _export(self, node: Node, names: Sequence[str], out: Node, volume: Node) -> None:
        assert volume.image is not None
        merged = np.zeros(volume.image.GetSize()[::-1], np.uint8)
        for value, name in enumerate(names, 1):
            merged[node.segmentation.segments[name].mask.T] = value
        out.image = sitk.GetImageFromArray(merged)
        out.image.CopyInformation(volume.image)

    def _import(self, labelmap: Node, node: Node, names: Sequence[str] | None = None) -> None:
        """With names, name n becomes value n; without, each value that is there a new segment."""
        assert labelmap.image is not None and node.image is not None
        there = sitk.Resample(labelmap.image, node.image, sitk.Transform(), sitk.sitkNearestNeighbor)
        values = sitk.GetArrayFromImage(there).T
        segments = node.segmentation.segments
        if names is None:
            segments.update({f"new {v}": Segment(f"new {v}", values == v) for v in np.unique(values) if v})
            return
        for value, name in enumerate(names, 1):
            segments.setdefault(name, Segment(name, values == value)).mask = values == value

    def _save(self, node: Node, path: str) -> None:
        if node.kind != "vtkMRMLSegmentationNode":
            assert node.image is not None
            sitk.WriteImage(node.image, str(path))
            return
        segments = list(node.segmentation.segments.values())
        assert node.image is not None
        affine = _RAS @ affine_of(node.image)  # 3D Slicer's files are in LPS
        header: dict[str, Any] = {
            "space": "left-posterior-superior",
            "space origin": affine[:3, 3],
            "kinds": ["list", "domain", "domain", "domain"],
            "space directions": np.vstack([np.full(3, np.nan), affine[:3, :3].T]),
        }
        for n, segment in enumerate(segments):
            facts = {"Name": segment.name, "ID": segment.name, "LabelValue": "1", "Layer": str(n)}
            facts["Color"] = " ".join(map(str, segment.colour))
            header |= {f"Segment{n}_{key}": value for key, value in facts.items()}
        nrrd.write(str(path), np.stack([segment.mask for segment in segments]).astype(np.uint8), header)

    def _load_segments(self, path: str, _: bool) -> Node:
        voxels, header = nrrd.read(path)
        layers = voxels if voxels.ndim == 4 else voxels[None]
        node = Node("vtkMRMLSegmentationNode")
        n = 0
        while (name := header.get(f"Segment{n}_Name")) is not None:
            mask = layers[int(header[f"Segment{n}_Layer"])] == int(header[f"Segment{n}_LabelValue"])
            node.segmentation.segments[name] = Segment(name, mask)
            n += 1
        return node


class _Base:
    """The base classes of scripted modules."""

    def __init__(self, *_: Any) -> None:
        self.layout = MagicMock()

    def setup(self) -> None:
        pass

    def addObserver(self, *_: Any) -> None:
        pass

    removeObserver = addObserver


def _module(name: str, **parts: Any) -> ModuleType:
    """A module that has these parts, and a mock for everything else."""
    module = ModuleType(name)
    made: dict[str, MagicMock] = {}

    def other(part: str) -> Any:
        if part.startswith("__"):
            raise AttributeError(part)
        return made.setdefault(part, MagicMock())

    getter: Callable[[str], Any] = other
    module.__dict__.update(parts, __getattr__=getter)
    return module
