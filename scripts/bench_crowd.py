#!/usr/bin/env python
"""How long one waits where others ask, too: ratios, so that they can be compared between machines.

Prints a Markdown table: the 95th percentile of sixteen clients' boxes beside sixteen times the compute of
one, and a click while a box is carried through 500 slices beside the same click alone. Usage: python
scripts/bench_crowd.py [--clients 16] [--each 12] [--slices 500]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import requests
from bench_serve import Server

SIDE = 128


def write_volume(path: Path, slices: int) -> None:
    """A bright block in noise."""
    image = np.random.default_rng(0).normal(100, 10, (SIDE, SIDE, slices)).astype(np.int16)
    image[40:90, 30:80] += 250
    nib.save(nib.Nifti1Image(image, np.eye(4)), path)


def ask(server: Server, model: str, client: str, **prompt: object) -> tuple[float, float]:
    """Seconds that a prompt took, for the client and inside the server."""
    params = {"client_id": client, "result_extension": ".nii.gz", **prompt}
    begun = time.perf_counter()
    url = f"{server.url}/infer/{model}?image=scan&output=json"
    answer = requests.post(url, data={"params": json.dumps(params)}, timeout=3600)
    took = time.perf_counter() - begun
    answer.raise_for_status()
    return took, float(answer.json()["latencies"]["segment"])


def boxes(server: Server, client: int, count: int) -> list[tuple[float, float]]:
    """Boxes one after the other, each on another slice."""
    found = []
    for n in range(count):
        k = (37 * client + 11 * n) % 200
        found.append(ask(server, "segmed", f"client {client}", roi=[38 - n % 5, 92, 28, 82 + n % 7, k, k]))
    return found


def clicks(server: Server, enough: threading.Event | None, count: int) -> list[float]:
    """Clicks of somebody who thinks for a moment between them, until so many are made or it is enough."""
    found: list[float] = []
    while len(found) < count and not (enough and enough.is_set()):
        n = len(found)
        found.append(ask(server, "segmed", "clicker", foreground=[[50 + n % 20, 40 + n % 25, n % 100]])[0])
        time.sleep(0.2)
    return found


def p95(values: list[float]) -> float:
    return sorted(values)[round(0.95 * (len(values) - 1))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--each", type=int, default=12, help="boxes of each client")
    parser.add_argument("--slices", type=int, default=500)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        studies = Path(folder) / "studies"
        studies.mkdir()
        write_volume(studies / "scan.nii.gz", arguments.slices)
        server = Server(studies, registry=f"{folder}/registry", scoring="off")
        try:
            boxes(server, 99, 3)  # reads volume and weights
            # before and after, as the speed of a machine drifts
            alone = boxes(server, 50, 20)
            with ThreadPoolExecutor(arguments.clients) as pool:
                crowd = list(pool.map(lambda n: boxes(server, n, arguments.each), range(arguments.clients)))
            alone += boxes(server, 51, 20)
            compute = statistics.median(inside for _, inside in alone)
            waited = p95([took for one in crowd for took, _ in one])
            quiet = clicks(server, None, 20)
            over = threading.Event()

            def carry() -> None:
                ask(server, "segmed_3d", "carrier", roi=[38, 92, 28, 82, 0, arguments.slices - 1])
                over.set()

            thread = threading.Thread(target=carry)
            thread.start()
            time.sleep(1)
            beside = clicks(server, over, 10_000)
            thread.join()
            quiet += clicks(server, None, 20)
        finally:
            server.close()
    print("| what | measured | ratio (target ≤ 1.3) |\n|---|---|---|")
    many = arguments.clients
    print(f"| one client's box, compute alone | {compute * 1e3:.0f} ms | |")
    print(
        f"| box of {many} clients, 95 % | {waited * 1e3:.0f} ms | {waited / (many * compute):.2f} × {many} × "
        f"compute |"
    )
    print(f"| click alone, median of {len(quiet)} | {statistics.median(quiet) * 1e3:.0f} ms | |")
    ratio = statistics.median(beside) / statistics.median(quiet)
    print(
        f"| click beside `_3d` of {arguments.slices} slices, median of {len(beside)} | "
        f"{statistics.median(beside) * 1e3:.0f} ms | {ratio:.2f} × alone |"
    )


if __name__ == "__main__":
    main()
