#!/usr/bin/env python3
"""Print the part of a lock that one build of PyTorch needs, with its hashes: select_packages.py BUILD [LOCK]

BUILD is cuda (everything), cpu (without PyTorch, which has an index of its own for that build, and without
the libraries of CUDA), or cuda-without-gpu: the build with CUDA on a machine that has no GPU, where nothing
compiles for one.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_LEFT_OUT = {
    "cuda": re.compile(r"(?!)"),
    "cpu": re.compile(r"torch|torchvision|triton|nvidia-.+|cuda-.+"),
    # PyTorch does not load without the others, as libtorch_cuda.so is linked against them
    "cuda-without-gpu": re.compile(r"triton|cuda-bindings|cuda-pathfinder|nvidia-cusolver|nvidia-nvtx"),
}
_NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(\[.*\])?==")


def normal(name: str) -> str:
    """A package name as the index spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def named(text: str) -> set[str]:
    """The packages that a list of requirements pins."""
    return {normal(found[1]) for line in text.splitlines() if (found := _NAME.match(line))}


def select(lock: str, build: str) -> str:
    """The lines of a lock file whose packages are wanted.

    Args:
        lock: contents of requirements.lock.
        build: `cuda`, `cpu` or `cuda-without-gpu`.

    Raises:
        ValueError: another build.
    """
    if build not in _LEFT_OUT:
        raise ValueError(f"The build {build!r} is unknown. Choose {', '.join(_LEFT_OUT)}.")
    kept, wanted = [], False
    for line in lock.splitlines():
        if found := _NAME.match(line):
            wanted = not _LEFT_OUT[build].fullmatch(normal(found[1]))
        elif not line.startswith(" "):
            wanted = False  # comments
        if wanted:
            kept.append(line)
    return "\n".join(kept) + "\n"


if __name__ == "__main__":
    try:
        path = Path(sys.argv[2] if len(sys.argv) > 2 else "requirements.lock")
        chosen = select(path.read_text(encoding="utf-8"), sys.argv[1])
    except (ValueError, IndexError) as error:
        sys.exit(f"{error}\nUsage: select_packages.py cuda|cpu|cuda-without-gpu [LOCK]")
    sys.stdout.write(chosen)
