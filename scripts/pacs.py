"""Run a local Orthanc that only this machine can talk to, and load the demo study into it. Started by
pacs.sh.

Debian's Orthanc listens on all interfaces whatever it is told, and then refuses other machines by their
address. That it does is checked here, from the machine's own outer address.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import httpx
import psutil
import typer
from segmed.data.phantom.dicom import write_demo_series

_PLUGINS = ("/usr/share/orthanc/plugins/libOrthancDicomWeb.so", "/usr/lib/orthanc/libOrthancDicomWeb.so")
_HERE = Path(__file__).resolve().parents[1]


def main(
    port: Annotated[int, typer.Option(help="TCP port of HTTP.")] = 8042,
    folder: Annotated[Path, typer.Option(help="Where the PACS keeps its images.")] = _HERE
    / "studies"
    / "pacs",
    empty: Annotated[bool, typer.Option("--empty", help="Do not load the demo study.")] = False,
    user: Annotated[
        str, typer.Option(help="NAME:PASSWORD that clients have to give; none if not given.")
    ] = "",
) -> None:
    """Run until interrupted."""
    plugin = next((p for p in _PLUGINS if Path(p).is_file()), None)
    if plugin is None:
        sys.exit(
            "Orthanc's DICOMweb plugin is not installed. On Debian or Ubuntu: apt-get install "
            "orthanc-dicomweb"
        )
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            sys.exit(
                f"Port {port} is taken, perhaps by an Orthanc of the system. Stop it or choose another "
                f"--port."
            )
    folder.mkdir(parents=True, exist_ok=True)
    name, _, password = user.partition(":")
    settings = {
        "Name": "SegMed demo",
        "StorageDirectory": str(folder.resolve()),
        "IndexDirectory": str(folder.resolve()),
        "Plugins": [plugin],
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "DicomServerEnabled": False,
        "AuthenticationEnabled": bool(user),
        "RegisteredUsers": {name: password} if user else {},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "HttpThreadsCount": 8,
        "OverwriteInstances": True,
    }
    with tempfile.NamedTemporaryFile(
        "w", suffix=".json", encoding="utf-8"
    ) as config:  # mode 600: it may hold a password
        json.dump(settings, config)
        config.flush()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        orthanc = subprocess.Popen(
            ["Orthanc", config.name], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        try:
            client = httpx.Client(
                base_url=f"http://127.0.0.1:{port}", auth=(name, password) if user else None
            )
            _wait(client, orthanc)
            _check_closed(port)
            if not empty:
                _load_demo(client)
            print(f"The PACS is ready at http://127.0.0.1:{port}/dicom-web", flush=True)
            orthanc.wait()
        except KeyboardInterrupt:
            pass
        finally:
            orthanc.terminate()
            orthanc.wait(30)


def _wait(client: httpx.Client, orthanc: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        if orthanc.poll() is not None:
            sys.exit(
                "Orthanc ended at once. Start `Orthanc` by hand to see why; another one may use the same "
                "folder."
            )
        try:
            if client.get("/system").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    sys.exit("Orthanc did not answer for 30 s.")


def _check_closed(port: int) -> None:
    """Another machine must get nothing."""
    for interface in psutil.net_if_addrs().values():
        for address in interface:
            if address.family != socket.AF_INET or address.address.startswith("127."):
                continue
            try:
                answer = httpx.get(f"http://{address.address}:{port}/system", timeout=5)
            except httpx.HTTPError:
                continue
            if answer.status_code < 400:
                sys.exit(
                    f"Orthanc answers other machines on {address.address}:{port}, and was stopped. Use a "
                    f"firewall."
                )


def _load_demo(client: httpx.Client) -> None:
    if client.get("/studies").json():
        return
    with tempfile.TemporaryDirectory() as temporary:
        for path in write_demo_series(temporary):
            client.post("/instances", content=path.read_bytes()).raise_for_status()


if __name__ == "__main__":
    typer.run(main)
