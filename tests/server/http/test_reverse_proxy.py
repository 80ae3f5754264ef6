"""A real nginx in front of the server: it ends TLS, and puts the server below a path."""

from __future__ import annotations

import base64
import shutil
import subprocess
import time
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
import requests
from running import Server, free_port

PREFIX = "/hospital/segmed"
_CONF = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  client_max_body_size 0;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    location {prefix}/ {{
      proxy_pass {server}/;
      proxy_http_version 1.1;
      proxy_redirect off;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Prefix {prefix};
    }}
    location /silent/ {{ proxy_pass {server}/; }}
  }}
}}
"""


@pytest.fixture(scope="module")
def nginx(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, requests.Session]]:
    """Its origin, and a client that trusts its certificate."""
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None or shutil.which("openssl") is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    order = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext "
        "subjectAltName=DNS:localhost"
    )
    subprocess.run(
        [*order.split(), "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True,
        capture_output=True,
    )
    conf = folder / "nginx.conf"
    conf.write_text(
        _CONF.format(folder=folder, port=port, server=server.url, prefix=PREFIX), encoding="utf-8"
    )
    process = subprocess.Popen([program, "-p", folder, "-c", conf, "-e", folder / "error.log"])
    origin, session = f"https://localhost:{port}", requests.Session()
    session.trust_env, session.verify = False, str(folder / "cert.pem")
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                session.get(origin, timeout=5)
                break
            except requests.ConnectionError:
                assert process.poll() is None and time.monotonic() < deadline, (
                    folder / "error.log"
                ).read_text()
                time.sleep(0.1)
        yield origin, session
    finally:
        session.close()
        process.terminate()
        process.wait(20)


def test_a_page_behind_nginx_works_below_its_path(nginx: tuple[str, requests.Session]) -> None:
    origin, session = nginx
    url, headers = f"{origin}{PREFIX}", {"Origin": origin}
    assert session.get(f"{url}/", timeout=30).status_code in (200, 503)  # 503: the page was not built
    assert session.get(f"{url}/info/", timeout=30).json()["name"] == "SegMed"
    moved = session.get(f"{url}/info", timeout=30, allow_redirects=False)
    assert moved.headers["location"] == f"{url}/info/"
    assert (
        session.get(f"{url}/ohif", timeout=30, allow_redirects=False).headers["location"] == f"{PREFIX}/ohif/"
    )
    assert f"Open {PREFIX}/ for the web page" in session.get(f"{url}/ohif/", timeout=30).json()["detail"]
    assert session.get(f"{url}/segmed/ohif.js", timeout=30).status_code == 200
    assert session.get(f"{url}/openapi.json", timeout=30).json()["servers"] == [{"url": PREFIX}]
    image = f"{url}/api/images/ct"
    params = {"client": "behind nginx"}
    before = session.get(f"{image}/work", params=params, headers=headers, timeout=60).json()
    data = base64.b64encode(zlib.compress(np.ones(8, np.uint8).tobytes())).decode()
    change = {"k": 3, "i": [5, 9], "j": [6, 8], "data": data}
    body = {
        **params,
        "label": "liver",
        "changes": [change],
        "revision": before["revision"],
        "boot": before["boot"],
    }
    painted = session.post(f"{image}/paint", json=body, headers=headers, timeout=60)
    assert painted.status_code == 200, painted.text[:300]
    assert painted.json()["revision"] == before["revision"] + 1
    foreign = session.post(
        f"{image}/clear", json=params, headers={"Origin": "https://evil.example"}, timeout=60
    )
    assert foreign.status_code == 403
    assert session.get(f"{url}/reload", timeout=30).status_code == 403


def test_a_proxy_that_tells_nothing_gets_the_name_of_the_setting(nginx: tuple[str, requests.Session]) -> None:
    origin, session = nginx
    url = f"{origin}/silent/api/images/ct/accept"
    refused = session.post(url, json={"client": "x"}, headers={"Origin": origin}, timeout=30)
    assert refused.status_code == 403
    assert f"SEGMED_ORIGINS={origin}" in refused.json()["detail"]
