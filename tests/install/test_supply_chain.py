"""The lock, and what the report says of licences and vulnerabilities."""

from __future__ import annotations

import json
import re
import stat
import sys
from pathlib import Path

import pytest
from running import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import package_lock
import supply_chain


def _pins(text: str) -> dict[str, str]:
    pins = re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}


@pytest.mark.parametrize(
    ("lock", "lists"),
    [
        (package_lock.LOCK, (*package_lock.SERVER, package_lock.ALONE)),
        (package_lock.DEV_LOCK, package_lock.DEVELOPERS),
    ],
)
def test_a_lock_has_every_pin_with_hashes_and_names_no_place(lock: Path, lists: tuple[str, ...]) -> None:
    text = lock.read_text(encoding="utf-8")
    assert package_lock.check_lock(text) == []
    locked = _pins(text)
    for name in lists:
        for package, version in _pins((ROOT / name).read_text(encoding="utf-8")).items():
            assert locked[package] == version, f"{name}: {package}; python scripts/supply_chain.py lock"


def test_both_locks_are_installed_together() -> None:
    """A package may be in both only for different systems, as pip refuses one that it is given twice."""
    server, more = (
        {block.split(" \\")[0] for block in package_lock.blocks(path.read_text(encoding="utf-8"))}
        for path in (package_lock.LOCK, package_lock.DEV_LOCK)
    )
    assert not {one.split("==")[0] for one in server} & {one.split("==")[0] for one in more}


def test_what_a_resolver_says_is_told(tmp_path: Path) -> None:
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\necho no wheels of $8 >&2\ncase "$*" in *windows*) exit 1;; esac\n')
    uv.chmod(uv.stat().st_mode | stat.S_IXUSR)
    assert package_lock.resolves(str(uv), "manylinux_2_28_x86_64", "3.12") == ""
    assert "no wheels" in package_lock.resolves(str(uv), "win_amd64", "3.12")
    text, good = package_lock.table(str(uv))
    assert not good and "| `win_amd64` | no | no | no |" in text


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.org/simple",
        "--find-links wheels",
        "-e .",
        "a @ file:///wheels/a.whl",
        "a==1",
    ],
)
def test_a_lock_with_a_place_or_without_hashes_is_refused(line: str) -> None:
    good = f"b==2 \\\n    --hash=sha256:{'0' * 64}\n"
    assert package_lock.check_lock(good) == []
    assert package_lock.check_lock(good + line + "\n")


@pytest.mark.parametrize(
    ("licence", "found"),
    [
        ("MIT", "yes"),
        ("Apache Software License", "yes"),
        ("GPL-3.0-only OR MIT", "yes"),
        ("MPL-2.0 AND MIT", "yes, unchanged"),
        ("LGPL-2.1-only", "yes, unchanged"),
        ("GPL-3.0-only", "no"),
        ("MIT AND GPL-2.0-only", "no"),
        ("GNU Affero General Public License v3", "no"),
        ("", "look"),
    ],
)
def test_licences(licence: str, found: str) -> None:
    assert supply_chain.verdict("a", licence) == found


def test_a_licence_that_is_not_allowed_is_told() -> None:
    parts = [{"name": "a", "version": "1", "licenses": [{"expression": "AGPL-3.0-only"}]}, {"name": "b"}]
    text, refused = supply_chain.licences(parts)
    assert refused == ["a"]
    assert "| a | 1 | AGPL-3.0-only | no |" in text and "| b |  | not told | look |" in text


@pytest.mark.parametrize(
    ("said", "code", "told"),
    [
        ({"dependencies": [{"name": "a", "version": "1", "vulns": []}]}, supply_chain.CLEAN, "0 of 1"),
        (
            {"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1"}]}]},
            supply_chain.COMPLAINTS,
            "CVE-1",
        ),
        (None, supply_chain.UNKNOWN, "NOT KNOWN"),
        (
            {"dependencies": [{"name": "a", "skip_reason": "not found"}]},
            supply_chain.UNKNOWN,
            "NOT KNOWN of 1 of 1",
        ),
    ],
)
def test_an_audit_says_whether_the_database_answered(
    said: object, code: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in = tmp_path / "pip-audit"
    text = "echo 'no route to host' >&2; exit 1" if said is None else f"echo '{json.dumps(said)}'"
    stand_in.write_text(f"#!/bin/sh\n{text}\n")
    stand_in.chmod(stand_in.stat().st_mode | stat.S_IXUSR)
    assert supply_chain.audit(tmp_path, tmp_path / "audit.json") == code
    said_here = capsys.readouterr()
    assert told in said_here.out + said_here.err
