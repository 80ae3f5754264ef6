"""NRRD and MetaImage: encodings, types and places; headers that name other files; several values per
voxel."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from corpus.row import AFFINE, LPS, I, J, K, Row, brick, colours

_DETACHED = "mhe/pynrrd#78, DIAGNijmegen/rse-panimg#47"
_LAYERS = "Project-MONAI/MONAILabel#565, #579, #766"
_OTHER_FILE = "another file|other file|list of files|cannot be read"
_TYPES = {
    "int8": "signed char", "uint8": "unsigned char", "int16": "short", "uint16": "ushort", "int32": "int",
    "uint32": "uint", "int64": "longlong", "float32": "float", "float64": "double",
}  # fmt: skip
_META = {
    "uint8": "MET_UCHAR", "int8": "MET_CHAR", "int16": "MET_SHORT", "uint16": "MET_USHORT",
    "int32": "MET_INT", "float32": "MET_FLOAT", "float64": "MET_DOUBLE",
}  # fmt: skip
SECRET = Path("/proc/self/environ")


def rows() -> Iterator[Row]:
    """All of them."""
    yield from _encodings()
    yield from _evil()
    yield from _detached()
    yield from _channels()
    yield from _meta()


def nrrd_head(
    array: np.ndarray, encoding: str = "raw", kinds: str = "domain domain domain", **more: str
) -> str:
    """The text of an NRRD header without its end; axes of the array that are not of space lie in front."""
    place = LPS @ AFFINE
    extra = array.ndim - 3
    steps = ["none"] * extra + [f"({','.join(f'{v:.9g}' for v in place[:3, a])})" for a in range(3)]
    fields = {
        "type": _TYPES[array.dtype.newbyteorder("=").name],
        "dimension": str(array.ndim),
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, array.shape)),
        "space directions": " ".join(steps),
        "kinds": kinds,
        "endian": "big" if array.dtype.byteorder == ">" else "little",
        "encoding": encoding,
        "space origin": f"({','.join(f'{v:.9g}' for v in place[:3, 3])})",
        **more,
    }
    lines = [
        f"{name}:{'' if value.startswith('=') else ' '}{value}\n" for name, value in fields.items() if value
    ]
    return "NRRD0005\n" + "".join(lines)


def _write(array: np.ndarray, encoding: str = "raw", end: str = "\n", **how: str) -> Callable[[Path], object]:
    raw = array.tobytes(order="F")
    packed = {
        "raw": lambda: raw,
        "gzip": lambda: gzip.compress(raw),
        "bzip2": lambda: bz2.compress(raw),
        "ascii": lambda: " ".join(map(str, array.ravel(order="F").tolist())).encode(),
        "hex": lambda: raw.hex().encode(),
    }[encoding]()
    head = nrrd_head(array, encoding, **how) + "\n"
    return lambda path: path.write_bytes(head.replace("\n", end).encode() + packed)


def _encodings() -> Iterator[Row]:
    plain = brick()
    for encoding in ("raw", "gzip", "bzip2", "ascii", "hex"):
        thread = "mhe/pynrrd#12" if encoding == "raw" else ""
        yield Row(f"nrrd_{encoding}.nrrd", _write(plain, encoding), plain, affine=AFFINE, thread=thread)
    for encoding in ("raw", "gzip", "bzip2"):
        yield Row(f"nrrd_dos_{encoding}.nrrd", _write(plain, encoding, "\r\n"), plain, affine=AFFINE)
    for name in _TYPES:
        array = brick(np.dtype(name).type)
        yield Row(f"nrrd_{name}.nrrd", _write(array), array, affine=AFFINE)
    yield Row("nrrd_big_ends.nrrd", _write(plain.astype(">i2")), plain, affine=AFFINE)
    for space, signs in (("right-anterior-superior", (1, 1, 1)), ("left-anterior-superior", (-1, 1, 1))):
        flipped = np.diag([*signs, 1.0]) @ LPS @ AFFINE
        write = _write(plain, **{"space": space})
        yield Row(f"nrrd_{space}.nrrd", write, plain, affine=flipped)
    yield Row("nrrd_key_like_a_field.nrrd", _write(plain, note="= data file: nothing"), plain)
    yield Row("nrrd_cut_off.nrrd", _cut(_write(plain)), words="cannot be read")
    yield Row("nrrd_cut_off_gzip.nrrd", _cut(_write(plain, "gzip")), words="cannot be read")
    yield Row("nrrd_cut_off_bzip2.nrrd", _cut(_write(plain, "bzip2")), words="cannot be read")


def _cut(write: Callable[[Path], object]) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes()[:-60])

    return make


def _evil() -> Iterator[Row]:
    """Headers that name a file of the server."""
    head = nrrd_head(np.zeros((16, 16, 2), np.uint8))
    meta = _meta_head(np.zeros((16, 16, 2), np.uint8))
    texts = {
        "absolute": f"{head}data file: {SECRET}\n\n",
        "one_word": f"{head}datafile: {SECRET}\n\n",
        "upper_case": f"{head}DATA FILE: {SECRET}\n\n",
        "old_line_ends": f"{head}data file: {SECRET}\n".replace("\n", "\r"),
        "dos": f"{head}data file: {SECRET}\n\n".replace("\n", "\r\n"),
        "end_before": f"{head}\r\ndata file: {SECRET}\n",
        "hidden_in_comment": f"{head}# all is well\rdata file: {SECRET}\n\n",
        "parent": f"{head}data file: ../../secret.raw\n\n",
        "list": f"{head}data file: LIST\n{SECRET}\n",
        "pattern": f"{head}data file: %d.raw 1 2 1 2\n\n",
        "device": f"{head}data file: /dev/zero\n\n",
        "beside": f"{head}data file: other.raw\n\n",
    }
    for kind, text in texts.items():
        for extension in ("nrrd", "nhdr"):
            words = _OTHER_FILE + "|another folder|are missing"
            yield Row(
                f"evil_{kind}.{extension}", _text(text), words=words, sent="another file", thread=_DETACHED
            )
    for extension in ("mha", "png", "tif", "dcm", "nii", "jpg", "bmp"):
        yield Row(f"evil_nrrd_as.{extension}", _text(texts["absolute"]), words=_OTHER_FILE, thread=_DETACHED)
    metas = {
        "absolute": f"{meta}ElementDataFile = {SECRET}\n",
        "colon": f"{meta}ElementDataFile: {SECRET}\n",
        "list": f"{meta}ElementDataFile = LIST\n{SECRET}\n",
        "pattern": f"{meta}ElementDataFile = %03d.raw 1 2 1\n",
        "decoy": f"Comment = ElementDataFile = LOCAL\n{meta}ElementDataFile = {SECRET}\n",
        "parent": f"{meta}ElementDataFile = ../secret.raw\n",
    }
    for kind, text in metas.items():
        for extension in ("mha", "mhd"):
            words = _OTHER_FILE + "|another folder|are missing"
            yield Row(
                f"evil_meta_{kind}.{extension}",
                _text(text),
                words=words,
                sent="another file",
                thread=_DETACHED,
            )
    yield Row("evil_meta_as.nrrd", _text(metas["absolute"]), words="cannot be read", thread=_DETACHED)


def _text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(text.encode())


def _detached() -> Iterator[Row]:
    """Images of two files, which are read where both lie, and not taken as uploads."""
    plain = brick()
    sent = "another file"

    def two(head: str, data: bytes, name: str) -> Callable[[Path], object]:
        def make(path: Path) -> None:
            path.write_text(head)
            path.with_name(name).write_bytes(data)

        return make

    raw = plain.tobytes(order="F")
    head = nrrd_head(plain) + "data file: {}\n"
    name = "detached_raw.raw"
    yield Row(
        "detached_raw.nhdr",
        two(head.format(name), raw, name),
        plain,
        affine=AFFINE,
        sent=sent,
        thread=_DETACHED,
    )
    name = "detached_gzip.raw.gz"
    packed = nrrd_head(plain, "gzip") + f"data file: {name}\n"
    yield Row("detached_gzip.nhdr", two(packed, gzip.compress(raw), name), plain, sent=sent, thread=_DETACHED)
    name = "detached_meta.raw"
    meta = _meta_head(plain) + f"ElementDataFile = {name}\n"
    yield Row("detached_meta.mhd", two(meta, raw, name), plain, affine=AFFINE, sent=sent, thread=_DETACHED)

    def linked(path: Path) -> None:
        path.write_text(head.format("link.raw"))
        path.with_name("link.raw").unlink(missing_ok=True)
        path.with_name("link.raw").symlink_to("/dev/zero")

    words = "a link out of its folder"
    yield Row("detached_link.nhdr", linked, words=words, sent=sent, thread=_DETACHED)
    missing = _text(head.format("nowhere.raw"))
    yield Row(
        "detached_missing.nhdr",
        missing,
        words="nowhere.raw does not lie beside it",
        sent=sent,
        thread=_DETACHED,
    )


def _channels() -> Iterator[Row]:
    rgb = colours()
    first = np.ascontiguousarray(np.moveaxis(rgb, -1, 0))
    for kind in ("RGB-color", "3-color"):
        yield Row(f"colour_{kind}.nrrd", _write(first, kinds=f"{kind} domain domain domain"), rgb)
    alpha = np.concatenate([first, np.full((1, I, J, K), 255, np.uint8)])
    for kind in ("RGBA-color", "4-color"):
        yield Row(f"colour_{kind}.nrrd", _write(alpha, kinds=f"{kind} domain domain domain"), rgb)
    for count in (2, 3, 4, 5):
        several = np.stack([brick(seed=n) for n in range(count)])
        for kind in ("list", "vector", "time"):
            yield Row(
                f"sequence_{kind}_{count}.nrrd",
                _write(several, kinds=f"{kind} domain domain domain"),
                words=f"has {count} channels; SegMed takes grey or RGB",
                thread="Slicer/Slicer#2972",
            )
        layers = (several > 80).astype(np.uint8)
        segments = {}
        for n in range(count):
            segments |= {
                f"Segment{n}_Layer": f"={n}",
                f"Segment{n}_Name": f"=organ{n}",
                f"Segment{n}_LabelValue": "=1",
            }
        write = _write(layers, kinds="list domain domain domain", **segments)
        words = f"a segmentation of {count} layers, which is not an image"
        yield Row(f"layers_{count}.seg.nrrd", write, words=words, thread=_LAYERS)


def _meta_head(array: np.ndarray, channels: int = 1, packed: int = 0, big: bool = False) -> str:
    place = LPS @ AFFINE
    spacing = np.linalg.norm(place[:3, :3], axis=0)
    matrix = (place[:3, :3] / spacing).T
    return (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = {big}\n"
        f"CompressedData = {bool(packed)}\n"
        + (f"CompressedDataSize = {packed}\n" if packed else "")
        + f"TransformMatrix = {' '.join(f'{v:.9g}' for v in matrix.ravel())}\n"
        f"Offset = {' '.join(f'{v:.9g}' for v in place[:3, 3])}\n"
        f"ElementSpacing = {' '.join(f'{v:.9g}' for v in spacing)}\nDimSize = "
        f"{' '.join(map(str, array.shape[-3:]))}\n"
        + (f"ElementNumberOfChannels = {channels}\n" if channels > 1 else "")
        + f"ElementType = {_META[array.dtype.newbyteorder('=').name]}\n"
    )


def _meta() -> Iterator[Row]:
    for name in _META:
        array = brick(np.dtype(name).type)
        text = (_meta_head(array) + "ElementDataFile = LOCAL\n").encode()
        yield Row(f"meta_{name}.mha", _bytes(text + array.tobytes(order="F")), array, affine=AFFINE)
    plain = brick()
    big = plain.astype(">i2")
    text = (_meta_head(plain, big=True) + "ElementDataFile = LOCAL\n").encode()
    yield Row("meta_big_ends.mha", _bytes(text + big.tobytes(order="F")), plain, affine=AFFINE)
    for count in (2, 3, 4):
        array = np.zeros((count, I, J, K), np.uint8)
        text = (_meta_head(array, count) + "ElementDataFile = LOCAL\n").encode()
        words = f"has {count} channels; SegMed takes grey or RGB"
        yield Row(f"meta_channels_{count}.mha", _bytes(text + array.tobytes()), words=words)


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)
