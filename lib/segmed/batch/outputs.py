"""The files that an item leaves in the folder of the run.

masks/NAME.nii.gz, NAME.tsv, NAME.json    label map, names of its values, where it comes from
seg/NAME.dcm                              DICOM SEG, with --seg or --send
previews/NAME.png                         the slice that shows most of the structures, with --previews
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.segmentation import find_boundaries

from segmed.batch.settings import RunSettings
from segmed.batch.tasks import Task
from segmed.dicom.segmentation import write_segmentation
from segmed.dicom.series import open_series
from segmed.imaging.durable import appear_whole
from segmed.imaging.grid import Grid
from segmed.imaging.labels.provenance import Provenance, checksum_of, write_provenance
from segmed.imaging.labels.segments import colour_of
from segmed.imaging.labels.sidecar import sidecar_of
from segmed.imaging.labels.writing import name_values, write_labels
from segmed.imaging.picture import Picture

MASKS, SEGS, PREVIEWS = "masks", "seg", "previews"


def write_outputs(
    task: Task,
    settings: RunSettings,
    out: Path,
    image: Path,
    picture: Picture,
    labels: np.ndarray,
    names: Mapping[int, str],
    provenance: Provenance,
) -> dict[str, str]:
    """Write the files of an item, each one whole or not at all.

    Args:
        task: The item.
        settings: Settings of the run.
        out: Folder of the run.
        image: File or folder of the image.
        picture: The image.
        labels: Label map (I, J, K).
        names: Names of its values.
        provenance: How it was made.

    Returns:
        SHA-256 of each file by its path relative to `out`.

    Raises:
        OSError: The disk is full, or cannot be written.
        ValueError: No DICOM SEG can refer to the image.
    """
    mask = _path(out, MASKS, task.name, settings.extension)
    write_labels(name_values(labels, names), picture.affine, mask, like=None if image.is_dir() else image)
    written = [mask, write_provenance(provenance, mask)]
    if settings.extension.startswith(".nii"):
        written.append(sidecar_of(mask))
    if settings.seg or settings.send:
        seg = seg_path(task, out)
        if labels.any():
            _write_seg(task, settings, seg, image, picture, labels, names, provenance)
            written.append(seg)
        else:  # DICOM knows no empty segmentation; one of an earlier attempt must not stay
            seg.unlink(missing_ok=True)
    if settings.previews:
        preview = _path(out, PREVIEWS, task.name, ".png")
        with appear_whole(preview, sync=False) as part:
            Image.fromarray(draw_preview(picture, labels)).save(part)
        written.append(preview)
    return {path.relative_to(out).as_posix(): checksum_of(path) for path in written}


def seg_path(task: Task, out: Path) -> Path:
    """The DICOM SEG of an item; its folder is there."""
    return _path(out, SEGS, task.name, ".dcm")


def draw_preview(picture: Picture, labels: np.ndarray) -> np.ndarray:
    """The slice with most labelled voxels, or the middle one, with outlines: (H, W, 3) uint8."""
    counts = (labels > 0).sum(axis=(0, 1))
    k = int(counts.argmax()) if counts.any() else picture.shape[2] // 2
    shown = picture.slice(k)
    drawn = np.array(shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, -1))
    outlines, flat = find_boundaries(labels[:, :, k].T, mode="inner"), labels[:, :, k].T
    for value in np.unique(flat[flat > 0]):
        drawn[outlines & (flat == value)] = colour_of(int(value))
    return drawn


def _write_seg(
    task: Task,
    settings: RunSettings,
    seg: Path,
    image: Path,
    picture: Picture,
    labels: np.ndarray,
    names: Mapping[int, str],
    provenance: Provenance,
) -> None:
    series = open_series(image, Grid(picture.shape, picture.affine))
    write_segmentation(
        labels,
        names,
        series,
        seg,
        settings.model,
        provenance.version,
        settings.prompts != "boxes",
        parameters=provenance.dicom_parameters(),
        # the same object each time, so that the PACS keeps one of it when a run is killed while it sends
        seed=f"{task.key} {provenance.weights} {provenance.image} {settings.boxes_sha} {settings.window}",
    )


def _path(out: Path, kind: str, name: str, extension: str) -> Path:
    path = out / kind / f"{name}{extension}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
