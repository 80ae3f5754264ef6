"""`segmed features`: what an encoder sees in an image, coarse and upsampled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(stderr=True)


def features(
    image: Annotated[
        Path, typer.Argument(help="NIfTI, NRRD, PNG, JPEG, TIFF, or a folder of one DICOM series.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write.")],
    k: Annotated[
        int, typer.Option("--slice", help="Slice, counted from 0; the middle one if not given.")
    ] = -1,
    channels: Annotated[str, typer.Option(help="Such as 0-4 or 0,7,12.")] = "0-4",
    cmap: Annotated[str, typer.Option(help="Colormaps of the columns, with commas.")] = (
        "jet,viridis,plasma,inferno,magma"
    ),
    model: Annotated[str, typer.Option(help="Method whose encoder is looked through.")] = "medsam",
    backbone: Annotated[
        str,
        typer.Option(
            help="SAM weights: name of `segmed weights list`, folder, .pth file, or Hugging Face id."
        ),
    ] = "segmed-tiny",
    jbu: Annotated[
        Path | None, typer.Option(help="Upsampler made by scripts/pretrain_jbu.py for this encoder.")
    ] = (None),
    window: Annotated[str, typer.Option(help="Intensity window, such as auto or ct-lung.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
) -> None:
    """Draw channels of the features in low and high resolution, and their principal components.

    Without --jbu a small network is fitted to this image (FeatUp's implicit upsampler): a minute with the
    embedded weights, many with a large encoder on a CPU.
    """
    try:
        from segmed.methods import find_method
        from segmed.methods.base.backbone import BackboneConfig

        wanted = channel_numbers(channels)
        find_method(model)
        base = BackboneConfig(backbone)
        from segmed.evaluation.feature_sheet import (
            feature_sheet,  # seconds, after what can be refused at once
        )
        from segmed.imaging.picture import open_picture
        from segmed.inference.loading import Loader

        picture = open_picture(image, window)
        k = picture.shape[2] // 2 if k < 0 else k
        if k >= picture.shape[2]:
            raise ValueError(f"--slice {k} is not there; the image has slices 0 to {picture.shape[2] - 1}.")
        with console.status(f"loading {model}"):
            segmenter = Loader().get(model, base, device)
        bar = Progress(TextColumn("fitting"), BarColumn(), TimeRemainingColumn(), console=console)
        task = bar.add_task("fitting", total=None)
        with bar:
            feature_sheet(
                segmenter,
                picture.slice(k),
                out,
                wanted,
                [name.strip() for name in cmap.split(",")],
                jbu,
                tell=lambda done, total: bar.update(task, completed=done, total=total),
            )
    except (ValueError, OSError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    console.print(f"wrote {out}", markup=False, highlight=False, soft_wrap=True)


def channel_numbers(text: str) -> list[int]:
    """`0-4` or `0,7,12`, or both, as numbers.

    Raises:
        ValueError: anything else.
    """
    found: list[int] = []
    for part in text.replace(" ", "").split(","):
        ends = part.split("-")
        if len(ends) > 2 or not all(end.isdecimal() for end in ends) or int(ends[0]) > int(ends[-1]):
            raise ValueError(f"--channels {text!r} is not understood. Give numbers such as 0-4 or 0,7,12.")
        found.extend(range(int(ends[0]), int(ends[-1]) + 1))
    return found
