#!/usr/bin/env python
"""Train the embedded backbone, a small SAM, from scratch on synthetic images; nothing else is ever shown to
it.

    python scripts/train_backbone.py RUN_FOLDER [--steps N] [--batch N] [--size PX] …
    torchrun --nproc_per_node 4 scripts/train_backbone.py RUN_FOLDER …

Stop it at any time and start it again with the same settings: it goes on from the last checkpoint to the same
result. The folder gets log.jsonl, curve.png, and after the last step a model folder with config.json and
model.safetensors (fp16). Needs torch, transformers and numpy; matplotlib only for the curve.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from segmed.data.synthetic.sample import PhantomConfig
from segmed.pretraining.backbone.stream import StreamConfig, training_batch
from segmed.pretraining.backbone.trainer import ScratchConfig, ScratchTraining
from segmed.sam.tiny import initialised, tiny_config
from segmed.sam.weights import load_sam
from segmed.simulation.prompts import PromptConfig

HELD_OUT = ("lobes",)  # families that validation sees and training does not
OFTEN = ("shells",)  # drawn twice as often: rings are what the model gets wrong
TINY = (
    0.1  # windows make the size of an object matter little; families have small targets of their own besides
)


def draw_curve(training: ScratchTraining, batch: int) -> None:
    """Validation Dice over samples, as PNG; skipped where matplotlib is missing."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 4))
    samples = [entry["step"] * batch * training.world / 1000 for entry in training.log]
    for kind in ("box", "click", "five clicks"):
        axis.plot(samples, [entry[kind] for entry in training.log], label=kind)
    axis.set_xlabel("samples, thousands")
    axis.set_ylabel("Dice on held-out families")
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
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop after so many; start again to go on"
    )
    parser.add_argument("--batch", type=int, default=32, help="objects per step and process")
    parser.add_argument("--size", type=int, default=64, help="input size, px")
    parser.add_argument("--drawn", type=int, default=160, help="side of the synthetic images, px")
    parser.add_argument("--objects", type=int, default=4, help="objects taken from one picture")
    parser.add_argument("--reuse", type=int, default=3, help="steps in a row that share their pictures")
    parser.add_argument(
        "--box-share", type=float, default=0.65, help="objects prompted with a box, not with a click"
    )
    parser.add_argument("--rounds", type=int, default=5, help="most rounds of prompting")
    parser.add_argument("--start", default="", help="model folder to begin with, at another input size too")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=128, help="channels of the decoder")
    parser.add_argument("--patch", type=int, default=4, help="px")
    parser.add_argument(
        "--stem", type=int, nargs="*", default=[32, 64, 128, 192, 256], help="channels of the stem"
    )
    parser.add_argument("--depths", type=int, nargs="*", default=[0, 1, 2, 2, 2], help="its residual blocks")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--validate-every", type=int, default=500)
    parser.add_argument("--device", default="")
    return parser.parse_args()


def main() -> None:
    options = parse()
    rank = int(os.environ.get("LOCAL_RANK", 0))
    device = options.device or (f"cuda:{rank}" if torch.cuda.is_available() else "cpu")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        torch.distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    sides = options.size, options.hidden, options.layers, options.heads, options.width, options.patch
    shape = tiny_config(*sides, options.stem, options.depths)
    seen = tuple(name for name in PhantomConfig().families if name not in HELD_OUT) + OFTEN
    settings = {
        "batch": options.batch,
        "size": options.size,
        "drawn": options.drawn,
        "objects": options.objects,
        "reuse": options.reuse,
    }
    stream = StreamConfig(
        **settings, box_share=options.box_share, phantom=PhantomConfig(seen, tiny_share=TINY)
    )
    held_out = StreamConfig(**settings, phantom=PhantomConfig(HELD_OUT, tiny_share=TINY))
    config = ScratchConfig(
        steps=options.steps,
        seed=options.seed,
        learning_rate=options.rate,
        validate_every=options.validate_every,
    )
    try:
        training = ScratchTraining(
            load_sam(options.start, options.size) if options.start else initialised(shape, options.seed),
            config,
            lambda seed: training_batch(stream, seed, device),
            lambda seed: training_batch(held_out, seed, device),
            options.folder,
            device,
            PromptConfig(max_rounds=options.rounds),
            facts=repr((stream, held_out, options.start)),
        )
    except ValueError as error:
        sys.exit(str(error))
    start, begun, told = time.monotonic(), training.step, 0.0
    total = sum(p.numel() for p in training.model.parameters())
    print(f"{total / 1e6:.2f} M parameters on {device}, from step {begun} of {config.steps}", flush=True)

    def tell(step: int, loss: float) -> None:
        nonlocal told
        now = time.monotonic()
        if training.rank == 0 and (now - told > 10 or step == config.steps):
            told = now
            rate = (step - begun) / (now - start)
            left = (config.steps - step) / rate
            samples = rate * options.batch * training.world
            last = training.log[-1] if training.log else {}
            dice = " ".join(f"{k} {last[k]:.3f}" for k in ("box", "click", "five clicks") if k in last)
            print(
                f"step {step}/{config.steps}  loss {loss:.3f}  {samples:.0f} samples/s  "
                f"{left / 60:.0f} min left  {dice}",
                flush=True,
            )

    while training.step < config.steps and (time.monotonic() - start) < options.minutes * 60:
        training.run(tell, until=training.step + options.validate_every)
        if training.rank == 0:
            draw_curve(training, options.batch)
    if training.rank == 0 and training.step == config.steps:
        training.average.half().save_pretrained(options.folder / "model")
        print(f"wrote {options.folder / 'model'}", flush=True)
    if training.world > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
