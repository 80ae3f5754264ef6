"""Names of labels in the form in which they are stored, and the names of a workspace at one moment."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from segmed.imaging.labels.segments import Colour
from segmed.server.workspace.stored_labels import StoredLabels

_LONGEST_NAME = 64  # letters that DICOM takes
_CONTROLS = {"\t": "a tab", "\n": "a line break", "\r": "a line break"}


def label_name(name: str) -> str:
    """A label's name in the form in which it is stored.

    Raises:
        ValueError: The name is empty, too long, or not printable.
    """
    plain = unicodedata.normalize("NFC", name).strip()
    if not 0 < len(plain) <= _LONGEST_NAME:
        raise ValueError(
            f"A label's name has 1 to {_LONGEST_NAME} letters, this one has {len(plain)}. Rename it."
        )
    if hidden := next((c for c in plain if not c.isprintable()), ""):
        what = (
            _CONTROLS.get(hidden)
            or f"the character U+{ord(hidden):04X} {unicodedata.name(hidden, '')}".strip()
        )
        raise ValueError(
            f"A label's name has printable letters only, this one holds {what}. Rename it without."
        )
    return plain


@dataclass(frozen=True)
class Naming:
    """What the values of a label map mean, which a step of the history can bring back.

    Attributes:
        labels: Values by name.
        stored: Labels as they are in the file that the work began with, under their present names.
    """

    labels: Mapping[str, int]
    stored: StoredLabels

    def to_json(self) -> dict[str, Any]:
        """Values by name, and colours by name of the labels that have one of their own."""
        colours = self.stored.shown_colours(self.labels)
        hexadecimal = {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in colours.items()}
        return {"labels": dict(self.labels), "colours": hexadecimal}

    def renamed(self, name: str, new: str) -> Naming:
        """The same labels, one of which has another name; its value and colour stay."""
        labels = {new if one == name else one: value for one, value in self.labels.items()}
        return Naming(labels, self.stored.renamed(name, new))

    def without(self, name: str) -> Naming:
        """The other labels; the value of this one is free again."""
        labels = {one: value for one, value in self.labels.items() if one != name}
        return Naming(labels, self.stored.without(name))

    def with_label(self, name: str, value: int) -> Naming:
        """The labels and another one."""
        return replace(self, labels={**self.labels, name: value})

    def coloured(self, name: str, colour: Colour) -> Naming:
        """The same labels, one of which has another colour."""
        return replace(self, stored=self.stored.coloured(name, colour))

    def carried(self, records: Mapping[str, Any], before: Mapping[str, int]) -> dict[str, Any]:
        """Records of labels, with those of renamed labels under the names that their values have here.

        Args:
            records: Anything known of labels, by the names of `before`.
            before: Values by name, until now.
        """
        names = {value: name for name, value in self.labels.items()}
        moved = {old: names[value] for old, value in before.items() if names.get(value, old) != old}
        # a record that is left of a deleted label must not become that of another one with its name
        stay = {name: record for name, record in records.items() if name not in {*moved, *moved.values()}}
        return stay | {new: records[old] for old, new in moved.items() if old in records}
