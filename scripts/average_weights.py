#!/usr/bin/env python
"""The mean of two weights of the default model, and what each is worth on sources that training has not seen.

    python scripts/average_weights.py runs/first/model runs/second/model OUT --pack FOLDER

Validation is that of `train_default.py`: 96 objects of the held-out sources in their windows, Dice by kind of
    prompt.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from segmed.data.datasets.training_pack import TrainingPack
from segmed.methods.segmed.network import PromptNetwork
from segmed.methods.segmed.weights import load_network, save_network
from segmed.pretraining.objects import ObjectConfig, ObjectSource
from segmed.pretraining.pool import ObjectPool
from segmed.pretraining.trainer import Pretraining, PretrainingConfig
from train_default import HELD_OUT, VALIDATED


def mean_of(first: PromptNetwork, second: PromptNetwork) -> PromptNetwork:
    """A network with the mean of both states."""
    out, other = PromptNetwork(), second.state_dict()
    out.load_state_dict({key: (value + other[key]) / 2 for key, value in first.state_dict().items()})
    return out


def worth(network: PromptNetwork, source: ObjectSource) -> dict[str, float]:
    """Dice by kind of prompt."""

    def opened() -> ObjectPool:
        pool = ObjectPool(source, VALIDATED, seed=77)
        pool.refill()
        return pool

    with tempfile.TemporaryDirectory() as folder:
        run = Pretraining(network, PretrainingConfig(), ObjectPool(source, 1), {"Dice": opened}, Path(folder))
        return run.validate()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pack", type=Path, required=True, help="folder of labelled images")
    options = parser.parse_args()
    first, second = (load_network(path) for path in (options.first, options.second))
    mean = mean_of(first, second)
    save_network(mean, options.out)
    source = ObjectSource(TrainingPack(options.pack, only=HELD_OUT), ObjectConfig(0.0, 0.0, 0.0), 1)
    for name, network in (("first", first), ("second", second), ("mean", mean)):
        with torch.inference_mode():
            told = "  ".join(
                f"{key.removeprefix('Dice ')} {value:.3f}" for key, value in worth(network, source).items()
            )
        print(f"{name}: {told}", flush=True)


if __name__ == "__main__":
    main()
