"""`segmed export`: a label map as DICOM SEG or RTSTRUCT of the series it belongs to."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

console = Console(stderr=True)


class Target(StrEnum):
    """What can be written."""

    SEG = "seg"
    RTSTRUCT = "rtstruct"


def export(
    label: Annotated[Path, typer.Argument(help="Label map: NIfTI, NRRD or .seg.nrrd, 0 the background.")],
    series: Annotated[Path, typer.Option(help="Folder of the DICOM series that it belongs to.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="DICOM file to write.")],
    to: Annotated[Target, typer.Option(help="DICOM SEG, or contours as RTSTRUCT.")] = Target.SEG,
    names: Annotated[
        str,
        typer.Option(
            help="Of the labels 1, 2, … with commas, such as liver,spleen; without it, those of the file "
            "count."
        ),
    ] = "",
    codes: Annotated[
        Path | None,
        typer.Option(help='JSON of codes: {"my organ": {"type": ["10200004", "SCT", "Liver"]}}.'),
    ] = None,
    model: Annotated[
        str, typer.Option(help="That made the labels; without it they count as drawn by hand.")
    ] = "",
    version: Annotated[str, typer.Option(help="Of the model; this program's if not given.")] = "",
    automatic: Annotated[
        bool, typer.Option("--automatic", help="The model ran without boxes or clicks.")
    ] = False,
) -> None:
    """Write a label map as DICOM, with patient and study of its series.

    A label map on another grid is resampled (nearest) by its world coordinates; if it does not lie on the
    series, it is refused. Names come from a `.seg.nrrd`, or from the table beside a NIfTI file. Labels
    without a name are called `label 3`, and labels without voxels are left out. Segments that overlap are
    written whole.

    Example: `segmed export liver.nii.gz --series CT --to seg --names liver,lesion --model medsam -o
        liver.dcm`
    """
    from dataclasses import replace

    import segmed
    from segmed.active.review.submission import whole_labels
    from segmed.dicom.codes import read_codes
    from segmed.dicom.rtstruct import write_rtstruct
    from segmed.dicom.segmentation import write_segmentation
    from segmed.dicom.segments import segments_of
    from segmed.dicom.series import open_series
    from segmed.imaging.grid import read_label_segments
    from segmed.imaging.labels.sidecar import read_sidecar
    from segmed.imaging.labels.writing import name_values

    try:
        if out.is_dir() or not out.parent.is_dir():
            raise FileNotFoundError(
                f"{out} cannot be written. Give the name of a file in a folder that exists."
            )
        own = read_codes(codes) if codes else None
        with console.status(f"reading {series.name}"):
            opened = open_series(series)
            found = read_label_segments(label, opened.grid)
        try:
            layers = tuple(whole_labels(layer) for layer in found.layers)
        except ValueError as error:
            raise ValueError(
                f"{label.name} holds fractions; a label map holds whole numbers. {error}"
            ) from error
        called = dict(enumerate((name.strip() for name in names.split(",")), 1)) if names.strip() else {}
        told = found.names or {s.value: s.name for s in read_sidecar(label)}
        listed = found.segments or name_values(layers[0]).segments
        segments = tuple(replace(s, name=called.get(s.value) or told.get(s.value, "")) for s in listed)
        found = replace(found, layers=layers, segments=segments)
        write = write_segmentation if to is Target.SEG else write_rtstruct
        with console.status(f"writing {out.name}"):
            write(found, (), opened, out, model, version or segmed.__version__, automatic, own)
        for segment in segments_of(found, opened, own):
            code = segment.codes.type
            text = (
                f"label {segment.value}: {segment.name} ({code.scheme_designator} {code.value}, "
                f"{code.meaning})"
            )
            console.print(text, markup=False, highlight=False)
        console.print(f"wrote {out}", markup=False, highlight=False)
    except (ValueError, OSError) as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        raise typer.Exit(2) from error
