"""The panel of the plugin."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from napari.layers import Image
from napari.viewer import Viewer
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_segmed.client_of import client
from napari_segmed.layers import ImageWork
from napari_segmed.offline import own_server, send


class _Mail(QObject):
    """What a thread tells the panel, which only Qt's own thread may change."""

    progress = Signal(object)
    changed = Signal(object)
    done = Signal(object)
    failed = Signal(str)


class SegMedPanel(QWidget):
    """Connect, open, segment, correct, save.

    Args:
        napari_viewer: Viewer that the panel belongs to.

    Attributes:
        open_work: Work on the open image; None before one is opened.
        busy: Whether a request is under way.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.client: client.SegMedClient | None = None
        self.open_work: ImageWork | None = None
        self.busy = False
        self._mail = _Mail()
        self._mail.progress.connect(self._on_progress)
        self._mail.changed.connect(self._on_changed)
        self._mail.done.connect(self._on_done)
        self._mail.failed.connect(self._on_failed)
        self._build()

    def connect_to(self, url: str = "", token: str = "") -> None:
        """Connect to a server; without an address, to one in this process."""

        def connect() -> tuple[Any, Any, Any]:
            connected = client.SegMedClient(url or own_server(), self.name.text(), token)
            return connected, connected.state(), connected.images()

        def show(told: tuple[Any, Any, Any]) -> str:
            self.client, state, images = told
            _fill(self.images, [image.id for image in images])
            _fill(self.models, [model.name for model in state.models if model.type == "prompt"])
            _fill(self.labels, state.labels)
            return str(state.warning or f"Connected to SegMed {state.version}: {len(images)} images.")

        self._start(connect, show)

    def open_image(self) -> None:
        """Open the chosen image of the server."""
        self._try(lambda: self._open(self.images.currentText(), None))

    def open_layer(self) -> None:
        """Send the image layer that is selected, and work on it."""

        def open_it() -> str:
            layer = self.viewer.layers.selection.active
            if not isinstance(layer, Image):
                raise ValueError("No image layer is selected. Select one in the list of layers.")
            return self._open(send(self._connected(), layer), layer)

        self._try(open_it)

    def segment(self) -> None:
        """Segment with what is drawn; labels that were painted by hand are sent before."""

        def begin() -> str:
            work, label = self._opened(), self.labels.currentText()
            if work.edited():
                work.send_edits(label)
            run = work.prompt(self._mail.progress.emit, self.models.currentText(), label)

            def show(answer: Any) -> str:
                work.clear()
                work.labels.selected_label = answer.labels.get(label.strip(), 1)
                return " ".join(answer.warnings) or f"{label} was segmented."

            self._start(run, show)
            return "Segmenting …"

        self._try(begin)

    def stop(self) -> None:
        """Stop the request that is under way; what was found is kept and can be undone."""
        if self.busy and self.open_work is not None:
            self.status.setText("Stopping …")
            threading.Thread(target=self.open_work.work.stop, name="segmed stop", daemon=True).start()

    def step(self, what: str) -> None:
        """`undo`, `redo`, or `accept`, after which the next prompt begins another object."""

        def take() -> str:
            work = self._opened()
            if work.edited():
                work.send_edits(self.labels.currentText())
            return " ".join(getattr(work.work, what)().warnings)

        self._try(take)

    def save(self) -> None:
        """Save the label map into the studies."""

        def saved() -> str:
            work = self._opened()
            if work.edited():
                work.send_edits(self.labels.currentText())
            told = work.work.save()
            counts = ", ".join(f"{name} ({count} voxels)" for name, count in told.voxels.items())
            return f"Saved: {counts or 'an empty label map'}. {told.note}".strip()

        self._try(saved)

    def _build(self) -> None:
        self.url, self.name, self.token = QLineEdit("http://127.0.0.1:8000"), QLineEdit(), QLineEdit()
        self.token.setEchoMode(QLineEdit.EchoMode.Password)
        self.images, self.models, self.labels = QComboBox(), QComboBox(), QComboBox()
        self.labels.setEditable(True)
        self.progress, self.status = QProgressBar(), QLabel("")
        self.status.setWordWrap(True)
        form = QFormLayout()
        for title, field in (("Server", self.url), ("Your name", self.name), ("Access token", self.token)):
            form.addRow(title, field)
        self._buttons(form, ("Connect", lambda: self.connect_to(self.url.text(), self.token.text())))
        self._buttons(form, ("Work offline", self.connect_to))
        form.addRow("Image", self.images)
        self._buttons(form, ("Open", self.open_image), ("Use the selected layer", self.open_layer))
        form.addRow("Model", self.models)
        form.addRow("Label", self.labels)
        self._buttons(form, ("Segment", self.segment), ("Stop", self.stop))
        form.addRow(self.progress)
        form.addRow(self.status)
        self._buttons(
            form,
            ("Next object", lambda: self.step("accept")),
            ("Undo", lambda: self.step("undo")),
            ("Redo", lambda: self.step("redo")),
            ("Save", self.save),
        )
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addStretch(1)

    @staticmethod
    def _buttons(form: QFormLayout, *buttons: tuple[str, Callable[[], Any]]) -> None:
        for text, slot in buttons:
            button = QPushButton(text)
            button.clicked.connect(lambda _=False, slot=slot: slot())
            form.addRow(button)

    def _connected(self) -> client.SegMedClient:
        if self.client is None:
            raise ValueError("Connect to a server first, or press Work offline.")
        return self.client

    def _opened(self) -> ImageWork:
        if self.busy:
            raise ValueError("A request is under way. Wait for it, or press Stop.")
        if self.open_work is None:
            raise ValueError("No image is open. Open one of the server, or use a layer.")
        return self.open_work

    def _open(self, image: str, layer: Image | None) -> str:
        self.open_work = ImageWork(self.viewer, self._connected(), image, layer)
        self.open_work.work.on_change = self._mail.changed.emit
        names = list(self.open_work.work.values())
        _fill(self.labels, names)
        return " ".join(self.open_work.work.told.warnings) or f"{image} is open."

    def _start(self, run: Callable[[], Any], show: Callable[[Any], str]) -> None:
        """Do something long on a thread of its own, and show what came of it."""
        self.busy = True
        self._show = show

        def work() -> None:
            try:
                self._mail.done.emit(run())
            except Exception as error:
                self._mail.failed.emit(str(error))

        threading.Thread(target=work, name="segmed request", daemon=True).start()

    def _try(self, do: Callable[[], str]) -> None:
        try:
            self.status.setText(do())
        except Exception as error:
            self.status.setText(str(error))

    def _on_progress(self, progress: Any) -> None:
        self.progress.setValue(int(100 * progress.done / max(progress.most, 1)))
        left = "" if progress.left is None else f", about {progress.left:.0f} s left"
        self.status.setText(f"{progress.done} of at most {progress.most} slices{left}")

    def _on_changed(self, changes: Any) -> None:
        if self.open_work is not None:
            self.open_work.show(changes)

    def _on_done(self, told: Any) -> None:
        self.busy = False
        self.progress.setValue(100)
        self._try(lambda: self._show(told))

    def _on_failed(self, message: str) -> None:
        self.busy = False
        if self.open_work is not None:
            self.open_work.show()
        self.status.setText(message)


def _fill(box: QComboBox, items: list[str]) -> None:
    box.clear()
    box.addItems(items)
