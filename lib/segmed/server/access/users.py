"""Users, their roles, passwords (argon2id) and access tokens, in one JSON file that only its owner can
read."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import threading
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from filelock import FileLock

from segmed.imaging.durable import appear_whole

ROLES = ("reader", "annotator", "reviewer", "admin")  # each may do what those before it may
SHORTEST = 10  # letters of a password
NAME = re.compile(r"[\w.@-]{1,64}")
_PREFIX = "segmed_"
_HASHER = PasswordHasher()
_NOBODY = _HASHER.hash(secrets.token_hex(16))  # so that unknown names take as long as known ones


@dataclass(frozen=True)
class User:
    """One user.

    Attributes:
        name: 1 to 64 letters, digits and `. @ - _`.
        role: one of `ROLES`.
        password: argon2id hash; "" where only tokens are used.
        tokens: SHA-256 of access tokens by their ids.
        made: when each token was made, by its id.
    """

    name: str
    role: str
    password: str = ""
    tokens: Mapping[str, str] = field(default_factory=dict)
    made: Mapping[str, str] = field(default_factory=dict)

    def may(self, role: str) -> bool:
        """Whether the user's role includes another one."""
        return ROLES.index(self.role) >= ROLES.index(role)


class Users:
    """The file of users; changes by other processes count from the next request on.

    Args:
        path: of the file; made when the first user is added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard = threading.Lock()
        self._read: tuple[int, int] | None = None
        self._users: dict[str, User] = {}

    def all(self) -> dict[str, User]:
        """Users by name.

        Raises:
            ValueError: the file is damaged.
        """
        with self._guard:
            try:
                facts = self.path.stat()
            except FileNotFoundError:
                return {}
            if self._read != (facts.st_mtime_ns, facts.st_size):
                self._users = _parsed(self.path)
                self._read = facts.st_mtime_ns, facts.st_size
            return dict(self._users)

    def get(self, name: str) -> User | None:
        """A user; None if there is none of that name."""
        return self.all().get(name)

    def resembles(self, name: str) -> bool:
        """Whether a user has that name, or one that people would take for it: in other letters of the same
        kind."""
        return _folded(name) in {_folded(known) for known in self.all()}

    def by_password(self, name: str, password: str) -> User | None:
        """The user of a name and password; None if one of them is wrong. Takes some tenths of a second."""
        user = self.get(name)
        try:
            _HASHER.verify(user.password if user and user.password else _NOBODY, password)
        except (VerificationError, InvalidHashError):
            return None
        return user if user and user.password else None

    def by_token(self, token: str) -> User | None:
        """The user of an access token; None if it is not known."""
        number, _, _ = token.removeprefix(_PREFIX).partition("_")
        digest = _digest(token)
        for user in self.all().values():
            if hmac.compare_digest(user.tokens.get(number, ""), digest):
                return user
        return None

    def add(self, name: str, role: str, password: str = "") -> None:
        """Add a user, or give one another password.

        Raises:
            ValueError: a name, role or password that cannot be used.
        """
        if not NAME.fullmatch(name):
            raise ValueError(f"{name[:70]!r} is no name of a user: 1 to 64 letters, digits and . @ - _ are.")
        if password and len(password) < SHORTEST:
            raise ValueError(f"The password has {len(password)} letters. Choose {SHORTEST} or more.")
        old = self.get(name)
        fresh = User(name, _role(role), _HASHER.hash(password) if password else old.password if old else "")
        self._put(replace(fresh, tokens=old.tokens, made=old.made) if old else fresh)

    def set_role(self, name: str, role: str) -> None:
        """Raises ValueError if there is no such user or role."""
        self._put(replace(self._known(name), role=_role(role)))

    def remove(self, name: str) -> None:
        """Raises ValueError if there is no such user."""
        self._known(name)
        self._change(lambda users: users.pop(name))

    def make_token(self, name: str) -> str:
        """A new access token of a user, which is shown this once.

        Raises:
            ValueError: there is no such user.
        """
        user, number = self._known(name), secrets.token_hex(4)
        token = f"{_PREFIX}{number}_{secrets.token_urlsafe(32)}"
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._put(
            replace(user, tokens={**user.tokens, number: _digest(token)}, made={**user.made, number: now})
        )
        return token

    def drop_tokens(self, name: str) -> None:
        """Raises ValueError if there is no such user."""
        self._put(replace(self._known(name), tokens={}, made={}))

    def _known(self, name: str) -> User:
        user = self.get(name)
        if user is None:
            raise ValueError(f"There is no user {name[:70]!r}. See `segmed users list`.")
        return user

    def _put(self, user: User) -> None:
        self._change(lambda users: users.update({user.name: user}))

    def _change(self, change: Any) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock"):
            users = self.all()
            change(users)
            told = {u.name: {k: v for k, v in vars(u).items() if k != "name"} for u in users.values()}
            with appear_whole(self.path, private=True) as part:
                part.write_text(json.dumps({"users": told}, indent=1), encoding="utf-8")


def _role(role: str) -> str:
    if role not in ROLES:
        raise ValueError(f"{role[:70]!r} is no role. Choose one of {', '.join(ROLES)}.")
    return role


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _parsed(path: Path) -> dict[str, User]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))["users"]
        found = {
            str(name): User(
                str(name), _role(one["role"]), str(one["password"]), dict(one["tokens"]), dict(one["made"])
            )
            for name, one in told.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"The file of users {path} is damaged ({error}). Restore it, or create it again."
        ) from error
    return found
