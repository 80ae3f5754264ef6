"""The page at `/`, used with mouse and keyboard: the object lies where it is seen, however it is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Picture
from playwright.sync_api import Page, expect
from running import Server
from web_page import at, box, drag, filled, go_to, open_image, ready, view, window

from web.stored_images import STORED, downloaded, extent, pixels, stored_as

_COLOURED = 25  # by how much red is above blue where the mask is


@pytest.mark.parametrize("code", STORED)
def test_box_and_mask_lie_on_the_object_however_it_is_stored(
    page: Page, client: str, tmp_path: Path, code: str
) -> None:
    plane, side = STORED[code]
    open_image(page, code)
    page.locator("#model").select_option("classical")
    assert view(page) == plane

    # where the object is seen, by the picture alone
    bright = pixels(page).min(axis=2) > 200
    seen = extent(bright)
    middle = np.array(bright.shape[::-1]) / 2
    towards = np.sign((seen[:2] + seen[2:]) / 2 - middle) * (1, -1)
    assert tuple(towards) == side, "the world is mirrored on the screen"

    stage = page.locator("#stage").bounding_box()
    assert stage
    corner = np.array([stage["x"], stage["y"]])
    page.keyboard.press("b")
    drag(page, [corner + seen[:2] - 8, corner + seen[2:] + 8])

    # where the mask is seen, by the picture alone
    page.keyboard.press("p")
    shown = pixels(page)
    coloured = (shown[..., 0] - shown[..., 2] > _COLOURED) & bright
    assert np.abs(extent(coloured) - seen).max() <= 3
    assert coloured[bright].mean() > 0.9

    # where the server has it, in the patient
    image = stored_as(code)
    truth = np.asarray(image.dataobj) > 500
    mask = downloaded(page, tmp_path)
    assert np.allclose(mask.affine, image.affine, atol=1e-4)
    voxels = np.asarray(mask.dataobj)
    (k,) = np.unique(np.nonzero(voxels)[2])
    assert k == image.shape[2] // 2 or k == (image.shape[2] - 1) // 2
    found, wanted = voxels[:, :, k] > 0, truth[:, :, k]
    assert 2 * (found & wanted).sum() / (found.sum() + wanted.sum()) > 0.95
    assert {one[:3] for one in filled(page)} == {tuple(v) for v in np.argwhere(voxels)}


def test_clicks_boxes_and_strokes_are_sent_in_stored_voxels(page: Page, client: str) -> None:
    """For every plane of a permuted and flipped image, the voxel under the mouse is the one that is told."""
    sent: list[dict[str, Any]] = []
    page.on(
        "request",
        lambda r: sent.append(json.loads(r.post_data or "{}")) if r.url.endswith("/prompt") else None,
    )
    open_image(page, "PSR")
    values = np.asarray(stored_as("PSR").dataobj)
    for key, voxel in (("1", (20, 14, 33)), ("2", (31, 9, 40)), ("3", (12, 5, 51))):
        page.keyboard.press(key)
        go_to(page, voxel)
        page.mouse.move(*at(page, voxel))
        told = page.locator("#place").inner_text()
        assert told.startswith(f"{voxel[0]}, {voxel[1]}, {voxel[2]}   {values[voxel]}")
        page.keyboard.press("p")
        page.mouse.click(*at(page, voxel))
        ready(page)
        assert sent[-1]["foreground"] == [list(voxel)]
    go_to(page, (20, 10, 33))
    page.keyboard.press("l")
    drag(page, [at(page, v) for v in ((10, 6, 33), (30, 6, 33), (30, 15, 33), (10, 15, 33))])
    assert sent[-1]["lasso"]["k"] == 33
    corners = np.array(sent[-1]["lasso"]["points"])
    assert corners.min(0).tolist() == [10, 6] and corners.max(0).tolist() == [30, 15]

    page.keyboard.press("1")
    go_to(page, (20, 10, 33))
    box(page, (12, 10, 30), (28, 10, 44))
    assert (sent[-1]["box"], sent[-1]["plane"]) == ([12, 28, 10, 10, 30, 44], "axial")


def test_photo(page: Page, client: str, server: Server, picture: Picture) -> None:
    open_image(page, "photo")
    expect(page.locator("#views")).to_be_hidden()
    assert "segmed_3d" not in page.locator("#model").inner_text()
    bright = pixels(page).min(axis=2) > 180
    seen, size = extent(bright), np.array(bright.shape[::-1])
    assert (seen[0] + seen[2]) / 2 > size[0] / 2 and (seen[1] + seen[3]) / 2 < size[
        1
    ] / 2  # right above, as in the file
    page.locator("#model").select_option("classical")
    box(page, (143, 23, 0), (206, 77, 0))
    found, wanted = (
        {one[:2] for one in filled(page)},
        {(i, j) for i in range(150, 200) for j in range(30, 70)},
    )
    assert 2 * len(found & wanted) / (len(found) + len(wanted)) > 0.9
    shown = pixels(page)
    coloured = (shown[..., 0] - shown[..., 2] > _COLOURED + 20) & bright
    assert np.abs(extent(coloured) - seen).max() <= 3
    picture(page, "page-photo")


def test_window_and_slices(page: Page, client: str) -> None:
    open_image(page, "RAS")
    caption = page.locator("#place")
    page.mouse.move(*at(page, (10, 10, 10)))
    assert caption.inner_text().startswith("10, 10, 10")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("]")
    page.mouse.wheel(0, 100)
    page.mouse.move(*at(page, (11, 10, 10)))
    assert caption.inner_text().startswith("11, 10, 11")
    low, high = window(page)
    dark = pixels(page).mean()
    x, y = at(page, (30, 25, 11))
    page.mouse.move(x, y)
    page.mouse.down(button="right")
    page.mouse.move(x, y - 150, steps=4)
    page.mouse.up(button="right")
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    after = window(page)
    assert after[1] - after[0] == pytest.approx(high - low) and after[0] < low
    assert pixels(page).mean() > dark


def test_the_keys_are_shown(page: Page, client: str, picture: Picture) -> None:
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    picture(page, "page-keys")
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
