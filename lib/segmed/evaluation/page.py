"""HTML pages that need nothing else: pictures are inside, no script is, and all text is escaped."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

# for browsers: nothing is fetched and nothing runs, whatever names hold
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page_environment(templates: Path) -> Environment:
    """Templates of a folder, and `page.css`; with the filters `svg` and `png`, which put pictures into the page.

    Args:
        templates: folder.
    """
    environment = Environment(
        loader=FileSystemLoader([templates, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"svg": svg_uri, "png": png_uri}
    return environment


def svg_uri(image: bytes) -> str:
    """An SVG image as the source of an `img`."""
    return f"data:image/svg+xml;base64,{base64.b64encode(image).decode()}"


def png_uri(pixels: np.ndarray) -> str:
    """Pixels (H, W, 3) uint8 as the source of an `img`."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
