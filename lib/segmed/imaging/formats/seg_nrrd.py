"""The files in which 3D Slicer keeps segmentations (`.seg.nrrd`).

The voxels are label maps, one for each layer, that lie side by side on the first axis of the file. Key/value
pairs of the header, such as `Segment0_Name`, state which value of which layer is which segment."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from segmed.imaging.formats.faults import explained
from segmed.imaging.formats.itk import LPS_TO_RAS, itk_affine, quiet_itk
from segmed.imaging.formats.limits import check_size
from segmed.imaging.formats.text_headers import (
    DETACHED_EXTENSIONS,
    NRRD_EXTENSIONS,
    check_regular,
    for_itk,
    names_other_files,
    nrrd_fields,
)
from segmed.imaging.labels.segments import Segments, StoredSegment, values_in
from segmed.imaging.reading import itk_reader

SEGMENTATION = ".seg.nrrd"

_FIELD = re.compile(r"Segment(\d+)_(\w+)")
_GENERAL = "Segmentation_"
_OFFSET = "Segmentation_ReferenceImageExtentOffset"
_TYPES = {"uint8": "unsigned char", "uint16": "unsigned short"}


def segmentation_header(path: str | os.PathLike[str]) -> dict[str, str]:
    """Fields and key/value pairs of an NRRD file that holds a segmentation; nothing for all other files.

    Raises:
        ImageFault: The header has no end.
    """
    path = Path(path)
    if path.suffix.lower() not in NRRD_EXTENSIONS or not path.is_file():
        return {}
    with path.open("rb") as file:
        if file.read(4) != b"NRRD":
            return {}
    found = {key: _unescaped(value) for key, value in nrrd_fields(path).items()}
    return found if any(_FIELD.fullmatch(key) for key in found) else {}


def is_segmentation(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a segmentation of 3D Slicer, whatever it is called."""
    return bool(segmentation_header(path))


def read_segments(path: str | os.PathLike[str]) -> tuple[Segments, np.ndarray]:
    """Read a `.seg.nrrd` file, or a `.nhdr` header with its voxels beside it.

    Returns:
        The segments on the grid of the file, and the affine (4, 4), voxel to RAS mm, of that grid.

    Raises:
        ValueError: The file is damaged, or its header does not fit its voxels or names files that are not
            read.
    """
    path = Path(path)
    name = path.name
    check_regular(path)
    if not name.lower().endswith(DETACHED_EXTENSIONS) and names_other_files(path):
        raise ValueError(f"{name} holds no voxels but the name of another file. Save it as one file.")
    damaged = f"{name} cannot be read: the file is damaged. Save it again."
    with explained(path, SEGMENTATION, lambda: damaged), quiet_itk(), for_itk(path) as plain:
        header = segmentation_header(path)
        reader = itk_reader(plain)
        reader.ReadImageInformation()
        check_size([*reader.GetSize(), reader.GetNumberOfComponents()], path.name)
        image = reader.Execute()
    array = sitk.GetArrayViewFromImage(image)
    parts = array[None] if image.GetNumberOfComponentsPerPixel() == 1 else np.moveaxis(array, -1, 0)
    if not 2 <= parts.ndim - 1 <= 3 or not np.issubdtype(parts.dtype, np.integer):
        raise ValueError(
            f"{name} is not one 3-D segmentation of whole numbers. Save it again, as a binary labelmap."
        )
    layers = tuple(np.array(part.T[..., None] if part.ndim == 2 else part.T) for part in parts)
    listed = _listed_segments(header, len(layers), name)
    return Segments(layers, tuple(_complete(listed, layers)), _general(header)), itk_affine(image)


def cropped(header: Mapping[str, str]) -> bool:
    """Whether the header states that the file covers a part of a larger grid."""
    return _OFFSET in header


def write_segments(found: Segments, affine: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write a `.seg.nrrd` file.

    Args:
        found: Segments to write.
        affine: (4, 4), voxel to RAS mm.
        path: Path of the file.

    Raises:
        ValueError: Values need more than 16 bits.
        OSError: The file cannot be written.
    """
    most = max((int(layer.max(initial=0)) for layer in found.layers), default=0)
    if most >= 2**16:
        raise ValueError(f"A segment has the value {most}; a segmentation holds values up to {2**16 - 1}.")
    kind = np.dtype(np.uint8 if most < 256 else np.uint16)
    several = len(found.layers) > 1
    shape = found.layers[0].shape
    steps = (LPS_TO_RAS[:3, :3] @ affine[:3, :3]).T  # one row for each axis of the file
    lines = [
        "NRRD0004",
        f"type: {_TYPES[kind.name]}",
        f"dimension: {4 if several else 3}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, ([len(found.layers)] if several else []) + list(shape)))}",
        f"space directions: {'none ' if several else ''}{' '.join(map(_vector, steps))}",
        f"kinds: {'list ' if several else ''}domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(LPS_TO_RAS[:3, :3] @ affine[:3, 3])}",
    ]
    extent = " ".join(f"0 {n - 1}" for n in shape)
    for n, segment in enumerate(found.segments):
        fields = {
            "ID": f"Segment_{n + 1}",
            **segment.fields,
            "Extent": extent,
            "LabelValue": str(segment.layer_value),
            "Layer": str(segment.layer),
            "Name": segment.name,
        }
        lines += [f"Segment{n}_{key}:={_escaped(value)}" for key, value in sorted(fields.items())]
    general = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        **found.general,
        _OFFSET: "0 0 0",
    }
    lines += [f"{key}:={_escaped(value)}" for key, value in sorted(general.items())]
    voxels = np.stack(found.layers) if several else found.layers[0]
    with Path(path).open("wb") as file:
        file.write(("\n".join(lines) + "\n\n").encode())
        with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1, mtime=0) as packed:
            packed.write(voxels.astype(kind.newbyteorder("<"), copy=False).tobytes(order="F"))


def _listed_segments(header: Mapping[str, str], count: int, name: str) -> list[StoredSegment]:
    """The segments that the header lists; their values in the flat map are still those of the layers."""
    by_number: dict[int, dict[str, str]] = {}
    for key, text in header.items():
        if match := _FIELD.fullmatch(key):
            by_number.setdefault(int(match[1]), {})[match[2]] = text
    # of old, each segment had a layer of its own, of which nothing was said
    apart = not any("LabelValue" in f or "Layer" in f for f in by_number.values())
    found: list[StoredSegment] = []
    for n, (_, fields) in enumerate(sorted(by_number.items())):
        try:
            layer = int(fields.pop("Layer", n if apart and count > 1 else 0))
            value = int(fields.pop("LabelValue", n + 1 if apart and count == 1 else 1))
        except ValueError as error:
            raise ValueError(
                f"{name} has a segment whose layer or value is not a number. Save it again."
            ) from error
        if not 0 <= layer < count:
            raise ValueError(f"{name} has {count} layers, but a segment in layer {layer}. Save it again.")
        fields.pop("Extent", None)
        called = fields.pop("Name", "").strip()
        if value > 0 and not any((s.layer, s.layer_value) == (layer, value) for s in found):
            found.append(StoredSegment(called, value, layer, value, fields))
    return found


def _complete(listed: Sequence[StoredSegment], layers: Sequence[np.ndarray]) -> list[StoredSegment]:
    """All segments with values of their own: that of the layer, or a free one if another segment has it."""
    known = {(s.layer, s.layer_value) for s in listed}
    rest = [
        StoredSegment("", value, n, value)
        for n, layer in enumerate(layers)
        for value in values_in(layer)
        if value > 0 and (n, value) not in known
    ]
    taken: set[int] = set()
    reserved = {s.layer_value for s in (*listed, *rest)}
    out = []
    for segment in (*listed, *rest):
        value = segment.layer_value
        if value in taken:
            value = next(v for v in range(1, 2**16) if v not in taken and v not in reserved)
        taken.add(value)
        out.append(replace(segment, value=value))
    return out


def _general(header: Mapping[str, str]) -> dict[str, str]:
    return {key: text for key, text in header.items() if key.startswith(_GENERAL) and key != _OFFSET}


def _vector(values: Iterable[float]) -> str:
    return "(" + ",".join(f"{float(v):.17g}" for v in values) + ")"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\r", " ").replace("\n", "\\n")


def _unescaped(text: str) -> str:
    return re.sub(r"\\(n|\\)", lambda m: "\n" if m[1] == "n" else "\\", text)
