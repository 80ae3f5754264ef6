#!/usr/bin/env python
"""How much of the speed of a bare training loop is left when a baseline is trained with everything around it.

    python scripts/bench_baselines.py
    python scripts/bench_baselines.py --encoder resnet18 --size 128 --methods unet deeplabv3plus

`ours` is a pass of SegMed's training over volumes on disk: slices in random order, gradients clipped,
losses kept; they were prepared in the pass before, as in every training of more than one. `bare` is the same
network of segmentation_models_pytorch with the same loss, optimiser and batches, on tensors that lie in
memory. They take turns, against drift of the machine; the medians are told.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from bench_train import make_volumes, seconds
from segmed.data.slices import SliceDataset
from segmed.methods import find_method
from segmed.methods.unet_config import UnetFamilyConfig
from segmed.training.finetune import Finetuning
from segmed.training.finetune_config import FinetuneConfig
from segmentation_models_pytorch import create_model


def rates(kind: type, data: SliceDataset, a: argparse.Namespace) -> tuple[float, float]:
    """Slices per second of our training and of a bare loop."""
    torch.manual_seed(0)
    method = kind(None, UnetFamilyConfig(("ball",), a.encoder, a.size)).to(a.device)
    config = FinetuneConfig(epochs=1 + a.passes, batch=a.batch, bf16=False)
    training = Finetuning(method, data, config)
    training.train_epoch()  # opens the volumes

    network = create_model(kind.architecture, a.encoder, None, 3, 2).to(a.device).train()  # type: ignore[attr-defined]
    recipe = method.recipe
    optimiser = torch.optim.AdamW(network.parameters(), recipe.rates[""], weight_decay=recipe.weight_decay)
    batches = []
    for _, samples in training.reader.batches(0, 0, training.per_epoch):
        embedding, _, truth = training._targets(samples)
        pictures = (embedding.features.float() / 255 - method.mean) / method.sd  # type: ignore[union-attr]
        batches.append((pictures, truth))

    def bare() -> None:
        for pictures, truth in batches:
            optimiser.zero_grad(set_to_none=True)
            loss = recipe.loss_of(network(pictures), truth)
            loss.backward()
            optimiser.step()
            loss.item()

    bare()
    times = [(seconds(training.train_epoch), seconds(bare)) for _ in range(a.passes)]
    ours, alone = (len(data) / t for t in np.median(times, 0))
    return float(ours), float(alone)


def main() -> None:
    names = ["unet", "unetpp", "deeplabv3", "deeplabv3plus", "pan"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=names, default=names)
    parser.add_argument("--encoder", default="efficientnet-b5", help="resnet18 on laptops")
    parser.add_argument("--size", type=int, default=256, help="input in px")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--slices", type=int, default=64)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0 leaves them as they are")
    a = parser.parse_args()
    if a.threads:
        torch.set_num_threads(a.threads)
    print(f"{a.encoder}, {a.size} px, batches of {a.batch}, {a.device}, {torch.get_num_threads()} threads\n")
    print("| method | ours, slices/s | bare loop, slices/s | ratio |\n|---|---|---|---|")
    with TemporaryDirectory() as root:
        data = make_volumes(Path(root), 2, 512).with_object().thinned(a.slices)
        for method in map(find_method, names):
            if method.name in a.methods:
                assert method.training is not None
                ours, bare = rates(method.training.kind, data, a)  # type: ignore[arg-type]
                print(f"| {method.name} | {ours:.2f} | {bare:.2f} | {ours / bare:.2f} |", flush=True)


if __name__ == "__main__":
    main()
