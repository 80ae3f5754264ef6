"""Mutated files in a process of its own: read, or refused by a sentence; no crash, no hang, no memory without
end.

SEGMED_MUTATIONS sets how many; `scripts/release_gate.sh` tries thousands.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

COUNT = int(os.environ.get("SEGMED_MUTATIONS", "240"))
FIRST = int(os.environ.get("SEGMED_FIRST_MUTATION", "0"))
BATCH = 60
SECONDS = 30.0  # for one file
MEMORY = 3 * 2**30  # bytes of address space beyond what the libraries take


def _read(seeds: range, folder: str) -> None:
    """In the child: one line of JSON for each file."""
    import psutil
    from mutations import clear, mutated
    from segmed.imaging.grid import read_grid
    from segmed.imaging.reading import read_volume

    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + MEMORY,) * 2)
    for seed in seeds:
        path = mutated(seed, Path(folder))
        print(json.dumps({"seed": seed, "file": path.name, "began": True}), flush=True)
        began, told = time.monotonic(), ""
        for read in (read_volume, read_grid):
            try:
                read(path)
            except (ValueError, FileNotFoundError) as error:
                told = str(error)
                if len(told) < 20:
                    raise
        print(json.dumps({"seed": seed, "seconds": time.monotonic() - began, "told": told[:200]}), flush=True)
        clear(Path(folder) / f"{seed}")


@pytest.mark.parametrize("first", range(FIRST, FIRST + COUNT, BATCH))
def test_mutated_files_are_read_or_refused(first: int, tmp_path: Path) -> None:
    seeds = f"{first},{min(first + BATCH, FIRST + COUNT)}"
    child = [sys.executable, str(Path(__file__)), seeds, str(tmp_path)]
    done = subprocess.run(child, capture_output=True, encoding="utf-8", timeout=SECONDS * BATCH, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"seed"')]
    assert done.returncode == 0, (lines[-1:], done.stderr[-3000:])
    read = [line for line in lines if "seconds" in line]
    assert len(read) == min(BATCH, FIRST + COUNT - first)
    assert [line for line in read if line["seconds"] > SECONDS] == []
    assert any(line["told"] for line in read)
    assert not any("Traceback" in line["told"] for line in read)


if __name__ == "__main__":
    low, high = map(int, sys.argv[1].split(","))
    _read(range(low, high), sys.argv[2])
