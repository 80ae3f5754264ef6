"""The `segmed` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import segmed
from segmed.commands import audit, data, labels, models, users, weights
from segmed.commands.batch import runs as batch
from segmed.commands.benchmark import benchmark
from segmed.commands.denoiser import denoiser
from segmed.commands.doctor import doctor
from segmed.commands.exports.datasets import import_labels
from segmed.commands.exports.export import export
from segmed.commands.features import features
from segmed.commands.info import info
from segmed.commands.prediction.masks import masks
from segmed.commands.prediction.predict import predict
from segmed.commands.prediction.reproduce import reproduce
from segmed.commands.report import report
from segmed.commands.train import train

app = typer.Typer(
    help="SegMed: segment medical images with the SAM family. Start with `segmed serve`, or with `segmed "
    "predict`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.add_typer(batch.app, name="batch")
app.add_typer(data.app, name="data")
app.add_typer(models.app, name="models")
app.add_typer(labels.app, name="labels")
app.add_typer(weights.app, name="weights")
app.add_typer(users.app, name="users")
app.add_typer(audit.app, name="audit")
app.command()(info)
app.command()(doctor)
app.command()(predict)
app.command()(masks)
app.command()(reproduce)
app.command()(train)
app.command()(features)
app.command()(export)
app.command("import")(import_labels)
app.command()(denoiser)
app.command()(report)
app.command()(benchmark)
console = Console(stderr=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"segmed {segmed.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end."),
    ] = False,
) -> None:
    """Options of the command itself."""


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    context: typer.Context,
    studies: Annotated[
        str, typer.Option(help="Folder of images, or a DICOMweb URL; a demo study if not given.")
    ] = "",
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than 127.0.0.1 need --users.")
    ] = "127.0.0.1",
    users: Annotated[
        Path | None,
        typer.Option(help="File of `segmed users`; whoever is in it has to log in.", envvar="SEGMED_USERS"),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let everybody in your network read and change the studies.")
    ] = False,
    oidc: Annotated[
        Path | None,
        typer.Option(
            help="JSON file of a login by OpenID Connect, see docs/access.md.", envvar="SEGMED_OIDC"
        ),
    ] = None,
    audit: Annotated[
        Path | None, typer.Option(help="Log of who changed what; else beside the file of users.")
    ] = None,
    certfile: Annotated[Path | None, typer.Option(help="TLS certificate, PEM.")] = None,
    keyfile: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
) -> None:
    """Start the server for the web page, 3D Slicer and OHIF.

    `--conf KEY VALUE`, repeatable, sets what `segmed info` lists, for instance `--conf models medsam,sam
    --conf backbone medsam_vit_b.pth`.

    Behind a reverse proxy: SEGMED_ORIGINS=https://NAME in the environment names the addresses of its pages,
    and SEGMED_PROXIES those of proxies whose X-Forwarded headers are trusted; see docs/proxy.md.
    """
    from segmed.server.serve import Access
    from segmed.server.serve import serve as start

    try:
        if (certfile is None) != (keyfile is None):
            raise ValueError("--certfile and --keyfile belong together. Give both.")
        access = Access(users, insecure, (certfile, keyfile) if certfile and keyfile else None, audit, oidc)
        start(studies, host, port, _conf_pairs(context.args), access)
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
    """Show what the default model is trained on: synthetic images with their targets outlined."""
    try:
        if not sheet.parent.is_dir():
            raise FileNotFoundError(f"The folder {sheet.parent} does not exist. Make it first.")
        from segmed.data.synthetic.sheet import contact_sheet

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
            raise ValueError(
                f"{' '.join(rest)[:80]!r} is not understood. Settings are given as --conf KEY VALUE."
            )
        pairs[rest[1]], rest = rest[2], rest[3:]
    return pairs


def _say(text: str, style: str = "") -> None:
    console.print(text, style=style or None, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of the `segmed` command."""
    try:
        app()
    except ModuleNotFoundError as error:
        if error.name != "monailabel":
            raise
        _say(str(error), "red")
        sys.exit(2)


if __name__ == "__main__":
    main()
