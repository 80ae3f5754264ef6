"""The middle slice of a series as a picture, which the page shows while the volume is on its way."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from fastapi import APIRouter
from fastapi.responses import Response
from monailabel.interfaces.utils.app import app_instance
from PIL import Image

from segmed.imaging.picture import Picture
from segmed.server.decoding import decoder
from segmed.server.http.routes import USER
from segmed.server.http.sentence_route import SentenceRoute

router = APIRouter(prefix="/api", route_class=SentenceRoute)
_FEWEST = 8  # files; smaller series are there at once


@router.get("/images/{image}/preview", dependencies=USER)
def preview(image: str) -> Response:
    """The middle slice of a DICOM series as PNG, columns to the right and rows downwards, of square pixels.

    Only the file of that slice is read, so that a series of hundreds of slices is seen within a second. The
    answer is empty (204) where the image is no series of single slices.
    """
    app = app_instance()
    path = Path(app.image_path(image))
    files = sorted(path.iterdir()) if path.is_dir() else []
    if len(files) < _FEWEST:
        return Response(status_code=204)  # browsers would note an error for a 404
    picture = decoder().picture(files[len(files) // 2], app.engine.settings.window)
    out = io.BytesIO()
    _square(picture).save(out, "PNG", compress_level=1)
    return Response(out.getvalue(), media_type="image/png", headers={"Cache-Control": "private, no-cache"})


def _square(picture: Picture) -> Image.Image:
    """The first slice with pixels as wide as high."""
    shown = Image.fromarray(np.ascontiguousarray(picture.slice(0)))
    across, down = (float(np.linalg.norm(picture.affine[:3, axis])) for axis in (0, 1))
    if not across or not down or abs(across / down - 1) < 0.01:
        return shown
    return shown.resize((shown.width, max(1, round(shown.height * down / across))))
