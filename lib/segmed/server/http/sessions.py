"""The sessions of MONAI Label: images that clients have sent for their own requests."""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.utils.app import app_instance

from segmed.server.http.errors import BadRequest
from segmed.server.http.requests import check_session


def all_sessions() -> Any:
    """The sessions of the server. Raises BadRequest (406) if they are switched off."""
    sessions = app_instance().sessions()
    if sessions is None:
        raise BadRequest("Sessions are switched off on this server. Upload the image into the studies.", 406)
    return sessions


def find_session(session_id: str, update: bool = True) -> Any:
    """A session that lives, which counts as used if `update`. Raises BadRequest (404) if there is none."""
    session = all_sessions().get_session(check_session(session_id), update_ts=update)
    if session is None:
        raise BadRequest(
            f"The session {session_id} does not exist or has expired. Load the image again.", 404
        )
    return session


def session_json(session: Any) -> dict[str, Any]:
    """What a client learns of a session: nothing about the server's folders."""
    return {k: v for k, v in session.to_json().items() if k not in ("path", "image")}
