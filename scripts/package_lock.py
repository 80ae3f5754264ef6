"""requirements.lock and requirements-dev.lock, with hashes, and what a resolver says of other systems.

One lock is for Python 3.11 to 3.13 on Linux, Windows and macOS: markers tell which line is for which.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: What the server runs with; MONAI Label, without what it asks for; and what the tests need besides.
SERVER = ("requirements.txt", "requirements-baselines.txt")
ALONE = "requirements-monailabel.txt"
DEVELOPERS = (
    "requirements-cluster.txt",
    "requirements-dev.txt",
    "requirements-onnx.txt",
    "requirements-openvino.txt",
)
LOCK, DEV_LOCK = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"

PYTHONS = ("3.11", "3.12", "3.13")
#: uv's names of systems, by those of their wheels; the oldest macOS that PyTorch is built for is 14.
SYSTEMS = {
    "manylinux_2_28_x86_64": "x86_64-manylinux_2_28",
    "manylinux_2_28_aarch64": "aarch64-manylinux_2_28",
    "win_amd64": "x86_64-pc-windows-msvc",
    "macosx_14_0_arm64": "aarch64-apple-darwin",
}
_HEADER = (
    "# Made by scripts/supply_chain.py from {lists}: every package with the hashes of its files on PyPI.\n"
    "# For pip install --no-deps --require-hashes -r, with Python 3.11 to 3.13. Do not edit.\n"
)
_PLACES = re.compile(
    r"://|^\s*(-i|-f|-e|--index-url|--extra-index-url|--find-links|--editable)\b|\s@\s", re.MULTILINE
)


class UnresolvedError(Exception):
    """The requirements contradict each other, or the index cannot be reached; the message is uv's."""


def blocks(text: str) -> list[str]:
    """The packages of a lock, each with its hashes."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [block for block in re.split(r"\n(?=\S)", lines) if block.strip()]


def check_lock(text: str) -> list[str]:
    """What a lock must not have: addresses of indexes and places on this machine, and packages without a
    hash."""
    wrong = [
        f"line {text[: m.start()].count(chr(10)) + 1} names a place: {m[0].strip()}"
        for m in _PLACES.finditer(text)
    ]
    return wrong + [
        f"{block.split()[0]} has no hash" for block in blocks(text) if "--hash=sha256:" not in block
    ]


def write_locks(uv: str, upgrade: bool = False) -> dict[Path, int]:
    """Write both locks.

    Args:
        uv: The program.
        upgrade: Whether packages that requirements*.txt do not pin may change their versions, too.

    Returns:
        How many packages each has.

    Raises:
        UnresolvedError: There is no solution.
        ValueError: The lock would have no hashes, or name places.
    """
    before = [] if upgrade else [path for path in (LOCK, DEV_LOCK) if path.is_file()]
    server = _resolve(uv, SERVER, before)
    alone = _compile(uv, [ALONE, "--no-deps", *_AS_LOCK])
    everything = _resolve(uv, (*SERVER, *DEVELOPERS), before, server)
    known = set(blocks(server))
    more = "\n".join(block for block in blocks(everything) if block not in known) + "\n"
    texts = {
        LOCK: (", ".join((*SERVER, ALONE)), server + alone),
        DEV_LOCK: (", ".join(DEVELOPERS) + ", apart from those in requirements.lock", more),
    }
    for path, (lists, text) in texts.items():
        if wrong := check_lock(text):
            raise ValueError(f"{path.name} would be wrong: " + "; ".join(wrong[:5]))
        path.write_text(_HEADER.format(lists=lists) + text, encoding="utf-8")
    return {path: len(blocks(text)) for path, (_, text) in texts.items()}


def resolves(uv: str, system: str, python: str) -> str:
    """Whether every package of the server has a wheel for this system; "" or what the resolver says."""
    options = ["--python-version", python, "--python-platform", SYSTEMS[system], "--only-binary", ":all:"]
    try:
        _compile(uv, [*SERVER, *options])
        _compile(uv, [ALONE, "--no-deps", *options])
    except UnresolvedError as error:
        return str(error)
    return ""


_AS_LOCK = ["--universal", "--python-version", "3.11", "--generate-hashes"]


def _resolve(uv: str, lists: tuple[str, ...], before: list[Path], exactly: str = "") -> str:
    """The lock of some lists, with the versions of earlier locks as far as the lists allow."""
    with tempfile.TemporaryDirectory() as folder:
        made, constraints = Path(folder) / "made.txt", Path(folder) / "constraints.txt"
        made.write_text("".join(path.read_text(encoding="utf-8") for path in before), encoding="utf-8")
        constraints.write_text("\n".join(block.split("\\")[0] for block in blocks(exactly)), encoding="utf-8")
        return _compile(
            uv, [*lists, "--constraint", str(constraints), "--output-file", str(made), *_AS_LOCK], made
        )


def _compile(uv: str, words: list[str], made: Path | None = None) -> str:
    command = [uv, "pip", "compile", *words, "--quiet", "--no-header", "--no-annotate"]
    command += ["--no-emit-index-url", "--no-emit-find-links"]
    environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise UnresolvedError(done.stderr.strip())
    return made.read_text(encoding="utf-8") if made else done.stdout


def table(uv: str) -> tuple[str, bool]:
    """Which systems and versions of Python have wheels of everything, as Markdown, and whether all have."""
    rows, good = ["| system | " + " | ".join(PYTHONS) + " |", "|---" * (len(PYTHONS) + 1) + "|"], True
    for system in SYSTEMS:
        said = [resolves(uv, system, python) for python in PYTHONS]
        good = good and not any(said)
        rows.append(f"| `{system}` | " + " | ".join("no" if one else "yes" for one in said) + " |")
        for one in filter(None, said):
            print(f"{system}: {one}", file=sys.stderr)
    return "\n".join(rows), good
