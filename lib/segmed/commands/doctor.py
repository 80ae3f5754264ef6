"""`segmed doctor`: a check of whether this machine can run SegMed, with a remedy for each problem."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from segmed.commands.info import gpus
from segmed.places import APP, INSTALLED, WORK

State = Literal["ok", "warning", "failed"]
_STYLES: dict[State, str] = {"ok": "green", "warning": "yellow", "failed": "red"}
_GIB = 2**30
_TIGHT, _FULL = (
    5 * _GIB,
    _GIB // 2,
)  # bytes free: studies, caches and models grow; below half a GiB saving may fail
_SECONDS = 5.0  # that a PACS is waited for
_BUILD_PAGE = "Run ./scripts/build_web.sh in the checkout while it can reach the npm registry" + (
    ", build the wheel again and install it." if INSTALLED else ". 3D Slicer and OHIF work without it."
)


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        about: What was checked.
        state: `ok`, `warning` if SegMed runs with restrictions, or `failed` if it cannot start or save.
        found: The result.
        remedy: What to do; "" if nothing is wrong.
    """

    about: str
    state: State
    found: str
    remedy: str = ""


def doctor(
    studies: Annotated[
        str, typer.Option(help="Folder of images, or the DICOMweb URL of a PACS, to look at, too.")
    ] = "",
    port: Annotated[int, typer.Option(help="Port that the server is to listen on.")] = 8000,
    host: Annotated[str, typer.Option(help="Address that it is to listen on.")] = "127.0.0.1",
) -> None:
    """Check this machine: Python, PyTorch, GPU, disk, port, weights, the web page, and the studies if they
    are given.

    The exit code is 0 if the server can start, with warnings too, and 1 if something has failed.
    """
    out = Console(soft_wrap=True)
    failed = False
    for one in examine(studies, host, port):
        style = _STYLES[one.state]
        out.print(f"[{style}]{one.state:8}[/{style}] {one.about}: {escape(one.found)}", highlight=False)
        if one.remedy:
            out.print(f"         → {escape(one.remedy)}", highlight=False)
        failed |= one.state == "failed"
    raise typer.Exit(int(failed))


def examine(studies: str, host: str, port: int) -> Iterator[Finding]:
    """All checks, the fastest ones first."""
    yield python_version(sys.version_info[:3])
    yield packages()
    yield free_port(host, port)
    yield free_disk("disk for SegMed's files", WORK)
    yield free_disk("disk for temporary files", Path(tempfile.gettempdir()))
    yield weights(APP / "model")
    yield page(APP / "web" / "dist")
    if studies.startswith(("http://", "https://")):
        yield pacs(studies)
    elif studies:
        yield folder(Path(studies).expanduser())
    yield pytorch()


def python_version(version: tuple[int, ...]) -> Finding:
    """Check the version of Python: SegMed supports those for which all dependencies have wheels."""
    found = ".".join(map(str, version))
    if (3, 11) <= version[:2] <= (3, 13):
        return Finding("Python", "ok", found)
    return Finding(
        "Python",
        "failed",
        found,
        "Install Python 3.11 to 3.13, remove .venv and run ./scripts/setup.sh again.",
    )


def packages() -> Finding:
    """Check the versions of the packages that SegMed's metadata requires, and of MONAI Label, which they do
    not name."""
    from packaging.requirements import Requirement

    from segmed.server.monailabel_imports import PINNED

    try:
        wanted = [Requirement(text) for text in metadata.requires("segmed") or ()]
    except metadata.PackageNotFoundError:
        return Finding(
            "packages", "warning", "SegMed runs from a folder without being installed", "pip install -e ."
        )
    wanted.append(Requirement(PINNED))
    wrong = []
    for one in wanted:
        if one.marker and not one.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{one.name} is missing")
            continue
        if not one.specifier.contains(version, prereleases=True):
            wrong.append(f"{one.name} is {version}, not {one.specifier}")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        again = (
            f"pip install --force-reinstall the wheel, then pip install --no-deps {PINNED}"
            if INSTALLED
            else "rm .venv/.segmed-packages; ./scripts/setup.sh"
        )
        return Finding("packages", "warning", "; ".join(wrong[:3]) + more, f"Install what is pinned: {again}")
    return Finding("packages", "ok", f"{len(wanted)} as pinned")


def free_port(host: str, port: int) -> Finding:
    """Check whether a server can listen on a port."""
    where = f"{host} port {port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            return Finding(
                "port", "failed", f"{where}: {why}", "Stop what listens there, or choose another --port."
            )
    return Finding("port", "ok", f"{where} is free")


def free_disk(about: str, place: Path) -> Finding:
    """Check the free space of a folder, which may not exist yet."""
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    found = f"{free / _GIB:.1f} GiB free at {place}"
    if not os.access(place, os.W_OK):
        return Finding(
            about, "failed", f"{place} cannot be written to", "Let the user of the server write there."
        )
    state: State = "failed" if free < _FULL else "warning" if free < _TIGHT else "ok"
    return Finding(
        about, state, found, "" if state == "ok" else f"Free space there, {_TIGHT // _GIB} GiB or more."
    )


def weights(models: Path) -> Finding:
    """Check the files of the included models."""
    from safetensors import SafetensorError, safe_open

    from segmed.sam.sources import DEFAULT_MODEL, EMBEDDED

    for name in (DEFAULT_MODEL, EMBEDDED):
        try:
            with safe_open(models / name / "model.safetensors", "numpy") as file:
                file.keys()
        except (OSError, SafetensorError) as error:
            remedy = f"Restore the folder {models / name} from the project's files, or install SegMed again."
            return Finding("weights", "failed", f"{name} cannot be read ({error})", remedy)
    return Finding("weights", "ok", f"{DEFAULT_MODEL} and {EMBEDDED}")


def page(built: Path) -> Finding:
    """Check whether the web page was built."""
    if (built / "index.html").is_file():
        return Finding("web page", "ok", "built")
    return Finding("web page", "warning", "not built, so that / shows a notice", _BUILD_PAGE)


def folder(studies: Path) -> Finding:
    """Check whether studies can be read from a folder, and labels saved."""
    if not studies.is_dir():
        return Finding(
            "studies", "failed", f"there is no folder {studies}", "Give a folder of images or a DICOMweb URL."
        )
    if not os.access(studies, os.R_OK | os.X_OK):
        return Finding(
            "studies", "failed", f"{studies} cannot be read", "Let the user of the server read it."
        )
    if not os.access(studies, os.W_OK):
        return Finding(
            "studies",
            "warning",
            f"{studies} is read-only: labels cannot be saved",
            "Let the server write there.",
        )
    return free_disk("studies", studies)


def pacs(url: str) -> Finding:
    """Check whether a PACS answers a search, with user and password from the environment if they are set."""
    import httpx

    user = os.environ.get("MONAI_LABEL_DICOMWEB_USERNAME", "")
    login = (user, os.environ.get("MONAI_LABEL_DICOMWEB_PASSWORD", "")) if user else None
    try:
        answer = httpx.get(
            f"{url.rstrip('/')}/studies",
            params={"limit": 1},
            headers={"Accept": "application/dicom+json"},
            auth=login,
            timeout=_SECONDS,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        remedy = "Check the address, that the PACS runs, and that no firewall or proxy is between."
        return Finding("PACS", "failed", f"{url} does not answer ({error or type(error).__name__})", remedy)
    if answer.status_code in (401, 403):
        remedy = (
            "Set MONAI_LABEL_DICOMWEB_USERNAME and MONAI_LABEL_DICOMWEB_PASSWORD to an account that may read."
        )
        return Finding("PACS", "failed", f"{url} wants a login ({answer.status_code})", remedy)
    if answer.status_code not in (200, 204):
        remedy = "Give the address of DICOMweb itself, such as http://HOST:8042/dicom-web for Orthanc."
        return Finding("PACS", "failed", f"{url}/studies answers {answer.status_code}", remedy)
    return Finding("PACS", "ok", f"{url} answers")


def pytorch() -> Finding:
    """Check which build of PyTorch is installed and whether it can use the GPU; called last, because the
    import takes seconds."""
    there = gpus()
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("PyTorch", "failed", f"cannot be imported ({error})", "Run ./scripts/setup.sh again.")
    build = f"{torch.__version__}, {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPU only'}"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
        free = max(torch.cuda.mem_get_info(n)[0] for n in range(len(names))) / _GIB
        return Finding("PyTorch", "ok", f"{build}, {', '.join(names)}, {free:.0f} GiB free")
    if not there:
        return Finding("PyTorch", "ok", f"{build}, no GPU: the CPU is used")
    remedy = (
        f"Install an NVIDIA driver that is new enough for CUDA {torch.version.cuda}, or see "
        f"CUDA_VISIBLE_DEVICES."
        if torch.version.cuda
        else "Install a build of PyTorch with CUDA."
    )
    return Finding(
        "PyTorch", "warning", f"{build}, does not reach {', '.join(there)}: the CPU is used", remedy
    )
