"""Work on the page: the first five minutes, comparing models, two tabs, former labels."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from browser import Picture
from playwright.sync_api import Page, Route, expect
from running import Server
from segmed.data.phantom import Phantom
from web_page import at, box, drag, filled, go_to, open_image, ready

from web.stored_images import STORED, downloaded


def test_the_first_five_minutes(
    page: Page, client: str, server: Server, phantom: Phantom, tmp_path: Path, picture: Picture
) -> None:
    picture(page, "page-list")
    page.locator("#search").fill("abd")
    expect(page.locator("#images button")).to_have_count(1)
    open_image(page, "abdomen")
    liver = phantom.labels == 1
    k = 20
    low, high = np.argwhere(liver[:, :, k]).min(0), np.argwhere(liver[:, :, k]).max(0)
    go_to(page, (int(low[0]), int(low[1]), k))
    box(page, (int(low[0]) - 2, int(low[1]) - 2, k), (int(high[0]) + 2, int(high[1]) + 2, k))
    boxed = filled(page)
    assert {one[2:] for one in boxed} == {(k, 1)}
    mask = np.zeros(liver.shape, bool)
    mask[tuple(np.array([one[:3] for one in boxed]).T)] = True
    assert 2 * (mask & liver)[:, :, k].sum() / (mask.sum() + liver[:, :, k].sum()) > 0.8
    picture(page, "page-box")

    # a click beside the object corrects, undo and redo go back and forth
    centre = np.argwhere(liver[:, :, k]).mean(0).round().astype(int)
    page.keyboard.press("n")
    page.mouse.click(*at(page, (int(high[0]) - 3, int(centre[1]), k)))
    ready(page)
    corrected = filled(page)
    assert corrected != boxed
    picture(page, "page-click")
    page.keyboard.press("Control+z")
    ready(page)
    assert filled(page) == boxed
    page.keyboard.press("Control+Shift+z")
    ready(page)
    assert filled(page) == corrected
    page.locator("#undo").click()
    ready(page)
    assert filled(page) == boxed

    # a scribble
    page.keyboard.press("s")
    drag(page, [at(page, (int(centre[0]) + d, int(centre[1]) + d // 2, k)) for d in (-8, 0, 8)])
    scribbled = filled(page)
    line = {(int(centre[0]) + d, int(centre[1]) + d // 2, k, 1) for d in (-8, 0, 8)}
    assert line <= scribbled
    picture(page, "page-scribble")

    # accept: the next prompt leaves this object alone; a label of a new name
    page.keyboard.press("Enter")
    ready(page)
    spine = tuple(int(v) for v in np.argwhere(phantom.image[:, :, k] > 300).mean(0).round())
    page.locator("#label").fill("Wirbelsäule")
    page.keyboard.press("Tab")
    box(page, (spine[0] - 11, spine[1] - 10, k), (spine[0] + 11, spine[1] + 10, k))
    both = filled(page)
    value = next(one[3] for one in both if one[:3] == (*spine, k))
    assert value == 4  # after liver, spleen and kidney
    assert {one for one in both if one[3] == 1} == scribbled
    expect(page.locator("#used [aria-pressed=true]")).to_contain_text("Wirbelsäule")

    # brush and eraser
    spot = (int(low[0]) // 2, 20, k)
    page.keyboard.press("r")
    page.mouse.click(*at(page, spot))
    ready(page)
    painted = filled(page) - both
    assert (*spot, 4) in painted
    assert all(np.hypot(i - spot[0], j - spot[1]) <= 4 for i, j, _, _ in painted)
    assert len(painted) == pytest.approx(np.pi * 4**2, abs=8)
    page.keyboard.press("e")
    page.mouse.click(*at(page, spot))
    ready(page)
    assert filled(page) == both
    page.locator('[data-view="multi"]').click()
    picture(page, "page-planes")

    # save and download
    page.locator("#save").click()
    ready(page)
    expect(page.locator('#images button[data-id="abdomen"] .done')).to_be_visible()
    picture(page, "page-saved")
    mask_file = downloaded(page, tmp_path)
    voxels = np.asarray(mask_file.dataobj)
    assert np.allclose(mask_file.affine, phantom.affine, atol=1e-4)
    expected = np.zeros(voxels.shape, int)
    for i, j, kk, label in both:
        expected[i, j, kk] = label  # values are kept
    assert np.array_equal(voxels, expected)
    saved = nib.load(server.studies / "labels" / "final" / "abdomen.nii.gz")
    assert isinstance(saved, nib.Nifti1Image)
    assert np.array_equal(np.asarray(saved.dataobj), expected)

    # a folder of NIfTI has no DICOM series
    expect(page.locator("#seg")).to_be_disabled()

    # all of it is still there after the page was loaded anew
    page.reload()
    open_image(page, "abdomen")
    assert len(filled(page)) == len(both)
    assert not [line for line in page.said if "error" in line.lower()]  # type: ignore[attr-defined]


def test_models_are_compared_without_touching_the_work(page: Page, client: str, picture: Picture) -> None:
    open_image(page, "abdomen")
    page.locator("#model").select_option("classical")
    page.locator("#compare").click()
    page.locator("#try").click()
    expect(page.locator("#messages")).to_contain_text("Draw a box or click first")
    page.locator("#choice [data-close]").click()
    go_to(page, (110, 60, 20))
    others = filled(page)  # another test may have saved some
    box(page, (90, 30, 20), (140, 90, 20))
    before = filled(page)
    page.locator("#compare").click()
    page.locator("#try").click()
    expect(page.locator("#results li")).to_have_count(2)
    ready(page)
    assert filled(page) == before
    counts = {
        row.locator("label").inner_text().split()[0]: int(re.findall(r"(\d+) voxels", row.inner_text())[0])
        for row in page.locator("#results li").all()
    }
    assert counts["classical"] == len(before - others)
    picture(page, "page-compare")
    page.locator("#results li", has_text="segmed").get_by_role("button").click()
    ready(page)
    assert len(filled(page) - others) == counts["segmed"] != counts["classical"]
    expect(page.locator("#model")).to_have_value("segmed")


def test_next_case_opens_an_unlabelled_image(page: Page, client: str) -> None:
    page.locator("#next").click()
    expect(page.locator("#title")).not_to_be_empty()
    ready(page)
    assert page.locator("#title").inner_text() in {*STORED, "photo", "abdomen"}


def test_studies_that_cannot_be_reached_are_told_and_come_back(
    page: Page, server: Server, picture: Picture
) -> None:
    sentence = "The PACS does not answer. Is it running?"

    def down(route: Route) -> None:
        state = {"kind": "pacs", "state": "down", "message": sentence}
        told = {"version": "1", "models": [], "labels": [], "warning": "", "studies": state}
        route.fulfill(status=200, json=told) if "state" in route.request.url else route.fulfill(
            status=424, json={"detail": sentence}
        )

    page.route("**/api/state", down)
    page.route("**/api/images", down)
    page.goto(server.url)
    expect(page.locator("#state")).to_contain_text(sentence)
    expect(page.locator("#images button")).to_have_count(0)
    picture(page, "page-pacs-down")
    page.unroute("**/api/state")
    page.unroute("**/api/images")
    expect(page.locator("#images button")).to_have_count(len(STORED) + 2, timeout=15_000)
    expect(page.locator("#state")).to_contain_text("images")
    expect(page.locator("#model option")).to_have_count(4)


def test_two_tabs_show_the_same_work(page: Page, client: str, server: Server) -> None:
    second = page.context.new_page()
    second.add_init_script(f"localStorage.setItem('segmed.client', '{client}')")
    second.route("**/revision?*", lambda route: route.abort())  # it looks at nothing by itself for now
    second.goto(server.url)
    open_image(second, "RAS")
    page.bring_to_front()
    open_image(page, "RAS")
    box(page, (24, 9, 12), (52, 29, 12))
    drawn = filled(page)
    assert drawn
    expect(page.locator('#images button[data-id="RAS"] .unsaved')).to_be_visible()

    # what the other tab asks of the state before is not done, and it is told
    second.locator("#clear").click()
    ready(second)
    expect(second.locator("#messages")).to_contain_text("has changed")
    assert filled(second) == drawn
    second.locator("#undo").click()
    ready(second)
    assert filled(second) == set()
    expect(page.locator("#messages")).to_contain_text("changed elsewhere")  # this one looks by itself
    ready(page)
    assert filled(page) == set()

    page.locator("#redo").click()
    ready(page)
    assert filled(page) == drawn
    page.locator("#save").click()
    ready(page)
    expect(page.locator("#messages")).to_contain_text(f"Voxels: liver {len(drawn)}.")
    expect(page.locator("#messages")).not_to_contain_text("differs")
    expect(page.locator('#images button[data-id="RAS"] .unsaved')).to_have_count(0)

    # labels that are there are left alone unless the switch is on
    page.locator("#accept").click()
    page.locator("#label").fill("spleen")
    page.keyboard.press("Tab")
    page.evaluate("document.querySelector('#messages').replaceChildren()")  # they cover a part of the image
    box(page, (24, 9, 12), (52, 29, 12))
    expect(page.locator("#messages")).to_contain_text("of liver, which stay")
    assert {one for one in filled(page) if one[3] == 1} == drawn
    page.locator("#overwrite").check()
    page.evaluate("document.querySelector('#messages').replaceChildren()")
    box(page, (24, 9, 12), (52, 29, 12))
    assert {one for one in filled(page) if one[3] == 1} < drawn
    expect(page.locator("#messages")).to_contain_text("has replaced")


def test_a_former_label_comes_back(page: Page, client: str, tmp_path: Path, picture: Picture) -> None:
    open_image(page, "LPS")
    for corner in (10, 20):
        page.keyboard.press("r")
        page.mouse.click(*at(page, (corner, corner, 12)))
        ready(page)
        page.locator("#save").click()
        ready(page)
        if corner == 10:
            first = filled(page)
    both = filled(page)
    assert first < both
    page.locator("#former").click()
    rows = page.locator("#former-labels tr")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("liver")
    picture(page, "page-former")
    rows.first.locator("button").click()
    expect(page.locator("#messages")).to_contain_text("The former label is the final one again.")
    ready(page)
    assert filled(page) == first
    page.locator("#former").click()
    expect(rows).to_have_count(2)
    with page.expect_response(lambda answer: "/work?" in answer.url):
        rows.first.locator("button").click()  # what was replaced by it
    ready(page)
    assert filled(page) == both
    with page.expect_download() as started:
        page.locator("#names-table").click()
    started.value.save_as(tmp_path / "names.tsv")
    assert "liver" in (tmp_path / "names.tsv").read_text()
    open_image(page, "RAS")
    page.locator("#former").click()
    expect(page.locator("#former-none")).to_be_visible()
    assert not [line for line in page.said if "error" in line.lower()]  # type: ignore[attr-defined]
