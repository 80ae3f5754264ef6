#!/usr/bin/env python
"""What fine-tuning the default model on a few labelled volumes gains: boxes and clicks, before and after.

    python scripts/tune_default.py --data msd --root Task04_Hippocampus --train 10 --test 20 [--seen
    TRAINING_IMAGES] python scripts/tune_default.py --data lgg --root kaggle_3m --train 10 --test 20

Patients to train and to test on are evenly spaced and never the same. The training is that of `segmed train
--method segmed`, through the gate; the registry is thrown away. Prints Dice of one slice per label and
volume, and the minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from segmed.data.datasets.catalogue import DATASETS, load_dataset
from segmed.data.slices import SliceDataset
from segmed.evaluation.cases import dataset_cases, evenly, read_index
from segmed.evaluation.metrics import Overlap
from segmed.evaluation.prompt_trials import prompt_trials, slice_predictor
from segmed.inference.loading import BackboneConfig, Loader, find_method
from segmed.methods.base.segmenter import Segmenter
from segmed.registry.versions import Registry
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.job import JobConfig, train_model

COLUMNS = ("box", "box ±10 %", "1 click", "3 clicks", "5 clicks")


@torch.inference_mode()
def measured(method: Segmenter, data: SliceDataset, slices: int, min_area: int) -> dict[str, float]:
    """Mean Dice by column over the objects of the data, at most so many slices per label of a volume."""
    scores: dict[str, list[float]] = {name: [] for name in COLUMNS}
    for case in dataset_cases(data, "test"):
        for n, item in enumerate(case.objects(min_area, slices)):
            for name, mask in prompt_trials(item, slice_predictor(method, case, item.k), COLUMNS, n):
                scores[name].append(Overlap.of(mask, item.mask).dice())
    return {name: float(np.mean(values)) for name, values in scores.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=list(DATASETS), required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--train", type=int, default=10, help="patients to learn from")
    parser.add_argument("--test", type=int, default=20, help="patients to test on")
    parser.add_argument(
        "--seen", type=Path, help="folder of training images; test on no volume that they come from"
    )
    parser.add_argument("--slices", type=int, default=2, help="of each label and volume to test on")
    parser.add_argument("--min-area", type=int, default=60, help="px of objects to test on")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--preset", default="deep")
    arguments = parser.parse_args()
    data = load_dataset(arguments.data, arguments.root).readable()
    seen = (
        {Path(str(e.get("path", ""))).name.split(".")[0] for e in read_index(arguments.seen)}
        if arguments.seen
        else set()
    )
    test = evenly([p for p in data.patients if p not in seen], arguments.test)
    train = evenly([p for p in data.patients if p not in test], arguments.train)
    own = BackboneConfig(find_method("segmed").weights, precision="fp32")
    with tempfile.TemporaryDirectory() as folder:
        before = measured(Loader().get("segmed", own), data.of(test), arguments.slices, arguments.min_area)
        begun = time.perf_counter()
        config = JobConfig(
            {"preset": arguments.preset}, FinetuneConfig(epochs=arguments.epochs, epoch_steps=10)
        )
        registry = Registry(Path(folder) / "models")
        result = train_model("segmed", own, data.of(train), registry, Path(folder) / "run", config)
        minutes = (time.perf_counter() - begun) / 60
        print(result.message)
        tuned = Loader().get("segmed", own, trained=result.version.folder) if result.version else None
        after = measured(tuned, data.of(test), arguments.slices, arguments.min_area) if tuned else {}
    print(f"| {arguments.data}, {len(train)} patients, {minutes:.1f} min | {' | '.join(COLUMNS)} |")
    print("|---" * (1 + len(COLUMNS)) + "|")
    for name, scores in (("before", before), ("after", after)):
        print(f"| {name} | {' | '.join(f'{scores[c]:.3f}' for c in COLUMNS if scores)} |")


if __name__ == "__main__":
    main()
