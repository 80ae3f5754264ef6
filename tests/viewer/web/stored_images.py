"""One object in images that are stored in many ways, and where the page shows it."""

from __future__ import annotations

import io
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, ornt_transform
from PIL import Image
from playwright.sync_api import Page

# how the same object is stored, the plane of its slices, and where it lies on the screen: right (+) or left
# (-) of the middle, above (+) or below (-)
STORED = {
    "RAS": ("axial", (-1, -1)),
    "LPS": ("axial", (-1, -1)),
    "ARI": ("axial", (-1, -1)),
    "PSR": ("sagittal", (1, 1)),
    "SAL": ("sagittal", (1, 1)),
    "IRP": ("coronal", (-1, 1)),
    "oblique": ("axial", (-1, -1)),
}


def beacon() -> nib.Nifti1Image:
    """A bright ellipsoid in a dark volume, off the middle of every axis, but cut by all three middle
    planes."""
    grid = np.indices((60, 50, 20), float)
    inside = (
        sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, (38, 19, 12), (13, 9, 5), strict=True)) <= 1
    )
    array = np.where(inside, 900, np.random.default_rng(3).normal(0, 15, inside.shape)).astype(np.int16)
    affine = np.diag([1.5, 1.5, 3.0, 1.0])
    affine[:3, 3] = (-20, 35, 110)
    return nib.Nifti1Image(array, affine)


def stored_as(code: str) -> nib.Nifti1Image:
    image = beacon()
    if code == "oblique":
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]]
        return nib.Nifti1Image(np.asarray(image.dataobj), turn @ image.affine)
    turned: nib.Nifti1Image = image.as_reoriented(
        ornt_transform(nib.io_orientation(image.affine), axcodes2ornt(tuple(code)))
    )
    return turned


def pixels(page: Page) -> np.ndarray:
    """The image on the screen, without captions and borders: (rows, columns, 3)."""
    page.mouse.move(5, 5)
    shot = Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("RGB")
    return np.asarray(shot).astype(int)


def extent(mask: np.ndarray) -> np.ndarray:
    """[left, top, right, bottom] of what is set."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max(), rows.max()])


def downloaded(page: Page, tmp_path: Path) -> nib.Nifti1Image:
    with page.expect_download() as event:
        page.locator("#nifti").click()
    path = tmp_path / event.value.suggested_filename
    event.value.save_as(path)
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return image
