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
from typing import Any
from unittest.mock import MagicMock

import nrrd
import numpy as np
import SimpleITK as sitk
from slicer_nodes import LPS, Matrix, Mutable, Node, Segment, Strings, affine_of
from slicer_widgets import Button, CheckBox, Combo, Item, Text


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
        affine = LPS @ affine_of(node.image)  # 3D Slicer's files are in LPS
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
