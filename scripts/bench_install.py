#!/usr/bin/env python
"""What an installation takes: size by package, time of a fresh set-up and of imports, memory of an idle
server.

    python scripts/bench_install.py .venv                # one environment
    python scripts/bench_install.py OLD/.venv .venv      # before and after
    python scripts/bench_install.py .venv --fresh        # also a set-up in a fresh clone, with its time

Each environment runs the code of this checkout. A fresh set-up downloads the packages, or takes them from
pip's cache.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_MOST = 12  # packages that are shown
_IMPORTS = ("torch", "monai", "segmed.server.asgi")
_START = "import segmed.server; from segmed.server.lean_imports import spare_imports; spare_imports()"


def packages(environment: Path) -> dict[str, float]:
    """MiB of each package in an environment, compiled files included, by its name."""
    (folder,) = environment.glob("lib/python*/site-packages")
    sizes: dict[str, float] = {}
    for one in metadata.distributions(path=[str(folder)]):
        files = {Path(str(file.locate())) for file in one.files or ()}
        compiled = {
            cached for file in files for cached in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc")
        }
        name = one.metadata["Name"].lower()
        sizes[name] = sum(file.stat().st_size for file in files | compiled if file.is_file()) / 2**20
    return sizes


def folder_size(folder: Path) -> float:
    """MiB of all files in a folder; of links, nothing."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink()) / 2**20


def import_seconds(environment: Path, module: str, rounds: int) -> float:
    """Median of the seconds that a process takes that only imports a module."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        subprocess.run(
            [environment / "bin" / "python", "-c", f"{_START}; import {module}"],
            env={**os.environ, "PYTHONPATH": str(ROOT / "lib")},
            check=True,
            capture_output=True,
        )
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])  # without the first, which reads the files from the disk


def commands(environment: Path, rounds: int) -> dict[str, str]:
    """What scripts/bench_start.py measures: seconds of commands, and the memory of an idle server."""
    words = [environment / "bin" / "python", ROOT / "scripts" / "bench_start.py", "--rounds", str(rounds)]
    said = subprocess.run(words, capture_output=True, encoding="utf-8", check=True).stdout
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines() if "|" in line
    ]
    return {row[0]: row[1] for row in rows[2:]}


def fresh_setup(options: list[str]) -> tuple[float, float]:
    """Seconds that scripts/setup.sh takes in a fresh clone, and MiB of what it makes."""
    with tempfile.TemporaryDirectory() as work:
        clone = Path(work) / "segmed"
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", clone], check=True)
        start = time.perf_counter()
        subprocess.run([clone / "scripts" / "setup.sh", *options], check=True)
        return time.perf_counter() - start, folder_size(clone / ".venv")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("environments", type=Path, nargs="+", metavar="VENV")
    parser.add_argument("--fresh", action="store_true", help="set up a fresh clone, too")
    parser.add_argument("--torch", default="auto", help="build of PyTorch for --fresh")
    parser.add_argument("--rounds", type=int, default=3)
    a = parser.parse_args()
    print(f"{os.cpu_count()} CPU cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}\n")
    print("| | " + " | ".join(str(one) for one in a.environments) + " |")
    print("|---" * (1 + len(a.environments)) + "|")

    def row(name: str, cells: list[str]) -> None:
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)

    row("size", [f"{folder_size(one):,.0f} MiB" for one in a.environments])
    sizes = [packages(one) for one in a.environments]
    row("packages", [str(len(one)) for one in sizes])
    largest = sorted({n for s in sizes for n in s}, key=lambda n: -max(s.get(n, 0) for s in sizes))[:_MOST]
    for name in largest:
        row(name, [f"{s[name]:,.0f} MiB" if name in s else "–" for s in sizes])
    for module in _IMPORTS:
        row(
            f"`import {module}`", [f"{import_seconds(one, module, a.rounds):.1f} s" for one in a.environments]
        )
    measured = [commands(one, a.rounds) for one in a.environments]
    for name in measured[0]:
        row(name, [one[name] for one in measured])
    if a.fresh:
        seconds, size = fresh_setup(["--torch", a.torch])
        print(f"\nA fresh set-up took {seconds:.0f} s and {size:,.0f} MiB.")


if __name__ == "__main__":
    sys.exit(main())
