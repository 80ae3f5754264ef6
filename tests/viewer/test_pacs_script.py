"""`scripts/pacs.sh`: the PACS for trying things."""

from __future__ import annotations

import socket

import httpx
import psutil
from orthanc import Pacs


def test_this_machine_is_answered_and_others_are_not(pacs: Pacs) -> None:
    with pacs.rest() as rest:
        assert rest.get("/dicom-web/studies").status_code == 200
    outer = [
        a.address
        for interface in psutil.net_if_addrs().values()
        for a in interface
        if a.family == socket.AF_INET and not a.address.startswith("127.")
    ]
    for address in outer:
        assert httpx.get(f"http://{address}:{pacs.port}/system", timeout=10).status_code in (401, 403)
