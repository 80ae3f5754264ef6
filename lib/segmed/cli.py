"""The `segmed` command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

import segmed
from segmed.commands import audit, data, labels, models, users, weights
from segmed.commands.benchmark import benchmark
from segmed.commands.denoiser import denoiser
from segmed.commands.export import export
from segmed.commands.features import features
from segmed.commands.masks import masks
from segmed.commands.method_table import method_table
from segmed.commands.predict import predict
from segmed.commands.report import report
from segmed.commands.studies import show_studies, split_conf
from segmed.commands.train import train

if TYPE_CHECKING:  # numpy and torch are imported late, so that --help answers at once
    from segmed.methods.segmenter import Method

app = typer.Typer(
    help="SegMed: segment medical images with the SAM family. Start with `segmed serve`, or with `segmed predict`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
app.add_typer(labels.app, name="labels")
app.add_typer(weights.app, name="weights")
app.add_typer(users.app, name="users")
app.add_typer(audit.app, name="audit")
app.command()(predict)
app.command()(masks)
app.command()(train)
app.command()(features)
app.command()(export)
app.command()(denoiser)
app.command()(report)
app.command()(benchmark)
console = Console(stderr=True)
APP_DIR = Path(__file__).resolve().parents[2] / "apps" / "segmed"

Conf = Annotated[
    list[str] | None, typer.Option("--conf", help="KEY=VALUE, repeatable; `segmed info` lists the keys.", metavar="K=V")
]


@app.command()
def info(
    conf: Conf = None,
    studies: Annotated[
        Path | None, typer.Option(help="Folder of studies: what is offered of it, and what is left out and why.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print only the table of methods, as Markdown.")] = False,
) -> None:
    """Show the methods, what each needs, and every --conf key of the server; with --studies what a folder offers."""
    if markdown:
        print(method_table())
        return
    if studies is not None:
        show_studies(studies, conf or [])
        return
    import torch

    from segmed.methods import METHODS
    from segmed.sam.precision import cpu_has_bf16
    from segmed.server.engine import Engine
    from segmed.server.settings import ServerSettings
    from segmed.training.registry import Registry

    out = Console()
    out.print(f"SegMed {segmed.__version__}")
    names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    out.print(f"devices: {', '.join([*names, 'CPU (bf16)' if cpu_has_bf16() else 'CPU'])}")
    methods = Table("method", "what it does", "needs")
    for method in METHODS.values():
        methods.add_row(method.name, method.title, _needs(method))
    out.print(methods)
    keys = Table("--conf", "meaning")
    for key, meaning in ServerSettings.KEYS.items():
        keys.add_row(key, meaning)
    out.print(keys)
    if conf:
        try:
            settings = ServerSettings.from_conf(split_conf(conf))
        except (ValueError, FileNotFoundError) as error:
            _say(str(error), "red")
            raise typer.Exit(2) from error
        engine = Engine(settings, Registry(settings.registry or models.REGISTRY))
        names = [name for method in engine.offered() for name in engine.names(method)]
        out.print(f"this server would offer: {', '.join(names)}")


def _needs(method: Method) -> str:
    if method.weights:
        return "nothing, its weights come along"
    if method.build is None:
        return f"training: segmed train --method {method.name} --data … (or Train in the viewer)"
    if method.read:
        return f"--conf backbone_{method.name} …"
    return "--conf backbone …" if method.needs_backbone else "nothing"


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    context: typer.Context,
    studies: Annotated[str, typer.Option(help="Folder of images, or a DICOMweb URL; a demo study if not given.")] = "",
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; others than 127.0.0.1 need --users.")] = "127.0.0.1",
    users: Annotated[
        Path | None, typer.Option(help="File of `segmed users`; whoever is in it has to log in.", envvar="SEGMED_USERS")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let everybody in your network read and change the studies.")
    ] = False,
    audit: Annotated[Path | None, typer.Option(help="Log of who changed what; else beside the file of users.")] = None,
    certfile: Annotated[Path | None, typer.Option(help="TLS certificate, PEM.")] = None,
    keyfile: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
) -> None:
    """Start the server for 3D Slicer and OHIF.

    `--conf KEY VALUE`, repeatable, sets what `segmed info` lists, for instance `--conf models medsam,sam
    --conf backbone medsam_vit_b.pth`.

    Behind a reverse proxy: SEGMED_ORIGINS=https://NAME in the environment names the addresses of its pages, and
    SEGMED_PROXIES those of proxies whose X-Forwarded headers are trusted; see docs/proxy.md.
    """
    from segmed.server.serve import Access
    from segmed.server.serve import serve as start

    try:
        if (certfile is None) != (keyfile is None):
            raise ValueError("--certfile and --keyfile belong together. Give both.")
        access = Access(users, insecure, (certfile, keyfile) if certfile and keyfile else None, audit)
        start(APP_DIR, studies, host, port, _conf_pairs(context.args), access)
    except (ValueError, FileNotFoundError) as error:
        _say(str(error), "red")
        raise typer.Exit(2) from error


@app.command()
def phantom(
    sheet: Annotated[Path, typer.Option(help="PNG to write.")],
    seed: Annotated[int, typer.Option(help="Of the samples; the same seed draws the same ones.")] = 0,
    rows: Annotated[int, typer.Option(help="Rows of pictures.")] = 6,
    columns: Annotated[int, typer.Option(help="Columns of pictures.")] = 8,
) -> None:
    """Show what the default model is trained on: drawn pictures with their targets outlined."""
    try:
        if not sheet.parent.is_dir():
            raise FileNotFoundError(f"The folder {sheet.parent} does not exist. Make it first.")
        from segmed.data.phantom.sheet import contact_sheet

        with console.status("drawing"):
            contact_sheet(sheet, seed, rows, columns)
    except (ValueError, OSError) as error:
        _say(str(error), "red")
        raise typer.Exit(2) from error
    _say(f"wrote {sheet}")


def _conf_pairs(args: list[str]) -> dict[str, str]:
    """`--conf K V` takes two words, as in MONAI Label's own command."""
    pairs: dict[str, str] = {}
    rest = list(args)
    while rest:
        if rest[0] not in ("--conf", "-c") or len(rest) < 3:
            raise ValueError(f"{' '.join(rest)[:80]!r} is not understood. Settings are given as --conf KEY VALUE.")
        pairs[rest[1]], rest = rest[2], rest[3:]
    return pairs


def _say(text: str, style: str = "") -> None:
    console.print(text, style=style or None, markup=False, highlight=False)


def main() -> None:
    """Entry point of the `segmed` command."""
    app()


if __name__ == "__main__":
    main()
