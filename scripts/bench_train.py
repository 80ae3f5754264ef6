#!/usr/bin/env python
"""Speed, memory and size of trainings, as one table.

    python scripts/bench_train.py
    python scripts/bench_train.py --parts memory

`speed`: the mask decoder of a random ViT-B is tuned at 1024 px, with embeddings on disk and without, and
against the bare forward and backward pass of the decoder on the same tensors. `memory`: peak resident memory
of a training of a small model on 20 and on 200 volumes of 256 × 256 × 64, each in a process of its own.
`size`: what a LoRA of ViT-B takes on disk.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import torch
from segmed.data.slices import LabelledVolume, SliceDataset
from segmed.imaging.store import ByteBoundedStore
from segmed.methods.base.trainable import save_trained
from segmed.methods.lora import LoraSam
from segmed.methods.sam.decoder_tuning import DecoderTuning
from segmed.sam.cpu.precision import prepare_encoder
from segmed.sam.tiny import initialised, tiny_config
from segmed.training.finetune import Finetuning
from segmed.training.finetune_config import FinetuneConfig
from transformers import SamConfig, SamModel

SHAPE = (256, 256, 64)
VOLUMES = (20, 200)
PER_VOLUME = 24  # slices of a volume that are learnt from; those of 20 volumes fill the buffer


def make_volumes(root: Path, count: int, kept: int) -> SliceDataset:
    """Noisy balls; four different volumes in as many copies as are wanted."""
    i, j, k = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    volumes = []
    for n in range(count):
        image, label = root / f"image{n}.nii", root / f"label{n}.nii"
        if n < 4:
            ball = ((i - 100 - 10 * n) ** 2 + (j - 128) ** 2 + (3 * (k - 32)) ** 2 < 60**2).astype(np.uint8)
            noise = np.random.default_rng(n).integers(0, 50, SHAPE, np.int16)
            nib.save(nib.Nifti1Image(100 * ball.astype(np.int16) + noise, np.eye(4)), image)
            nib.save(nib.Nifti1Image(ball, np.eye(4)), label)
        else:
            shutil.copy(root / f"image{n % 4}.nii", image)
            shutil.copy(root / f"label{n % 4}.nii", label)
        volumes.append(LabelledVolume(f"case{n}", image, label, SHAPE[2]))
    return SliceDataset(volumes, {1: "ball"}, store=ByteBoundedStore(kept * 2**20))


def seconds(work: Callable[[], object]) -> float:
    """Of the processor where there is one thread, which other programs do not disturb; else of the clock."""
    now = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = now()
    work()
    return now() - start


def speed(a: argparse.Namespace) -> list[tuple[str, str]]:
    """Samples per second; passes over the same slices, in turns against drift of the machine."""
    torch.manual_seed(0)
    model = SamModel(SamConfig()).requires_grad_(False)
    model.vision_encoder = prepare_encoder(model.vision_encoder, "cpu", a.precision)
    method = DecoderTuning(model)
    with TemporaryDirectory() as root:
        data = make_volumes(Path(root), 1, a.kept).with_object().thinned(a.slices)
        config = FinetuneConfig(epochs=1 + a.passes, batch=2)
        count = len(data)
        always = Finetuning(method, data, FinetuneConfig(epochs=1, batch=2, cache_bytes=0))
        uncached = count / seconds(always.train_epoch)
        training = Finetuning(method, data, config)
        training.train_epoch()  # fills the file
        batches = [
            training._targets(samples) for _, samples in training.reader.batches(0, 0, training.per_epoch)
        ]

        def bare() -> None:
            for source, prompts, truth in batches:
                training.optimiser.zero_grad(set_to_none=True)
                method.loss_from(source, prompts, truth).backward()  # type: ignore[arg-type]

        times = [(seconds(training.train_epoch), seconds(bare)) for _ in range(a.passes)]
    cached, alone = (count / t for t in np.median(times, 0))
    return [
        ("decoder of ViT-B, encoder run for each sample", f"{uncached:.3f} samples/s"),
        (
            "the same on embeddings from disk",
            f"{cached:.3f} samples/s, {cached / uncached:.1f} times as many",
        ),
        (
            "bare forward and backward of the decoder",
            f"{alone:.3f} samples/s, of which {cached / alone:.0%} are reached",
        ),
    ]


def one_memory(count: int, kept: int) -> None:
    """Train on so many volumes and print the peak in MiB."""
    shape = tiny_config(
        image_size=32, hidden=32, layers=2, heads=2, width=32, stem_channels=(), stem_depths=()
    )
    with TemporaryDirectory() as root:
        data = make_volumes(Path(root), count, kept).with_object().thinned(PER_VOLUME)
        training = Finetuning(DecoderTuning(initialised(shape, 0)), data, FinetuneConfig(epochs=1, batch=16))
        losses = training.run()
    assert len(losses) == math.ceil(count * PER_VOLUME / 16)
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def memory(a: argparse.Namespace) -> list[tuple[str, str]]:
    peaks = []
    for count in VOLUMES:
        command = [sys.executable, __file__, "--one-memory", str(count), "--kept", str(a.kept)]
        peaks.append(
            float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        )
    rows = [(f"peak memory, {n} volumes", f"{peak:.0f} MiB") for n, peak in zip(VOLUMES, peaks, strict=True)]
    return [*rows, ("growth of the peak", f"{peaks[1] / peaks[0] - 1:+.1%}")]


def size(a: argparse.Namespace) -> list[tuple[str, str]]:
    method = LoraSam(SamModel(SamConfig()).requires_grad_(False))
    with TemporaryDirectory() as root:
        save_trained(method, Path(root), "random")
        taken = sum(path.stat().st_size for path in Path(root).iterdir())
    return [
        (
            f"LoRA of ViT-B, rank {method.config.rank}, {len(method.labels)} organs, on disk",
            f"{taken / 1e6:.1f} MB",
        )
    ]


def main() -> None:
    parts = {"speed": speed, "memory": memory, "size": size}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=list(parts), default=list(parts))
    parser.add_argument("--slices", type=int, default=4, help="of `speed`")
    parser.add_argument("--passes", type=int, default=3, help="of `speed`, over the cached slices")
    parser.add_argument(
        "--precision", default="auto", choices=["auto", "bf16", "fp32"], help="encoder of `speed`"
    )
    parser.add_argument("--kept", type=int, default=128, help="MiB of volumes that a dataset keeps in memory")
    parser.add_argument("--one-memory", type=int, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.one_memory:
        one_memory(a.one_memory, a.kept)
        return
    print(f"{torch.get_num_threads()} CPU threads, encoder {a.precision}.\n\n| what | measured |\n|---|---|")
    for part in a.parts:
        for what, value in parts[part](a):
            print(f"| {what} | {value} |", flush=True)


if __name__ == "__main__":
    main()
