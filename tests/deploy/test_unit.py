"""The systemd unit: systemd understands it, and it gives the server few rights."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from deploy.tools import DEPLOY, check

PROGRAM = "/opt/segmed/bin/segmed"


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd is not installed")
    return found


def test_systemd_understands_the_unit(analyze: str, tmp_path: Path) -> None:
    text = (DEPLOY / "segmed.service").read_text(encoding="utf-8")
    assert f"ExecStart={PROGRAM} serve --host 127.0.0.1 " in text
    unit = tmp_path / "segmed.service"
    unit.write_text(text.replace(PROGRAM, "/bin/true"), encoding="utf-8")  # systemd looks whether it is there
    check(analyze, "verify", unit)
    # tenths; systemd calls 2.5 and less "OK"
    check(analyze, "security", "--offline=true", "--threshold=25", unit)


def test_the_environment_names_what_the_unit_uses() -> None:
    unit = (DEPLOY / "segmed.service").read_text(encoding="utf-8")
    environment = (DEPLOY / "segmed.env.example").read_text(encoding="utf-8")
    assert "${SEGMED_STUDIES}" in unit
    assert "SEGMED_STUDIES=/srv/studies" in environment
    assert "ReadWritePaths=-/srv/studies" in unit
