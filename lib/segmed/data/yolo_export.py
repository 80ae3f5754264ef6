"""Exports a dataset in the layout of YOLO trainers: PNG pictures, text files of boxes, and a class list."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from segmed.data.slices import SliceDataset
from segmed.data.split import Split
from segmed.imaging.labels.maps import boxes_of_pieces


def export_yolo(
    data: SliceDataset,
    split: Split,
    folder: Path,
    min_area: int = 100,
    tell: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Write every slice; those without a box count as background and get an empty text file.

    Pictures are 8-bit RGB in the window of the dataset. Boxes are centre and size as shares of the picture,
    around each 8-connected piece of each label.

    Args:
        data: Dataset to export.
        split: Split of its patients; `validation` becomes `val`.
        folder: New or empty folder to write to.
        min_area: Area in px below which pieces get no box.
        tell: Function that is called with the number of written slices and the number of all.

    Returns:
        Number of boxes by part of the split.

    Raises:
        FileExistsError: The folder is not empty.
        ValueError: A slice cannot be read, or the split does not fit.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(
            f"{folder} is not empty. Give a new folder, so that nothing of another export stays."
        )
    classes = {value: n for n, value in enumerate(sorted(data.classes))}
    counts, done = {}, 0
    for part, patients in (("train", split.train), ("val", split.validation), ("test", split.test)):
        pictures, texts = folder / "images" / part, folder / "labels" / part
        for where in (pictures, texts):
            where.mkdir(parents=True, exist_ok=True)
        counts[part] = 0
        mine = data.of(patients)
        for n, (volume, k) in enumerate(mine.slices):
            sample = mine[n]
            name = f"{sample.patient}-{volume:05d}-{k:04d}".replace("/", "_")
            Image.fromarray(sample.image).convert("RGB").save(pictures / f"{name}.png")
            height, width = sample.labels.shape
            lines = []
            for (x0, y0, x1, y1), kind in zip(*boxes_of_pieces(sample.labels, min_area), strict=True):
                centre = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height
                shares = (*centre, (x1 - x0) / width, (y1 - y0) / height)
                lines.append(" ".join([str(classes[int(kind)]), *(f"{share:.6f}" for share in shares)]))
            (texts / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            counts[part] += len(lines)
            done += 1
            if tell:
                tell(done, len(data))
    # JSON is YAML, and quotes names as they have to be
    listed = {"path": str(folder.resolve()), **{part: f"images/{part}" for part in counts}}
    names = {n: data.classes[value] for value, n in classes.items()}
    content = "".join(f"{key}: {json.dumps(value)}\n" for key, value in {**listed, "names": names}.items())
    (folder / "data.yaml").write_text(content, encoding="utf-8")
    return counts
