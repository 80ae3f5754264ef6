"""Start the server: private temporary folder, safe defaults, one line when it is ready."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
from uvicorn.config import HTTP_PROTOCOLS

from segmed.data.phantom import write_demo_study
from segmed.places import DEMO, make_work
from segmed.server.access.audit import Audit
from segmed.server.access.oidc_settings import OidcSettings
from segmed.server.access.users import Users
from segmed.server.config.dicomweb_settings import check_url
from segmed.server.http.forwarded import TRUSTED, allowed_origins, networks
from segmed.server.http.timed_protocol import TIMED
from segmed.server.lean_imports import spare_imports

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Access:
    """Who may use the server.

    Attributes:
        users: file of `segmed users`; None where nobody has to log in.
        insecure: whether a server that others can reach may be without a login.
        certificate: TLS certificate and key as PEM files; None for plain HTTP.
        audit: log of who changed what; None for one beside the file of users, and for none where there is no
            such file.
        oidc: settings of a login by an identity provider; None for none.
    """

    users: Path | None = None
    insecure: bool = False
    certificate: tuple[Path, Path] | None = None
    audit: Path | None = None
    oidc: Path | None = None

    @property
    def log(self) -> Path | None:
        """Where changes are noted."""
        beside = self.users.with_name(f"{self.users.name}.audit.jsonl") if self.users else None
        return self.audit or beside

    def check(self, host: str) -> None:
        """Raises ValueError or FileNotFoundError where nobody, or anybody, could use a server on that
        address."""
        if self.oidc is not None:
            if self.users is None:
                raise ValueError(
                    "--oidc needs --users FILE for users of the server itself, which may have none."
                )
            OidcSettings.read(self.oidc)
        if self.users is not None and not Users(self.users).all() and self.oidc is None:
            raise ValueError(
                f"{self.users} has no users. Add one: segmed users add NAME --users {self.users}"
            )
        if self.users is None and host not in _LOOPBACK and not self.insecure:
            raise ValueError(
                f"On {host} everybody in your network could read and change the studies. Add users (segmed "
                "users add NAME --users FILE) and start with --users FILE; or start with --insecure if that "
                "is meant."
            )
        if self.log is not None:
            Audit(self.log)  # complains where it cannot go on
        for file in self.certificate or ():
            if not file.is_file():
                raise FileNotFoundError(
                    f"There is no file {str(file)!r}. Give certificate and key as PEM files."
                )


def serve(studies: str, host: str, port: int, conf: Mapping[str, str], access: Access | None = None) -> None:
    """Run until interrupted.

    Args:
        studies: folder or DICOMweb URL; "" makes a demo study.
        host: address to listen on.
        port: TCP port.
        conf: settings of the app.
        access: who may use it; on other addresses than those of this machine a login is needed.

    Raises:
        ValueError: a setting is wrong, or the port is taken.
        FileNotFoundError: studies or weights are not there.
        ModuleNotFoundError: MONAI Label is not installed.
    """
    find_spec("monailabel")  # says what to do if it is not there
    spare_imports()
    from segmed.inference.backbone_check import check_backbones
    from segmed.server.config.settings import ServerSettings  # MONAI comes with it

    access = access or Access()
    access.check(host)
    settings = ServerSettings.from_conf(conf)  # complain before the long start
    check_backbones(settings.models, settings.backbones)
    allowed_origins(os.environ.get("SEGMED_ORIGINS", ""))
    networks(os.environ.get("SEGMED_PROXIES", TRUSTED))
    _check_port(host, port)
    studies = _resolve(studies, DEMO)
    temporary = _private_folder()
    os.environ.update(_environment(temporary, host))
    if access.users is not None:
        os.environ["SEGMED_USERS"] = str(access.users.resolve())
    if access.oidc is not None:
        os.environ["SEGMED_OIDC"] = str(access.oidc.resolve())
    if access.log is not None:
        os.environ["SEGMED_AUDIT"] = str(access.log.resolve())
    tempfile.tempdir = temporary
    import segmed.monai_parts  # noqa: F401, before MONAI Label imports all of MONAI

    # isort: split
    from monailabel.main import Main  # reads the environment when imported

    HTTP_PROTOCOLS["auto"] = TIMED  # MONAI Label passes no protocol on

    words = [
        "start_server",
        "--app",
        str(make_work()),
        "--studies",
        studies,
        "--host",
        host,
        "--port",
        str(port),
    ]
    words += ["--uvicorn_app", "segmed.server.asgi:app", "--log_level", "warning", "--verbose", "WARNING"]
    if access.certificate:
        words += ["--ssl_certfile", str(access.certificate[0]), "--ssl_keyfile", str(access.certificate[1])]
    for key, value in conf.items():
        words += ["--conf", key, value]
    sys.argv = ["segmed", *words]
    # uvicorn raises the signal again after its shutdown, and the default handler would skip the clean-up
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    threading.Thread(target=_announce, args=(host, port, studies, access), daemon=True).start()
    try:
        Main(loglevel=30).run()
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _private_folder() -> str:
    """A folder of mode 700 for what requests and sessions store; those of servers that were killed are
    removed."""
    for old in Path(tempfile.gettempdir()).glob("segmed-*-*"):
        pid = old.name.split("-")[1]
        if pid.isdecimal() and _is_ours(old) and not psutil.pid_exists(int(pid)):
            shutil.rmtree(old, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"segmed-{os.getpid()}-")


def _is_ours(folder: Path) -> bool:
    """Whether it belongs to this user; on Windows, the folder for temporary files is one user's."""
    return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()


def _environment(temporary: str, host: str) -> dict[str, str]:
    """MONAI Label's settings; what the user set in the environment stays."""
    defaults = {
        "MONAI_LABEL_SESSION_PATH": str(Path(temporary) / "sessions"),
        "MONAI_LABEL_TRACKING_ENABLED": "false",
        "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",
        "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY": "15",
        # uvicorn would put the address of the browser in place of the proxy's, which the guard has to know
        "FORWARDED_ALLOW_IPS": "",
    }
    chosen = {key: os.environ.get(key, value) for key, value in defaults.items()}
    # MONAI Label starts its background tasks by the bare name `python`
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {
        **chosen,
        "PATH": path,
        "TMPDIR": temporary,
        "SEGMED_LOOPBACK_ONLY": "1" if host in _LOOPBACK else "0",
        "SEGMED_HOST": host.lower(),
    }


def _resolve(studies: str, demo: Path) -> str:
    if studies.startswith(("http://", "https://")):
        return check_url(studies)
    if studies:
        folder = Path(studies).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(
                f"There is no folder {studies!r}. Give a folder of images or a DICOMweb URL."
            )
        return str(folder.resolve())
    write_demo_study(demo)
    return str(demo)


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"Cannot listen on {host} port {port} ({error.strerror}). Choose another --port."
            ) from error


def _announce(host: str, port: int, studies: str, access: Access) -> None:
    """Wait for the first answer, then tell what to open."""
    where = f"[{host}]" if ":" in host else host if host not in ("0.0.0.0", "::") else "127.0.0.1"
    url = f"{'https' if access.certificate else 'http'}://{where}:{port}"
    trust = ssl._create_unverified_context() if access.certificate else None  # it asks itself
    trouble = ""
    for _ in range(1200):
        try:
            with urllib.request.urlopen(f"{url}/info/", timeout=5, context=trust) as answer:
                trouble = json.load(answer)["datastore"].get("message", "")
                break
        except (urllib.error.URLError, OSError, ssl.SSLError) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == 401:
                break
            time.sleep(0.25)
    else:
        return
    pacs = studies.startswith("http")
    ohif = f"open {url}/ohif/ for OHIF" if pacs else "OHIF needs --studies with the DICOMweb URL of a PACS"
    warning = (
        ""
        if host in _LOOPBACK or access.users
        else " | anyone on your network can read and change these studies"
    )
    print(
        f"SegMed is ready at {url} | studies: {studies} | 3D Slicer: module MONAI Label, server {url}, Next "
        f"Sample, then SmartEdit | {ohif}{warning}{f' | {trouble}' if trouble else ''}",
        flush=True,
    )
