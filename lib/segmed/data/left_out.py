"""Files in a studies folder that are not offered as images, each with its reason."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from segmed.imaging.formats.dicom_faults import is_dicom
from segmed.imaging.formats.pictures import PICTURE_EXTENSIONS
from segmed.imaging.formats.seg_nrrd import SEGMENTATION
from segmed.imaging.reading import EXTENSIONS, extension_of

_LOOKED_AT = 20_000  # files below a folder
_SHOWN = 3  # names in a sentence
OURS = "labels"  # folder of what the server writes
_FORBIDDEN = '/\\*?"<>|'
_LONGEST = 128
_OTHER_KINDS = (".hdr", ".img", ".nii.bz2", ".mgz", ".mnc", ".gif", ".jp2")  # images that are not offered
_OF_SEGMENTATIONS = ".seg"  # labels of `a` may be `a.seg.nrrd`, which would be those of an image `a.seg` too
DICOM_BESIDE = (
    "DICOM files lie beside other images and are left out. Put them into a folder of their own and open it."
)
_HIDDEN = "hidden file, as macOS leaves beside others"


@dataclass(frozen=True)
class LeftOut:
    """A file, folder or series that is not offered.

    Attributes:
        name: Name of the file, folder or series.
        reason: Why it is not offered, and what can be done.
        count: Number of files, for a folder.
    """

    name: str
    reason: str
    count: int = 1

    def to_json(self) -> dict[str, str | int]:
        """The entries as JSON objects."""
        return {"name": self.name, "reason": self.reason, "count": self.count}


def image_names(root: Path) -> dict[str, str]:
    """Image files of a folder by id; of files with one stem, the first in the order of `EXTENSIONS`.

    Extensions count in upper case too. Hidden files, and those whose name cannot be an id, are left out.
    """
    by_stem: dict[str, str] = {}
    files = [
        name for name in names_in(root) if extension_of(name) not in ("", ".dcm") and not is_hidden(name)
    ]
    for name in sorted(files, key=lambda name: (EXTENSIONS.index(extension_of(name)), name)):
        stem = name[: -len(extension_of(name))]
        if not fault_of_id(stem) and not name.lower().endswith(SEGMENTATION):
            by_stem.setdefault(stem, name)
    return by_stem


def names_in(folder: Path) -> list[str]:
    """Names of what lies in a folder."""
    return [path.name for path in folder.iterdir()]


def is_hidden(name: str) -> bool:
    """Whether a file is hidden, such as `._x.nii.gz` of macOS."""
    return name.startswith(".")


def fault_of_id(name: str) -> str:
    """Why a name cannot be the id of an image; "" if it can."""
    if not name or len(name) > _LONGEST:
        return f"names have 1 to {_LONGEST} characters"
    if name.startswith(".") or ".." in name:
        return "names do not start with a dot and hold no two dots in a row"
    if any(c in _FORBIDDEN or ord(c) < 32 for c in name):
        return "names hold no slashes, wildcards or quotes"
    if name.lower().endswith(_OF_SEGMENTATIONS):
        return "names do not end with .seg, as those of segmentations do"
    return ""


def left_out_files(root: Path, listed: Collection[str]) -> list[LeftOut]:
    """The files of a folder of image files that are not offered.

    Args:
        root: Folder of the studies.
        listed: Names of the files that are offered.
    """
    stems = {name[: -len(extension_of(name))]: name for name in listed}
    left_out = []
    for name in sorted(names_in(root)):
        if name not in listed and not (root / name).is_dir() and (reason := _reason(root / name, stems)):
            left_out.append(LeftOut(name, reason))
    return left_out + list(_below(root))


def _reason(path: Path, stems: Mapping[str, str]) -> str:
    """Why a file of the folder itself is not offered; "" if it is not an image."""
    name, extension = path.name, extension_of(path.name)
    if is_hidden(name):
        return f"{_HIDDEN}. Delete it." if extension and name.startswith("._") else ""
    if name.lower().endswith(_OTHER_KINDS):
        return f"its kind is not read. Save it as one of {', '.join(EXTENSIONS)}."
    if extension in ("", ".dcm"):
        return DICOM_BESIDE if extension or is_dicom(path) else ""
    if name.lower().endswith(SEGMENTATION):
        return "it is a segmentation of 3D Slicer and no image. Send it as the label map of its image."
    stem = name[: -len(extension)]
    if fault := fault_of_id(stem):
        return f"its name cannot be used: {fault}. Rename it."
    if stem in stems:
        return f"{stems[stem]} has the same name but for its extension. Rename one of them."
    if not path.is_file():
        return "it is not a regular file, or is a broken link."
    return "it has only just come, or has been taken off the list. Look again."


def _below(root: Path) -> Iterator[LeftOut]:
    """Images in subfolders, listed by folder."""
    images, dicom = Counter[str](), Counter[str]()
    for path in files_below(root):
        top = path.relative_to(root).parts[0]
        if path.parent == root or is_hidden(path.name):
            continue
        extension = extension_of(path.name)
        if extension == ".dcm" or (not extension and is_dicom(path)):
            dicom[top] += 1
        elif extension:
            images[top] += 1
    for name, count in images.items():
        yield LeftOut(
            f"{name}/",
            f"{count} images lie in a folder of the studies; only those in the folder itself are offered. "
            "Move them up, or open that folder.",
            count,
        )
    for name, count in dicom.items():
        yield LeftOut(f"{name}/", f"{count} files. {DICOM_BESIDE}", count)


def files_below(root: Path) -> Iterator[Path]:
    """The first files below a folder, without hidden folders and those that SegMed writes."""
    count = 0
    for folder, inner, names in os.walk(root):
        top = Path(folder) == root
        inner[:] = sorted(name for name in inner if not is_hidden(name) and not (top and name == OURS))
        for name in sorted(names):
            count += 1
            if count > _LOOKED_AT:
                return
            yield Path(folder, name)


def left_out_beside_dicom(root: Path) -> list[LeftOut]:
    """Images of other kinds in a folder of DICOM files, listed by folder and kind."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for path in files_below(root):
        extension = extension_of(path.name)
        if extension in ("", ".dcm") or is_dicom(path):
            continue
        if is_hidden(path.name):
            kind = "hidden"
        else:
            kind = "picture" if extension in PICTURE_EXTENSIONS else "volume"
        kinds.setdefault((str(path.parent.relative_to(root)), kind), []).append(path.name)
    left_out = []
    for (folder, kind), names in kinds.items():
        shown = ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
        reason = (
            "these studies are DICOM, and images of other kinds beside it are left out. Put them into a "
            "folder of their own and open it."
        )
        if kind == "hidden":
            reason = f"{_HIDDEN}. Delete it."
        where = "" if folder == "." else f"{folder}/"
        left_out.append(LeftOut(f"{where}{shown}", reason, len(names)))
    return left_out


def sentence(left: Iterable[LeftOut]) -> str:
    """One sentence on what is left out, with the first reasons; "" if nothing is."""
    left = list(left)
    if not left:
        return ""
    count = sum(one.count for one in left)
    first = dict.fromkeys(f"{one.name} ({one.reason.rstrip('.')})" for one in left)
    shown = "; ".join(list(first)[:_SHOWN])
    more = f"; and {len(first) - _SHOWN} more" if len(first) > _SHOWN else ""
    files = "file is" if count == 1 else "files are"
    return f"{count} {files} left out: {shown}{more}."
