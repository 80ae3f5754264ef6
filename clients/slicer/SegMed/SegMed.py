"""The module SegMed of 3D Slicer: segment images of a SegMed server, in any plane.

This module has been tested against a stub of 3D Slicer's interface. It has not been run in 3D Slicer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ctk
import qt
import slicer
from SegMedLib.loading import load_client
from SegMedLib.session import Session
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)

# role: the text of its button, the class of its node, and the colour of its lines
TOOLS = {
    "box": ("Box", "vtkMRMLMarkupsROINode", (0.34, 0.71, 0.91)),
    "foreground": ("Point +", "vtkMRMLMarkupsFiducialNode", (0.0, 0.62, 0.45)),
    "background": ("Point −", "vtkMRMLMarkupsFiducialNode", (0.84, 0.37, 0.0)),
    "scribble": ("Scribble +", "vtkMRMLMarkupsCurveNode", (0.0, 0.62, 0.45)),
    "anti_scribble": ("Scribble −", "vtkMRMLMarkupsCurveNode", (0.84, 0.37, 0.0)),
    "lasso": ("Lasso", "vtkMRMLMarkupsClosedCurveNode", (0.9, 0.62, 0.0)),
}


class SegMed(ScriptedLoadableModule):
    """What 3D Slicer tells about the module."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "SegMed"
        parent.categories = ["Segmentation"]
        parent.dependencies = []
        parent.contributors = ["The authors of SegMed"]
        parent.helpText = (
            "Segment images of a SegMed server by boxes, points, scribbles and lassos in any plane. For "
            "research; not a medical device."
        )


class SegMedLogic(ScriptedLoadableModuleLogic):
    """The connection to a server, and the image that is open.

    Attributes:
        client: Client; None before `connect`.
        session: Work on the open image; None before `open`.
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.client: Any = None
        self.session: Any = None
        self.stopping = False

    def connect(self, url: str, name: str, token: str = "") -> Any:
        """Connect to a server, and return what it offers."""
        module = load_client(slicer.util)
        self.client = module.SegMedClient(url, name, token)
        return self.client.state()

    def open(self, image: str, volume: Any = None) -> Any:
        """Open an image of the server; `volume` is a node that shows it already."""
        self.session = Session(load_client(slicer.util), self.client, image, volume)
        return self.session

    def send(self, volume: Any) -> Any:
        """Add an open volume to the studies of the server, and open it there."""
        path = Path(slicer.util.tempDirectory()) / "volume.nii.gz"
        slicer.util.saveNode(volume, str(path))
        try:
            image = self.client.monai.add_image(path, volume.GetName())
        finally:
            path.unlink()
        return self.open(image, volume)


class SegMedWidget(ScriptedLoadableModuleWidget):
    """The panel of the module."""

    def setup(self) -> None:
        """Make the widgets."""
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = SegMedLogic()
        self.markups: dict[str, Any] = {}
        settings = qt.QSettings()
        form = self._section("Server")
        self.url = self._text(form, "Address:", settings.value("SegMed/url") or "http://127.0.0.1:8000")
        self.name = self._text(form, "Your name:", settings.value("SegMed/name") or "")
        self.token = self._text(form, "Access token:", "")
        self.token.setEchoMode(qt.QLineEdit.Password)
        self._button(form, "Connect", self.on_connect)
        form = self._section("Image")
        self.images = self._choice(form, "Image:")
        self._button(form, "Open", self.on_open)
        self._button(form, "Send the open volume to the server", self.on_send)
        form = self._section("Segment")
        self.models = self._choice(form, "Model:")
        self.labels = self._choice(form, "Label:")
        self.labels.setEditable(True)
        for role, (text, _, _) in TOOLS.items():
            self._button(form, text, lambda role=role: self.on_tool(role))
        for text, slot in (("Segment", self.on_segment), ("Stop", self.on_stop)):
            self._button(form, text, slot)
        self.progress = qt.QProgressBar()
        form.addRow(self.progress)
        self.status = qt.QLabel("")
        self.status.setWordWrap(True)
        form.addRow(self.status)
        for text, slot in (
            ("Next object", self.on_accept),
            ("Undo", lambda: self._step("undo")),
            ("Redo", lambda: self._step("redo")),
            ("Take edits of the Segment Editor", self.on_edits),
            ("Submit", self.on_submit),
        ):
            self._button(form, text, slot)
        self.layout.addStretch(1)

    def on_connect(self) -> None:
        """Connect, and list images and models."""

        def connect() -> str:
            state = self.logic.connect(self.url.text, self.name.text, self.token.text)
            for key, widget in (("url", self.url), ("name", self.name)):
                qt.QSettings().setValue(f"SegMed/{key}", widget.text)
            images = self.logic.client.images()
            self._fill(self.images, [image.id for image in images])
            self._fill(self.models, [model.name for model in state.models if model.type == "prompt"])
            self._fill(self.labels, state.labels)
            return state.warning or f"Connected to SegMed {state.version}: {len(images)} images."

        self._try(connect)

    def on_open(self) -> None:
        """Open the chosen image."""
        self._try(lambda: self._opened(self.logic.open(self.images.currentText)))

    def on_send(self) -> None:
        """Send the volume that is open in 3D Slicer, after a question."""
        volume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
        if volume is None:
            self.status.setText("No volume is open. Load one by Add Data first.")
            return
        question = f"{volume.GetName()} will be added to the studies of {self.url.text}, for all its users."
        if slicer.util.confirmOkCancelDisplay(question):
            self._try(lambda: self._opened(self.logic.send(volume)))

    def on_tool(self, role: str) -> None:
        """Have the user draw; what was drawn before with this tool stays, apart from a box or lasso."""
        _, kind, colour = TOOLS[role]
        node = self.markups.get(role)
        if node is None or slicer.mrmlScene.GetNodeByID(node.GetID()) is None:
            node = slicer.mrmlScene.AddNewNodeByClass(kind, f"SegMed {role}")
            node.CreateDefaultDisplayNodes()
            node.GetDisplayNode().SetSelectedColor(*colour)
            self.markups[role] = node
        if role in ("box", "lasso"):
            node.RemoveAllControlPoints()
        selection = slicer.app.applicationLogic().GetSelectionNode()
        selection.SetReferenceActivePlaceNodeClassName(kind)
        selection.SetActivePlaceNodeID(node.GetID())
        interaction = slicer.app.applicationLogic().GetInteractionNode()
        interaction.SetPlaceModePersistence(role in ("foreground", "background"))
        interaction.SetCurrentInteractionMode(interaction.Place)

    def on_segment(self) -> None:
        """Segment with everything that is drawn."""

        def segment() -> str:
            self.logic.stopping = False
            model, label = self.models.currentText, self.labels.currentText
            warnings = self._session().prompt(model, label, self.markups, self._on_progress)
            self.progress.setValue(100)
            return " ".join(warnings) or f"{label} was segmented."

        self._try(segment)

    def on_stop(self) -> None:
        """Stop within a slice; what was found is kept and can be undone."""
        self.logic.stopping = True

    def on_accept(self) -> None:
        """Finish the object; what is drawn next begins another one."""
        self._step("accept")

    def on_edits(self) -> None:
        """Send edits of the Segment Editor."""

        def take() -> str:
            self._session().take_edits(self.labels.currentText)
            return "The edits were taken."

        self._try(take)

    def on_submit(self) -> None:
        """Save the label map into the studies."""

        def submit() -> str:
            saved = self._session().work.save()
            counts = ", ".join(f"{name} ({count} voxels)" for name, count in saved.voxels.items())
            return f"Submitted: {counts or 'an empty label map'}. {saved.note}".strip()

        self._try(submit)

    def _on_progress(self, progress: Any) -> None:
        self.progress.setValue(int(100 * progress.done / max(progress.most, 1)))
        left = "" if progress.left is None else f", about {progress.left:.0f} s left"
        self.status.setText(f"{progress.done} of at most {progress.most} slices{left}")
        slicer.app.processEvents()  # so that the button Stop can be pressed
        if self.logic.stopping:
            self._session().work.stop()
            self.logic.stopping = False

    def _opened(self, session: Any) -> str:
        self._fill(self.labels, list(session.work.values()))
        slicer.util.setSliceViewerLayers(background=session.volume, fit=True)
        return " ".join(session.work.told.warnings) or f"{session.work.image.name} is open."

    def _session(self) -> Any:
        if self.logic.session is None:
            raise ValueError("No image is open. Connect, choose an image, and press Open.")
        return self.logic.session

    def _step(self, what: str) -> None:
        def step() -> str:
            return " ".join(getattr(self._session().work, what)().warnings)

        self._try(step)

    def _try(self, do: Any) -> None:
        """Do something, and show what came of it, or why it failed."""
        qt.QApplication.setOverrideCursor(qt.Qt.WaitCursor)
        try:
            self.status.setText(do())
        except Exception as error:
            self.status.setText(str(error))
        finally:
            qt.QApplication.restoreOverrideCursor()

    def _section(self, title: str) -> Any:
        box = ctk.ctkCollapsibleButton()
        box.text = title
        self.layout.addWidget(box)
        return qt.QFormLayout(box)

    @staticmethod
    def _text(form: Any, title: str, value: str) -> Any:
        field = qt.QLineEdit(value)
        form.addRow(title, field)
        return field

    @staticmethod
    def _choice(form: Any, title: str) -> Any:
        field = qt.QComboBox()
        form.addRow(title, field)
        return field

    @staticmethod
    def _button(form: Any, text: str, slot: Any) -> Any:
        button = qt.QPushButton(text)
        button.connect("clicked()", slot)
        form.addRow(button)
        return button

    @staticmethod
    def _fill(box: Any, items: list[str]) -> None:
        box.clear()
        for item in items:
            box.addItem(item)
