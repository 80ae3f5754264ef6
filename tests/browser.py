"""A real browser; conftest files import the fixtures `browser` and `page`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

# WebGL without a graphics card, and no calls home
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",
    "--use-angle=swiftshader",
    "--disable-background-networking",
]
Picture = Callable[[Page, str], Path]

expect.set_options(
    timeout=60_000
)  # ms; a busy machine may take many seconds to show a page for the first time


def chromium() -> str:
    """Where the system's Chromium is; skips the test if there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a module: while it is open, this thread has a running event loop, bad for other
    tests."""
    yield from launched()


def launched() -> Iterator[Browser]:
    """What `browser` is, for a fixture of another scope."""
    path = chromium()
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield one
        one.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page, 1280×800; what it says to its console stands in `page.said`."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    one = context.new_page()
    said: list[str] = []
    one.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    one.on("pageerror", lambda error: said.append(f"error: {error}"))
    one.said = said  # type: ignore[attr-defined]
    yield one
    context.close()


@pytest.fixture
def picture(tmp_path: Path) -> Picture:
    """Takes a screenshot; for the documents where SEGMED_PICTURES names their folder."""

    def take(page: Page, name: str) -> Path:
        path = Path(os.environ.get("SEGMED_PICTURES", tmp_path)) / f"{name}.png"
        page.screenshot(path=path)
        return path

    return take
