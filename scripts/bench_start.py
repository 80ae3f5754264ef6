#!/usr/bin/env python
"""How long the command and the server take to start, and what an idle server holds: medians of several
starts.

    python scripts/bench_start.py --rounds 3

Each command runs once before, so that files are in the page cache (a warm start).
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {
    "`segmed --help`": ("--help",),
    "`segmed info`": ("info",),
    "`segmed models list`": ("models", "list", "--registry", "."),
    "a setting that is wrong": ("serve", "--conf", "models", "vnet"),
}
_IDLE = 5.0  # s after the server is ready, when its memory is looked at


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "lib"), "HF_HUB_OFFLINE": "1"}


def command(words: tuple[str, ...]) -> float:
    """Seconds until the command has ended."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "segmed.cli", *words], env=environment(), capture_output=True)
    return time.perf_counter() - start


def server(studies: str) -> tuple[float, float]:
    """Seconds until a server says that it is ready, and MiB of resident memory when it is idle."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    words = [sys.executable, "-m", "segmed.cli", "serve", "--studies", studies, "--port", port]
    words += ["--conf", "scoring", "off"]
    start = time.perf_counter()
    with subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        said = ""
        for line in process.stdout:
            said += line
            if "SegMed is ready" in line:
                break
        else:
            raise RuntimeError(f"the server did not start:\n{said}")
        seconds = time.perf_counter() - start
        time.sleep(_IDLE)
        memory = psutil.Process(process.pid).memory_info().rss / 2**20
        process.terminate()
        process.wait(30)
    return seconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    a = parser.parse_args()
    print(f"{os.cpu_count()} CPU cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}\n")
    print("| start | median | slowest |\n|---|---|---|")
    for name, words in COMMANDS.items():
        command(words)
        times = [command(words) for _ in range(a.rounds)]
        print(f"| {name} | {statistics.median(times):.2f} s | {max(times):.2f} s |", flush=True)
    with tempfile.TemporaryDirectory() as studies:
        server(studies)
        starts = [server(studies) for _ in range(a.rounds)]
    seconds, memory = ([one[n] for one in starts] for n in (0, 1))
    print(f"| server ready | {statistics.median(seconds):.1f} s | {max(seconds):.1f} s |")
    print(f"| server idle, resident | {statistics.median(memory):.0f} MiB | {max(memory):.0f} MiB |")


if __name__ == "__main__":
    main()
