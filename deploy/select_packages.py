#!/usr/bin/env python3
"""Print the part of requirements.lock that a container needs, with its hashes: select_packages.py cpu|cuda

The tools of developers and the optional extras are left out; for `cpu` also PyTorch, which is installed from
its own index, and the libraries of CUDA.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_EXTRAS = ("requirements-baselines.txt", "requirements-cluster.txt", "requirements-dev.txt")
_CUDA = re.compile(r"(torch|torchvision|triton|nvidia-.+|cuda-.+)")
_NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(\[.*\])?==")


def normal(name: str) -> str:
    """A package name as the index spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def named(text: str) -> set[str]:
    """The packages that a list of requirements pins."""
    return {normal(found[1]) for line in text.splitlines() if (found := _NAME.match(line))}


def select(lock: str, unwanted: set[str], variant: str) -> str:
    """The lines of a lock file whose packages are wanted.

    Args:
        lock: contents of requirements.lock.
        unwanted: names of packages to leave out.
        variant: `cpu` or `cuda`.

    Raises:
        ValueError: another variant.
    """
    if variant not in ("cpu", "cuda"):
        raise ValueError(f"The variant {variant!r} is unknown. Choose cpu or cuda.")
    kept, wanted = [], False
    for line in lock.splitlines():
        if found := _NAME.match(line):
            name = normal(found[1])
            wanted = name not in unwanted and not (variant == "cpu" and _CUDA.fullmatch(name))
        elif not line.startswith(" "):
            wanted = False  # comments
        if wanted:
            kept.append(line)
    return "\n".join(kept) + "\n"


if __name__ == "__main__":
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path()
    lists = "\n".join((folder / name).read_text(encoding="utf-8") for name in _EXTRAS)
    try:
        chosen = select((folder / "requirements.lock").read_text(encoding="utf-8"), named(lists), sys.argv[1])
    except (ValueError, IndexError) as error:
        sys.exit(f"{error}\nUsage: select_packages.py cpu|cuda [FOLDER]")
    sys.stdout.write(chosen)
