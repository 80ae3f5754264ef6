"""Sessions: images that a client sends for its own requests, and that are never part of the studies."""

from __future__ import annotations

import tempfile
import uuid
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO

from fastapi import APIRouter, File, UploadFile
from fastapi.responses import Response

from segmed.imaging.formats.text_headers import check_alone
from segmed.server.decoding import decoder
from segmed.server.http.errors import BadRequest
from segmed.server.http.guard import MAX_BODY
from segmed.server.http.requests import SENT_EXTENSIONS, check_upload
from segmed.server.http.routes import USER, receive_file
from segmed.server.http.sessions import all_sessions, find_session, session_json

router = APIRouter()
_SERIES = (".dcm", "")
_MOST_FILES = 20_000
_PIECE = 2**20


@router.put("/session/", dependencies=USER)
def create_session(
    uncompress: bool = False, expiry: int = 0, files: list[UploadFile] = File(...)
) -> dict[str, Any]:
    """Open a session on one image file, on the files of one DICOM series, or on a zip of either
    (`uncompress`)."""
    if not files:
        raise BadRequest("There is no file. Send the image as files=….")
    with tempfile.TemporaryDirectory(prefix="session-") as folder:
        series = Path(folder) / "series"
        series.mkdir()
        paths = _unpacked(files, series) if uncompress else _received(files, series)
        image = series if len(paths) > 1 else paths[0]
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


def _received(files: Sequence[UploadFile], folder: Path) -> list[Path]:
    """The uploads as files of a folder, under names of ours."""
    if len(files) == 1:
        return [receive_file(files[0], folder)]
    return [
        receive_file(file, folder, f"{n:05d}{check_upload(file.filename, _SERIES)}")
        for n, file in enumerate(files)
    ]


def _unpacked(files: Sequence[UploadFile], folder: Path) -> list[Path]:
    """The files in an uploaded zip, under names of ours: its folders are left out.

    Raises:
        BadRequest: it is no zip, holds no file or too many, is encrypted, or unpacks to more than an
            upload may have.
    """
    if len(files) != 1 or not (files[0].filename or "").lower().endswith(".zip"):
        raise BadRequest("Only one .zip file is unpacked. Send the image, or a whole series, as one zip.")
    try:
        with zipfile.ZipFile(files[0].file) as archive:
            found = [entry for entry in archive.infolist() if not entry.is_dir()]
            if not 0 < len(found) <= _MOST_FILES:
                raise BadRequest(f"The zip holds {len(found)} files; 1 to {_MOST_FILES} are taken.")
            allowed, room, paths = (SENT_EXTENSIONS if len(found) == 1 else _SERIES), MAX_BODY, []
            for n, entry in enumerate(found):
                path = folder / f"{n:05d}{check_upload(Path(entry.filename).name, allowed)}"
                with archive.open(entry) as source, path.open("wb") as target:
                    room -= _copy(source, target, room)
                check_alone(path)
                paths.append(path)
            return paths
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadRequest(
            f"The zip cannot be unpacked: {error}. Make it again, without a password and by deflation."
        ) from error


def _copy(source: IO[bytes], target: BinaryIO, most: int) -> int:
    """Copy a file out of an archive, whatever size its header states. Raises BadRequest beyond `most`
    bytes."""
    count = 0
    while piece := source.read(_PIECE):
        count += len(piece)
        if count > most:
            raise BadRequest(
                f"The zip unpacks to more than {MAX_BODY >> 30} GiB. Send one series at a time.", 413
            )
        target.write(piece)
    return count
