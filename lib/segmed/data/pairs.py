"""Pairs of images and label maps in a folder, matched by name and checked by their headers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from segmed.data.slices import LabelledVolume, Skipped, SliceDataset, check_same_grid
from segmed.imaging.formats.pictures import PICTURE_EXTENSIONS
from segmed.imaging.grid import Grid, read_grid
from segmed.imaging.reading import extension_of


def open_volumes(
    volumes: Iterable[LabelledVolume],
    classes: Mapping[int, str],
    unit: Literal["mm", "px"] = "mm",
    binary: bool = False,
    skipped: Iterable[Skipped] = (),
) -> SliceDataset:
    """A dataset of the pairs whose headers fit; the others are skipped. No voxel is read.

    Args:
        volumes: Volumes without slices and spacing, which are read from the headers.
        classes: Label names by value.
        unit: Unit of the spacings.
        binary: See `SliceDataset`.
        skipped: Pairs that were found to be unusable before.

    Raises:
        ValueError: No pair can be used.
    """
    kept, left_out = [], list(skipped)
    for volume in volumes:
        try:
            grid = _shared_grid(volume)
            kept.append(replace(volume, slices=grid.shape[2], spacing=grid.spacing))
        except ValueError as error:
            left_out.append(Skipped(volume.patient, volume.image, str(error)))
    if not kept:
        first = left_out[0].reason if left_out else "there are no images with labels."
        raise ValueError(
            f"None of the {len(left_out)} pairs of image and label map can be used. The first: {first}"
        )
    return SliceDataset(kept, classes, unit, binary, skipped=left_out)


def find_folder(root: Path, *inner: str, holds: str, layout: str) -> Path:
    """The first of `root` and its folders `inner` that holds certain files.

    Args:
        root: Folder that the user gave.
        inner: Folders in it that are searched too, in this order.
        holds: Glob pattern that has to match a file of the folder.
        layout: Description of the expected layout, for the message.

    Raises:
        FileNotFoundError: No folder holds such a file.
    """
    for folder in (root, *(root / name for name in inner)):
        if folder.is_dir() and next(folder.glob(holds), None):
            return folder
    raise FileNotFoundError(f"{root} does not hold the dataset: {holds} is not there. Expected is {layout}")


def files_by_stem(folder: Path, suffix: str = "") -> dict[str, Path]:
    """Images and label maps of a folder by their names without extension, in natural order.

    Args:
        folder: Folder to list; hidden files, which archives may leave behind, are not taken.
        suffix: End of the names before the extension, which is removed where it is present.
    """
    files = {}
    for path in sorted(folder.iterdir(), key=lambda p: natural(p.name)) if folder.is_dir() else ():
        extension = extension_of(path)
        if extension and not path.name.startswith("."):
            files[path.name[: -len(extension)].removesuffix(suffix)] = path
    return files


def pair_up(
    images: Mapping[str, Path], labels: Mapping[str, Path], folder: Path, layout: str, named: str = "{}"
) -> list[tuple[str, Path, Path]]:
    """Stem, image and label map of every image.

    Args:
        images: Images by stem.
        labels: Label maps by stem.
        folder: Folder of the label maps.
        layout: Description of the expected layout, for the message.
        named: Pattern by which a label map is named after its stem.

    Raises:
        FileNotFoundError: An image has no label map.
    """
    missing = [stem for stem in images if stem not in labels]
    if missing:
        raise FileNotFoundError(
            f"{images[missing[0]].name} has no label map {named.format(missing[0])}.* in {folder} "
            f"({len(missing)} of {len(images)} have none). Fetch it, or remove the image. Expected is "
            f"{layout}"
        )
    return [(stem, image, labels[stem]) for stem, image in images.items()]


def natural(text: str) -> list[tuple[bool, int | str]]:
    """Key to sort by, in which 9 comes before 10."""
    return [
        (not part.isdigit(), int(part) if part.isdigit() else part)
        for part in re.split(r"(\d+)", text)
        if part
    ]


def is_picture(path: Path) -> bool:
    """Whether a file is of a kind that states no size in millimetres."""
    return extension_of(path) in PICTURE_EXTENSIONS


def patient_of(stem: str, pattern: str) -> str:
    """The patient that a file name states.

    Args:
        stem: File name without extension.
        pattern: Regular expression whose first group is the patient; "" takes the whole stem.

    Raises:
        ValueError: The pattern is not a regular expression with a group, or does not match.
    """
    if not pattern:
        return stem
    try:
        match = re.search(pattern, stem)
        if match:
            return match.group(1)
    except (re.error, IndexError) as error:
        raise ValueError(
            f"patient={pattern!r} is not a regular expression with a group ({error}). Give one such as "
            f"'^([^_]+)_'."
        ) from error
    raise ValueError(
        f"patient={pattern!r} does not match the name {stem!r}. Give an expression that matches all."
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: The file does not hold a JSON object.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}). Copy it again.") from error
    if not isinstance(facts, dict):
        raise ValueError(f"{path} holds no JSON object but a {type(facts).__name__}. Copy it again.")
    return facts


def _shared_grid(volume: LabelledVolume) -> Grid:
    """The grid of the image of a pair, if the label map fits it.

    Raises:
        ValueError: A file is missing or damaged, or they do not belong together.
    """
    gone = [path for path in volume.files if not path.exists()]
    if gone:
        raise ValueError(f"{gone[0].name} is not in {gone[0].parent}. Fetch it.")
    image, label = read_grid(volume.image), read_grid(volume.label, labels=True)
    for path in volume.channels:
        if not read_grid(path).lies_on(image):
            raise ValueError(
                f"{path.name} does not lie on the grid of {volume.image.name}. Fetch both again."
            )
    for path, grid, chosen in ((volume.image, image, volume.components), (volume.label, label, ())):
        if grid.channels not in (1, 3, 4) or (grid.components > 1 and not chosen):
            raise ValueError(
                f"{path.name} has {max(grid.channels, grid.components)} channels. Save the one that counts "
                "as a file of its own."
            )
    if max(volume.components, default=0) >= image.components:
        raise ValueError(
            f"{volume.image.name} has {image.components} images along its fourth axis, not the "
            f"{max(volume.components) + 1} that are expected. Copy it again."
        )
    if not label.lies_on(image) and not label.can_move_to(image):
        check_same_grid(volume, image.shape, label.shape)
        raise ValueError(
            f"{volume.label.name} does not lie on {volume.image.name}: their affines differ, and they hardly "
            "overlap. Resample the label map to the image, or take the pair out of the dataset."
        )
    return image
