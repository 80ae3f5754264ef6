"""From files found in a folder to a dataset: pairs by name, and what their headers say about them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from segmed.data.slices import LabelledVolume, Skipped, SliceDataset, check_same_grid
from segmed.imaging.grid import Grid, read_grid
from segmed.imaging.pictures import PICTURE_EXTENSIONS
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
        volumes: without slices and spacing, which the headers tell.
        classes: names by label value.
        unit: of spacings.
        binary: see `SliceDataset`.
        skipped: pairs that have been found to be unusable before.

    Raises:
        ValueError: no pair is left.
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
        raise ValueError(f"None of the {len(left_out)} pairs of image and label map can be used. The first: {first}")
    return SliceDataset(kept, classes, unit, binary, skipped=left_out)


def find_folder(root: Path, *inner: str, holds: str, layout: str) -> Path:
    """The first of `root` and its folders `inner` that holds something.

    Args:
        root: folder that the user gave.
        inner: folders in it that are tried too, in this order.
        holds: a glob pattern that must match.
        layout: what is expected, for the message.

    Raises:
        FileNotFoundError: none does.
    """
    for folder in (root, *(root / name for name in inner)):
        if folder.is_dir() and next(folder.glob(holds), None):
            return folder
    raise FileNotFoundError(f"{root} does not hold the dataset: {holds} is not there. Expected is {layout}")


def files_by_stem(folder: Path, suffix: str = "") -> dict[str, Path]:
    """Images and label maps of a folder by their names without extension, in natural order.

    Args:
        folder: hidden files in it, as archives leave behind, are not taken.
        suffix: end of each name before the extension, which is taken off where it is there.
    """
    found = {}
    for path in sorted(folder.iterdir(), key=lambda p: natural(p.name)) if folder.is_dir() else ():
        extension = extension_of(path)
        if extension and not path.name.startswith("."):
            found[path.name[: -len(extension)].removesuffix(suffix)] = path
    return found


def pair_up(
    images: Mapping[str, Path], labels: Mapping[str, Path], folder: Path, layout: str, named: str = "{}"
) -> list[tuple[str, Path, Path]]:
    """Stem, image and label map of every image.

    Args:
        images: by stem.
        labels: by stem.
        folder: of the label maps.
        layout: what is expected, for the message.
        named: how a label map is named after its stem.

    Raises:
        FileNotFoundError: an image without label map.
    """
    missing = [stem for stem in images if stem not in labels]
    if missing:
        raise FileNotFoundError(
            f"{images[missing[0]].name} has no label map {named.format(missing[0])}.* in {folder} ({len(missing)} of "
            f"{len(images)} have none). Fetch it, or remove the image. Expected is {layout}"
        )
    return [(stem, image, labels[stem]) for stem, image in images.items()]


def natural(text: str) -> list[tuple[bool, int | str]]:
    """Key to sort by, in which 9 comes before 10."""
    return [(not part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"(\d+)", text) if part]


def is_picture(path: Path) -> bool:
    """Whether a file is of a kind that knows nothing of millimetres."""
    return extension_of(path) in PICTURE_EXTENSIONS


def patient_of(stem: str, pattern: str) -> str:
    """The patient that a file name tells.

    Args:
        stem: name without extension.
        pattern: regular expression whose first group is the patient; "" takes the whole stem.

    Raises:
        ValueError: not a regular expression with a group, or one that does not match.
    """
    if not pattern:
        return stem
    try:
        found = re.search(pattern, stem)
        if found:
            return found.group(1)
    except (re.error, IndexError) as error:
        raise ValueError(
            f"patient={pattern!r} is not a regular expression with a group ({error}). Give one such as '^([^_]+)_'."
        ) from error
    raise ValueError(f"patient={pattern!r} does not match the name {stem!r}. Give an expression that matches all.")


def read_json(path: Path) -> dict[str, Any]:
    """An object of a JSON file.

    Raises:
        ValueError: not one.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}). Copy it again.") from error
    if not isinstance(facts, dict):
        raise ValueError(f"{path} holds no JSON object but a {type(facts).__name__}. Copy it again.")
    return facts


def _shared_grid(volume: LabelledVolume) -> Grid:
    """The grid of the image of a pair that fits.

    Raises:
        ValueError: a file is gone or damaged, or they do not belong together.
    """
    gone = [path for path in volume.files if not path.exists()]
    if gone:
        raise ValueError(f"{gone[0].name} is not in {gone[0].parent}. Fetch it.")
    image, label = read_grid(volume.image), read_grid(volume.label, labels=True)
    for path in volume.channels:
        if not read_grid(path).lies_on(image):
            raise ValueError(f"{path.name} does not lie on the grid of {volume.image.name}. Fetch both again.")
    for path, grid, chosen in ((volume.image, image, volume.components), (volume.label, label, ())):
        if grid.channels not in (1, 3, 4) or (grid.components > 1 and not chosen):
            raise ValueError(
                f"{path.name} has {max(grid.channels, grid.components)} channels. Save the one that counts as a file "
                "of its own."
            )
    if max(volume.components, default=0) >= image.components:
        raise ValueError(
            f"{volume.image.name} has {image.components} images along its fourth axis, not the "
            f"{max(volume.components) + 1} that are expected. Copy it again."
        )
    if not label.lies_on(image) and not label.can_move_to(image):
        check_same_grid(volume, image.shape, label.shape)
        raise ValueError(
            f"{volume.label.name} does not lie on {volume.image.name}: their affines differ, and they hardly overlap. "
            "Resample the label map to the image, or take the pair out of the dataset."
        )
    return image
