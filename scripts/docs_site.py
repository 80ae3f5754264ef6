"""Hooks of mkdocs: the pages outside of docs/ become part of the site, and formulas become MathML.

README.md and the others stay where GitHub shows them. Links between pages are changed to their places in the
site.
"""

from __future__ import annotations

import html
import os
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
#: Files outside of docs/ by their names in the site.
ELSEWHERE = {
    "index.md": "README.md",
    "settings.md": "apps/segmed/README.md",
    "weights-default.md": "apps/segmed/model/segmed-default/README.md",
    "weights-tiny.md": "apps/segmed/model/segmed-tiny/README.md",
    "changes.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
}
_PLACES = {(ROOT / source).resolve(): name for name, source in ELSEWHERE.items()}
_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_FORMULA = re.compile(r'<(div|span) class="arithmatex">\\[\[(](.*?)\\[\])]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside of docs/."""
    for name, source in ELSEWHERE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Change links so that they lead to pages of the site; others stay, and `--strict` complains of them."""
    docs = Path(config.docs_dir).resolve()
    source = ELSEWHERE.get(page.file.src_uri)
    folder = (ROOT / source).parent if source else (docs / page.file.src_uri).parent
    here = (docs / page.file.src_uri).parent

    def moved(link: re.Match[str]) -> str:
        target = (folder / link[1]).resolve()
        if target in _PLACES:
            place = docs / _PLACES[target]
        elif target.is_relative_to(docs):
            place = target
        else:
            return link[0]
        return f"]({Path(os.path.relpath(place, here)).as_posix()}{link[2] or ''})"

    if page.file.src_uri.endswith(".ipynb"):
        return markdown
    code = [(found.start(), found.end()) for found in _CODE.finditer(markdown)]
    return _LINK.sub(
        lambda link: link[0] if any(a <= link.start() < b for a, b in code) else moved(link),
        markdown,
    )


def on_page_content(content: str, **_: Any) -> str:
    """Write formulas as MathML, which browsers show without a script."""

    def formula(found: re.Match[str]) -> str:
        return convert(html.unescape(found[2]), display="block" if found[1] == "div" else "inline")

    return _FORMULA.sub(formula, content)
