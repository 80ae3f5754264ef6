"""Self-contained HTML pages with embedded images, without scripts, and with all text escaped."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

# The content security policy: browsers load nothing and run nothing, whatever text the page contains.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page_environment(templates: Path) -> Environment:
    """A Jinja environment for the templates of a folder, with filters `svg` and `png` for images.

    Args:
        templates: Folder of the templates.
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
    """The data URI of an SVG image for the source of an `img`."""
    return f"data:image/svg+xml;base64,{base64.b64encode(image).decode()}"


def png_uri(pixels: np.ndarray) -> str:
    """The data URI of pixels (H, W, 3), uint8, as a PNG for the source of an `img`."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
