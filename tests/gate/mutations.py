"""Files that are nearly right: those of the corpus with bytes, numbers, lengths or order changed by a
seed."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corpus.table import ROWS, write

_HEAD = 400  # bytes in which most headers lie
_NUMBERS = (b"0", b"-1", b"1", b"65536", b"2147483647", b"4294967296", b"9" * 19, b"1e308", b"nan", b"")
_WORDS = (b"\x00" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x01\x00\x00\x00")


def mutated(seed: int, folder: Path) -> Path:
    """A file, or a folder of DICOM files, that is not as it was.

    Args:
        seed: which one.
        folder: where it is written.

    Returns:
        Its path.
    """
    rng = np.random.default_rng(seed)
    row = ROWS[int(rng.integers(len(ROWS)))]
    place = folder / f"{seed}"
    place.mkdir(parents=True)
    path = write(row, place)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    # all files of a small series or one of them
    for file in files if rng.random() < 0.3 else [files[int(rng.integers(len(files)))]] if files else []:
        _change(file, rng)
    return path


def _change(file: Path, rng: np.random.Generator) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(int(rng.integers(1, 4))):
        if not data:
            return
        how, at = (
            int(rng.integers(6)),
            int(rng.integers(min(len(data), _HEAD if rng.random() < 0.7 else len(data)))),
        )
        if how == 0:
            for _ in range(int(rng.integers(1, 9))):
                data[int(rng.integers(at, len(data)))] = int(rng.integers(256))
        elif how == 1:
            del data[at:]
        elif how == 2:
            data[at : at + 4] = _WORDS[int(rng.integers(len(_WORDS)))]
        elif how == 3:
            end = min(len(data), at + int(rng.integers(1, 200)))
            data[at:at] = data[at:end]
        elif how == 4:
            del data[at : at + int(rng.integers(1, 60))]
        else:
            numbers = list(re.finditer(rb"\d+", bytes(data[:2000])))
            if numbers:
                one = numbers[int(rng.integers(len(numbers)))]
                data[one.start() : one.end()] = _NUMBERS[int(rng.integers(len(_NUMBERS)))]
    file.write_bytes(data)


def clear(folder: Path) -> None:
    """Remove what was written."""
    shutil.rmtree(folder, ignore_errors=True)
