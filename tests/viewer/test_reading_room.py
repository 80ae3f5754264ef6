"""The page as a reading room: labels, objects, windows, distances, keyboard, fingers, accessibility."""

from __future__ import annotations

import base64
import re
import zlib
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pytest
from browser import Picture
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from running import ROOT, Server, Start
from segmed.data.phantom import Phantom, make_phantom
from web_page import at, drag, filled, go_to, open_image, paint, ready, window

AXE = ROOT / "apps" / "segmed" / "web" / "node_modules" / "axe-core" / "axe.min.js"
K = 20
_FAULTS = """async () => (await axe.run()).violations
  .filter(one => ['serious', 'critical'].includes(one.impact))
  .map(one => `${one.id}: ${one.nodes.map(node => node.target).join(', ')}`)"""


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom("CT", shape=(160, 128, 40), spacing=(2.2, 2.2, 4.0), seed=5)


@pytest.fixture(scope="module")
def server(start: Start, phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Server:
    studies = tmp_path_factory.mktemp("studies")
    nib.save(nib.Nifti1Image(phantom.image, phantom.affine), studies / "abdomen.nii.gz")
    cells = np.full((120, 200, 3), 20, np.uint8)
    for n, x in enumerate((30, 90, 150)):
        rows, columns = np.indices(cells.shape[:2])
        cells[(rows - 60) ** 2 + (columns - x) ** 2 < (12 + 2 * n) ** 2] = (220, 180, 160)
    Image.fromarray(cells).save(studies / "cells.png")
    return start(studies, "--conf", "models", "classical,segmed", "--conf", "labels", "liver,spleen,kidney")


@pytest.fixture
def client(page: Page, server: Server, request: pytest.FixtureRequest) -> str:
    name = f"reader of {request.node.name[5:40]}"
    page.add_init_script(f"localStorage.setItem('segmed.client', '{name}')")
    page.goto(server.url)
    expect(page.locator("#images button")).to_have_count(2)
    return name


def chip(page: Page, label: str, act: str) -> Any:
    return page.locator(f'#used button[data-label="{label}"][data-act="{act}"]')


def values(page: Page) -> set[int]:
    return {one[3] for one in filled(page)}


def test_labels_have_a_menu(page: Page, client: str, picture: Picture, tmp_path: Path) -> None:
    open_image(page, "abdomen")
    paint(page, "liver", (60, 60, K))
    paint(page, "Milz", (100, 60, K))
    count = len({one for one in filled(page) if one[3] == 1})
    expect(chip(page, "liver", "choose")).to_contain_text(f"{count * 2.2 * 2.2 * 4 / 1000:.1f} ml")

    chip(page, "Milz", "menu").click()
    expect(page.locator("#label-facts")).to_contain_text("voxels; value 4")
    picture(page, "page-label-menu")
    page.locator("#new-name").fill("الطحال 🫀")
    page.keyboard.press("Enter")
    expect(chip(page, "الطحال 🫀", "choose")).to_have_attribute("aria-pressed", "true")
    chip(page, "الطحال 🫀", "menu").click()
    page.locator("#new-colour").fill("#cc79a7")
    ready(page)
    chip(page, "liver", "lock").click()
    paint(page, "الطحال 🫀", (60, 60, K))  # on the liver, which is locked
    assert len({one for one in filled(page) if one[3] == 1}) == count
    chip(page, "liver", "choose").click()
    page.keyboard.press("p")
    page.mouse.click(*at(page, (60, 60, K)))
    expect(page.locator("#messages")).to_contain_text("liver is locked")
    chip(page, "liver", "hide").click()
    expect(chip(page, "liver", "hide")).to_have_attribute("aria-label", "Show liver")
    chip(page, "liver", "lock").click()

    chip(page, "الطحال 🫀", "menu").click()
    page.locator("#merge-into").select_option("liver")
    page.locator("#merge").click()
    ready(page)
    assert values(page) == {1}
    page.locator("#undo").click()
    ready(page)
    assert values(page) == {1, 4}
    chip(page, "liver", "menu").click()
    page.locator("#delete-label").click()
    ready(page)
    assert values(page) == {4}
    expect(chip(page, "liver", "choose")).to_have_count(0)
    with page.expect_download() as download:
        page.locator("#names-table").click()
    download.value.save_as(tmp_path / "names.tsv")
    assert "الطحال 🫀" in (tmp_path / "names.tsv").read_text(
        encoding="utf-8"
    ) and download.value.suggested_filename.startswith("abdomen")


def test_each_object_is_a_label_and_proposals_are_picked(page: Page, client: str, picture: Picture) -> None:
    open_image(page, "cells")
    page.locator("#label").fill("cell")
    page.locator("#instances").check()
    page.locator("#model").select_option("classical")
    page.locator("#propose").click()
    ready(page)
    expect(page.locator("#proposals")).to_be_visible()
    page.locator("#reject-all").click()
    page.keyboard.press("p")
    for x in (30, 150):
        page.mouse.click(*at(page, (x, 60, 0)))
    expect(page.locator("#proposal-count")).to_contain_text("2 of")
    picture(page, "page-proposals")
    page.locator("#take-proposals").click()
    ready(page)
    expect(page.locator("#proposals")).to_be_hidden()
    expect(chip(page, "cell 2", "choose")).to_be_visible()
    found = {one[3]: one for one in filled(page)}
    assert len(found) == 2

    page.keyboard.press("Escape")
    page.keyboard.press("b")
    drag(page, [at(page, (73, 43, 0)), at(page, (107, 77, 0))])
    expect(chip(page, "cell 3", "choose")).to_be_visible()
    expect(page.locator("#label-count")).to_have_text("3 labels with voxels")
    picture(page, "page-instances")
    chip(page, "cell 1", "menu").click()
    page.locator("#delete-label").click()
    ready(page)
    assert len(values(page)) == 2
    page.locator("#brightness").fill("2")
    assert "brightness(2)" in (page.locator("#image").get_attribute("style") or "")


def test_window_slices_and_distances(page: Page, client: str, picture: Picture) -> None:
    open_image(page, "abdomen")
    page.locator("#window").select_option("Lung")
    expect(page.locator("#window-width")).to_have_value("1500")
    expect(page.locator("#window-level")).to_have_value("-600")
    page.locator("#window-width").fill("300")
    page.locator("#window-level").fill("50")
    page.keyboard.press("Enter")
    expect(page.locator("#image")).to_have_attribute("aria-label", re.compile("white at 200$"))
    assert window(page) == (-100, 200)
    expect(page.locator("#window option:checked")).to_have_text("Own window")
    page.keyboard.press("i")
    expect(page.locator("#invert")).to_have_attribute("aria-pressed", "true")
    picture(page, "page-inverted")
    page.keyboard.press("w")
    expect(page.locator("#invert")).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#window option:checked")).to_have_text("Default window")
    page.locator("#slice").fill("7")
    expect(page.locator("#image")).to_have_attribute("aria-label", re.compile("axial slice 8 of 40"))
    page.locator("#stage").click(position={"x": 300, "y": 300})
    page.keyboard.press("End")
    expect(page.locator("#slice")).to_have_js_property("valueAsNumber", 39)
    page.locator("#slice").fill(str(K))
    page.locator("#stage").click(position={"x": 300, "y": 300})
    page.keyboard.press("m")
    drag(page, [at(page, (40, 60, K)), at(page, (110, 60, K))])
    picture(page, "page-measure")
    page.keyboard.press("Delete")
    page.keyboard.press("4")
    picture(page, "page-three-planes")


def test_a_stroke_that_did_not_reach_the_server_goes_when_it_answers_again(page: Page, client: str) -> None:
    open_image(page, "abdomen")
    paint(page, "liver", (60, 60, K))
    before = filled(page)
    page.context.set_offline(True)
    page.mouse.click(*at(page, (100, 60, K)))
    expect(page.locator("#messages")).to_contain_text("The server does not answer")
    page.context.set_offline(False)
    expect(page.locator("#messages")).to_contain_text("The server answers again", timeout=60_000)
    expect(page.locator("#messages")).not_to_contain_text("Is it still running", timeout=30_000)
    ready(page)
    assert filled(page) == before
    page.locator("#clear").click()
    ready(page)


def test_keyboard_alone_segments_an_object(page: Page, client: str) -> None:
    """From the list to a mask and a label without a mouse."""
    page.locator("#search").focus()
    for _ in range(4):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.id") == "cells":
            break
    page.keyboard.press("Enter")
    expect(page.locator("#title")).to_have_text("cells")
    ready(page)
    page.locator("#overlay").focus()
    page.keyboard.press("b")
    page.keyboard.press("Shift+ArrowUp")
    for _ in range(2):
        page.keyboard.press("Control+Shift+ArrowUp")
        page.keyboard.press("Control+Shift+ArrowLeft")
    page.keyboard.press("Control+Shift+ArrowLeft")
    page.keyboard.press("Space")
    for _ in range(4):
        page.keyboard.press("Control+Shift+ArrowDown")
        page.keyboard.press("Control+Shift+ArrowRight")
    page.keyboard.press("Space")
    ready(page)
    assert {(90, 60)} <= {one[:2] for one in filled(page)}


def test_fingers(browser: Browser, server: Server) -> None:
    context = browser.new_context(viewport={"width": 1024, "height": 768}, has_touch=True)
    page = context.new_page()
    page.goto(server.url)
    page.locator('#images button[data-id="abdomen"]').tap()
    expect(page.locator("#title")).to_have_text("abdomen")
    ready(page)
    go_to(page, (0, 0, K))
    session = context.new_cdp_session(page)
    x, y = at(page, (60, 60, K))
    sent: list[dict[str, Any]] = []
    page.on("request", lambda r: sent.append(r.post_data_json) if r.url.endswith("/prompt") else None)

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": a, "y": b, "id": n} for n, (a, b) in enumerate(places)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (x, y), (x + 80, y))
    for step in range(1, 5):
        touch("touchMove", (x, y + 15 * step), (x + 80, y + 15 * step))
    touch("touchEnd")
    described = page.locator("#image").get_attribute("aria-label") or ""
    assert int(re.findall(r"slice (\d+)", described)[0]) != K + 1
    assert sent == []
    page.keyboard.press("p")
    touch("touchStart", (x, y))
    touch("touchEnd")
    ready(page)
    (clicks,) = (one["foreground"] for one in sent)
    assert np.abs(np.array(clicks[0][:2]) - 60).max() <= 1
    context.close()


@pytest.mark.parametrize("size", [(1024, 768), (3840, 2160)])
def test_nothing_serious_keeps_people_out(
    page: Page, client: str, picture: Picture, size: tuple[int, int]
) -> None:
    """axe-core on the page with an image, its labels and its dialogs."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: run scripts/check_web.sh")
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.evaluate(AXE.read_text(encoding="utf-8"))
    assert page.evaluate(_FAULTS) == []
    open_image(page, "abdomen")
    paint(page, "liver", (60, 60, K))
    paint(page, "خلية", (100, 60, K))
    chip(page, "liver", "hide").click()
    page.locator("#clear").scroll_into_view_if_needed()
    assert page.evaluate(_FAULTS) == []
    picture(page, f"page-{size[0]}")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for opens in ("[data-label=liver][data-act=menu]", "#help", "#former"):
        page.locator(opens).click()
        expect(page.locator("dialog[open]")).to_be_visible()
        assert page.evaluate(_FAULTS) == []
        page.keyboard.press("Escape")
    page.locator("#clear").click()
    ready(page)


def test_hundreds_of_labels_can_be_used(page: Page, client: str, server: Server, picture: Picture) -> None:
    names = [f"ورم {n} 🧠" if n % 2 else f"Wirbel {n}" for n in range(252)]
    dot = {"k": 3, "data": base64.b64encode(zlib.compress(b"\1")).decode()}
    objects = [
        {"label": name, "changes": [dot | {"i": [n % 100, n % 100 + 1], "j": [n // 100, n // 100 + 1]}]}
        for n, name in enumerate(names)
    ]
    url = f"{server.url}/api/images/abdomen/objects"
    answer = httpx.post(url, json={"client": client, "objects": objects}, timeout=60)
    assert answer.status_code == 200, answer.text
    open_image(page, "abdomen")
    expect(page.locator("#used li")).to_have_count(255)
    paint(page, "liver", (60, 60, K))
    page.locator("#label").fill("one too many")
    page.keyboard.press("Enter")
    page.mouse.click(*at(page, (90, 60, K)))
    expect(page.locator("#messages")).to_contain_text("All 255 labels")
    picture(page, "page-many-labels")
    page.locator("#clear").click()
    ready(page)
