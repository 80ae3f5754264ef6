#!/usr/bin/env python
"""How the library is divided: files, their median and longest length, by package, as a Markdown table.

    python scripts/room_table.py [--revision COMMIT]     # of the checkout, or of a commit

A package of lib/segmed counts with its sub-packages; `largest folder` is the number of modules in the
folder with the most of them, without __init__.py.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = PurePosixPath("lib/segmed")


def lengths(revision: str) -> dict[PurePosixPath, int]:
    """Lines of each module by its path below lib/segmed; "" takes the files of the checkout."""
    listed = ["ls-tree", "-r", "--name-only", revision] if revision else ["ls-files"]
    names = _git(*listed, *(["--"] if revision else []), str(LIBRARY)).split()
    modules = [PurePosixPath(name) for name in names if name.endswith(".py") and "__init__" not in name]
    texts = {
        m: _git("show", f"{revision}:{m}") if revision else (ROOT / m).read_text("utf-8") for m in modules
    }
    return {module.relative_to(LIBRARY): len(text.splitlines()) for module, text in texts.items()}


def table(found: dict[PurePosixPath, int]) -> str:
    """One row per package, and one for all."""
    packages: defaultdict[str, dict[PurePosixPath, int]] = defaultdict(dict)
    for path, count in found.items():
        packages[path.parts[0] if len(path.parts) > 1 else "."][path] = count
    rows = [(name, packages[name]) for name in sorted(packages)] + [("all", found)]
    text = "| package | files | median lines | longest | largest folder |\n|---|---|---|---|---|\n"
    for name, files in rows:
        folder = max(Counter(path.parent for path in files).values())
        middle, longest = statistics.median(files.values()), max(files.values())
        text += f"| {name} | {len(files)} | {middle:.0f} | {longest} | {folder} |\n"
    return text


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], check=True, capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--revision", default="", help="commit; the checkout if not given")
    print(table(lengths(parser.parse_args().revision)), end="")


if __name__ == "__main__":
    main()
