"""A browser, a PACS and servers for the tests of this folder."""

from __future__ import annotations

from browser import Picture, browser, page, picture
from orthanc import Pacs, pacs
from running import Server, Start, start

__all__ = ["Pacs", "Picture", "Server", "Start", "browser", "pacs", "page", "picture", "start"]
