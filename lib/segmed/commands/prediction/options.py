"""Options that the commands for one image share, and messages to the user."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

console = Console(stderr=True)
ImageFile = Annotated[
    Path, typer.Argument(help="NIfTI, NRRD, PNG, JPEG, TIFF, or a folder of one DICOM series.")
]
Backbone = Annotated[
    str,
    typer.Option(help="SAM weights: name of `segmed weights list`, folder, .pth file, or Hugging Face id."),
]
Window = Annotated[str, typer.Option(help="Intensity window, such as auto or ct-lung.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …; the GPU if there is one.")]
Precision = Annotated[str, typer.Option(help="Of the image encoder: auto, bf16 or fp32.")]
Models = Annotated[Path, typer.Option(help="Folder of trained models; the served version answers.")]


def say(text: str, style: str = "") -> None:
    """Tell the user, on the error stream."""
    console.print(text, style=style or None, markup=False, highlight=False, soft_wrap=True)
