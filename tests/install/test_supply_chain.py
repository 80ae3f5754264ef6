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
import supply_chain


def _pins(text: str) -> dict[str, str]:
    pins = re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}


def test_the_lock_has_every_pin_with_hashes_and_names_no_place() -> None:
    text = supply_chain.LOCK.read_text(encoding="utf-8")
    assert supply_chain.check_lock(text) == []
    locked = _pins(text)
    for name in supply_chain.LISTS:
        for package, version in _pins((ROOT / name).read_text(encoding="utf-8")).items():
            assert locked[package] == version, f"{name}: {package}; python scripts/supply_chain.py lock"


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
    assert supply_chain.check_lock(good) == []
    assert supply_chain.check_lock(good + line + "\n")


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
