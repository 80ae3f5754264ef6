"""Files beside a label map that belong to it: the table of names, and the record of how it was made."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from segmed.imaging.formats.seg_nrrd import SEGMENTATION
from segmed.imaging.reading import extension_of


def companion_of(labels: str | os.PathLike[str], extension: str) -> Path:
    """Path of a companion of a label map, whether it exists or not.

    Args:
        labels: Path of the label map.
        extension: Extension of the companion, such as `.tsv`.
    """
    path = Path(labels)
    own = SEGMENTATION if path.name.lower().endswith(SEGMENTATION) else extension_of(path)
    return path.with_name(path.name[: len(path.name) - len(own)] + extension)


def check_companion(
    labels: str | os.PathLike[str], extension: str, is_ours: Callable[[Path], bool], what: str
) -> Path:
    """The path of a companion, checked before it is written.

    Args:
        labels: Path of the label map.
        extension: Extension of the companion.
        is_ours: Function that returns whether a file is such a companion.
        what: What the companion is, for the message.

    Raises:
        ValueError: There is a file of another kind at this path, which must not be overwritten.
    """
    target = companion_of(labels, extension)
    if target.exists() and not is_ours(target):
        raise ValueError(
            f"{target.name} is not {what}, and would be replaced by one. Rename or move it, or give the mask "
            "another name."
        )
    return target
