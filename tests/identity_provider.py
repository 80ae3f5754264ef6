"""A small identity provider on this machine, which can be told to answer wrongly."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

CLIENT, SECRET = "segmed", "a secret of the client"
Change = Callable[[dict[str, Any]], dict[str, Any]]


class IdentityProvider:
    """Logs in whoever comes as `claims` says.

    Attributes:
        claims: of the user.
        change: changes the claims of the ID token before it is signed.
        sign: makes the ID token of claims; the right way if None.
        error: in place of a code.
        down: whether it answers 500.
        codes: that wait to be redeemed, with what was asked.
        asked: paths, in order.
    """

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
        self.reset()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._get(self)

            def do_POST(self) -> None:
                outer._post(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://localhost:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def reset(self) -> None:
        self.claims: dict[str, Any] = {"sub": "1", "preferred_username": "dr.house", "groups": ["radiology"]}
        self.change: Change = lambda claims: claims
        self.sign: Callable[[dict[str, Any]], str] | None = None
        self.error, self.down = "", False
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def settings(self, address: str) -> dict[str, Any]:
        """Of a server that uses it."""
        return {
            "issuer": self.issuer,
            "client_id": CLIENT,
            "client_secret": SECRET,
            "address": address,
            "role_claim": "groups",
            "roles": {"radiology": "annotator", "chiefs": "reviewer", "it": "admin"},
            "title": "City Hospital",
        }

    def signed(self, claims: dict[str, Any], key: Any = None, **header: str) -> str:
        return jwt.encode(
            {"alg": "RS256", "kid": "one", **header}, claims, key or self.key, algorithms=["RS256"]
        )

    def _get(self, http: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(http.path)
        self.asked.append(parts.path)
        if self.down:
            _send(http, 500, {})
        elif parts.path == "/.well-known/openid-configuration":
            told = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
            _send(http, 200, {"issuer": self.issuer, **{k: f"{self.issuer}/{v}" for k, v in told.items()}})
        elif parts.path == "/keys":
            _send(http, 200, KeySet([self.key]).as_dict(private=False))
        elif parts.path == "/authorize":
            self._authorize(http, {key: value[0] for key, value in parse_qs(parts.query).items()})
        else:
            _send(http, 404, {})

    def _authorize(self, http: BaseHTTPRequestHandler, asked: dict[str, str]) -> None:
        code = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
        self.codes[code] = asked
        told = {"error": self.error} if self.error else {"code": code}
        http.send_response(302)
        http.send_header(
            "Location", f"{asked['redirect_uri']}?{urlencode({**told, 'state': asked['state']})}"
        )
        http.end_headers()

    def _post(self, http: BaseHTTPRequestHandler) -> None:
        sent = http.rfile.read(int(http.headers["Content-Length"])).decode()
        self.asked.append(http.path)
        form = {key: value[0] for key, value in parse_qs(sent).items()}
        asked = self.codes.pop(form.get("code", ""), None)
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (
            asked is None
            or http.headers.get("Authorization") != f"Basic {basic}"
            or (asked["code_challenge"], asked["code_challenge_method"]) != (challenge, "S256")
            or form.get("redirect_uri") != asked["redirect_uri"]
        ):
            _send(http, 400, {"error": "invalid_grant"})
            return
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **self.claims,
        }
        token = (self.sign or self.signed)(self.change(claims))
        _send(http, 200, {"access_token": "x", "token_type": "Bearer", "id_token": token})


def _send(http: BaseHTTPRequestHandler, status: int, told: dict[str, Any]) -> None:
    body = json.dumps(told).encode()
    http.send_response(status)
    http.send_header("Content-Type", "application/json")
    http.send_header("Content-Length", str(len(body)))
    http.end_headers()
    http.wfile.write(body)


@contextmanager
def identity_provider() -> Iterator[IdentityProvider]:
    """One that runs until the end of the block."""
    one = IdentityProvider()
    try:
        yield one
    finally:
        one.close()
