"""The text headers of NRRD and MetaImage: which other files they name, and whether these may be read.

ITK opens whatever file a header names, wherever it lies. So every header is checked before ITK reads it.
"""

from __future__ import annotations

import bz2
import contextlib
import mmap
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from segmed.imaging.formats.faults import ImageFault

DETACHED_EXTENSIONS = (".nhdr", ".mhd")
NRRD_EXTENSIONS = (".nrrd", ".nhdr")
META_EXTENSIONS = (".mha", ".mhd")
_LONGEST = 2**22  # bytes of an NRRD header; segmentations describe each segment there
_ELEMENT_DATA = b"ElementDataFile"
_SIZES = {
    "char": 1, "int8": 1, "short": 2, "int16": 2, "int": 4, "int32": 4, "longlong": 8, "int64": 8,
    "float": 4, "double": 8,
}  # fmt: skip


def check_alone(path: Path) -> None:
    """Refuse a file whose voxels lie in another one, whatever it is called.

    Args:
        path: Path of a file that came from a client.

    Raises:
        ImageFault: The header names another file.
    """
    if names_other_files(path):
        raise ImageFault(
            f"{path.name} is a header whose voxels lie in another file, and no other file is read for it. "
            "Save the image as one file (.nrrd, .mha or .nii.gz) and send that."
        )


def names_other_files(path: Path) -> bool:
    """Whether a header names a file for its voxels, whatever it is called."""
    return bool(_named_files(path))


def check_regular(path: Path) -> None:
    """Refuse pipes, sockets and devices, which would be waited for without end. Raises ImageFault."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ImageFault(
            f"{path.name} is not a regular file but a device, pipe or socket. Give an image file."
        )


def data_files(path: Path) -> tuple[Path, ...]:
    """The file that holds the voxels of a detached header; none where header and voxels are one file.

    Args:
        path: Path of a header in a studies folder, or of one given on the command line.

    Raises:
        ImageFault: The header names a list or pattern of files, or a file that is missing, in another folder
            or not a regular file; or the extension allows for one file only.
        OSError: The header cannot be read.
    """
    names = _named_files(path)
    if not names:
        return ()
    name = names[0]
    detached = path.name.lower().endswith(DETACHED_EXTENSIONS)
    if not detached or len(names) > 1 or name.upper() == "LIST" or "%" in name:
        why = "a list of files" if detached else "another file"
        raise ImageFault(
            f"The header {path.name} names {why} for its voxels, which is not followed. Save the image as "
            "one file (.nrrd, .mha or .nii.gz)."
        )
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise ImageFault(
            f"The header {path.name} names a file of another folder for its voxels, which is not followed. "
            "Put both files into one folder and write the plain name into the header, or save the image as "
            "one file."
        )
    there = path.parent / name
    if not there.exists():
        raise ImageFault(
            f"The voxels of {path.name} are missing: {name} does not lie beside it. Copy both files."
        )
    if there.resolve().parent != path.resolve().parent or not there.is_file():
        raise ImageFault(
            f"The voxels of {path.name} are not read: {name} is a link out of its folder, or no regular "
            "file. Put the file itself beside the header."
        )
    return (there,)


def nrrd_fields(path: Path) -> dict[str, str]:
    """Fields and key/value pairs of an NRRD header; names of fields in lower case.

    Raises:
        ValueError: The file has no NRRD header.
    """
    fields: dict[str, str] = {}
    for line in _nrrd_lines(_nrrd_header(path))[1:]:
        pair = re.match(r"([^:]+):(=| )\s*(.*)", line)
        if pair and not line.startswith("#"):
            name = pair[1] if pair[2] == "=" else pair[1].strip().lower()
            fields.setdefault(name, pair[3].strip())
    return fields


@contextlib.contextmanager
def for_itk(path: Path) -> Iterator[Path]:
    """The path of a file that ITK can read: a temporary file for bzip2 compression, else the file itself.

    Raises:
        ImageFault: The header names files that are not read.
        ValueError: The compressed voxels are damaged.
    """
    check_regular(path)
    beside = data_files(path)
    if not packed_by_bzip2(path):
        yield path
        return
    fields, head = nrrd_fields(path), _nrrd_header(path)
    with tempfile.TemporaryDirectory(prefix="nrrd-") as folder:
        plain = Path(folder) / "image.nrrd"
        raw = re.sub(rb"(?im)^encoding:\s*bz(ip)?2", b"encoding: raw", head)
        if beside:  # the file of the voxels becomes the part behind the header
            raw = re.sub(rb"(?im)^data ?file:[^\n]*(\n|\Z)", b"", raw).rstrip() + b"\n\n"
        with (*beside, path)[0].open("rb") as source, plain.open("wb") as target:
            source.seek(0 if beside else len(head))
            target.write(raw)
            try:
                left = _bytes_of(fields)
                with bz2.BZ2File(source) as voxels:
                    while left and (piece := voxels.read(min(left, 2**22))):
                        target.write(piece)
                        left -= len(piece)
            except (OSError, EOFError) as error:
                raise ValueError("the voxels, packed by bzip2, are damaged") from error
        yield plain


def packed_by_bzip2(path: Path) -> bool:
    """Whether a file is NRRD whose voxels are compressed by bzip2, which ITK does not read."""
    if path.suffix.lower() not in NRRD_EXTENSIONS:
        return False
    return nrrd_fields(path).get("encoding", "").lower() in ("bzip2", "bz2")


def _bytes_of(fields: dict[str, str]) -> int:
    """Bytes of the voxels; the format knows types such as uint16 by several names, as unsigned short int."""
    kind = re.sub(r"^(un)?signed|^u(?=\w)|_t$|\s", "", fields["type"].lower())
    kind = re.sub(r"(?<=short|.long)int$", "", kind)
    sizes = [int(n) for n in fields["sizes"].split()]
    return int(np.prod(sizes, dtype=object)) * _SIZES[kind]


def _named_files(path: Path) -> list[str]:
    """Files that a header names for its voxels, as it writes them."""
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(b"NRRD"):
        # stricter than the reader, whatever it takes for the end of a line or of the header
        pieces = (piece.lstrip() for piece in re.split(rb"[\r\n]+", _nrrd_start(path).partition(b"\n\n")[0]))
        found = (re.match(rb"data\s*file\s*:=?\s*(.*)", piece, re.IGNORECASE | re.DOTALL) for piece in pieces)
        return [match[1].decode("utf-8", "replace").strip() for match in found if match]
    if path.suffix.lower() in META_EXTENSIONS:
        return [name for name in _element_data(path) if name.upper() != "LOCAL"]
    return []


def _nrrd_header(path: Path) -> bytes:
    """The header with the empty line at its end; all of it where only voxels in another file follow."""
    start = _nrrd_start(path)
    ends = [at + len(gap) for gap in (b"\n\n", b"\n\r\n") if (at := start.find(gap)) >= 0]
    if not ends and len(start) == _LONGEST:
        raise ImageFault(
            f"The header of {path.name} has no end within {_LONGEST >> 20} MiB. Export the image again."
        )
    return start[: min(ends)] if ends else start


def _nrrd_start(path: Path) -> bytes:
    with path.open("rb") as file:
        start = file.read(_LONGEST)
    if not start.startswith(b"NRRD"):
        raise ValueError("no NRRD")
    return start


def _nrrd_lines(header: bytes) -> list[str]:
    try:
        return header.decode("utf-8").splitlines()
    except UnicodeDecodeError:  # names of older programs
        return header.decode("latin-1").splitlines()


def _element_data(path: Path) -> list[str]:
    """What follows each ElementDataFile in the file, wherever it stands: comments may hold a decoy."""
    if not os.path.getsize(path):  # noqa: PTH202 - an empty file cannot be mapped
        return []
    names, at = [], -1
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        while (at := content.find(_ELEMENT_DATA, at + 1)) >= 0:
            text = content[at + len(_ELEMENT_DATA) : at + len(_ELEMENT_DATA) + 4096]
            if match := re.match(rb"\s*[=:]\s*([^\r\n]*)", text):
                names.append(match[1].decode("utf-8", "replace").strip())
    return names
