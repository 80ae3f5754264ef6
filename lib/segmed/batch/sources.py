"""Where items come from: files, folders of DICOM files, and a PACS."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segmed.batch.items import Item, Listing, check_known, file_item, list_files, named, read_list, safe_name
from segmed.batch.settings import RunSettings
from segmed.batch.tasks import Away, Task
from segmed.dicom.file_series import SeriesFacts
from segmed.dicom.files import DicomFiles
from segmed.imaging.formats.dicom_faults import is_dicom
from segmed.imaging.reading import extension_of
from segmed.server.config.dicomweb_settings import NO_IMAGES

if TYPE_CHECKING:  # imports MONAI Label, which takes seconds
    from segmed.server.datastores.dicomweb import Pacs

FETCHED = ".fetched"  # folder in that of the run, for series while they are processed
_SLICE_BYTES = 3 * 512 * 512  # of a slice of a PACS: 16 bits, and the 8-bit copy


def list_items(settings: RunSettings, out: Path) -> Listing:
    """The items of a source, sorted.

    Args:
        settings: Settings of the run.
        out: Folder of the run, which is left out.

    Raises:
        FileNotFoundError: There is no such source.
        ValueError: It holds no image, or the PACS does not answer.
    """
    if settings.is_pacs:
        return _of_pacs(settings)
    root = Path(settings.source)
    if not root.exists():
        raise FileNotFoundError(f"There is nothing at {root}. Give a folder, a list or a DICOMweb address.")
    if root.is_file():
        check_known(root)
        if not extension_of(root.name):
            return read_list(root)
        return Listing((file_item(root.absolute(), root.name),))
    root = root.absolute()
    dicom, files = _of_dicom(DicomFiles(root)), list_files(root, out.absolute())
    others = [item for item in files.items if extension_of(item.key) != ".dcm"]
    items = named(sorted([*dicom.items, *others], key=lambda item: item.key))
    if not items:
        raise ValueError(f"There is no image in {root}. `segmed info --studies {root}` tells what is there.")
    return Listing(items, dicom.notes)


def fetch(task: Task, settings: RunSettings, out: Path, pacs: Pacs | None) -> Path:
    """The image of a task as a file or a folder of one series.

    Raises:
        Away: The PACS does not answer now.
        ValueError: The PACS does not have the series.
        OSError: The disk is full.
    """
    if place := task.source.get("file") or task.source.get("folder"):
        return Path(place)
    folder = fetched(task, out)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if "files" in task.source:
        for number, name in enumerate(task.source["files"]):
            (folder / f"{number:06d}.dcm").symlink_to(name)
        return folder
    from segmed.server.http.errors import PacsAway

    assert pacs is not None
    try:
        pacs.download(SeriesFacts(**task.source["series"]), folder)
    except PacsAway as error:
        raise Away(str(error)) from error
    return folder


def fetched(task: Task, out: Path) -> Path:
    """Folder for the files of a task while it is processed."""
    return out / FETCHED / task.name


def is_dicom_source(task: Task) -> bool:
    """Whether the image of a task is a DICOM series, so that DICOM SEG can refer to it."""
    return "file" not in task.source or is_dicom(Path(task.source["file"]))


def open_pacs(settings: RunSettings) -> Pacs:
    """The PACS of a run; nothing is asked yet.

    Raises:
        ValueError: The address holds a password, or is none.
    """
    from segmed.server.config.dicomweb_settings import DicomwebSettings
    from segmed.server.datastores.dicomweb import Pacs

    return Pacs(settings.source, DicomwebSettings.from_conf({}))


def _of_dicom(files: DicomFiles) -> Listing:
    items, left = [], 0
    for uid, one in sorted(files.series().items()):
        if one.facts.modality in NO_IMAGES:
            left += 1
            continue
        size = 2 * sum(path.stat().st_size for path in one.files)
        items.append(Item(uid, safe_name(uid), _place(one.files), size))
    notes = [f"{left} series without images (SEG, SR, …) are left out."] if left else []
    if damaged := files.damaged():
        notes.append(f"{len(damaged)} damaged DICOM files are left out, such as {damaged[0].name}.")
    return Listing(tuple(items), tuple(notes))


def _place(files: Sequence[Path]) -> dict[str, Any]:
    """The folder of a series if it holds nothing else, otherwise its files."""
    parents = {path.parent for path in files}
    if len(parents) == 1 and len(list(files[0].parent.iterdir())) == len(files):
        return {"folder": str(files[0].parent)}
    return {"files": [str(path) for path in files]}


def _of_pacs(settings: RunSettings) -> Listing:
    from segmed.server.config.dicomweb_settings import DicomwebSettings

    pacs, found = open_pacs(settings), dict[str, SeriesFacts]()
    if "Modality" in settings.filters:
        raise ValueError("--filter Modality=… is not possible: give --modality, which may be repeated.")
    for modality in settings.modalities or DicomwebSettings.modalities:
        if modality in NO_IMAGES:
            raise ValueError(f"--modality {modality}: series of this kind hold no images. Give such as CT.")
        found |= {one.series: one for one in pacs.find_series({**settings.filters, "Modality": modality})}
    if not found:
        raise ValueError(
            f"The PACS at {settings.source} lists no series for this query. Check --filter and --modality."
        )
    return Listing(
        tuple(
            Item(uid, safe_name(uid), {"series": asdict(one)}, max(one.slices, 1) * _SLICE_BYTES)
            for uid, one in sorted(found.items())
        )
    )
