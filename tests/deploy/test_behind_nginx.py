"""deploy/nginx.conf and deploy/healthcheck.py with a real nginx and a real server that asks for a login."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import requests
from deploy.tools import DEPLOY
from running import Server, Start, free_port, start  # noqa: F401
from segmed.data.phantom import write_demo_study
from segmed.server.access.users import Users

PREFIX = "/imaging/segmed"
HOST = "segmed.hospital.example"
PASSWORD = "long enough for a test"


@dataclass(frozen=True)
class Behind:
    """Addresses of the server and of nginx."""

    server: Server
    https: str
    http: str
    session: requests.Session


def _health(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEPLOY / "healthcheck.py"), url]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


@pytest.fixture(scope="module")
def behind(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:  # noqa: F811
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None or shutil.which("openssl") is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    folder = tmp_path_factory.mktemp("nginx")
    users = folder / "users.json"
    Users(users).add("anna", "annotator", PASSWORD)
    write_demo_study(folder / "studies")
    server = start(folder / "studies", "--users", str(users))
    order = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    order += " -addext subjectAltName=DNS:localhost"
    files = ["-keyout", folder / "privkey.pem", "-out", folder / "fullchain.pem"]
    subprocess.run([*order.split(), *files], check=True, capture_output=True)
    https, http = free_port(), free_port()
    upstream = (DEPLOY / "nginx-upstream-host.conf").read_text(encoding="utf-8")
    assert "127.0.0.1:8000" in upstream
    (folder / "upstream.conf").write_text(
        upstream.replace("127.0.0.1:8000", server.url.removeprefix("http://"))
    )
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    for old, new in {
        "  listen [::]:80;\n": "",
        "  listen [::]:443 ssl;\n": "",
        "listen 80;": f"listen 127.0.0.1:{http};",
        "listen 443 ssl;": f"listen 127.0.0.1:{https} ssl;",
        "/etc/nginx/segmed-upstream.conf": f"{folder}/upstream.conf",
        "/etc/nginx/certificates/": f"{folder}/",
        HOST: "localhost",
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    temporary = "".join(
        f"{n}_temp_path {folder}/{n};" for n in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
    (folder / "nginx.conf").write_text(f"{main}http {{ access_log off; {temporary}\n{text}\n}}\n")
    words = [program, "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"]
    process = subprocess.Popen(words)
    session = requests.Session()
    session.trust_env, session.verify = False, str(folder / "fullchain.pem")
    found = Behind(server, f"https://localhost:{https}", f"http://localhost:{http}", session)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                session.get(found.http, timeout=5, allow_redirects=False)
                break
            except requests.ConnectionError:
                assert process.poll() is None and time.monotonic() < deadline, (
                    folder / "error.log"
                ).read_text()
                time.sleep(0.1)
        yield found
    finally:
        session.close()
        process.terminate()
        process.wait(20)


def test_users_log_in_over_tls_below_the_path(behind: Behind) -> None:
    url, session = f"{behind.https}{PREFIX}", behind.session
    assert session.get(f"{url}/info/", timeout=30).status_code == 401
    form = {"username": "anna", "password": PASSWORD, "next": "/"}
    entered = session.post(f"{url}/login", data=form, headers={"Origin": behind.https}, timeout=30)
    assert entered.status_code in (200, 503), entered.text[:300]  # 503: the page was not built
    assert session.get(f"{url}/info/", timeout=30).json()["name"] == "SegMed"
    assert all(cookie.secure for cookie in session.cookies)
    moved = session.get(f"{url}/info", timeout=30, allow_redirects=False)
    assert moved.headers["location"] == f"{url}/info/"
    foreign = session.post(f"{url}/login", data=form, headers={"Origin": "https://evil.example"}, timeout=30)
    assert foreign.status_code == 403
    assert "max-age" in moved.headers["strict-transport-security"]


def test_plain_http_is_sent_to_https(behind: Behind) -> None:
    moved = behind.session.get(f"{behind.http}{PREFIX}/", timeout=30, allow_redirects=False)
    assert moved.status_code == 301
    assert moved.headers["location"].startswith(f"https://localhost{PREFIX}/")


def test_the_health_check_passes_for_a_server_with_login(behind: Behind) -> None:
    for url in (behind.server.url, f"{behind.https}{PREFIX}"):
        done = _health(url)
        assert done.returncode == 0, done.stderr


def test_the_health_check_fails_where_no_server_answers(tmp_path: Path) -> None:
    done = _health(f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "does not answer" in done.stderr


def test_the_health_check_fails_for_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "auth").mkdir()
    (tmp_path / "auth" / "index.html").write_text("[]")
    monkeypatch.chdir(tmp_path)
    other = ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    Thread(target=other.serve_forever, daemon=True).start()
    try:
        done = _health(f"http://127.0.0.1:{other.server_port}")
    finally:
        other.shutdown()
        other.server_close()
    assert done.returncode == 1
    assert "another program" in done.stderr
