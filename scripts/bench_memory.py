#!/usr/bin/env python
"""What a server takes when it has nothing to do, and after thousands of mixed requests.

Prints a Markdown table: resident memory, open files and threads when it is ready, a while later, after the
first tenth of the requests and after all of them. Usage: python scripts/bench_memory.py [--requests 10000]
[--clients 8]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from bench_serve import Server
from soak import Watch, drive, write_studies

IDLE = 20.0  # s


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        empty, studies = Path(folder) / "empty", Path(folder) / "studies"
        empty.mkdir()
        studies.mkdir()
        write_studies(studies, arguments.clients)
        rows = []
        server = Server(empty, registry=f"{folder}/registry")
        try:
            rows.append(("ready, no images", Watch(server.process.pid).look()))
        finally:
            server.close()
        server = Server(studies, registry=f"{folder}/registry")
        try:
            watch = Watch(server.process.pid)
            rows.append(("ready", watch.look()))
            time.sleep(IDLE)
            rows.append((f"{IDLE:.0f} s later, images are being scored", watch.look()))
            faults, made = [], 0
            for share in (0.1, 1.0):
                most = int(share * arguments.requests) - made
                _, seen = drive(server.url, arguments.clients, int(10 * share), 24 * 3600.0, most)
                faults += seen.faults
                made += len(seen.answers)
                rows.append((f"after {made:,} requests", watch.look()))
        finally:
            server.close()
    print("| | memory, MiB | files and sockets | threads |\n|---|---|---|---|")
    for name, (_, memory, handles, threads) in rows:
        print(f"| {name} | {memory / 2**20:.0f} | {handles} | {threads} |")
    growth = rows[-1][1][1] / rows[-2][1][1] - 1
    print(f"\nGrowth from the first tenth of the requests to the last: {growth:+.1%} (target ≤ +10 %)")
    print(f"Answers that were wrong: {len(faults)}", *faults[:5], sep="\n")


if __name__ == "__main__":
    main()
