"""`segmed info`: methods, settings, devices, and what a folder of studies offers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

import segmed
from segmed.commands.studies import show_studies, split_conf
from segmed.methods.table import method_table
from segmed.places import REGISTRY

if TYPE_CHECKING:
    from segmed.methods.base.method import Method
    from segmed.server.config.settings import ServerSettings

console = Console(stderr=True)
_DRIVER = Path("/proc/driver/nvidia/gpus")

Conf = Annotated[
    list[str] | None,
    typer.Option("--conf", help="KEY=VALUE, repeatable; `segmed info` lists the keys.", metavar="K=V"),
]


def info(
    conf: Conf = None,
    studies: Annotated[
        Path | None,
        typer.Option(help="Folder of studies: what is offered of it, and what is left out and why."),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print only the table of methods, as Markdown.")
    ] = False,
) -> None:
    """Show the methods, what each needs, and every --conf key of the server; with --studies what a folder
    offers."""
    if markdown:
        print(method_table())
        return
    if studies is not None:
        show_studies(studies, conf or [])
        return
    from segmed.methods import METHODS
    from segmed.sam.cpu.number_format import cpuinfo_has_bf16
    from segmed.server.config.settings import ServerSettings

    try:
        settings = ServerSettings.from_conf(split_conf(conf)) if conf else None
    except (ValueError, FileNotFoundError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    out = Console()
    out.print(f"SegMed {segmed.__version__}")
    out.print(f"devices: {', '.join([*gpus(), 'CPU (bf16)' if cpuinfo_has_bf16() else 'CPU'])}")
    methods = Table("method", "what it does", "needs")
    for method in METHODS.values():
        methods.add_row(method.name, method.title, _needs(method))
    out.print(methods)
    keys = Table("--conf", "meaning")
    for key, meaning in ServerSettings.KEYS.items():
        keys.add_row(key, meaning)
    out.print(keys)
    if settings:
        out.print(f"this server would offer: {', '.join(_offered(settings))}")


def gpus() -> list[str]:
    """Names of the NVIDIA GPUs of this machine as their driver tells them, without PyTorch, which takes
    seconds."""
    told = (
        file.read_text(encoding="utf-8", errors="replace") for file in sorted(_DRIVER.glob("*/information"))
    )
    return [found[1].strip() for text in told if (found := re.search(r"^Model:(.*)$", text, re.MULTILINE))]


def _offered(settings: ServerSettings) -> list[str]:
    from segmed.registry.versions import Registry
    from segmed.server.engine import Engine

    engine = Engine(settings, Registry(settings.registry or REGISTRY))
    return [name for method in engine.offered() for name in engine.names(method)]


def _needs(method: Method) -> str:
    if method.weights:
        return "nothing, its weights come along"
    if not method.ready:
        return f"training: segmed train --method {method.name} --data … (or Train in the viewer)"
    if method.own_format:
        return f"--conf backbone_{method.name} …"
    return "--conf backbone …" if method.needs_backbone else "nothing"
