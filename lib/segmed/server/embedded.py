"""A server inside of another program, for viewers without one: the napari plugin offline."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import uvicorn

from segmed.places import make_work
from segmed.server.http.timed_protocol import TIMED
from segmed.server.lean_imports import spare_imports
from segmed.server.serve import _environment, _private_folder

_HOST = "127.0.0.1"
_ENDS_WITHIN = 10.0  # s
_WORKERS = ("learning", "scoring", "decoding", "segmentations")  # names of threads that compute
_guard = threading.Lock()
_started = False


class EmbeddedServer:
    """A server that runs on a thread of this process.

    Attributes:
        url: Address, which only programs on this machine reach.
    """

    def __init__(self, server: uvicorn.Server, thread: threading.Thread, port: int) -> None:
        self.url = f"http://{_HOST}:{port}"
        self._server, self._thread = server, thread

    def close(self) -> None:
        """Stop it; this process cannot start another one."""
        ends = time.monotonic() + _ENDS_WITHIN
        self._server.should_exit = True
        self._thread.join(_ENDS_WITHIN)
        # A program that ends while one of them is in the code of PyTorch is aborted.
        for thread in threading.enumerate():
            if thread.name in _WORKERS:
                thread.join(max(0.0, ends - time.monotonic()))


def start_embedded(studies: Path, conf: Mapping[str, str] | None = None) -> EmbeddedServer:
    """Start a server in this process, and return when it answers.

    Args:
        studies: Folder of images.
        conf: Settings of the app, as of `segmed serve --conf`.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: A setting is wrong.
        RuntimeError: This process has started one before, or it does not start.
    """
    global _started
    if not studies.is_dir():
        raise FileNotFoundError(f"There is no folder {str(studies)!r}. Give a folder of images.")
    spare_imports()
    from segmed.server.config.settings import ServerSettings  # MONAI comes with it

    settings = dict(conf or {})
    ServerSettings.from_conf(settings)
    with _guard:
        if _started:  # MONAI Label keeps its app and its settings once for the whole process
            raise RuntimeError(
                "This program has started a server before. Use that one, or restart the program."
            )
        _started = True
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port = int(probe.getsockname()[1])
    _configure(studies, settings, port)

    from segmed.server.asgi import app

    server = uvicorn.Server(uvicorn.Config(app, host=_HOST, port=port, log_level="warning", http=TIMED))
    thread = threading.Thread(target=server.run, name="segmed", daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("The server did not start; the messages above tell why.")
        time.sleep(0.05)
    return EmbeddedServer(server, thread, port)


def _configure(studies: Path, conf: dict[str, str], port: int) -> None:
    """MONAI Label's settings, which its modules read when they are imported."""
    variables = _environment(_private_folder(), _HOST)
    del variables["TMPDIR"]  # the temporary folder of the program stays
    os.environ.update(variables)
    work = make_work()
    for name in ("model", "lib", "logs", "bin"):
        (work / name).mkdir(exist_ok=True)
    import segmed.monai_parts  # noqa: F401, before MONAI Label imports all of MONAI

    # isort: split
    from monailabel.config import settings

    settings.MONAI_LABEL_SERVER_PORT = port
    settings.MONAI_LABEL_APP_DIR = str(work)
    settings.MONAI_LABEL_STUDIES = str(studies.resolve())
    settings.MONAI_LABEL_APP_CONF = conf
