"""MONAI Label's module of 3D Slicer, as it comes with MONAI Label, and what its user does by mouse.

Its source is run on a stub of 3D Slicer's interface, so that each request of each panel is made by the
module's own code, and each answer is read by it. 3D Slicer itself is not run.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from slicer_nodes import Node, affine_of
from slicer_stub import SegmentEditor, Stub
from slicer_widgets import Widgets

PLUGINS = Path(sys.prefix) / "monailabel" / "plugins" / "slicer"
needs_plugins = pytest.mark.skipif(
    not (PLUGINS / "MONAILabel" / "MONAILabel.py").is_file(),
    reason=f"MONAI Label's module of 3D Slicer is not in {PLUGINS}; pip install monailabel puts it there",
)


def load(stub: Stub, name: str) -> ModuleType:
    """The source of one of MONAI Label's modules, executed."""
    path = PLUGINS / name / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
        for loaded in [m for m in sys.modules if m.startswith(f"{name}Lib")]:
            del sys.modules[loaded]
    return module


class Module:
    """The module's widget with all of its panels, and what the tests do in its place by mouse."""

    def __init__(self, stub: Stub, url: str) -> None:
        self.stub, self.source = stub, load(stub, "MONAILabel")
        widget = self.source.MONAILabelWidget()
        widget.ui = Widgets()
        widget.ui.embeddedSegmentEditorWidget = SegmentEditor()
        widget.ui.freezeUpdateCheckBox.checked = False
        for place in ("sam2", "scribbles"):
            getattr(widget.ui, f"{place}PlaceWidget").currentNode = lambda place=place: self.roi(place)
        for section in ("infer", "train", "activelearning", "scoring"):
            widget.ui.optionsSection.addItem(section)
        self.parameters: dict[str, str] = {}
        widget._parameterNode = MagicMock(
            GetParameter=lambda key: self.parameters.get(key, ""), SetParameter=self.parameters.__setitem__
        )
        stub.scene.on_close = self.close
        widget.parent, widget.resourcePath = None, lambda name: name
        widget.tmpdir = str(stub.folder)
        widget.logic = self.source.MONAILabelLogic(str(stub.folder), resourcePath=str)
        widget.ui.serverComboBox.currentText = url
        self.widget, self.ui = widget, widget.ui

    def close(self) -> None:
        """The scene is closed, and the module begins anew."""
        parameters = self.widget._parameterNode
        self.widget.onSceneStartClose(None, None)
        self.widget._parameterNode = parameters

    def roi(self, place: str) -> Node | None:
        return self.widget._sam2ROINode if place == "sam2" else self.widget._scribblesROINode

    def connect(self) -> None:
        self.widget.onClickFetchInfo()
        assert self.stub.shown == []

    def next_sample(self, strategy: str = "sequential") -> None:
        self.ui.strategyBox.currentText = strategy
        self.widget.onNextSampleButton()
        assert self.stub.shown == [] and self.widget._volumeNode is not None

    def mask(self, name: str) -> np.ndarray:
        return np.asarray(self.widget._segmentNode.segmentation.segments[name].mask)

    def ras(self, ijk: Any) -> list[float]:
        return [float(v) for v in (affine_of(self.widget._volumeNode.image) @ [*ijk, 1.0])[:3]]

    def click(self, name: str, ijk: Any, positive: bool = True) -> None:
        self.ui.labelComboBox.currentText = name
        points = self.widget.dgPositivePointListNode if positive else self.widget.dgNegativePointListNode
        points.AddControlPoint(self.ras(ijk))

    def box(self, mask: np.ndarray, place: str = "sam2") -> None:
        corners = np.array([self.ras(v) for v in (np.argwhere(mask).min(0), np.argwhere(mask).max(0))])
        node = self.roi(place)
        assert node is not None
        node.box = corners.min(0), corners.max(0)
