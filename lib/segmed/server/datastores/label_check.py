"""Label maps that are sent in: whether they can be used, and what their values mean."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from segmed.active.review.submission import names_of, whole_labels
from segmed.imaging.grid import Grid
from segmed.imaging.labels.provenance import keep_records
from segmed.imaging.labels.segments import Segments, StoredSegment, colour_of, values_in
from segmed.imaging.labels.sidecar import check_sidecar, write_sidecar
from segmed.imaging.reading import NIFTI_EXTENSIONS, extension_of
from segmed.server.decoding import decoder
from segmed.server.workspace.edits.names import label_name
from segmed.server.workspace.workspace import LABELS

logger = logging.getLogger(__name__)


def take_label(path: Path, grid: Grid, info: Mapping[str, Any], structures: Mapping[str, int]) -> Segments:
    """Read a label map that was sent in, on the grid of its image, and name its values.

    Args:
        path: of the file.
        grid: of the image.
        info: sent along with it, see `names_of`.
        structures: values by name where nothing else tells.

    Returns:
        Each value with its name; a value that nothing names is called `label 7`.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it cannot be used: unreadable, of another size or place, other numbers than labels, or
            names that no viewer takes.
    """
    found = decoder().segments(path, grid, grey=True)
    named = _whole(found)
    if len(named.segments) > LABELS:
        raise ValueError(
            f"The label map holds {len(named.segments)} labels; {LABELS} are the most. Split it."
        )
    return _named(named, _checked(info), structures)


def open_label(path: Path, grid: Grid, names: Mapping[int, str]) -> Segments:
    """Read a stored label map, on the grid of its image.

    Args:
        path: of the file.
        grid: of the image.
        names: of its values; a value without one keeps what the file says.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: unreadable, lies elsewhere, or holds other numbers than labels.
    """
    found = _whole(decoder().segments(path, grid))
    return replace(
        found, segments=tuple(replace(s, name=names.get(s.value) or s.name) for s in found.segments)
    )


def prompt_mask(path: Path, grid: Grid, name: str, sent: Mapping[str, Any]) -> np.ndarray:
    """The mask of one structure out of a label map that comes with a prompt, on the grid of the image.

    Args:
        path: of the file.
        grid: of the image.
        name: of the structure.
        sent: `label_info`, see `names_of`.

    Returns:
        (I, J, K) boolean; all that is labelled where nothing names the structure.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: unreadable, lies elsewhere, or holds other numbers than labels.
    """
    found = _whole(decoder().segments(path, grid))
    names = found.names or names_of(sent, {}, [s.value for s in found.segments])
    values = {value for value, one in names.items() if name and one == name}
    if not values:
        return np.asarray(found.flat() > 0)
    masks = [found.mask(segment) for segment in found.segments if segment.value in values]
    return np.asarray(np.any(masks, axis=0)) if masks else np.zeros(grid.shape, bool)


def noted(found: Segments) -> list[dict[str, Any]]:
    """What is kept of the segments with a label map, as JSON."""
    return [
        {"value": s.value, "name": s.name, **({"color": list(s.colour)} if s.colour else {})}
        for s in found.segments
    ]


def read_noted(stored: Any) -> list[StoredSegment]:
    """The segments that `noted` has written down; nothing out of what is not its work."""
    found = []
    try:
        for item in stored or ():
            segment = StoredSegment(str(item["name"]), int(item["value"]), 0, int(item["value"]))
            found.append(segment.coloured((*item["color"],)) if item.get("color") else segment)
    except (AttributeError, KeyError, TypeError, ValueError):
        return []
    return found


def keep_sidecar(file: Path, info: Mapping[str, Any] | None) -> None:
    """Bring the files beside a label map up to date: the record of how it was made, and for NIfTI the table
    of names; other files hold their names or have none.

    Args:
        file: label map.
        info: what is known of it: `segments`, and `provenance` of labels by name.

    Raises:
        OSError: it cannot be written.
    """
    told = info or {}
    segments = read_noted(told.get("segments"))
    records = told.get("provenance")
    keep_records(records if isinstance(records, Mapping) else {}, file)
    try:
        if segments and extension_of(file) in NIFTI_EXTENSIONS:
            write_sidecar([s.coloured(colour_of(s.value)) for s in segments], file)
        else:
            check_sidecar(file).unlink(missing_ok=True)
    except ValueError:  # somebody else's table, which stays
        logger.warning(
            "A table beside a label map is none of label names; names and colours were not written."
        )


def _whole(found: Segments) -> Segments:
    """With layers of whole numbers. Raises ValueError for what is no label."""
    layers = tuple(whole_labels(layer) for layer in found.layers)
    if all(np.issubdtype(layer.dtype, np.integer) for layer in found.layers):
        return replace(found, layers=layers)
    return Segments(layers, tuple(StoredSegment("", v, 0, v) for v in values_in(layers[0])))


def _named(found: Segments, info: Mapping[str, Any], structures: Mapping[str, int]) -> Segments:
    """Names of the file itself count first, then what was sent along."""
    own = found.names
    values = [s.value for s in found.segments]
    sent = names_of({key: value for key, value in info.items() if key != "segments"}, structures, values)
    colours = _colours(info)
    segments = []
    for segment in found.segments:
        given = own.get(segment.value, "") if own else sent.get(segment.value, "")
        name = label_name(given) if given.strip() else f"label {segment.value}"
        one = replace(segment, name=name)
        segments.append(one.coloured(colours[name]) if name in colours else one)
    return replace(found, segments=tuple(segments))


def _checked(info: Mapping[str, Any]) -> Mapping[str, Any]:
    """The info, if all names in it can be kept."""
    entries = info.get("label_info")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, Mapping) and str(entry.get("name") or "").strip():
            label_name(str(entry["name"]))
    return info


def _colours(info: Mapping[str, Any]) -> dict[str, tuple[int, int, int]]:
    """By name, as far as they were sent as three numbers from 0 to 255."""
    found = {}
    entries = info.get("label_info")
    for entry in entries if isinstance(entries, list) else ():
        colour = entry.get("color") if isinstance(entry, Mapping) else None
        if (
            isinstance(colour, list)
            and len(colour) == 3
            and all(isinstance(c, int) and 0 <= c < 256 for c in colour)
        ):
            found[str(entry.get("name", "")).strip()] = (colour[0], colour[1], colour[2])
    return found
