"""`segmed weights`, and names of weights where weights are given."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from segmed.cli import app
from segmed.inference.loading import BackboneConfig
from segmed.sam.weights import load_sam
from segmed.server.config.settings import ServerSettings
from segmed.weights.table import PUBLISHED
from tiny_sam import tiny_sam, to_original
from torch import save
from typer.testing import CliRunner, Result
from weights.file_server import FileServer, file_server

NAME = "sam-vit-base-meta"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("weights") / "sam.pth"
    save(to_original(tiny_sam()), path)
    return path.read_bytes()


@pytest.fixture
def server(content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FileServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SEGMED_WEIGHTS", str(tmp_path / "own"))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    with file_server() as served:
        served.content = content
        sha256 = hashlib.sha256(content).hexdigest()
        small = replace(PUBLISHED[NAME], url=f"{served.url}/sam_vit_b_01ec64.pth", sha256=sha256)
        monkeypatch.setitem(PUBLISHED, NAME, small)
        yield served


def _run(*words: str) -> Result:
    return CliRunner().invoke(app, ["weights", *words])


def test_weights_are_fetched_once_and_used_by_name(server: FileServer, tmp_path: Path) -> None:
    first = _run("get", NAME, "--yes")
    assert first.exit_code == 0, first.output
    assert "licence: Apache-2.0" in first.output
    assert f"--conf backbone {NAME}" in first.output
    again = _run("get", NAME)
    assert again.exit_code == 0, again.output
    assert len(server.asked) == 1
    place = _run("where", NAME)
    assert place.stdout.strip() == str(tmp_path / "own" / "sam_vit_b_01ec64.pth")
    verified = _run("verify")
    assert verified.exit_code == 0
    assert f"{NAME}: intact, compared with the published SHA-256 and the first download" in verified.output
    lines = [line for line in _run("list").stdout.splitlines() if f" {NAME} " in line]
    assert "│ yes " in lines[0]
    assert load_sam(NAME).config.vision_config.hidden_size == 128
    settings = ServerSettings.from_conf({"models": "sam", "backbone": NAME})
    assert settings.backbones["sam"].source == NAME


def test_damage_is_found(server: FileServer, tmp_path: Path) -> None:
    _run("get", NAME, "--yes")
    (tmp_path / "own" / "sam_vit_b_01ec64.pth").write_bytes(b"changed")
    result = _run("verify")
    assert result.exit_code == 2
    assert "is not the published file" in result.output


def test_nothing_is_fetched_without_the_licence(server: FileServer, tmp_path: Path) -> None:
    result = _run("get", NAME)
    assert result.exit_code == 2
    assert "licence: Apache-2.0" in result.output
    assert "Add --yes" in result.output
    assert server.asked == []


def test_names_that_are_not_here_say_what_to_do(server: FileServer) -> None:
    for words in (("where", NAME), ("verify", NAME)):
        result = _run(*words)
        assert result.exit_code == 2
        assert f"segmed weights get {NAME}" in result.output
    assert "Fetch some: segmed weights get NAME" in _run("verify").output
    assert "Did you mean medsam-vit-base" in _run("get", "medsam-vit-bas").output
    by_hand = _run("get", "sam-med2d", "--yes")
    assert by_hand.exit_code == 2
    assert "by hand: open https://github.com/OpenGVLab/SAM-Med2D" in by_hand.output
    for conf in ({"models": "sam", "backbone": NAME}, {"backbone_sam2": "medsam2"}):
        with pytest.raises(FileNotFoundError, match="Fetch them: segmed weights get"):
            ServerSettings.from_conf(conf)


def test_the_list_tells_how_weights_are_used(server: FileServer) -> None:
    rows = {line.split()[1]: line for line in _run("list").stdout.splitlines() if line.startswith("│")}
    assert set(PUBLISHED) <= set(rows)
    assert "--conf backbone mobilesam" in rows["mobilesam"]
    assert "--conf backbone_medsam2 medsam2" in rows["medsam2"]
    assert "research and education" in rows["medsam2"]


def test_the_input_size_of_medsam2_comes_with_its_name(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PUBLISHED, "medsam2", replace(PUBLISHED[NAME], name="medsam2", image_size=512))
    _run("get", "medsam2", "--yes")
    assert BackboneConfig("medsam2").image_size == 512
    assert BackboneConfig("medsam2", 256).image_size == 256


def test_the_document_holds_the_table_of_the_code() -> None:
    document = Path(__file__).resolve().parents[2] / "docs" / "weights.md"
    start, end = "<!-- weights: output of `segmed weights list --markdown` -->", "<!-- end of weights -->"
    held = document.read_text(encoding="utf-8").split(start)[1].split(end)[0].strip()
    assert held == _run("list", "--markdown").stdout.strip()


@pytest.mark.parametrize(
    ("models", "command"),
    [
        ("medsam", "segmed weights get medsam-vit-base` once and add --conf backbone medsam-vit-base"),
        ("sam", "segmed weights get sam-vit-base` once and add --conf backbone sam-vit-base"),
        ("sam2", "segmed weights get sam2.1-hiera-tiny` once and add --conf backbone_sam2 sam2.1-hiera-tiny"),
    ],
)
def test_a_model_without_weights_says_which_command_to_run(models: str, command: str) -> None:
    with pytest.raises(ValueError, match=command.replace(".", r"\.")):
        ServerSettings.from_conf({"models": models})
