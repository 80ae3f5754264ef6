"""`segmed export`: a label map as DICOM of the series it belongs to, or a dataset for another program."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

import segmed

if TYPE_CHECKING:  # highdicom is imported late, so that --help answers at once
    from highdicom.seg import Segmentation

    from segmed.dicom.segments import Segment
    from segmed.dicom.series import Series
    from segmed.imaging.labels.segments import Segments

console = Console(stderr=True)


class Target(StrEnum):
    """What can be written."""

    SEG = "seg"
    RTSTRUCT = "rtstruct"
    SR = "sr"
    NNUNET = "nnunet"
    MSD = "msd"
    BIDS = "bids"
    COCO = "coco"
    YOLO = "yolo"
    LABEL_STUDIO = "label-studio"
    CVAT = "cvat"


def export(
    source: Annotated[
        str,
        typer.Argument(
            help="Label map (NIfTI, NRRD or .seg.nrrd, 0 the background); for datasets a folder of studies, "
            "or a DICOMweb address."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="DICOM file to write; new folder for datasets.")],
    series: Annotated[
        Path | None, typer.Option(help="Folder of the DICOM series that a label map belongs to.")
    ] = None,
    to: Annotated[
        Target, typer.Option(help="DICOM: SEG, RTSTRUCT, or SR with measurements; else a dataset.")
    ] = Target.SEG,
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
    layout: Annotated[
        str,
        typer.Option(
            help="Of a dataset's folder: datastore, batch for that of a batch run, or a name of "
            "`segmed data list`."
        ),
    ] = "datastore",
    labels: Annotated[str, typer.Option(help="Structures of a dataset, with commas; all if not given.")] = "",
    patient: Annotated[
        str, typer.Option(help="Regular expression whose first group is the patient in an image's name.")
    ] = "",
    validation: Annotated[float, typer.Option(help="Share of a dataset's patients.")] = 0.0,
    test: Annotated[float, typer.Option(help="Share of a dataset's patients.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the split of a dataset.")] = 0,
    modality: Annotated[str, typer.Option(help="Of a dataset whose files do not state it: CT, MR.")] = "",
    tag: Annotated[
        str, typer.Option(help="Of the label maps in a server's folder: final, original, version_1, …")
    ] = "final",
) -> None:
    """Write a label map as DICOM, with patient and study of its series, or a dataset for another program.

    A label map on another grid is resampled (nearest) by its world coordinates; if it does not lie on the
    series, it is refused. Names come from a `.seg.nrrd`, or from the table beside a NIfTI file. Labels
    without a name are called `label 3`, and labels without voxels are left out. Segments that overlap are
    written whole. A report (SR) refers to a SEG, which is written beside it as NAME-seg.dcm.

    Datasets are labelled images of a server's studies, of a PACS, of a batch run, or of a known dataset,
    split by patient:
    nnunet (v2; a folder such as Dataset501_Liver), msd, bids (derivatives), coco and yolo (instances),
    label-studio, cvat.

    Example: `segmed export liver.nii.gz --series CT --to seg --names liver,lesion --model medsam -o
        liver.dcm` or `segmed export studies --to nnunet --test 0.2 -o Dataset501_Liver`
    """
    from segmed.commands.exports.datasets import DATASETS, export_dataset

    try:
        if to.value in DATASETS:
            shares = validation, test
            export_dataset(source, to.value, out, layout, labels, patient, shares, seed, modality, tag)
            return
        if series is None:
            raise ValueError(f"--to {to.value} needs the series of the label map. Give --series FOLDER.")
        _export_dicom(
            Path(source), series, out, to, names, codes, model, version or segmed.__version__, automatic
        )
    except (ValueError, OSError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


def _export_dicom(
    label: Path,
    series: Path,
    out: Path,
    to: Target,
    names: str,
    codes: Path | None,
    model: str,
    version: str,
    automatic: bool,
) -> None:
    from dataclasses import replace

    from segmed.active.review.submission import whole_labels
    from segmed.commands.prediction.inputs import refuse_inputs
    from segmed.dicom.codes import read_codes
    from segmed.dicom.rtstruct import write_rtstruct
    from segmed.dicom.segmentation import write_segmentation
    from segmed.dicom.segments import segments_of
    from segmed.dicom.series import open_series
    from segmed.imaging.grid import read_label_segments
    from segmed.imaging.labels.sidecar import read_sidecar
    from segmed.imaging.labels.writing import name_values

    if out.is_dir() or not out.parent.is_dir():
        raise FileNotFoundError(f"{out} cannot be written. Give the name of a file in a folder that exists.")
    beside = out.with_name(f"{out.stem}-seg.dcm")
    refuse_inputs(out, label, series, codes)
    if to is Target.SR:
        refuse_inputs(beside, label, series, codes)
        if beside.exists() and not out.exists():
            raise ValueError(
                f"{beside} exists already, and the SEG of the report would replace it. Rename --out."
            )
    own = read_codes(codes) if codes else None
    with console.status(f"reading {series.name}"):
        opened = open_series(series)
        found = read_label_segments(label, opened.grid)
    try:
        layers = tuple(whole_labels(layer) for layer in found.layers)
    except ValueError as error:
        raise ValueError(f"{label.name} holds fractions; a label map holds whole numbers. {error}") from error
    called = dict(enumerate((name.strip() for name in names.split(",")), 1)) if names.strip() else {}
    told = found.names or {s.value: s.name for s in read_sidecar(label)}
    listed = found.segments or name_values(layers[0]).segments
    segments = tuple(replace(s, name=called.get(s.value) or told.get(s.value, "")) for s in listed)
    found = replace(found, layers=layers, segments=segments)
    with console.status(f"writing {out.name}"):
        if to is Target.RTSTRUCT:
            write_rtstruct(found, (), opened, out, model, version, automatic, own)
        else:
            file = out if to is Target.SEG else beside
            seg = write_segmentation(found, (), opened, file, model, version, automatic, own)
    written = segments_of(found, opened, own)
    if to is Target.SR:
        _write_report(seg, found, written, opened, series, out, model, version)
    for segment in written:
        code = segment.codes.type
        text = (
            f"label {segment.value}: {segment.name} ({code.scheme_designator} {code.value}, {code.meaning})"
        )
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(f"wrote {out}", markup=False, highlight=False, soft_wrap=True)


def _write_report(
    seg: Segmentation,
    found: Segments,
    written: list[Segment],
    opened: Series,
    folder: Path,
    out: Path,
    model: str,
    version: str,
) -> None:
    from segmed.batch.measurements import measure
    from segmed.dicom.measurement_report import write_measurement_report
    from segmed.imaging.reading import read_volume

    volume = read_volume(folder)
    rows = {
        one.value: measure(found.mask(one.stored), volume.array, volume.spacing, {1: one.name})[0]
        for one in written
    }
    write_measurement_report(seg, written, rows, opened, out, model, version)
