"""Exports of whole datasets by `segmed export`, and `segmed import`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

if TYPE_CHECKING:  # torch is imported late, so that --help answers at once
    from segmed.data.slices import SliceDataset

console = Console(stderr=True)
DATASETS = ("nnunet", "msd", "bids", "coco", "yolo", "label-studio", "cvat")


def export_dataset(
    source: str,
    to: str,
    out: Path,
    layout: str,
    labels: str,
    patient: str,
    shares: tuple[float, float],
    seed: int,
    modality: str,
    tag: str,
) -> None:
    """Write labelled images in the layout of another program, split by patient.

    Args:
        source: Folder, or DICOMweb address.
        to: One of `DATASETS`.
        out: New folder.
        layout: Name of a dataset's loader, "datastore" for the studies of a server, "batch" for a batch run.
        labels: Names of structures with commas, "" for all.
        patient: Regular expression whose first group is the patient in an image id, "" for one per image.
        shares: Shares of the patients for validation and test.
        seed: Of the split.
        modality: DICOM term, "" for that of the files.
        tag: Which label maps of a server's studies are taken: "final", or that of another version.

    Raises:
        ValueError: A setting or a file cannot be used.
        FileNotFoundError: There are no labelled images.
        FileExistsError: The folder is not empty.
    """
    from segmed.data.exports import annotation_tools, instances, volumes
    from segmed.data.exports.cases import Export, cases_of
    from segmed.data.selection import missing_structures
    from segmed.data.split import Split, split_patients

    data = _dataset(source, layout, labels, patient, tag)
    if missing := missing_structures(data):
        words = f"no label map contains {', '.join(missing)}"
        console.print(words, style="yellow", markup=False, highlight=False, soft_wrap=True)
    for skipped in data.skipped:
        console.print(
            f"left out: {skipped.reason}", style="yellow", markup=False, highlight=False, soft_wrap=True
        )
    split = Split(tuple(sorted(data.patients)), (), (), seed)
    if any(shares):
        split = split_patients(data.patients, seed, *shares)
    cases = cases_of(data, split)
    bar = Progress(TextColumn("writing"), BarColumn(), MofNCompleteColumn(), console=console, transient=True)
    with bar:
        task = bar.add_task("", total=len(cases))

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        write: dict[str, Callable[[Export], None]] = {
            "nnunet": volumes.export_nnunet,
            "msd": volumes.export_msd,
            "bids": volumes.export_bids,
            "coco": instances.export_coco,
            "yolo": instances.export_yolo_instances,
            "label-studio": annotation_tools.export_label_studio,
            "cvat": annotation_tools.export_cvat,
        }
        write[to](Export(cases, data.classes, out, tell, modality))
    split.save(out / "split.json")
    counts = ", ".join(f"{part} {sum(c.part == part for c in cases)}" for part in ("train", "val", "test"))
    console.print(
        f"wrote {len(cases)} images to {out}: {counts}", markup=False, highlight=False, soft_wrap=True
    )


def import_labels(
    file: Annotated[
        Path, typer.Argument(help="DICOM RTSTRUCT, JSON of Label Studio, or XML of CVAT (for images 1.1).")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Label map to write, .seg.nrrd or .nii.gz; folder for others.")
    ],
    series: Annotated[Path | None, typer.Option(help="Folder of the DICOM series of an RTSTRUCT.")] = None,
    exported: Annotated[
        Path | None, typer.Option(help="Folder of `segmed export --to label-studio` or `cvat`.")
    ] = None,
) -> None:
    """Turn contours or annotations of other programs into label maps on the grid of their images.

    Example: `segmed import plan.dcm --series CT -o plan.seg.nrrd` or `segmed import annotations.xml
    --exported for-cvat -o corrected`
    """
    try:
        if (series is None) == (exported is None):
            raise ValueError("Give --series for an RTSTRUCT, or --exported for Label Studio and CVAT.")
        if exported:
            from segmed.data.exports.annotation_tools import import_annotations

            count, notes = import_annotations(file, exported, out)
            text = f"wrote {count} label maps to {out}"
        else:
            from segmed.commands.prediction.inputs import refuse_inputs
            from segmed.dicom.rtstruct_reading import read_rtstruct
            from segmed.dicom.series import open_series
            from segmed.imaging.labels.writing import write_labels

            assert series is not None
            refuse_inputs(out, file, series)
            if not out.parent.is_dir():
                raise FileNotFoundError(f"The folder {out.parent} does not exist. Make it first.")
            opened = open_series(series)
            found, notes = read_rtstruct(file, opened)
            assert opened.grid.affine is not None
            write_labels(found, opened.grid.affine, out)
            text = f"wrote {out}: {', '.join(segment.name for segment in found.segments)}"
        for note in notes:
            console.print(note, style="yellow", markup=False, highlight=False, soft_wrap=True)
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    except (ValueError, OSError) as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


def _dataset(source: str, layout: str, labels: str, patient: str, tag: str) -> SliceDataset:
    from segmed.data.datasets.catalogue import load_dataset
    from segmed.data.datastore import load_datastore
    from segmed.data.selection import selected

    if not source.startswith(("http://", "https://")):
        if layout == "datastore":
            return load_datastore(source, tag, labels, patient)
        if layout == "batch":
            from segmed.batch.finished import run_dataset

            return run_dataset(Path(source), labels, patient)
        return selected(load_dataset(layout, Path(source)), labels, patient)
    from segmed.server.config.dicomweb_settings import DicomwebSettings
    from segmed.server.datastores.pacs import PacsStudies

    store = PacsStudies(source, DicomwebSettings.from_conf({}))
    images = store.pairs()
    owners = {image: store.facts(image).owner for image in images}
    return load_datastore(store.labels.root, labels=labels, patient=patient, images=images, patients=owners)
