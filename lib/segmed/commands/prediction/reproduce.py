"""`segmed reproduce`: a mask again, from its record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segmed.commands.models import REGISTRY
from segmed.commands.prediction.inputs import check_out
from segmed.commands.prediction.options import Backbone, ImageFile, Models, console, say

if TYPE_CHECKING:  # numpy and torch are imported late, so that --help answers at once
    from segmed.imaging.labels.provenance import Provenance
    from segmed.registry.reproduction import Reproduction


def reproduce(
    image: ImageFile,
    record: Annotated[
        Path,
        typer.Option(help="JSON file beside a mask, or `provenance` of an answer of the server as a file."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Mask to write: .nii.gz, .nrrd, .seg.nrrd or .png.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Mask to compare with; the exit code is 1 if a voxel differs.")
    ] = None,
    label: Annotated[str, typer.Option(help="Label, where the record has several.")] = "",
    backbone: Backbone = "",
    registry: Models = REGISTRY,
) -> None:
    """Make a mask again from its record: the same weights, window, prompt and options.

    Example: `segmed reproduce ct.nii.gz --record liver.json --mask liver.nii.gz`
    """
    try:
        if out is None and mask is None:
            raise ValueError("There is nothing to do. Give --out, --mask, or both.")
        if out is not None:
            check_out(out, image, record, mask)
        told = _read(record, label)
        with console.status(f"segmenting {image.name}"):
            from segmed.registry.reproduction import reproduce as again

            found = again(told, image, registry, backbone or str(told.options.get("backbone", "")))
        for warning in found.warnings:
            say(warning, "yellow")
        if out is not None:
            _write(out, image, found)
        if mask is not None and (differing := _differing(mask, image, found)):
            say(f"{differing} voxels differ from {mask.name}.", "red")
            raise typer.Exit(1)
        if mask is not None:
            say(f"The mask is the same as {mask.name}, voxel for voxel.")
    except (ValueError, OSError) as error:
        say(str(error), "red")
        raise typer.Exit(2) from error


def _read(file: Path, label: str) -> Provenance:
    from segmed.imaging.labels.provenance import read_provenance

    return read_provenance(file, label)


def _write(out: Path, image: Path, found: Reproduction) -> None:
    from segmed.imaging.labels.writing import name_values, write_labels

    names = found.names or [f"object {value}" for value in range(1, int(found.labels.max()) + 1)]
    write_labels(name_values(found.labels, names), found.picture.affine, out, like=image)
    say(f"wrote {out}")


def _differing(mask: Path, image: Path, found: Reproduction) -> int:
    from segmed.imaging.grid import image_grid, read_labels

    grid = image_grid(image, found.picture.shape, found.picture.affine)
    wanted = found.labels
    if mask.suffix.lower() == ".png":  # which shows labels as grey values
        wanted = wanted * (255 // max(1, int(wanted.max())))
    return int((read_labels(mask, grid) != wanted).sum())
