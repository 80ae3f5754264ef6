"""CVC-ClinicDB, also CVC-612: polyps in frames of colonoscopy videos.

Source: Bernal et al., WM-DOVA maps for accurate polyp highlighting in colonoscopy: Validation vs. saliency
maps from physicians (Computerized Medical Imaging and Graphics, 2015)."""

from __future__ import annotations

import csv
import os
from bisect import bisect_left
from pathlib import Path

from segmed.data.pairs import files_by_stem, find_folder, open_volumes, pair_up
from segmed.data.slices import LabelledVolume, SliceDataset

LABELS = {1: "polyp"}
LAYOUT = "Original/<n>.tif and 'Ground Truth'/<n>.tif, or the same in a folder PNG; 612 frames."
# last frame of each sequence as the dataset's page lists them; the paper counts 31 sequences, the list has 29
LAST_FRAMES = (
    *(25, 50, 67, 78, 103, 126, 151, 177, 199, 205, 227, 252, 277, 297, 317),
    *(342, 363, 383, 408, 428, 447, 466, 478, 503, 528, 546, 571, 591, 612),
)


def load_cvc_clinicdb(folder: str | os.PathLike[str], metadata: str | os.PathLike[str] = "") -> SliceDataset:
    """All frames, in order; the patient is the sequence, because frames of one sequence hardly differ.

    Args:
        folder: Folder with `Original` and `Ground Truth`, or with these in its folder `PNG` or `TIF`.
        metadata: CSV with the columns `frame_id` and `sequence_id`; "" takes `metadata.csv` beside the
            frames' folder where it is there, else `LAST_FRAMES`.

    Raises:
        FileNotFoundError: There are no frames, one has no mask, or there is no such CSV file.
        ValueError: The sequence of a frame is unknown, or no pair can be used.
    """
    root = Path(folder)
    inner = [f"{where}Original" for where in ("", "TIF/", "PNG/", "CVC-ClinicDB/", "CVC-ClinicDB/PNG/")]
    images = find_folder(root, *inner, holds="[0-9]*.*", layout=LAYOUT)
    masks = images.with_name("Ground Truth")
    beside = [where / "metadata.csv" for where in (root, images.parent, images.parent.parent)]
    table = Path(metadata) if metadata else next((path for path in beside if path.is_file()), None)
    known = _read_sequences(table) if table else {n: bisect_left(LAST_FRAMES, n) + 1 for n in range(1, 613)}
    volumes = []
    for stem, image, mask in pair_up(files_by_stem(images), files_by_stem(masks), masks, LAYOUT):
        frame = int(stem) if stem.isdigit() else 0
        if frame not in known:
            raise ValueError(
                f"The sequence of the frame {image.name} is not known: frames are numbered 1 to 612. Give a "
                "CSV with the columns frame_id and sequence_id as metadata, or remove the frame."
            )
        volumes.append(LabelledVolume(f"sequence {known[frame]:02d}", image, mask))
    return open_volumes(volumes, LABELS, unit="px", binary=True)


def _read_sequences(path: Path) -> dict[int, int]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}. Leave metadata out for the published sequences.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            return {int(row["frame_id"]): int(row["sequence_id"]) for row in csv.DictReader(file)}
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(
                f"{path} does not state the sequences ({type(error).__name__}: {error}). It needs whole "
                "numbers in the columns frame_id and sequence_id."
            ) from error
