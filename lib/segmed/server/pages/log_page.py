"""The server's log for administrators, in place of MONAI Label's page, which needs scripts of other hosts."""

from __future__ import annotations

import html as markup
from collections import deque
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from monailabel.config import settings

from segmed.server.http.errors import BadRequest
from segmed.server.http.routes import ADMIN

router = APIRouter(dependencies=ADMIN, tags=["Others"])

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">{refresh}<title>SegMed – log</title>
<style>
body {{ margin: 0; background: #10161d; color: #d7dfe8; display: flex; flex-direction: column-reverse;
  height: 100vh; overflow: auto; }}
pre {{ margin: 12px; font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; }}
</style></head>
<body><pre>{lines}</pre></body></html>
"""


@router.get("/logs/", response_class=HTMLResponse)
def log(
    lines: Annotated[int, Query(ge=1, le=100_000, description="the last ones")] = 300,
    html: Annotated[bool, Query(description="as a page")] = True,
    text: Annotated[bool, Query(description="as plain text")] = False,
    refresh: Annotated[int, Query(ge=0, le=3600, description="s until a page loads again; 0 for never")] = 0,
) -> Response:
    """The end of the server's log.

    Raises:
        BadRequest: (404) there is none.
    """
    path = Path(settings.MONAI_LABEL_APP_DIR) / "logs" / "app.log"
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            last = "".join(deque(file, lines))
    except FileNotFoundError as error:
        raise BadRequest("The server has not written a log yet.", 404) from error
    if text or not html:
        return PlainTextResponse(last, headers=_HEADERS)
    again = f'<meta http-equiv="refresh" content="{max(refresh, 3)}">' if refresh else ""
    return HTMLResponse(_PAGE.format(refresh=again, lines=markup.escape(last)), headers=_HEADERS)
