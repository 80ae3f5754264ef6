"""Qt's widgets as 3D Slicer's Python has them, without Qt; see `slicer_stub`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar
from unittest.mock import MagicMock


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
