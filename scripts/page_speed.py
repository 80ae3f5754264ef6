"""How fast the web page is: loading, a list of 1,000 series, the first picture of a long series, scrolling.

`bench_viewers.py --page` runs these measurements and prints them as a Markdown table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
from playwright.sync_api import Page, expect
from segmed.data.phantom import make_phantom
from segmed.data.phantom.dicom import write_series

Row = tuple[str, list[float], float]
SERIES = 1_000
_LONG = 300_000  # ms
_FRAMES = 100
# pictures per second while the slices are scrolled through by key, one step for each picture
_SCROLL = """async frames => {
  const next = () => new Promise(done => requestAnimationFrame(done));
  const start = performance.now();
  for (let n = 0; n < frames; n++) {
    const key = n < frames / 2 ? ']' : '[';
    document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
    await next();
  }
  return 1000 * frames / (performance.now() - start);
}"""


def draw_long(folder: Path) -> None:
    """A drawn CT series of 512×512×300."""
    small = make_phantom("CT", (256, 256, 100), (1.5, 1.5, 3.0), seed=4)
    image = small.image.repeat(2, 0).repeat(2, 1).repeat(3, 2)
    write_series(folder, image, small.affine @ np.diag([0.5, 0.5, 1 / 3, 1.0]))


def draw_many(folder: Path) -> None:
    """Series of one small slice each, of many patients."""
    slice_ = np.zeros((16, 16, 1), np.int16)
    for n in range(SERIES):
        write_series(
            folder / f"{n:04d}", slice_, np.eye(4), patient=f"Patient^{n:04d}", description=f"CT {n}"
        )


def load_row(page: Page, url: str, repeats: int) -> Row:
    """From the address to the list of images."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        page.goto(url)
        expect(page.locator("#images button").first).to_be_visible()
        times.append(time.perf_counter() - start)
    return "web page: loaded", times[1:], 0


def list_rows(page: Page, url: str, repeats: int) -> Iterator[Row]:
    """A list of 1,000 series, from the server and in the page."""
    times, size = [], 0
    for _ in range(repeats + 1):
        start = time.perf_counter()
        answer = httpx.get(f"{url}/api/images", timeout=600).raise_for_status()
        times.append(time.perf_counter() - start)
        size = answer.num_bytes_downloaded
        assert len(answer.json()) == SERIES
    yield f"list of {SERIES:,} series: answer of the server", times[1:], size
    page.goto(url)
    expect(page.locator("#state")).to_contain_text(f"{SERIES} images", timeout=_LONG)
    times = []
    for _ in range(repeats + 1):
        times.append(
            page.evaluate(
                """async () => {
  const [list, start] = [document.querySelector('#images'), performance.now()];
  const shown = new Promise(done => new MutationObserver(done).observe(list, { childList: true }));
  document.querySelector('#reload').click();
  await shown;
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  return (performance.now() - start) / 1000;
}"""
            )
        )
    yield f"list of {SERIES:,} series: fetched and drawn in the page", times[1:], 0


def open_rows(page: Page, fresh: Callable[[], str], repeats: int) -> Iterator[Row]:
    """A series of 512×512×300: until a slice is seen, and until all can be used.

    Args:
        page: Browser page.
        fresh: Function that starts the server again, so that nothing is cached, and returns its address.
        repeats: Number of openings.
    """
    first, whole = [], []
    for _ in range(repeats):
        page.goto(fresh())
        button = page.locator("#images button").first
        expect(button).to_be_visible()
        start = time.perf_counter()
        button.click()
        page.wait_for_selector("#preview:not([hidden]), #title:not(:empty)", timeout=_LONG)
        first.append(time.perf_counter() - start)
        page.wait_for_selector("#title:not(:empty)", timeout=_LONG)
        page.wait_for_selector("main[aria-busy=false]", timeout=_LONG)
        whole.append(time.perf_counter() - start)
    yield "512×512×300: first picture", first, 0
    yield "512×512×300: ready for prompts", whole, 0


def scroll_rates(page: Page) -> list[float]:
    """Pictures per second while the slices of the open image are scrolled through, the slowest time first."""
    return sorted(float(page.evaluate(_SCROLL, _FRAMES)) for _ in range(3))
