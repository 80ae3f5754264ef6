"""Long requests on the page, prompts in all planes, slices of a box, interpolation, and surfaces."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from browser import Picture
from playwright.sync_api import Page, expect
from running import Server, Start
from segmed.data.phantom import Phantom, make_phantom
from web_page import Voxel, at, filled, go_to, ready

LIVER = 1
_readers = itertools.count(1)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom("CT", shape=(160, 128, 64), spacing=(2.2, 2.2, 3.0), seed=5)


@pytest.fixture(scope="module")
def liver(phantom: Phantom) -> np.ndarray:
    return np.asarray(phantom.labels == LIVER)


@pytest.fixture(scope="module")
def server(start: Start, phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Server:
    studies = tmp_path_factory.mktemp("studies")
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), studies / "abdomen.nii.gz")
    return start(studies, "--conf", "models", "segmed,classical", "--conf", "labels", "liver,spleen")


@pytest.fixture
def sent(page: Page, server: Server) -> list[dict[str, Any]]:
    """The prompts that the page sends; the image is open, and nobody has worked on it."""
    prompts: list[dict[str, Any]] = []
    page.on(
        "request",
        lambda r: prompts.append(json.loads(r.post_data or "{}")) if r.url.endswith("/prompt") else None,
    )
    page.add_init_script(f"localStorage.setItem('segmed.client', 'reader {next(_readers)}')")
    page.goto(server.url)
    page.locator('#images button[data-id="abdomen"]').click()
    expect(page.locator("#title")).to_have_text("abdomen")
    ready(page)
    return prompts


def _drag(page: Page, low: Voxel, high: Voxel, wheel: int = 0) -> None:
    """A box from voxel to voxel, over more slices by the wheel."""
    first, last = at(page, low), at(page, high)
    page.keyboard.press("b")
    page.mouse.move(*first)
    page.mouse.down()
    page.mouse.move(*last, steps=3)
    for _ in range(abs(wheel)):
        page.mouse.wheel(0, -100 if wheel > 0 else 100)
        page.wait_for_timeout(50)
    page.mouse.up()


def _corners(mask: np.ndarray) -> tuple[Voxel, Voxel]:
    at_ = np.argwhere(mask)
    low, high = ([int(v) for v in f(at_, 0)] for f in (np.min, np.max))
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


def test_a_long_request_tells_how_far_it_is_and_can_be_stopped(
    page: Page, sent: list[dict[str, Any]], liver: np.ndarray, picture: Picture
) -> None:
    page.locator("#model").select_option("segmed_3d")
    k = int(liver.sum((0, 1)).argmax())
    low, high = _corners(liver[:, :, k : k + 1])
    go_to(page, (low[0], low[1], k))
    _drag(page, (low[0], low[1], k), (high[0], high[1], k))
    expect(page.locator("#progress output")).to_contain_text(
        re.compile(r"of at most \d+ slices"), timeout=60_000
    )
    page.wait_for_function("() => document.querySelector('#progress progress').value >= 3")
    picture(page, "page-progress")
    page.locator("#stop-keep").click()
    ready(page)
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.locator("#messages")).to_contain_text("is kept")
    kept = {one[2] for one in filled(page)}
    assert 1 < len(kept) < np.count_nonzero(liver.any((0, 1)))

    # dropped: everything is as before
    _drag(page, (low[0] - 2, low[1] - 2, k), (high[0], high[1], k))
    page.wait_for_function("() => document.querySelector('#progress progress').value >= 2")
    page.locator("#stop-drop").click()
    ready(page)
    expect(page.locator("#messages")).to_contain_text("nothing was changed")
    assert {one[2] for one in filled(page)} == kept
    assert not [line for line in page.said if "error" in line.lower()]  # type: ignore[attr-defined]


def test_boxes_in_all_planes_and_over_slices(
    page: Page, sent: list[dict[str, Any]], liver: np.ndarray, picture: Picture
) -> None:
    page.locator("#model").select_option("classical")
    j = int(liver.sum((0, 2)).argmax())
    low, high = _corners(liver[:, j : j + 1])
    page.keyboard.press("2")
    go_to(page, (low[0], j, low[2]))
    _drag(page, (low[0], j, low[2]), (high[0], j, high[2]))
    ready(page)
    assert (sent[-1]["plane"], sent[-1]["box"]) == ("coronal", [low[0], high[0], j, j, low[2], high[2]])
    found = filled(page)
    assert {one[1] for one in found} == {j}
    mask = np.zeros(liver.shape, bool)
    mask[tuple(np.array([one[:3] for one in found]).T)] = True
    assert 2 * (mask & liver)[:, j].sum() / (mask.sum() + liver[:, j].sum()) > 0.75
    picture(page, "page-coronal")
    page.locator("#clear").click()
    ready(page)

    # over several slices, by the wheel; then by the side of the box in another view, and by its number
    page.keyboard.press("1")
    k = int(liver.sum((0, 1)).argmax())
    low, high = _corners(liver[:, :, k : k + 1])
    go_to(page, (low[0], low[1], k))
    _drag(page, (low[0], low[1], k), (high[0], high[1], k), wheel=3)
    ready(page)
    assert sent[-1]["box"] == [low[0], high[0], low[1], high[1], k, k + 3]
    expect(page.locator("#box-from")).to_have_value(str(k + 1))
    page.keyboard.press("2")
    middle = (low[0] + high[0]) // 2
    go_to(page, (middle, (low[1] + high[1]) // 2, k))
    edge, further = (at(page, (middle, (low[1] + high[1]) // 2, kk)) for kk in (k + 3, k + 6))
    page.mouse.move(edge[0], edge[1])
    page.mouse.down()
    page.mouse.move(*further, steps=3)
    page.mouse.up()
    ready(page)
    assert sent[-1]["box"] == [low[0], high[0], low[1], high[1], k, k + 6]
    assert "plane" not in sent[-1]
    page.locator("#box-from").fill(str(k - 1))
    page.keyboard.press("Tab")
    ready(page)
    assert sent[-1]["box"][4:] == [k - 2, k + 6]


def test_gaps_are_filled_and_shown_in_three_dimensions(
    page: Page, sent: list[dict[str, Any]], liver: np.ndarray, picture: Picture
) -> None:
    page.locator("#model").select_option("classical")
    k = int(liver.sum((0, 1)).argmax())
    for at_ in (k - 4, k + 4):
        low, high = _corners(liver[:, :, at_ : at_ + 1])
        go_to(page, (low[0], low[1], at_))
        _drag(page, (low[0], low[1], at_), (high[0], high[1], at_))
        ready(page)
        page.keyboard.press("Enter")
        ready(page)
    page.locator("#interpolate").click()
    ready(page)
    between = filled(page)
    assert {one[2] for one in between} == set(range(k - 4, k + 5))
    lock = page.locator('#used button[data-label="liver"][data-act="lock"]')
    lock.click()
    for button, part in (("#interpolate", "interpolate"), ("#clear", "clear")):
        with page.expect_request(f"**/{part}") as asked:
            page.locator(button).click()
        assert asked.value.post_data_json["locked"] == ["liver"]
        ready(page)
        expect(page.locator("#messages")).to_contain_text("liver is locked")
    assert filled(page) == between
    lock.click()
    page.locator("#show-surface").click()
    dialog = page.locator("#surface")
    expect(dialog).to_be_visible(timeout=60_000)
    expect(dialog.locator("li")).to_have_text(["liver"])
    ready(page)
    assert int(dialog.get_attribute("data-triangles") or 0) > 1000
    page.wait_for_timeout(500)
    picture(page, "page-surface")
    dialog.locator("[data-close]").click()
    page.locator("#clear").click()
    ready(page)
    page.locator("#show-surface").click()
    expect(page.locator("#messages")).to_contain_text("nothing to show in 3-D")
    # The browser tells of the two refusals.
    refused = "status of 400"
    assert not [line for line in page.said if "error" in line.lower() and refused not in line]  # type: ignore[attr-defined]
