"""Base weights are checked when a server starts, not when the first prompt comes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from sam.original_sam2 import to_original as sam2_to_original
from segmed.inference.backbone_check import check_backbones
from segmed.inference.loading import BackboneConfig
from segmed.sam.checkpoints.inspection import inspect
from segmed.server import serve as module
from segmed.server.serve import serve
from tiny_sam import save_folder, tiny_sam, to_original
from tiny_sam2 import save_sam2, tiny_sam2


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each."""
    folder = tmp_path_factory.mktemp("files")
    sam, sam2 = tiny_sam(), tiny_sam2()
    save_folder(sam, folder / "sam")
    save_sam2(sam2, folder / "sam2")
    torch.save(to_original(sam), folder / "sam.pth")
    torch.save(to_original(sam), folder / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"model": sam2_to_original(sam2)}, folder / "sam2.pt")
    whole = (folder / "sam.pth").read_bytes()
    (folder / "cut.pth").write_bytes(whole[: len(whole) // 2])
    whole = (folder / "sam" / "model.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "page.pth").write_text("<!doctype html><html>log in</html>")
    (folder / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    save_file({"image_encoder.features.0.0.c.weight": torch.zeros(1)}, folder / "edge.safetensors")
    (folder / "empty").mkdir()
    return folder


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sam", "sam"), ("sam.pth", "sam"), ("old.pth", "sam"), ("sam2", "sam2"), ("sam2.pt", "sam2")],
)
def test_right_files_pass(files: Path, name: str, kind: str) -> None:
    inspect(files / name, kind)


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        (
            "sam2",
            "sam",
            r"not that of a SAM \(model_type is sam2_video\)\. It belongs to --conf backbone_sam2",
        ),
        ("sam", "sam2", r"not that of a SAM 2 \(model_type is sam\)\. It belongs to --conf backbone\."),
        ("sam2.pt", "sam", "is no SAM. It belongs to --conf backbone_sam2"),
        ("sam.pth", "sam2", "is no SAM 2"),
        ("cut.pth", "sam", "cut off"),
        ("cut.safetensors", "sam", "cut off"),
        ("page.pth", "sam", "is a web page and not weights"),
        ("pointer.safetensors", "sam", "is a Git LFS pointer and not weights"),
        ("edge.safetensors", "sam", "RepViT"),
        ("empty", "sam", "no model.safetensors"),
    ],
)
def test_wrong_files_are_refused(files: Path, name: str, kind: str, text: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=text):
        inspect(files / name, kind)


def test_each_method_gets_its_own_kind(files: Path) -> None:
    right = {"sam": BackboneConfig(str(files / "sam.pth")), "sam2": BackboneConfig(str(files / "sam2.pt"))}
    check_backbones(("sam", "sam2"), right)
    with pytest.raises(ValueError, match=r"The model 'sam2' cannot use .*sam\.pth: .* is no SAM 2"):
        check_backbones(("sam", "sam2"), {**right, "sam2": right["sam"]})


def test_the_weights_that_come_along_pass() -> None:
    check_backbones(
        ("sam", "segmed", "classical"), dict.fromkeys(("sam", "segmed", "classical"), BackboneConfig())
    )
    check_backbones(("sam",), {"sam": BackboneConfig("segmed-tiny")})


def test_the_server_does_not_start_with_wrong_weights(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(module, "_check_port", lambda host, port: started.append(port))
    conf = {"models": "sam", "backbone": str(files / "page.pth")}
    with pytest.raises(ValueError, match=r"'sam' cannot use .*page\.pth: .* is a web page"):
        serve(str(files), "127.0.0.1", 8000, conf)
    assert started == []


def test_an_id_that_cannot_be_fetched_stops_the_server(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"facebook/sam-vit-base.*HF_HUB_OFFLINE"):
        serve(str(files), "127.0.0.1", 8000, {"models": "sam", "backbone": "facebook/sam-vit-base"})
