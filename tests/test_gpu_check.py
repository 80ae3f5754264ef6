"""`scripts/gpu_check.py` at small sizes on the CPU, in a process that has neither MONAI nor nibabel."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from running import ROOT

SCRIPT = ROOT / "scripts" / "gpu_check.py"
# imports of these packages fail in the process, as on a machine that does not have them
_WITHOUT = """
import runpy, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("monai", "monailabel", "nibabel", "SimpleITK", "skimage", "cv2"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module
    spec.loader.exec_module(module)
    return module


def test_all_parts_run_without_monai_and_nibabel(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    options = ("--device", "cpu", "--tiny", "--minutes", "0", "--batches", "1", "2", "--out", str(out))
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, str(SCRIPT), *options],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["failed"] == []
    assert found["facts"]["device"] == "cpu"
    for name in ("fp32", "bf16"):
        assert found["agreement"][name]["masks_agree"] > 0.97
        assert found["training"][name]["steps_per_s"] > 0
        one, two = (found["encoder"][f"{name}_batch_{batch}"] for batch in (1, 2))
        assert one["slices_per_s"] > 0 and two["memory_mib"] > 0 and one["share_of_roofline"] > 0
    assert found["agreement"]["fp32"]["encoder_error"] < found["agreement"]["bf16"]["encoder_error"]
    assert found["default_model"]["steps"] == 2 and found["default_model"]["samples_per_s"] > 0


def test_a_device_that_computes_something_else_is_found(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = script.Check("cpu", None)
    right = script.prepare_encoder

    def wrong(encoder: object, device: object, precision: str) -> object:
        prepared = right(encoder, device, precision)
        prepared.layers[1].mlp.lin2.weight.data.mul_(1.5)
        return prepared

    monkeypatch.setattr(script, "prepare_encoder", wrong)
    with pytest.raises(ValueError, match="differs from fp32 on the CPU"):
        check.agreement()


def test_a_part_that_fails_is_reported_and_the_others_run(script: ModuleType) -> None:
    def broken() -> dict[str, object]:
        raise MemoryError("no room")

    results, failed = script.run_parts({"one": broken, "two": lambda: {"value": 3}})
    assert failed == ["one"]
    assert results["one"]["error"] == "MemoryError: no room"
    assert results["two"]["value"] == 3


def test_the_default_model_learns_from_its_samples(script: ModuleType) -> None:
    images, channels, truth = script.windows(4, 0, script.torch.device("cpu"))
    assert images.shape == (4, 3, 128, 128) and channels.shape == (4, 9, 128, 128)
    for box, mask in zip(channels[:, 0] > 0.5, truth > 0.5, strict=True):
        assert 0.02 < mask.float().mean() < 0.9
        for axis in (0, 1):  # a box ends at the centres of the outermost pixels of its object
            drawn, seen = (m.any(axis).nonzero() for m in (box, mask))
            assert seen.min() - 2 <= drawn.min() and drawn.max() <= seen.max() + 2
            assert len(drawn) > 0.4 * len(seen)
