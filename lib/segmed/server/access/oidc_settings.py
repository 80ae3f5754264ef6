"""Settings of a login by OpenID Connect: one JSON file."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from segmed.server.access.users import ROLES

# signatures that only the provider can make; with HMAC, whoever can check one can make one
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PROMPTS = ("", "login", "select_account")
_REQUIRED = ("issuer", "client_id", "address", "role_claim", "roles")


@dataclass(frozen=True)
class OidcSettings:
    """A login by OpenID Connect.

    Attributes:
        issuer: address of the provider, letter for letter as it stands in its tokens.
        client_id: by which the provider knows this server.
        address: of this server as browsers see it, with the path below which a proxy has put it.
        role_claim: claim of the ID token that tells the role; a name, or a path with dots such as
            `realm_access.roles`.
        roles: our role by value of that claim; of several the highest counts.
        default_role: of those for whom it tells none; None where they are refused.
        client_secret: "" where the provider asks for none.
        scopes: asked for.
        name_claim: claim that gives the name of the user.
        algorithms: of signatures that are taken.
        title: on the button.
        prompt: `login` or `select_account` has the provider ask each time, for computers that several people
            use.
        ca: certificates, PEM, by which the provider's is checked; None for those that the system trusts.
    """

    issuer: str
    client_id: str
    address: str
    role_claim: str
    roles: Mapping[str, str]
    default_role: str | None = None
    client_secret: str = field(default="", repr=False)
    scopes: tuple[str, ...] = ("openid", "profile")
    name_claim: str = "preferred_username"
    algorithms: tuple[str, ...] = ("RS256",)
    title: str = ""
    prompt: str = ""
    ca: Path | None = None

    @property
    def callback(self) -> str:
        """The address that is to be registered at the provider."""
        return f"{self.address}/login/oidc/callback"

    @classmethod
    def read(cls, path: Path) -> OidcSettings:
        """Read and check a file.

        Raises:
            ValueError: a setting is missing, unknown or cannot be used.
            FileNotFoundError: the file is not there.
        """
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no file {str(path)!r}. Give --oidc a JSON file, see docs/access.md."
            )
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is no JSON: {error}") from error
        if not isinstance(told, dict):
            raise ValueError(f"{path} must hold one JSON object, see docs/access.md.")
        try:
            return cls(**_checked(told, path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def is_private(url: str) -> bool:
    """Whether nobody on the way can read what is sent to an address: by TLS, or as it does not leave this
    machine."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 raises where it is none
    except ValueError:
        return False
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    )


def _checked(told: Mapping[str, Any], path: Path) -> dict[str, Any]:
    known = {one.name for one in fields(OidcSettings)} | {"client_secret_env"}
    if unknown := sorted(set(told) - known):
        raise ValueError(f"unknown {', '.join(unknown)}. Known are {', '.join(sorted(known))}.")
    if missing := [key for key in _REQUIRED if not told.get(key)]:
        raise ValueError(f"{', '.join(missing)} must be given, see docs/access.md.")
    texts = {"issuer", "client_id", "address", "role_claim", "name_claim", "title", "prompt"} & set(told)
    found: dict[str, Any] = {key: _text(key, told[key]) for key in texts}
    for key in ("issuer", "address"):
        if not is_private(found[key]) or urlsplit(found[key]).query or urlsplit(found[key]).fragment:
            raise ValueError(
                f"{key} {found[key][:80]!r} must be an https:// address without ? and #, as logins need TLS "
                "(http:// is taken on 127.0.0.1 only)."
            )
    found["address"] = found["address"].rstrip("/")
    found["title"] = found.get("title") or urlsplit(found["issuer"]).hostname
    if found.get("prompt", "") not in _PROMPTS:
        raise ValueError(f"prompt {found['prompt']!r} must be login or select_account, or left out.")
    found["roles"] = _roles(told["roles"])
    if told.get("default_role") is not None:
        found["default_role"] = _role("default_role", told["default_role"])
    for key, needed in (("scopes", "openid"), ("algorithms", "")):
        if key in told:
            found[key] = _texts(key, told[key], needed)
    if bad := sorted(set(found.get("algorithms", ())) - set(ALGORITHMS)):
        raise ValueError(
            f"algorithms {', '.join(bad)} cannot be used. Choose out of {', '.join(ALGORITHMS)}."
        )
    if told.get("ca") is not None:
        found["ca"] = Path(_text("ca", told["ca"])).expanduser()
        if not found["ca"].is_file():
            raise ValueError(f"ca {str(found['ca'])!r} is not there. Give a PEM file.")
    return {**found, "client_secret": _secret(told, path)}


def _secret(told: Mapping[str, Any], path: Path) -> str:
    variable = told.get("client_secret_env")
    if variable is None:
        secret = _text("client_secret", told.get("client_secret", ""))
        if secret and path.stat().st_mode & stat.S_IROTH:
            raise ValueError(
                "everybody on this machine can read the client_secret in it. chmod 600, or client_secret_env."
            )
        return secret
    if "client_secret" in told:
        raise ValueError("give client_secret or client_secret_env, not both.")
    secret = os.environ.get(_text("client_secret_env", variable), "")
    if not secret:
        raise ValueError(f"the environment variable {variable} of client_secret_env is not set.")
    return secret


def _roles(told: Any) -> dict[str, str]:
    if not isinstance(told, dict):
        raise ValueError(
            f'roles must name a role for values of the claim, such as {{"segmed-staff": "{ROLES[1]}"}}.'
        )
    return {str(value): _role(f"roles {str(value)[:60]!r}", role) for value, role in told.items()}


def _role(where: str, role: Any) -> str:
    if role not in ROLES:
        raise ValueError(f"{where}: {str(role)[:60]!r} is no role. Choose one of {', '.join(ROLES)}.")
    return str(role)


def _text(key: str, told: Any) -> str:
    if not isinstance(told, str):
        raise ValueError(f"{key} must be a text in quotes.")
    return told.strip()


def _texts(key: str, told: Any, needed: str) -> tuple[str, ...]:
    if not isinstance(told, list) or not told or not all(isinstance(one, str) and one for one in told):
        raise ValueError(f"{key} must be a list of texts.")
    if needed and needed not in told:
        raise ValueError(f"{key} must hold {needed}.")
    return tuple(told)
