"""Files of a prediction: a previous mask, scribbles, and the file that a mask is written to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # numpy is imported late, so that --help answers at once
    import numpy as np

    from segmed.imaging.picture import Picture
    from segmed.registry.predictors import LoadedModel


def previous_mask(mask: Path, image: Path, picture: Picture) -> np.ndarray:
    """(I, J, K) boolean: a mask on the grid of the image, by world coordinates.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: it cannot be read, or does not lie on the image.
    """
    import numpy as np

    from segmed.imaging.grid import image_grid, read_grid, read_labels

    found = read_labels(mask, image_grid(image, picture.shape, picture.affine)) > 0
    own = read_grid(mask, labels=True)
    there = 1.0 if own.affine is None else abs(np.linalg.det(own.affine[:3, :3])) * np.prod(own.shape)
    if not found.any() or (own.affine is not None and there < abs(np.linalg.det(picture.affine[:3, :3]))):
        raise ValueError(
            f"{mask.name} does not lie on the image: nothing of it is left there, or less than one voxel. "
            "Give a mask of this image."
        )
    return np.asarray(found)


def scribble_maps(file: Path, image: Path, picture: Picture, boxes: int) -> dict[int, np.ndarray]:
    """The scribbles of a label map, by world coordinates, as a prompt takes them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, not on the image, or several boxes of which each would be an object.
    """
    from segmed.imaging.grid import image_grid, read_labels
    from segmed.imaging.scribbles import Scribbles

    if boxes > 1:
        raise ValueError(f"Scribbles belong to one object, not to {boxes} boxes. Give one box, or none.")
    labels = read_labels(file, image_grid(image, picture.shape, picture.affine))
    return Scribbles.from_labels(labels, 1, 2).maps()


def check_out(out: Path, *inputs: Path | None, provenance: bool = False) -> None:
    """Refuse a file that no mask can be written to, before anything is computed.

    Args:
        out: Path of the mask.
        inputs: Files that are read and must not be replaced; None for those that are not given.
        provenance: Whether a JSON file is written beside it.

    Raises:
        ValueError: a folder, an input, a format that is not known, or another table in the place of that of
            names and colours.
        FileNotFoundError: its folder is not there.
    """
    from segmed.imaging.labels.masks import mask_extension
    from segmed.imaging.labels.provenance import check_provenance_path
    from segmed.imaging.labels.sidecar import check_sidecar

    refuse_inputs(out, *inputs)
    if mask_extension(str(out)).startswith(".nii"):
        check_sidecar(out)
    if out.is_dir():
        raise ValueError(f"{out} is a folder. Give the name of a file.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"The folder {out.parent} does not exist. Make it first.")
    if provenance:
        check_provenance_path(out)


def refuse_inputs(out: Path, *inputs: Path | None) -> None:
    """Refuse to replace what is read.

    Raises:
        ValueError: `out` is one of the inputs, or lies in the folder of a series.
    """
    for one in inputs:
        if one is None or not one.exists():
            continue
        if out.exists() and out.samefile(one):
            raise ValueError(f"{out} is an input, and the result would replace it. Give another name.")
        if one.is_dir() and out.suffix.lower() in ("", ".dcm") and out.resolve().parent == one.resolve():
            raise ValueError(
                f"{out.name} would lie among the files of the series {one.name}. Give another folder."
            )


def boxes_of_file(file: Path | None, image: Path, picture: Picture) -> list[str]:
    """The boxes of a file as values of --box; none without a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the image is a volume, or the file has no boxes of it.
    """
    from segmed.data.box_files import read_boxes

    if file is None:
        return []
    if picture.shape[2] > 1:
        raise ValueError(
            f"--boxes has boxes of pictures, and {image.name} is a volume. Give --box with its slices."
        )
    found = read_boxes(file, image.name, (picture.shape[1], picture.shape[0]))
    return [f"{x0:g},{x1:g},{y0:g},{y1:g}" for x0, y0, x1, y1 in found]


def write_prediction_provenance(
    out: Path,
    image: Path,
    picture: Picture,
    loaded: LoadedModel,
    model: str,
    prompt: Mapping[str, Any],
    options: Mapping[str, str],
) -> None:
    """Write beside a mask how it was made; files of a prompt are noted by their checksums."""
    from segmed.imaging.labels.provenance import Provenance, checksum_of, write_provenance

    noted = {
        name: {"file": value.name, "SHA256": checksum_of(value)} if isinstance(value, Path) else value
        for name, value in prompt.items()
        if value
    }
    chosen = {name: value for name, value in options.items() if value}
    provenance = Provenance(
        model, loaded.version, loaded.weights, checksum_of(image), picture.window, noted, chosen
    )
    write_provenance(provenance, out)
