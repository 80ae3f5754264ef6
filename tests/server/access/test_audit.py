"""The log of who changed what: complete, chained, without names of images."""

from __future__ import annotations

import asyncio
import json
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from guarded_server import PASSWORD, Guarded
from segmed.cli import app
from segmed.server.access import audit as audit_module
from segmed.server.access.audit import Audit, Audited, entries, note, note_outcome, older
from starlette.requests import HTTPConnection
from typer.testing import CliRunner


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log" / "audit.jsonl"


def _filled(path: Path, count: int = 5) -> Audit:
    log = Audit(path)
    for n in range(count):
        log.add(user="anna", role="admin", action=f"PUT /{n}", image=log.pseudonym("ct"), status=200)
    return log


def test_entries_follow_each_other_over_restarts(path: Path) -> None:
    _filled(path)
    _filled(path)
    found = list(entries(path))
    assert [entry["n"] for entry in found] == list(range(1, 11))
    assert len({entry["image"] for entry in found}) == 1
    assert "ct" not in found[0]["image"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.with_name("audit.jsonl.key").stat().st_mode) == 0o600


def _changed(lines: list[str]) -> list[str]:
    return [*lines[:2], lines[2].replace("anna", "berta"), *lines[3:]]


def _rehashed(lines: list[str]) -> list[str]:
    entry = json.loads(lines[2])
    del entry["hash"]
    entry["user"] = "berta"
    return [*lines[:2], json.dumps({**entry, "hash": audit_module._hash(entry)}), *lines[3:]]


@pytest.mark.parametrize(
    "change",
    [
        _changed,
        _rehashed,
        lambda lines: lines[:2] + lines[3:],
        lambda lines: lines[1:],
        lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [*lines, "{}"],
        lambda lines: [*lines, "no json"],
    ],
)
def test_what_was_changed_afterwards_shows(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    _filled(path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(change(lines)) + "\n")
    with pytest.raises(ValueError, match=r"audit log (was changed|is damaged) at line"):
        list(entries(path))
    assert CliRunner().invoke(app, ["audit", "verify", str(path)]).exit_code == 2


def test_full_files_are_kept_and_checked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "MOST_BYTES", 1000)
    _filled(path, 12)
    assert len(list(older(path))) > 2
    assert [entry["n"] for entry in entries(path)] == list(range(1, 13))
    _filled(path, 1)
    assert [entry["n"] for entry in entries(path)] == list(range(1, 14))


@pytest.mark.parametrize("late", [True, False])
def test_what_came_of_a_request_is_noted_also_after_its_status(path: Path, late: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        http = HTTPConnection(scope)
        note(http, model="classical", outcome="begun")
        if not late:
            note_outcome(http, "answered")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if late:
            note_outcome(http, "stopped, kept")
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        pass

    scope = {"type": "http", "method": "POST", "path": "/api/images/ct/prompt", "query_string": b""}
    asyncio.run(Audited(app, Audit(path))(scope, send, send))  # type: ignore[arg-type]
    found = list(entries(path))
    assert [one["outcome"] for one in found] == (["begun", "stopped, kept"] if late else ["answered"])
    assert {(one["model"], one["image"], one["status"]) for one in found} == {
        ("classical", Audit(path).pseudonym("ct"), 200)
    }


def test_many_at_once(path: Path) -> None:
    log = Audit(path)
    threads = [threading.Thread(target=lambda: [log.add(user="x") for _ in range(25)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(entries(path))) == 200


def test_the_commands(path: Path) -> None:
    _filled(path)
    done = CliRunner().invoke(app, ["audit", "verify", str(path)])
    assert done.exit_code == 0
    assert "5 entries" in done.output
    shown = CliRunner().invoke(app, ["audit", "show", str(path), "--image", "ct", "--last", "2"])
    assert shown.exit_code == 0
    assert "PUT /4" in shown.output and "PUT /0" not in shown.output
    assert "PUT" not in CliRunner().invoke(app, ["audit", "show", str(path), "--user", "berta"]).output
    assert CliRunner().invoke(app, ["audit", "verify", str(path.with_name("none"))]).exit_code == 2


def test_a_server_notes_who_did_what(guarded: Guarded) -> None:
    log = guarded.users.path.with_name("users.json.audit.jsonl")
    prompt: dict[str, Any] = {
        "client": "x",
        "model": "classical",
        "label": "liver",
        "box": [9, 26, 7, 21, 2, 2],
    }
    assert guarded.ask("annotator", "POST", "/api/images/ct/prompt", json=prompt).status_code == 200
    assert guarded.ask("annotator", "POST", "/api/images/ct/save", json={"client": "x"}).status_code == 200
    assert guarded.ask("reader", "POST", "/api/images/ct/save", json={"client": "x"}).status_code == 403
    login = {"username": "annotator", "password": PASSWORD}
    assert guarded.ask("reader", "POST", "/auth/token", data=login).status_code == 200
    assert guarded.ask("reader", "GET", "/info/").status_code == 200  # changes nothing
    prompted, saved, refused, logged_in = list(entries(log))[-4:]
    assert prompted["action"] == "POST /api/images/…/prompt"
    assert (prompted["user"], prompted["role"], prompted["status"]) == ("annotator", "annotator", 200)
    assert prompted["model"] == "classical" and prompted["version"] and len(prompted["prompt"]) == 64
    assert saved["image"] == prompted["image"] and len(saved["result"]) == 64
    assert (refused["user"], refused["status"]) == ("reader", 403)
    assert logged_in["login"] == "annotator"
    text = log.read_text()
    assert '"ct"' not in text and "nii" not in text and PASSWORD not in text
