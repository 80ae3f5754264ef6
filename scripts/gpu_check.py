#!/usr/bin/env python
"""Check a GPU in one run: results against the CPU, speed against the roofline, memory, and training.

    python scripts/gpu_check.py --out gpu.json                     # all parts, some minutes
    python scripts/gpu_check.py --device cpu --tiny --out cpu.json  # small sizes, to check the script itself

Needs torch and transformers, but neither MONAI nor nibabel nor an installed SegMed. Weights are random. Each
part is measured by itself: one that fails is reported with its error, and the others still run. Exit code 1
if a part failed.

The roofline of a forward pass is the longer of two times: its floating-point operations (counted by PyTorch)
at the rate of a large matrix product on the same device, and the bytes of its weights at the measured
bandwidth of copies.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import SamConfig

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from gpu.default_model import train_default_model, windows
from gpu.networks import Sizes, random_sam, small_config
from gpu.roofline import FORMATS, Roofline, fastest, largest_memory
from segmed.methods.segmed.network import PromptNetwork
from segmed.sam.cpu.precision import prepare_encoder

# Largest relative error of features, and smallest agreement of masks with those of fp32 on the CPU. Random
# weights put many logits near the threshold, so that a rounding moves more pixels than trained ones would.
BOUNDS = {"fp32": (2e-3, 0.999), "bf16": (5e-2, 0.97)}


class Check:
    """The parts of the check.

    Args:
        device: such as `cuda` or `cpu`.
        sizes: what is run.
    """

    def __init__(self, device: str, sizes: Sizes) -> None:
        self.device, self.sizes = torch.device(device), sizes
        self.most = Roofline(self.device)

    def facts(self) -> dict[str, Any]:
        """What the machine is."""
        found: dict[str, Any] = {
            "device": str(self.device),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "threads": torch.get_num_threads(),
        }
        if self.device.type == "cuda":
            of = torch.cuda.get_device_properties(self.device)
            found |= {
                "name": of.name,
                "capability": f"{of.major}.{of.minor}",
                "memory_gib": round(of.total_memory / 2**30, 1),
                "cuda": torch.version.cuda,
                "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
            }
        return found

    def agreement(self) -> dict[str, Any]:
        """Encoder, decoder and default model against fp32 on the CPU, in fp32 and bf16.

        Raises:
            ValueError: They differ more than `BOUNDS` allow.
        """
        model = random_sam(small_config())
        side = model.config.vision_config.image_size
        pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
        boxes = torch.tensor([[[20.0, 30.0, 90.0, 100.0]], [[50.0, 10.0, 120.0, 60.0]]])
        with torch.inference_mode():
            truth = model.vision_encoder(pixels).last_hidden_state
            masks = _masks(model, truth, boxes)
        network = PromptNetwork().eval()
        images, channels, *_ = windows(4, 0, torch.device("cpu"))
        with torch.inference_mode():
            wanted = network(network.features(images), images, channels)[0]
        found: dict[str, Any] = {}
        for name, dtype in FORMATS.items():
            there = copy.deepcopy(model).to(self.device)
            there.vision_encoder = prepare_encoder(there.vision_encoder, self.device, name)
            other = copy.deepcopy(network).to(self.device)
            with torch.inference_mode():
                features = there.vision_encoder(pixels.to(self.device)).last_hidden_state.float()
                same = _masks(there, features, boxes.to(self.device)).cpu() == masks
                with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
                    seen, drawn = images.to(self.device), channels.to(self.device)
                    logits = other(other.features(seen), seen, drawn)[0].float().cpu()
            found[name] = {
                "encoder_error": _error(features.cpu(), truth),
                "default_model_error": _error(logits, wanted),
                "masks_agree": float(same.float().mean()),
            }
            error, agree = BOUNDS[name]
            if max(found[name]["encoder_error"], found[name]["default_model_error"]) > error or (
                found[name]["masks_agree"] < agree
            ):
                raise ValueError(f"{name} on {self.device} differs from fp32 on the CPU: {found[name]}")
        return found

    def roofline(self) -> dict[str, Any]:
        """Rate of a matrix product in each format, and bandwidth of copies."""
        return self.most.measure(self.sizes.product, self.sizes.copied)

    def encoder(self) -> dict[str, Any]:
        """Slices per second of the image encoder and its memory, beside the roofline."""
        stock = random_sam(self.sizes.vit).vision_encoder
        side = self.sizes.vit.vision_config.image_size
        with FlopCounterMode(display=False) as counter, torch.device("meta"):
            copy.deepcopy(stock).to("meta")(torch.empty(1, 3, side, side))
        work = counter.get_total_flops()
        found: dict[str, Any] = {"gflop_per_slice": work / 1e9, "side": side}
        for name in FORMATS:
            encoder = prepare_encoder(copy.deepcopy(stock), self.device, name)
            weights = sum(p.numel() * p.element_size() for p in encoder.parameters())
            for batch in self.sizes.batches:
                pixels = torch.randn(batch, 3, side, side, device=self.device)
                with torch.inference_mode(), largest_memory(self.device) as memory:
                    seconds = fastest(self.device, lambda e=encoder, p=pixels: e(p).last_hidden_state)
                found[f"{name}_batch_{batch}"] = {
                    "slices_per_s": batch / seconds,
                    "memory_mib": memory(),
                    **self.most.share(name, work * batch, weights, seconds),
                }
        return found

    def training(self) -> dict[str, Any]:
        """Steps per second of a SAM whose encoder and decoder are tuned, and the memory of a step."""
        found = {}
        for name, dtype in FORMATS.items():
            model = random_sam(self.sizes.vit).to(self.device).train()
            model.vision_encoder.requires_grad_(True)
            model.mask_decoder.requires_grad_(True)
            trained = [p for p in model.parameters() if p.requires_grad]
            optimiser = torch.optim.AdamW(trained, 1e-4)
            side, count = self.sizes.vit.vision_config.image_size, self.sizes.trained
            pixels = torch.randn(count, 3, side, side, device=self.device)
            boxes = torch.tensor([0.2, 0.3, 0.7, 0.8], device=self.device).mul(side).expand(count, 1, 4)

            step = partial(self._tune, model, optimiser, pixels, boxes, dtype)
            with largest_memory(self.device) as memory:
                seconds = fastest(self.device, step)
            if not all(bool(p.grad.isfinite().all()) for p in trained if p.grad is not None):
                raise ValueError(f"gradients in {name} are not finite")
            found[name] = {
                "steps_per_s": 1 / seconds,
                "slices_per_s": count / seconds,
                "memory_mib": memory(),
            }
        return found

    def _tune(
        self, model: Any, optimiser: torch.optim.Optimizer, pixels: Tensor, boxes: Tensor, dtype: torch.dtype
    ) -> None:
        """One training step of a SAM; the loss does not matter here."""
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            features = model.vision_encoder(pixels).last_hidden_state
            low = model(image_embeddings=features, input_boxes=boxes, multimask_output=False).pred_masks
        nn.functional.softplus(low.float()).mean().backward()
        optimiser.step()

    def default_model(self, minutes: float) -> dict[str, Any]:
        """Train the default model's network from scratch on synthetic images, drawn on the device."""
        return train_default_model(self.device, self.sizes.objects, minutes)


def _masks(model: Any, features: Tensor, boxes: Tensor) -> Tensor:
    """Masks (B, 1, h, w) of a box per slice, cut at the median because random weights find nothing."""
    low = model(image_embeddings=features, input_boxes=boxes, multimask_output=False).pred_masks[:, 0].float()
    return low > low.flatten(1).median(1).values[:, None, None, None]


def _error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def run_parts(parts: Mapping[str, Callable[[], dict[str, Any]]]) -> tuple[dict[str, Any], list[str]]:
    """Results by part, and the names of parts that failed, whose result is their error."""
    results, failed = {}, []
    for name, part in parts.items():
        print(f"{name} …", flush=True)
        start = time.perf_counter()
        try:
            results[name] = part()
        except Exception as error:
            traceback.print_exc()
            results[name] = {"error": f"{type(error).__name__}: {error}"}
            failed.append(name)
        results[name]["seconds"] = time.perf_counter() - start
        print(json.dumps(results[name], indent=2), flush=True)
    return results, failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=3.0, help="training of the default model")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16], help="slices encoded together")
    parser.add_argument("--tiny", action="store_true", help="a small SAM and few objects, for a CPU")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"), help="JSON file to write")
    options = parser.parse_args(arguments)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32
    large = Sizes(SamConfig(), tuple(options.batches), 8192, 2**32, 2, 64)
    small = Sizes(small_config(), tuple(options.batches), 256, 2**22, 2, 4)
    check = Check(options.device, small if options.tiny else large)
    results, failed = run_parts(
        {
            "facts": check.facts,
            "agreement": check.agreement,
            "roofline": check.roofline,
            "encoder": check.encoder,
            "training": check.training,
            "default_model": lambda: check.default_model(options.minutes),
        }
    )
    options.out.write_text(json.dumps({**results, "failed": failed}, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {options.out}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
