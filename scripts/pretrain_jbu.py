#!/usr/bin/env python
"""Teach the upsampler of `featup` the edges of your images, without labels.

    python scripts/pretrain_jbu.py IMAGES OUT.safetensors [--backbone WEIGHTS] [--steps N] [--stages N]
    python scripts/pretrain_jbu.py LGG OUT.safetensors --leave-out "*_mask.tif" …

IMAGES is a folder of volumes, pictures or DICOM series, searched to its bottom. Slices are drawn at random,
all images alike; blank ones are passed over. The backbone stays as it is, and the file suits it best. OUT
gives `featup` its start (`FeatUpConfig.jbu`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from segmed.imaging.picture import PictureCache
from segmed.imaging.reading import EXTENSIONS
from segmed.methods.featup.featup_training import JbuTrainingConfig, pretrain_jbu
from segmed.methods.featup.jbu import JbuStack, save_jbu
from segmed.methods.sam.medsam import MedSam
from segmed.sam.cpu.precision import prepare_encoder
from segmed.sam.sources import EMBEDDED
from segmed.sam.weights import load_sam

_BLANK = 200  # draws without a slice to learn from, after which it is said


def find_images(folder: Path, leave_out: str) -> list[Path]:
    """Image files below a folder but for those of a pattern; a folder of DICOM files is one image.

    Raises:
        ValueError: there are none.
    """
    files = [p for p in folder.rglob("*") if p.is_file() and p.name.lower().endswith(EXTENSIONS)]
    files = [p for p in files if not (leave_out and p.match(leave_out))]
    images = sorted({p.parent if p.suffix.lower() == ".dcm" else p for p in files})
    if not images:
        raise ValueError(
            f"There are no images in {folder}. Give a folder with {', '.join(EXTENSIONS)} files."
        )
    return images


def slices(images: list[Path], seed: int) -> Iterator[np.ndarray]:
    """Random slices (H, W) or (H, W, 3) uint8 without end; images that cannot be read are named and left out.

    Raises:
        ValueError: nothing to learn from is found.
    """
    generator = np.random.default_rng(seed)
    cache = PictureCache(2 * 2**30)
    readable, blank = list(images), 0
    while readable and blank < _BLANK:
        path = readable[int(generator.integers(len(readable)))]
        try:
            picture = cache.get(path)
        except ValueError as error:
            print(f"left out: {error}", flush=True)
            readable.remove(path)
            continue
        image = picture.slice(int(generator.integers(picture.shape[2])))
        blank = blank + 1 if image.min() == image.max() else 0
        if not blank:
            yield image
    raise ValueError("None of these images can be read, or all of their slices are blank. Give others.")


def batches(method: MedSam, images: list[Path], size: int, seed: int) -> Iterator[Tensor]:
    """Batches (B, 3, S, S) in [0, 1] without end."""
    source = slices(images, seed)
    while True:
        yield torch.stack([method.prepare(next(source))[0] for _ in range(size)])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--backbone", default=EMBEDDED, help="SAM weights: folder, .pth file, or Hugging Face id"
    )
    parser.add_argument(
        "--leave-out", default="", metavar="PATTERN", help="names of files that are no images"
    )
    parser.add_argument("--image-size", type=int, help="input size in px, if not that of the weights")
    parser.add_argument(
        "--stages", type=int, default=2, choices=(1, 2, 3, 4), help="doublings of the resolution"
    )
    parser.add_argument("--steps", type=int, default=JbuTrainingConfig.steps)
    parser.add_argument("--batch", type=int, default=4, help="slices per step")
    parser.add_argument("--rate", type=float, default=JbuTrainingConfig.rate)
    parser.add_argument("--precision", default="auto", help="of the encoder: auto, bf16 or fp32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    options = parse()
    try:
        config = JbuTrainingConfig(steps=options.steps, rate=options.rate, seed=options.seed)
        if options.out.suffix != ".safetensors" or not options.out.parent.is_dir():
            raise ValueError(
                f"{options.out} must be a .safetensors file in a folder that exists. Change the name."
            )
        images = find_images(options.images, options.leave_out)
        model = load_sam(options.backbone, options.image_size).requires_grad_(False).to(options.device)
        model.vision_encoder = prepare_encoder(model.vision_encoder, options.device, options.precision)
        method = MedSam(model).to(options.device).eval()
        torch.manual_seed(options.seed)
        jbu = JbuStack(int(model.config.vision_config.output_channels), options.stages).to(options.device)
        start, told, recent = time.monotonic(), 0.0, 0.0

        def tell(step: int, loss: float) -> None:
            nonlocal told, recent
            recent = loss if step == 1 else 0.95 * recent + 0.05 * loss
            now = time.monotonic()
            if now - told > 10 or step == config.steps:
                told, rate = now, step / (now - start)
                left = (config.steps - step) / rate
                print(
                    f"step {step}/{config.steps}  loss {recent:.4f}  {rate:.2f} steps/s  {left:.0f} s left",
                    flush=True,
                )

        source = batches(method, images, options.batch, options.seed)
        pretrain_jbu(jbu, lambda x: method.encode(x).features, source, config, tell)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    save_jbu(jbu, options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
