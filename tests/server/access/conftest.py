"""A browser and a server that asks for a login."""

from __future__ import annotations

from browser import Picture, browser, page, picture
from guarded_server import Guarded, guarded
from running import Start, start, start_shared

__all__ = ["Guarded", "Picture", "Start", "browser", "guarded", "page", "picture", "start", "start_shared"]
