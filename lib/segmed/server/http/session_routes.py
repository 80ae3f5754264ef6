"""Sessions: images that a client sends for its own requests, and that are never part of the studies."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import Any

from fastapi import APIRouter, File, UploadFile
from fastapi.responses import Response

from segmed.server.decoding import decoder
from segmed.server.http.errors import BadRequest
from segmed.server.http.requests import SENT_EXTENSIONS, check_upload
from segmed.server.http.routes import USER, receive_file
from segmed.server.http.sessions import all_sessions, find_session, session_json

router = APIRouter()


@router.put("/session/", dependencies=USER)
def create_session(
    uncompress: bool = False, expiry: int = 0, files: list[UploadFile] = File(...)
) -> dict[str, Any]:
    """Open a session on one image file, or on the files of one DICOM series."""
    if uncompress:
        raise BadRequest(
            "Archives are not taken. Send the image, or the DICOM files of one series, as files."
        )
    if not files:
        raise BadRequest("There is no file. Send the image as files=….")
    with tempfile.TemporaryDirectory(prefix="session-") as folder:
        series = Path(folder) / "series"
        series.mkdir()
        for n, file in enumerate(files):
            allowed = SENT_EXTENSIONS if len(files) == 1 else (".dcm", "")
            name = f"{n:05d}{check_upload(file.filename, allowed)}" if len(files) > 1 else None
            path = receive_file(file, series, name)
        image = series if len(files) > 1 else path
        decoder().check(image)
        sessions = all_sessions()
        session_id, session = sessions.add_session(str(image), max(expiry, 0), False, str(uuid.uuid4()))
    return {"session_id": session_id, "session_info": session_json(session)}


@router.get("/session/{session_id}", dependencies=USER)
def get_session(session_id: str, update_ts: bool = False, image: bool = False) -> Any:
    """Whether a session lives, or its image."""
    session = find_session(session_id, update_ts)
    if image and Path(session.image).is_file():
        return Response(Path(session.image).read_bytes(), media_type="application/octet-stream")
    return session_json(session)


@router.delete("/session/{session_id}", dependencies=USER)
def remove_session(session_id: str) -> Any:
    """Close a session and delete its image."""
    session = find_session(session_id)
    all_sessions().remove_session(session_id)
    return session_json(session)
