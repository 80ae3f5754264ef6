"""The file of users, sessions, attempts, and the commands."""

from __future__ import annotations

import contextlib
import json
import stat
from pathlib import Path

import pytest
from segmed.cli import app
from segmed.server.access.sessions import IDLE, PROVIDED_LONGEST, Attempts, Owner, Sessions
from segmed.server.access.users import Users
from segmed.server.http.errors import BadRequest
from segmed.server.serve import Access
from typer.testing import CliRunner

GOOD = "correct horse battery"


@pytest.fixture
def users(tmp_path: Path) -> Users:
    return Users(tmp_path / "home" / "users.json")


def test_passwords_and_tokens_are_kept_as_digests(users: Users) -> None:
    users.add("anna", "annotator", GOOD)
    token = users.make_token("anna")
    assert stat.S_IMODE(users.path.stat().st_mode) == 0o600
    kept = users.path.read_text()
    assert GOOD not in kept
    assert token not in kept
    assert "$argon2id$" in kept
    assert users.by_password("anna", GOOD) is not None
    assert users.by_password("anna", f"{GOOD} ") is None
    assert users.by_password("nobody", GOOD) is None
    found = users.by_token(token)
    assert found is not None and found.name == "anna"
    for wrong in (token[:-1], "", "segmed_", token.replace("segmed_", ""), token + "\ud800"):
        assert users.by_token(wrong) is None


def test_changes_count_at_once_in_other_processes(users: Users) -> None:
    users.add("anna", "annotator", GOOD)
    token = users.make_token("anna")
    other = Users(users.path)
    assert other.by_token(token) is not None
    users.add("anna", "reviewer", "another password")
    assert other.by_token(token) is not None
    assert other.by_password("anna", GOOD) is None
    assert other.by_password("anna", "another password") is not None
    users.set_role("anna", "reader")
    found = other.get("anna")
    assert found is not None and not found.may("annotator") and found.may("reader")
    users.drop_tokens("anna")
    assert other.by_token(token) is None
    users.remove("anna")
    assert other.get("anna") is None


def test_users_without_password_cannot_log_in_by_one(users: Users) -> None:
    users.add("robot", "annotator")
    assert users.by_password("robot", "") is None
    assert users.by_password("robot", GOOD) is None


@pytest.mark.parametrize(
    ("name", "role", "password", "told"),
    [
        ("an na", "reader", GOOD, "no name"),
        ("", "reader", GOOD, "no name"),
        ("../x", "reader", GOOD, "no name"),
        ("anna", "king", GOOD, "no role"),
        ("anna", "reader", "short", "10 or more"),
    ],
)
def test_what_cannot_be_used_is_told(users: Users, name: str, role: str, password: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        users.add(name, role, password)
    assert not users.path.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"users": {"a": {"role": "king"}}}', '{"users": []}'])
def test_a_damaged_file_lets_nobody_in(users: Users, content: str) -> None:
    users.path.parent.mkdir()
    users.path.write_text(content)
    with pytest.raises(ValueError, match="damaged"):
        users.by_token("segmed_1_2")


def test_sessions_end() -> None:
    now = 0.0
    sessions = Sessions(lambda: now)
    secret = sessions.begin("anna")
    now = IDLE - 1
    assert sessions.owner(secret) == Owner("anna")
    now += IDLE - 1
    assert sessions.owner(secret) == Owner("anna")
    now += IDLE + 1
    assert sessions.owner(secret) is None
    secret = sessions.begin("anna")
    for _ in range(20):  # used all the time, and yet
        now += IDLE - 1
        last = sessions.owner(secret)
    assert last is None
    secret = sessions.begin("anna")
    sessions.end(secret)
    assert sessions.owner(secret) is None
    assert sessions.owner("") is None


def test_guessing_becomes_slow() -> None:
    now = 0.0
    attempts = Attempts(lambda: now)
    tried = 0
    while now < 3600:
        try:
            attempts.begin("anna")
        except BadRequest as error:
            assert error.status == 429
            now += 1
            continue
        tried += 1
    assert tried < 30
    attempts.begin("berta")
    attempts.succeeded("anna")
    attempts.begin("anna")


def test_guessing_many_names_from_one_address_becomes_slow() -> None:
    attempts = Attempts(lambda: 0.0)
    for n in range(5):
        attempts.begin(f"name {n}", "address 10.1.2.3")
    with pytest.raises(BadRequest, match="Too many"):
        attempts.begin("name 5", "address 10.1.2.3")
    attempts.begin("name 5", "address 10.1.2.4")


def test_an_own_login_in_between_does_not_help_to_guess() -> None:
    attempts = Attempts(lambda: 0.0)
    for n in range(4):
        attempts.begin(f"name {n}", "address")
        attempts.begin("own", "address")
        attempts.succeeded("own", "address")
    attempts.begin("name 4", "address")
    with pytest.raises(BadRequest, match="Too many"):
        attempts.begin("own", "address")


def test_guesses_side_by_side_are_counted_before_they_are_checked() -> None:
    attempts, taken = Attempts(lambda: 0.0), 0
    for _ in range(20):  # none has been answered yet
        with contextlib.suppress(BadRequest):
            attempts.begin("anna")
            taken += 1
    assert taken == 5


def test_sessions_of_a_provider_end_after_a_day_of_work() -> None:
    now = 0.0
    sessions = Sessions(lambda: now)
    secret = sessions.begin("anna", provided=True)
    now = PROVIDED_LONGEST / 2
    assert sessions.owner(secret) == Owner("anna", provided=True)
    now = PROVIDED_LONGEST + 1
    assert sessions.owner(secret) is None


def test_names_that_look_alike_are_known(users: Users) -> None:
    users.add("Anna", "reader")
    for name in ("Anna", "anna", "ANNA", "\uff21nna"):
        assert users.resembles(name), name
    assert not users.resembles("annas")


def test_a_server_for_others_needs_a_login(users: Users, tmp_path: Path) -> None:
    Access().check("127.0.0.1")
    Access(insecure=True).check("0.0.0.0")
    with pytest.raises(ValueError, match="--users FILE"):
        Access().check("0.0.0.0")
    with pytest.raises(ValueError, match="has no users"):
        Access(users.path).check("127.0.0.1")
    users.add("anna", "admin", GOOD)
    Access(users.path).check("0.0.0.0")
    with pytest.raises(FileNotFoundError, match="PEM"):
        Access(users.path, certificate=(tmp_path / "a.pem", tmp_path / "b.pem")).check("0.0.0.0")


def test_the_commands(users: Users) -> None:
    def run(*words: str, given: str = "") -> tuple[int, str]:
        done = CliRunner().invoke(app, ["users", *words, "--users", str(users.path)], input=given)
        return done.exit_code, done.output

    assert run("list")[0] == 2
    assert run("add", "anna", "--role", "reviewer", "--password-stdin", given=f"{GOOD}\n") == (
        0,
        "anna may log in as reviewer.\n",
    )
    assert run("add", "robot", "--no-password")[0] == 0
    assert run("add", "berta", given=f"{GOOD}\n{GOOD}\n")[0] == 0
    assert run("add", "carla", "--password-stdin", given="short\n")[0] == 2
    code, token = run("token", "robot")
    assert code == 0
    found = users.by_token(token.strip())
    assert found is not None and found.name == "robot"
    assert run("token", "robot", "--drop")[0] == 0
    assert users.by_token(token.strip()) is None
    assert run("role", "anna", "admin")[0] == 0
    assert run("role", "anna", "king")[0] == 2
    assert run("remove", "berta")[0] == 0
    assert run("remove", "berta")[0] == 2
    listed = run("list")[1]
    assert "anna" in listed and "admin" in listed and "berta" not in listed
    assert list(json.loads(users.path.read_text())["users"]) == ["anna", "robot"]
