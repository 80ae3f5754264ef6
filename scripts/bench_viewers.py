#!/usr/bin/env python
"""What a box costs from the viewers: seconds from the prompt to the mask, and bytes on the wire.

A drawn CT of 512×512×100 lies in a local Orthanc, or in a DICOM folder where Orthanc is not installed, and is
segmented by the embedded default model on the CPU. 3D Slicer is stood for by a client that sends what its
module sends; the web page and OHIF run in Chromium if it is there, which draws by software. All boxes are on
a slice that was prompted before. Prints a Markdown table. `--page` measures the page itself instead, see
`page_speed.py`. Usage: python scripts/bench_viewers.py [--repeats 10] [--folder] [--no-browser] [--page]
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import SimpleITK as sitk
import torch
from segmed.data.phantom import Phantom, make_phantom
from segmed.data.phantom.dicom import write_series

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "viewer")]  # the clients are those of the tests

from browser import _ARGUMENTS as CHROMIUM  # noqa: E402
from ohif_page import Ohif, uids  # noqa: E402
from orthanc import Pacs  # noqa: E402
from page_speed import (  # noqa: E402
    draw_long,
    draw_many,
    list_rows,
    load_row,
    open_rows,
    scroll_rates,
)
from playwright.sync_api import Error, Page, expect, sync_playwright  # noqa: E402
from running import free_port, stop, wait_for  # noqa: E402
from slicer_client import Slicer  # noqa: E402
from slicer_scene import Roi  # noqa: E402
from web_page import Voxel, at, go_to, ready  # noqa: E402

MODEL, LABEL = "segmed", "liver"
_SLOW = 300_000  # ms, for opening a series without a graphics card
# from the release of the button until OHIF's tool bar is at rest again, which it is when the mask is drawn
_STOPWATCH = """() => {
  window.pressed = 0; window.drawn = [];
  document.addEventListener('pointerup', () => { window.pressed = performance.now(); }, true);
  new MutationObserver(() => {
    if (document.querySelector('#segmed').getAttribute('aria-busy') === 'true') return;
    const pressed = window.pressed;
    requestAnimationFrame(() => requestAnimationFrame(() => window.drawn.push(performance.now() - pressed)));
  }).observe(document.querySelector('#segmed'), { attributes: true, attributeFilter: ['aria-busy'] });
}"""
Row = tuple[str, list[float], float]


def draw() -> tuple[Phantom, int, np.ndarray]:
    """A CT of 512×512×100, the slice with most of the liver, and its corners there (2, 3)."""
    small = make_phantom("CT", (256, 256, 50), (1.5, 1.5, 6.0), seed=3)
    image, labels = (a.repeat(2, 0).repeat(2, 1).repeat(2, 2) for a in (small.image, small.labels))
    body = Phantom(image, labels, small.names, small.affine @ np.diag([0.5, 0.5, 0.5, 1.0]))
    liver = labels == next(v for v, n in body.names.items() if n == LABEL)
    k = int(liver.sum((0, 1)).argmax())
    i, j = np.nonzero(liver[:, :, k])
    return body, k, np.array([[i.min() - 2, j.min() - 2, k], [i.max() + 2, j.max() + 2, k]])


@contextlib.contextmanager
def served(work: Path, series: Path, folder: bool) -> Iterator[tuple[str, bool]]:
    """Orthanc and a server on it; the address of the server, and whether there is a PACS."""
    with contextlib.ExitStack() as stack:
        pacs = None if folder or not shutil.which("Orthanc") else Pacs(work)
        if pacs:
            pacs.start()
            stack.callback(pacs.stop)
            pacs.upload(series)
        url = f"http://127.0.0.1:{(port := free_port())}"
        command = [str(ROOT / "scripts" / "serve.sh"), "--port", str(port)]
        command += ["--studies", pacs.url if pacs else str(series)]
        for key, value in {"models": MODEL, "labels": LABEL, "dicomweb_cache": work / "cache"}.items():
            command += ["--conf", key, str(value)]
        log = work / "server.txt"
        with log.open("wb") as out:
            server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=work)
        stack.callback(stop, server)
        wait_for("SegMed is ready", log, server)
        yield url, pacs is not None


def slicer_rows(url: str, work: Path, corners: np.ndarray, repeats: int) -> Iterator[Row]:
    """3D Slicer: ROI, Update, mask read by ITK."""
    slicer = Slicer(url, work / "slicer")
    slicer.connect()
    start = time.perf_counter()
    slicer.next_sample("sequential")
    size = (slicer.folder / slicer.sample["name"]).stat().st_size
    yield "3D Slicer: Next Sample", [time.perf_counter() - start], size
    for what, more in (("as its module asks", {}), ("with `result_compress`", {"result_compress": True})):
        received, read, bytes_ = [], [], 0
        for n in range(repeats + 1):
            slicer.roi = Roi.between(slicer.ras(corners[0] + [n % 4, 0, 0]), slicer.ras(corners[1]))
            params = {
                "label": LABEL,
                "foreground": [],
                "background": [],
                "roi": slicer.roi_ijk(),
                "slice": 7,
                **more,
            }
            start = time.perf_counter()
            file, _ = slicer._infer(MODEL, {**params, **slicer.options("infer", MODEL)})
            received.append(time.perf_counter() - start)
            sitk.ReadImage(file)
            read.append(time.perf_counter() - start)
            bytes_ = Path(file).stat().st_size
        yield f"3D Slicer, {what}: mask received", received[1:], bytes_
        yield f"3D Slicer, {what}: mask read by ITK", read[1:], bytes_


def api_row(url: str, image: str, corners: np.ndarray, repeats: int) -> Row:
    """What the page and OHIF ask the server."""
    times, size = [], 0
    with httpx.Client(base_url=url, timeout=600) as client:
        for n in range(repeats + 1):
            (i0, j0, k), (i1, j1, _) = (corners[0] + [n % 4, 0, 0]).tolist(), corners[1].tolist()
            body: dict[str, Any] = {
                "client": "bench",
                "model": MODEL,
                "label": LABEL,
                "box": [i0, i1, j0, j1, k, k],
            }
            start = time.perf_counter()
            answer = client.post(f"/api/images/{image}/prompt", json=body).raise_for_status()
            for change in answer.json()["changes"]:
                zlib.decompress(base64.b64decode(change["data"]))
            times.append(time.perf_counter() - start)
            size = answer.num_bytes_downloaded
    return "API of page and OHIF: changes received", times[1:], size


def page_row(page: Page, url: str, image: str, corners: np.ndarray, repeats: int) -> Row:
    """The web page: from the release of the button to the mask on the screen."""
    page.goto(url)
    page.locator(f'#images button[data-id="{image}"]').click()
    name = httpx.get(f"{url}/api/images/{image}").raise_for_status().json()["name"]
    expect(page.locator("#title")).to_have_text(name, timeout=_SLOW)
    ready(page)
    page.locator("#model").select_option(MODEL)
    go_to(page, _voxel(corners.mean(0).round()))
    times = []
    for n in range(repeats + 1):
        page.keyboard.press("b")
        places = [at(page, _voxel(corner)) for corner in (corners[0] + [n % 4, 0, 0], corners[1])]
        page.mouse.move(*places[0])
        page.mouse.down()
        page.mouse.move(*places[1], steps=3)
        page.mouse.up()
        ready(page)
        times.append(float(page.locator("#seconds").get_attribute("value") or "nan"))
    return "web page: mask drawn", times[1:], 0


def _voxel(place: np.ndarray) -> Voxel:
    i, j, k = map(int, place)
    return i, j, k


def ohif_row(page: Page, url: str, study: str, image: str, corners: np.ndarray, repeats: int) -> Row:
    """OHIF, likewise."""
    page.set_default_timeout(_SLOW)
    ohif = Ohif(page, url, image)
    page.goto(f"{url}/ohif/monai-label?StudyInstanceUIDs={study}")
    page.wait_for_selector("#segmed-save:enabled")
    ohif.wait()
    ohif.go_to("mpr-axial", corners.mean(0).round())
    page.evaluate(_STOPWATCH)
    for n in range(repeats + 1):
        ohif.press("box")
        before = page.evaluate("window.drawn.length")
        ohif.drag("mpr-axial", corners[0] + [n % 4, 0, 0], corners[1])
        page.wait_for_function("n => window.drawn.length > n", arg=before)
    return "OHIF: mask drawn", [t / 1000 for t in page.evaluate("window.drawn")][-repeats:], 0


@contextlib.contextmanager
def browser_page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        yield browser.new_page(viewport={"width": 1280, "height": 800})
        browser.close()


@contextlib.contextmanager
def load_told() -> Iterator[None]:
    """Print in the end how much else ran on the machine, as times mean little without it."""
    yield
    waiting = os.getloadavg()[1]
    print(f"\nOn average, {waiting:.0f} processes wanted the {os.cpu_count()} CPUs in the last five minutes.")


def show(row: Row) -> None:
    what, times, size = row
    told = f"{size / 1024:,.1f} KiB" if size else ""
    best, median, worst = min(times), statistics.median(times), max(times)
    print(f"| {what} | {best:.2f} s | {median:.2f} s | {worst:.2f} s | {told} |", flush=True)


def page_table(work: Path, repeats: int) -> None:
    """The page itself: loading, long lists, long series."""
    draw_long(work / "long")
    draw_many(work / "many")
    print(f"web page, {os.cpu_count()} CPUs, pictures drawn without a graphics card\n")
    print("| what | best | median | worst | answer |\n|---|---|---|---|---|")
    with contextlib.ExitStack() as stack, browser_page() as page:

        def fresh() -> str:
            stack.close()
            return stack.enter_context(served(work, work / "long", True))[0]

        for row in open_rows(page, fresh, min(3, repeats)):
            show(row)
        rates = scroll_rates(page)
        told = " | ".join(f"{rate:.0f} /s" for rate in (rates[-1], statistics.median(rates), rates[0]))
        print(f"| 512×512×300: pictures while scrolling | {told} | |", flush=True)
        stack.close()
        url, _ = stack.enter_context(served(work, work / "many", True))
        show(load_row(page, url, repeats))
        for row in list_rows(page, url, repeats):
            show(row)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument(
        "--folder", action="store_true", help="a DICOM folder even where Orthanc is installed"
    )
    parser.add_argument("--no-browser", action="store_true", help="leave out the page and OHIF")
    parser.add_argument("--page", action="store_true", help="measure the page itself instead")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))  # what it has started ends with it
    with tempfile.TemporaryDirectory() as folder, load_told():
        work = Path(folder)
        if arguments.page:
            page_table(work, arguments.repeats)
            return
        body, _, corners = draw()
        write_series(work / "series", body.image, body.affine)
        study, image = uids(work / "series")
        with served(work, work / "series", arguments.folder) as (url, pacs):
            affine = np.array(
                httpx.get(f"{url}/api/images/{image}", timeout=600).raise_for_status().json()["affine"]
            )
            if affine[:3, 2] @ body.affine[:3, 2] < 0:
                corners[:, 2] = body.image.shape[2] - 1 - corners[:, 2]
            where = "Orthanc" if pacs else "a DICOM folder"
            print(f"512×512×100 CT in {where}, {MODEL} on {os.cpu_count()} CPUs, torch {torch.__version__}\n")
            print("| from the prompt | best | median | worst | answer |\n|---|---|---|---|---|")
            for row in slicer_rows(url, work, corners, arguments.repeats):
                show(row)
            show(api_row(url, image, corners, arguments.repeats))
            if arguments.no_browser or not shutil.which("chromium"):
                return
            rows: list[Callable[[Page], Row]] = [
                lambda page: page_row(page, url, image, corners, arguments.repeats)
            ]
            if pacs:
                rows.append(lambda page: ohif_row(page, url, study, image, corners, arguments.repeats))
            for measure in rows:
                with browser_page() as page:
                    try:
                        show(measure(page))
                    except Error as error:
                        print(f"| not measured: {error.message.splitlines()[0]} | | | | |", flush=True)


if __name__ == "__main__":
    main()
