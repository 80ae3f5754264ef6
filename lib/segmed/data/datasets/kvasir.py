"""Kvasir-SEG, polyps in colonoscopy, and Kvasir-Sessile, the small, flat ones among them.

Sources: Jha et al., Kvasir-SEG: A Segmented Polyp Dataset (MMM, 2020); Jha et al., A comprehensive study on
colorectal polyp segmentation with ResUNet++, conditional random field and test-time augmentation (2021)."""

from __future__ import annotations

import os
from pathlib import Path

from segmed.data.pairs import files_by_stem, find_folder, open_volumes, pair_up
from segmed.data.slices import LabelledVolume, SliceDataset

LABELS = {1: "polyp"}
SEG_LAYOUT = "Kvasir-SEG/images/<id>.jpg and Kvasir-SEG/masks/<id>.jpg, 1,000 pairs."
SESSILE_LAYOUT = (
    "sessile-main-Kvasir-SEG/images/<id>.jpg and sessile-main-Kvasir-SEG/masks/<id>.jpg, 196 pairs."
)


def load_kvasir_seg(folder: str | os.PathLike[str]) -> SliceDataset:
    """All pictures. The patients are not published, so each picture counts as a patient of its own.

    Args:
        folder: Folder with `images` and `masks`, or the folder that holds it.

    Raises:
        FileNotFoundError: There are no pictures, or one has no mask.
        ValueError: No pair can be used.
    """
    return _load(Path(folder), "Kvasir-SEG", SEG_LAYOUT)


def load_kvasir_sessile(folder: str | os.PathLike[str]) -> SliceDataset:
    """All pictures, which are in Kvasir-SEG too: a model trained on that set cannot be tested on this one.

    Args:
        folder: Folder with `images` and `masks`, or the folder that holds it.

    Raises:
        FileNotFoundError: There are no pictures, or one has no mask.
        ValueError: No pair can be used.
    """
    return _load(Path(folder), "sessile-main-Kvasir-SEG", SESSILE_LAYOUT)


def _load(root: Path, name: str, layout: str) -> SliceDataset:
    images = find_folder(root, "images", f"{name}/images", holds="*.jpg", layout=layout)
    masks = images.with_name("masks")
    pairs = pair_up(files_by_stem(images), files_by_stem(masks), masks, layout)
    return open_volumes([LabelledVolume(*pair) for pair in pairs], LABELS, unit="px", binary=True)
