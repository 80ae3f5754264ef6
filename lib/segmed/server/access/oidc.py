"""The identity provider of a login by OpenID Connect: where it is, its keys, and whom an ID token speaks
of."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from segmed.server.access.oidc_settings import OidcSettings, is_private
from segmed.server.access.users import NAME, ROLES, User
from segmed.server.http.errors import BadRequest

logger = logging.getLogger(__name__)

LEEWAY = 30  # s by which clocks may differ
_WITHIN = 5.0  # s
_KEEP = 3600.0  # s
_AGAIN = 10.0  # s until a provider that failed, or lacked a key, is asked again
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class Provider:
    """An identity provider. It is asked when somebody logs in, so that the server starts without it.

    Args:
        settings: of the login.
        clock: s, for tests.
    """

    def __init__(self, settings: OidcSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self._clock = clock
        self._trust = ssl.create_default_context(cafile=settings.ca)
        self._guard = (
            threading.Lock()
        )  # one request at a time, so that a silent provider holds up one thread only
        self._facts: tuple[float, dict[str, Any]] | None = None
        self._keys: tuple[float, KeySet] | None = None
        self._failed = -_AGAIN

    def login_url(self, state: str, nonce: str, verifier: str) -> str:
        """Where a browser is sent to log in.

        Args:
            state: comes back with the answer.
            nonce: comes back in the ID token.
            verifier: of PKCE; its digest is sent now, itself with the code.

        Raises:
            BadRequest: (503) the provider cannot be reached.
        """
        more = {"prompt": self.settings.prompt} if self.settings.prompt else {}
        facts = self._described()
        with self._client(facts) as client:
            url, _ = client.create_authorization_url(
                facts["authorization_endpoint"], state=state, nonce=nonce, code_verifier=verifier, **more
            )
        return str(url)

    def user(self, code: str, nonce: str, verifier: str) -> User:
        """The user that a code stands for.

        Args:
            code: that the browser brought.
            nonce: of this login.
            verifier: of this login.

        Raises:
            BadRequest: (503) the provider cannot be reached; (401) the code or the token is not good; (403)
                the user has no role here, or no usable name.
        """
        facts = self._described()
        try:
            with self._client(facts) as client:
                token = client.fetch_token(facts["token_endpoint"], code=code, code_verifier=verifier)
        except httpx2.HTTPError as error:
            raise self._silent(error) from error
        except (AuthlibBaseError, ValueError) as error:
            raise self._refused(error) from error
        return self._known(self._claims(token, nonce))

    def _claims(self, token: Mapping[str, Any], nonce: str) -> Mapping[str, Any]:
        """What the ID token says, once it is known to be the provider's, for us, of this login, and not too
        old."""
        text, wanted = token.get("id_token"), self.settings
        read: Any = None
        if not isinstance(text, str):
            raise self._refused("there is no id_token; is openid among the scopes?")
        try:
            try:
                read = jwt.decode(text, self._key_set(), registry=self._registry())
            except InvalidKeyIdError:  # the provider may have changed its keys
                read = jwt.decode(text, self._key_set(fresh=True), registry=self._registry())
            claims = CodeIDToken(
                read.claims,
                read.header,
                {
                    "iss": {"essential": True, "value": wanted.issuer},
                    "aud": {"essential": True, "value": wanted.client_id},
                },
                {"nonce": nonce, "client_id": wanted.client_id, "access_token": token.get("access_token")},
            )
            claims.validate(leeway=LEEWAY)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise self._refused(error, _clocks(read.claims if read else {})) from error
        return claims

    def _known(self, claims: Mapping[str, Any]) -> User:
        wanted = self.settings
        name = _claim(claims, wanted.name_claim)
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise BadRequest(
                f"{wanted.title} gives no usable name in the claim {wanted.name_claim}: 1 to 64 letters, "
                "digits and . @ - _ are. Ask who runs this server.",
                403,
            )
        if wanted.name_claim == "email" and claims.get("email_verified") in (False, "false"):
            raise BadRequest(
                f"{wanted.title} has not verified your e-mail address. Do that there first.", 403
            )
        told = _claim(claims, wanted.role_claim)
        values = told if isinstance(told, list) else [told]
        found = {wanted.roles[value] for value in values if isinstance(value, str) and value in wanted.roles}
        role = max(found, key=ROLES.index) if found else wanted.default_role
        if role is None:
            raise NoRole(name, wanted.title)
        return User(name, role)

    def _described(self) -> dict[str, Any]:
        """What the provider says of itself. Raises BadRequest (503)."""
        with self._guard:
            if self._facts is None or self._clock() - self._facts[0] > _KEEP:
                facts = self._ask(f"{self.settings.issuer.rstrip('/')}/.well-known/openid-configuration")
                if facts.get("issuer") != self.settings.issuer:
                    raise self._silent(f"it calls itself {str(facts.get('issuer'))[:100]!r}")
                if not all(isinstance(facts.get(one), str) and is_private(facts[one]) for one in _ENDPOINTS):
                    raise self._silent(f"{', '.join(_ENDPOINTS)} must be https:// addresses")
                self._facts = self._clock(), facts
            return self._facts[1]

    def _key_set(self, fresh: bool = False) -> KeySet:
        """The provider's public keys. Raises BadRequest (503)."""
        address = self._described()["jwks_uri"]
        with self._guard:
            age = self._clock() - self._keys[0] if self._keys else _KEEP
            if self._keys is None or age >= _KEEP or (fresh and age > _AGAIN):
                told = self._ask(address).get("keys")
                # keys of HMAC or encryption are of no use, and kinds that are not known are no reason to stop
                usable = [
                    key
                    for key in (told if isinstance(told, list) else [])
                    if isinstance(key, dict)
                    and key.get("kty") in ("RSA", "EC")
                    and key.get("use", "sig") == "sig"
                ]
                try:
                    self._keys = self._clock(), KeySet.import_key_set({"keys": usable})
                except (JoseError, ValueError, TypeError, KeyError) as error:
                    raise self._silent(error) from error
            return self._keys[1]

    def _ask(self, address: str) -> dict[str, Any]:
        if self._clock() - self._failed < _AGAIN:
            raise self._silent("it was not there a moment ago")
        try:
            with self._client({}) as client:
                answer = client.request("GET", address, withhold_token=True)
            answer.raise_for_status()
            told = answer.json()
            if not isinstance(told, dict):
                raise ValueError(f"{address} holds no JSON object")
        except (httpx2.HTTPError, ValueError) as error:
            self._failed = self._clock()
            raise self._silent(error) from error
        return told

    def _client(self, facts: Mapping[str, Any]) -> OAuth2Client:
        wanted = self.settings
        ways = facts.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        basic = not isinstance(ways, list) or "client_secret_basic" in ways
        way = ("client_secret_basic" if basic else "client_secret_post") if wanted.client_secret else "none"
        return OAuth2Client(
            wanted.client_id,
            wanted.client_secret or None,
            token_endpoint_auth_method=way,
            scope=" ".join(wanted.scopes),
            redirect_uri=wanted.callback,
            code_challenge_method="S256",
            timeout=_WITHIN,
            verify=self._trust,
        )

    def _registry(self) -> JWSRegistry:
        return JWSRegistry(algorithms=list(self.settings.algorithms), strict_check_header=False)

    def _silent(self, why: object) -> BadRequest:
        logger.warning("The identity provider %s cannot be used: %s", self.settings.issuer, why)
        return BadRequest(
            f"{self.settings.title} cannot be reached now: log in by name and password, or try again later.",
            503,
        )

    def _refused(self, why: object, note: str = "") -> BadRequest:
        logger.warning("A login by %s was refused: %s", self.settings.issuer, why)
        return BadRequest(
            f"The answer of {self.settings.title} is not valid, so nobody was logged in. "
            f"{note or 'Try again.'}",
            401,
        )


def _clocks(claims: Mapping[str, Any]) -> str:
    """A sentence where a token that was just made is not of this minute; "" otherwise."""
    made = claims.get("iat")
    apart = time.time() - made if isinstance(made, int | float) else 0.0
    if abs(apart) <= LEEWAY:
        return ""
    return (
        f"Its clock and that of this server differ by {abs(apart):.0f} s. Ask who runs this server to set "
        "them right."
    )


class NoRole(BadRequest):
    """The provider knows somebody who has no role here.

    Attributes:
        name: of the user.
    """

    def __init__(self, name: str, title: str) -> None:
        super().__init__(
            f"{title} knows you as {name}, who has no role on this server. Ask who runs it.", 403
        )
        self.name = name


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, which may have dots itself, or by a path with dots; None if there is none."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
