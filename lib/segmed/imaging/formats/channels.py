"""Several values per voxel: colours where the header says so, and else time points, layers or vectors."""

from __future__ import annotations

from pathlib import Path

from segmed.imaging.formats.faults import ImageFault
from segmed.imaging.formats.text_headers import META_EXTENSIONS, nrrd_fields

_COLOURS = {"rgb-color", "3-color", "rgba-color", "4-color"}
_OF_SPACE = {"domain", "space", "???", "none"}


def check_axes(path: Path) -> None:
    """Refuse an NRRD file with an axis that is neither of space nor of colours, which ITK calls damaged.

    Raises:
        ImageFault: There is such an axis.
    """
    if path.suffix.lower() in META_EXTENSIONS:
        return
    fields = nrrd_fields(path)
    sizes = [int(size) for size in fields.get("sizes", "").split() if size.isdecimal()]
    others = {axis: size for axis, size in zip(_kinds(fields), sizes, strict=False) if axis not in _OF_SPACE}
    if others and not _COLOURS & others.keys():
        count = 1
        for size in others.values():
            count *= size
        is_colour(path, count)


def is_colour(path: Path, channels: int) -> bool:
    """Whether the values of a voxel are colours, which only the header states.

    Args:
        path: Path of an NRRD or MetaImage file.
        channels: Number of values per voxel.

    Raises:
        ImageFault: There are several values per voxel, and they are layers, time points or vectors.
    """
    if channels == 1:
        return False
    reason = "its format does not call them colours"
    if path.suffix.lower() not in META_EXTENSIONS:
        fields = nrrd_fields(path)
        if channels in (3, 4) and _COLOURS & set(_kinds(fields)):
            return True
        if any(name.startswith("Segment0_") for name in fields):
            raise ImageFault(
                f"{path.name} is a segmentation of {channels} layers, which is not an image. Its segments "
                "may overlap: send it as the label map of its image, or export all segments as one label map."
            )
        reason = f"its header calls them {fields.get('kinds') or 'nothing'}, and not RGB-color"
    raise ImageFault(
        f"{path.name} has {channels} channels; SegMed takes grey or RGB images, and {reason}: they may be "
        "time points, layers or a vector field. Save one channel as a file of its own, or colours as PNG, "
        "TIFF or NRRD of the kind RGB-color."
    )


def _kinds(fields: dict[str, str]) -> list[str]:
    return [kind.strip('"').lower() for kind in fields.get("kinds", "").split()]
