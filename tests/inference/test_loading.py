"""Segmenters by name, with weights read once and late."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from segmed.inference.loading import BackboneConfig, Loader, find_method
from segmed.methods import METHODS
from segmed.methods.base.segmenter import Segmenter
from segmed.methods.classical import Classical
from segmed.methods.sam.sam import Sam
from segmed.methods.segmed.network import PromptNetwork
from segmed.methods.segmed.segmenter import Segmed
from segmed.methods.segmed.weights import save_network
from segmed.sam import sources
from tiny_sam import save_folder, tiny_sam


def test_methods_of_one_backbone_share_its_weights(tmp_path: Path) -> None:
    backbone = BackboneConfig(str(save_folder(tiny_sam(), tmp_path / "m")), precision="fp32")
    loader = Loader()
    sam, medsam = loader.get("sam", backbone), loader.get("medsam", backbone)
    assert isinstance(sam, Sam)
    assert isinstance(medsam, Sam)
    assert sam.model is medsam.model
    assert sam.version != medsam.version
    assert loader.get("sam", backbone) is sam
    assert not any(p.requires_grad for p in sam.parameters())


def test_other_weights_have_another_version(tmp_path: Path) -> None:
    loader = Loader()
    versions = {
        loader.get("sam", BackboneConfig(str(save_folder(tiny_sam(seed), tmp_path / str(seed))))).version
        for seed in (1, 2)
    }
    assert len(versions) == 2


def test_precisions_have_versions_of_their_own(tmp_path: Path) -> None:
    folder = str(save_folder(tiny_sam(), tmp_path / "m"))
    loader = Loader()
    versions = {loader.get("sam", BackboneConfig(folder, precision=p)).version for p in ("fp32", "bf16")}
    assert len(versions) == 2


def test_every_method_is_listed_under_its_name() -> None:
    assert {"segmed", "classical", "sam", "medsam"} <= set(METHODS)
    assert all(name == method.name for name, method in METHODS.items())


def test_the_embedded_model_needs_no_backbone() -> None:
    segmenter, warning = Loader().get_or_fallback("segmed", BackboneConfig())
    assert isinstance(segmenter, Segmed)
    assert warning == ""


@pytest.mark.parametrize("state", ["missing", "cut off", "foreign"])
def test_without_its_weights_the_default_gives_way_and_says_so(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "segmed-default"
    if state != "missing":
        save_network(PromptNetwork(), folder)
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1000] if state == "cut off" else b"a picture of a cat")
    monkeypatch.setitem(sources.EMBEDDED_FOLDERS, "segmed-default", folder)
    loader = Loader()
    segmenter, warning = loader.get_or_fallback("segmed", BackboneConfig())
    assert isinstance(segmenter, Classical)
    assert "classical" in warning
    assert "Restore the folder" in warning
    with pytest.raises((FileNotFoundError, ValueError)):
        loader.get("segmed", BackboneConfig())


def test_a_full_gpu_is_left_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    loader, whole, asked = Loader(), Loader.get, []

    def full(
        self: Loader, method: str, backbone: BackboneConfig, device: str = "cpu", *rest: Any
    ) -> Segmenter:
        asked.append(device)
        if device != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, method, backbone, device, *rest)

    monkeypatch.setattr(Loader, "get", full)
    segmenter, warning = loader.get_or_fallback("classical", BackboneConfig(), "cuda:0")
    assert isinstance(segmenter, Segmenter)
    assert asked == ["cuda:0", "cpu"]
    assert warning.startswith("cuda:0 has no memory left for classical, which therefore runs on the CPU")


def test_weights_that_the_user_names_have_no_fallback(tmp_path: Path) -> None:
    folder = save_folder(tiny_sam(), tmp_path / "mine")
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match="does not describe"):
        Loader().get_or_fallback("segmed", BackboneConfig(str(folder)))
    with pytest.raises(ValueError, match="cannot be read"):
        Loader().get_or_fallback("sam", BackboneConfig(str(folder)))


def test_errors_name_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"no method 'vnet'\. Choose from segmed, classical"):
        find_method("vnet")
    with pytest.raises(ValueError, match="--conf backbone"):
        Loader().get("medsam", BackboneConfig())
    with pytest.raises(FileNotFoundError, match="no SAM weights"):
        BackboneConfig("/no/such/file.pth")
