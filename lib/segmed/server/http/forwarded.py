"""What a reverse proxy tells about the address that browsers see: X-Forwarded-Proto, -Host, -Prefix and
-For."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.types import Scope

TRUSTED = "127.0.0.1,::1"
_PREFIX = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_PORTS = {"http": 80, "https": 443}
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Forwarded:
    """The address that the browser sees.

    Attributes:
        scheme: http or https; "" where the proxy does not tell.
        host: with the port; likewise.
        prefix: path below which the proxy has put the server and which it has taken off; "" for none.
    """

    scheme: str = ""
    host: str = ""
    prefix: str = ""


def networks(text: str) -> tuple[Network, ...]:
    """The addresses of `SEGMED_PROXIES`, comma-separated; `none` for nobody.

    Raises:
        ValueError: not an address.
    """
    found = []
    for part in [part.strip() for part in text.split(",") if part.strip() not in ("", "none")]:
        try:
            found.append(ipaddress.ip_network(part, strict=False))
        except ValueError as error:
            raise ValueError(
                f"SEGMED_PROXIES: {part[:60]!r} is no address. Give those of your proxies, such as "
                f"127.0.0.1,10.0.0.0/8"
            ) from error
    return tuple(found)


def allowed_origins(text: str) -> frozenset[str]:
    """The origins of `SEGMED_ORIGINS`, comma-separated.

    Raises:
        ValueError: not an origin.
    """
    found = set()
    for part in [part.strip() for part in text.split(",") if part.strip()]:
        origin = normal_origin(part)
        if not origin or urlsplit(part).path not in ("", "/"):
            raise ValueError(
                f"SEGMED_ORIGINS: {part[:80]!r} is no origin. Give scheme, host and port without a path, "
                "such as https://segmed.hospital.example"
            )
        found.add(origin)
    return frozenset(found)


def normal_origin(text: str) -> str:
    """Scheme, host and port that is not the usual one, in small letters; "" if the text is no origin."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return ""
    if parts.scheme not in _PORTS or not parts.hostname:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, _PORTS[parts.scheme]) else "")


def forwarded(scope: Scope, headers: Mapping[str, str], trusted: Iterable[Network]) -> Forwarded | None:
    """What the proxy tells; None if the request does not come from a trusted one.

    Args:
        scope: of the request.
        headers: by name in small letters.
        trusted: addresses of proxies.

    Raises:
        ValueError: a header that no proxy would send.
    """
    client: Any = scope.get("client")
    try:
        peer = ipaddress.ip_address(client[0]) if client else None
    except ValueError:
        peer = None
    if peer is None or not any(peer in network for network in trusted):
        return None
    # a chain of proxies lists them all, the one that the browser talks to first
    scheme, host, prefix = (
        headers.get(f"x-forwarded-{name}", "").split(",")[0].strip() for name in ("proto", "host", "prefix")
    )
    prefix = prefix.rstrip("/")
    for name, value, fits in (
        ("Proto", scheme, scheme in _PORTS),
        ("Host", host, _HOST.fullmatch(host)),
        ("Prefix", prefix, _PREFIX.fullmatch(prefix)),
    ):
        if value and not fits:
            raise ValueError(
                f"The proxy's X-Forwarded-{name} {value[:60]!r} is not usable. Check the proxy's settings."
            )
    return Forwarded(scheme, host, prefix)


def client_address(scope: Scope, headers: Mapping[str, str], trusted: Iterable[Network]) -> str:
    """Whom a request comes from: the last address of X-Forwarded-For that no trusted proxy has, or the
    sender's own.

    Args:
        scope: of the request.
        headers: by name in small letters.
        trusted: addresses of proxies. What others write into the header is not read, nor what came before a
            trusted proxy wrote into it.
    """
    trusted = tuple(trusted)
    client: Any = scope.get("client")
    found = str(client[0]) if client else ""
    for text in reversed(headers.get("x-forwarded-for", "").split(",")):
        try:
            if not any(ipaddress.ip_address(found) in network for network in trusted):
                break
            found = str(ipaddress.ip_address(text.strip()))
        except ValueError:
            break
    return found


def seen_from_outside(scope: Scope, told: Forwarded) -> Scope:
    """The request as the browser made it, so that redirects and addresses in pages lead back through the
    proxy."""
    out = dict(scope)
    if told.scheme:
        out["scheme"] = told.scheme
    if told.host:
        others = [(name, value) for name, value in scope["headers"] if name.lower() != b"host"]
        out["headers"] = [(b"host", told.host.encode("latin-1")), *others]
    if told.prefix:
        before = scope.get("root_path", "")
        out["root_path"] = told.prefix
        out["path"] = told.prefix + scope["path"].removeprefix(before)
        if scope.get("raw_path"):
            out["raw_path"] = told.prefix.encode() + scope["raw_path"].removeprefix(before.encode())
    return out
