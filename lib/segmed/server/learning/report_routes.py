"""The report on active learning, for administrators: created on request and not stored."""

from __future__ import annotations

import threading
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from monailabel.interfaces.utils.app import app_instance

from segmed.active.store.study_files import StudyFiles
from segmed.reports.anonymous import anonymised
from segmed.reports.page import POLICY
from segmed.reports.report import collect
from segmed.server.http.routes import ADMIN
from segmed.server.learning.retrainer import is_remote

router = APIRouter()
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
_one_at_a_time = threading.Lock()  # each may hold a large volume


@router.get("/report", dependencies=ADMIN, response_class=HTMLResponse)
def report(anonymous: bool = False) -> HTMLResponse:
    """Versions, labels, work, agreement, worst cases, drift and quarantine as one HTML page."""
    from segmed.reports.html import render  # matplotlib, which a server does without until then

    app = app_instance()
    learning, settings = app.learning, app.engine.settings
    folder = Path(getattr(app.datastore(), "_datastore_path", None) or app.studies)
    name = "" if is_remote(app.studies) else Path(app.studies).name
    with _one_at_a_time:
        known = folder.is_dir()
        files = StudyFiles.read(folder, settings.structures, learning.studies.file) if known else StudyFiles()
        contents = collect(learning.log.database, files, app.engine.registry, settings.window, name)
        page = render(anonymised(contents) if anonymous else contents)
    return HTMLResponse(page, headers=_HEADERS)
