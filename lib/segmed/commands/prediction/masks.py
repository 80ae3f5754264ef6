"""`segmed masks`: everything on a slice, without a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from segmed.commands.models import REGISTRY
from segmed.commands.prediction.inputs import check_out
from segmed.commands.prediction.loading import check_model, load_predictor
from segmed.commands.prediction.options import Backbone, Device, ImageFile, Models, Precision, Window, say

if TYPE_CHECKING:  # numpy and torch are imported late, so that --help answers at once
    import numpy as np

    from segmed.inference.automatic_masks import ProposedMask

_MOST = 255  # labels of a mask file
_SHOWN = 20


def masks(
    image: ImageFile,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Label map to write: .nii.gz, .nrrd or .png (one slice).")
    ],
    at: Annotated[
        int, typer.Option("--slice", help="Number of the slice; the middle one if not given.")
    ] = -1,
    preset: Annotated[str, typer.Option(help="What is kept: published, sam2, relaxed or all.")] = "relaxed",
    points: Annotated[int, typer.Option(help="Clicks per side of the grid.")] = 32,
    model: Annotated[str, typer.Option(help="Method that takes clicks.")] = "",
    backbone: Backbone = "",
    window: Window = "auto",
    device: Device = "",
    precision: Precision = "auto",
    registry: Models = REGISTRY,
) -> None:
    """Propose masks for all that is on a slice, by a grid of clicks (Kirillov et al., 2023).

    Labels go from the largest mask to the smallest, which lies on top; what they are is not known.

    Example: `segmed masks ct.nii.gz --slice 42 -o everything.nii.gz`
    """
    try:
        check_model(model, backbone, precision)
        check_out(out, image)
        from dataclasses import replace

        from segmed.imaging.labels.writing import name_values, write_labels
        from segmed.imaging.picture import open_picture
        from segmed.inference.automatic_masks import PRESETS, automatic_masks

        if preset not in PRESETS:
            raise ValueError(f"--preset {preset!r} must be one of {', '.join(PRESETS)}.")
        config = replace(PRESETS[preset], points_per_side=points)
        picture = open_picture(image, window)
        depth = picture.shape[2]
        k = depth // 2 if at == -1 else at
        if not 0 <= k < depth:
            raise ValueError(f"--slice {at} must be one of 0 to {depth - 1}.")
        name = model or ("medsam" if backbone else "segmed")
        predictor, automatic = load_predictor(name, backbone, device, precision, registry)
        if automatic:
            raise ValueError(f"The model {model!r} takes no clicks. Take segmed, medsam, sam or sam2.")
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            transient=True,
        ) as bar:
            task = bar.add_task("clicks", total=points**2)
            found = automatic_masks(
                predictor,
                picture,
                k,
                config,
                lambda done, total: bar.update(task, completed=done, total=total),
            )
        labels, kept = numbered(found, picture.shape, k)
        write_labels(name_values(labels), picture.affine, out, like=image)
        _tell(found, kept, out)
    except (ValueError, OSError) as error:
        say(str(error), "red")
        raise typer.Exit(2) from error


def numbered(
    found: list[ProposedMask], shape: tuple[int, ...], k: int
) -> tuple[np.ndarray, list[ProposedMask]]:
    """A label map (I, J, K) uint8 with the masks on slice k, and these, the largest first.

    Of more than 255 masks those with the highest scores are taken.
    """
    import numpy as np

    labels = np.zeros(shape[:3], np.uint8)
    kept = sorted(found[:_MOST], key=lambda one: -int(one.mask.sum()))
    for value, one in enumerate(kept, start=1):
        labels[:, :, k][one.mask.T] = value
    return labels, kept


def _tell(found: list[ProposedMask], kept: list[ProposedMask], out: Path) -> None:
    table = Table("label", "px", "score", "stability", "click")
    for value, one in enumerate(kept[:_SHOWN], start=1):
        x, y = one.point
        table.add_row(
            str(value),
            str(int(one.mask.sum())),
            f"{one.score:.2f}",
            f"{one.stability:.2f}",
            f"{x:.0f}, {y:.0f}",
        )
    if kept:
        Console(stderr=True).print(table)
    if len(kept) > _SHOWN:
        say(f"… and {len(kept) - _SHOWN} smaller ones.")
    if len(found) > len(kept):
        say(f"{len(found) - len(kept)} masks with lower scores do not fit into {_MOST} labels.", "yellow")
    if not found:
        say("Nothing passed. Take --preset all, which drops nothing but near copies.", "yellow")
    say(f"wrote {out}")
