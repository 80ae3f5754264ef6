"""The documentation as a site: strict, and without anything from another host."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from deploy.tools import tool
from running import ROOT

OUTSIDE = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "CITATION.cff",
    "apps/segmed/README.md",
)


def _build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [tool("mkdocs"), "build", "--strict", "--site-dir", str(out)]
    return subprocess.run(command, cwd=source, capture_output=True, encoding="utf-8", check=False)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the site is made of, which tests may change."""
    folder = tmp_path_factory.mktemp("source")
    weights = [path.relative_to(ROOT) for path in (ROOT / "apps/segmed/model").glob("segmed-*/README.md")]
    for name in (*OUTSIDE, *weights, "mkdocs.yml", "scripts/docs_site.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "docs", folder / "docs")
    return folder


@pytest.fixture(scope="module")
def site(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = _build(source, out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_document_is_a_page_and_links_stay_inside(site: Path) -> None:
    for path in (ROOT / "docs").glob("*.md"):
        assert (site / f"{path.stem}.html").is_file(), path.name
    overview = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="deployment.html"' in overview
    assert 'href="settings.html"' in overview
    assert 'href="index.html' in (site / "security.html").read_text(encoding="utf-8")


def test_pages_load_nothing_from_another_host(site: Path) -> None:
    loads = re.compile(
        r"<(?:script|img|iframe)\b[^>]*\bsrc=[\"']?(?:https?:)?//|<link\b[^>]*\bhref=[\"']?(?:https?:)?//"
    )
    pages = list(site.glob("*.html"))
    assert len(pages) > 15
    for page in pages:
        assert not loads.search(page.read_text(encoding="utf-8")), page.name


def test_formulas_are_shown_without_a_script(site: Path) -> None:
    page = (site / "methods.html").read_text(encoding="utf-8")
    assert page.count("<math") == (ROOT / "docs" / "methods.md").read_text(encoding="utf-8").count("$$") // 2
    assert "arithmatex" not in page


def test_the_tutorial_is_a_page(site: Path) -> None:
    assert "fine-tune" in (site / "tutorial.html").read_text(encoding="utf-8").lower()


@pytest.mark.parametrize(
    "link", ["[gone](gone.md)", "[gone](proxy.md#no-such-heading)", "[gone](../scripts/x.py)"]
)
def test_a_link_that_leads_nowhere_fails_the_build(
    source: Path, site: Path, tmp_path: Path, link: str
) -> None:
    page = source / "docs" / "glossary.md"
    before = page.read_text(encoding="utf-8")
    page.write_text(f"{before}\n{link}\n", encoding="utf-8")
    try:
        done = _build(source, tmp_path / "site")
    finally:
        page.write_text(before, encoding="utf-8")
    assert done.returncode != 0


def test_the_navigation_names_every_document() -> None:
    class Loader(yaml.SafeLoader):
        """Reads mkdocs.yml without calling what it names."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)
    nav = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"]
    named = {
        page
        for entry in nav
        for pages in entry.values()
        for page in ([pages] if isinstance(pages, str) else pages)
    }
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= named
