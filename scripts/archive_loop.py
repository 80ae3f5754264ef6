#!/usr/bin/env python
"""The loop of an archive on real volumes: batch, review, labels, training, gate, and batch again.

    python scripts/archive_loop.py --root DATASETS/msd_hippocampus --out runs/loop

All volumes of MSD hippocampus lie in the studies folder of a server; a few of them, drawn at random, are
labelled. In each round a `unet` is trained on what is labelled, the gate decides, the whole archive is
segmented by a batch run, and the images that `segmed batch review` ranks first get their true labels, as if a
person had drawn them. Printed are the Dice of the images that are not labelled, that of the reviewed ones
among them, and how well each quantity of the review tells good masks from bad ones. Runs that are there are
used again.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from segmed.batch.finished import FinishedItem, finished_items
from segmed.batch.review import QUANTITIES, queue_of, rank_images
from segmed.batch.runs import RunOptions, run_batch
from segmed.batch.settings import RunSettings
from segmed.data.datastore import LIST, load_datastore
from segmed.evaluation.metrics import Overlap
from segmed.imaging.grid import read_grid, read_labels
from segmed.methods.base.backbone import BackboneConfig
from segmed.registry.versions import Registry
from segmed.sam.sources import EMBEDDED
from segmed.training.finetune_config import FinetuneConfig
from segmed.training.job import JobConfig, train_model

CLASSES = {1: "anterior", 2: "posterior"}
END = ".nii.gz"


class Archive:
    """The studies folder of a server with the volumes, of which some are labelled.

    Args:
        root: Folder of the dataset.
        folder: Folder to be filled.
        images: Number of volumes; 0 takes all.
    """

    def __init__(self, root: Path, folder: Path, images: int) -> None:
        self.folder, self._labels = folder, root / "labelsTr"
        files = sorted(path for path in (root / "imagesTr").glob(f"*{END}") if path.name[0] != ".")
        self.names = [path.name.removesuffix(END) for path in files[: images or None]]
        (folder / "labels" / "final").mkdir(parents=True, exist_ok=True)
        for name in self.names:
            if not (folder / f"{name}{END}").exists():
                shutil.copy(root / "imagesTr" / f"{name}{END}", folder)

    def label(self, names: Sequence[str]) -> None:
        """Hand in the true labels of these images, and of no others."""
        info = {"segments": [{"value": value, "name": name} for value, name in CLASSES.items()]}
        objects = {name: {"image": {"ext": END, "info": {}}, "labels": {}} for name in self.names}
        for name in names:
            shutil.copy(self._labels / f"{name}{END}", self.folder / "labels" / "final")
            objects[name]["labels"] = {"final": {"ext": END, "info": info}}
        content = {
            "name": "archive",
            "description": "",
            "images_dir": ".",
            "labels_dir": "labels",
            "objects": objects,
        }
        (self.folder / LIST).write_text(json.dumps(content), encoding="utf-8")

    def dice(self, name: str, item: FinishedItem) -> float:
        """Mean Dice of the structures in the mask of an image."""
        grid = read_grid(item.mask)
        found, truth = read_labels(item.mask, grid), read_labels(self._labels / f"{name}{END}", grid)
        return float(np.nanmean([Overlap.of(found == v, truth == v).dice() for v in CLASSES]))


def train(archive: Archive, registry: Registry, epochs: int, seed: int) -> str:
    """Train on what is labelled; gives the decision of the gate."""
    settings = {"encoder": "efficientnet-lite0", "input_size": 64, "pretrained": True, "rate": 1e-3}
    training = FinetuneConfig(epochs=epochs, epoch_steps=20, batch=16, patience=epochs, seed=seed)
    data = load_datastore(archive.folder, labels=list(CLASSES.values()))
    result = train_model(
        "unet",
        BackboneConfig(EMBEDDED),
        data,
        registry,
        registry.folder / ".run",
        JobConfig(settings, training, None, 0.2),
    )
    return result.message


def told(values: Sequence[float]) -> str:
    """Mean of numbers, or a dash."""
    return f"{np.mean(values):.3f}" if len(values) else "–"


def main() -> None:
    """Go round, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="folder of MSD hippocampus")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument("--images", type=int, default=0, help="volumes of the archive; 0 takes all")
    parser.add_argument("--rounds", type=int, default=3, help="batch runs")
    parser.add_argument("--labels", type=int, default=10, help="new labels of each round")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    archive, registry = Archive(a.root, a.out / "studies", a.images), Registry(a.out / "models")
    chosen = np.random.default_rng(a.seed).permutation(archive.names)[: a.labels]
    labelled = [str(name) for name in chosen]
    before: Path | None = None
    for number in range(a.rounds):
        archive.label(labelled)
        begun = time.perf_counter()
        decision = train(archive, registry, a.epochs, a.seed)
        trained = time.perf_counter()
        run = a.out / f"run-{number}"
        settings = RunSettings(
            str(archive.folder.absolute()),
            "unet",
            device="cpu",
            registry=str(registry.folder.absolute()),
            uncertainty=True,
        )
        run_batch(settings, run, RunOptions(give_way=False))
        ended = time.perf_counter()
        ranking, items = rank_images(run, before), finished_items(run)
        free = [one for one in ranking.findings if one.image.removesuffix(END) not in labelled]
        dice = {one.image: archive.dice(one.image.removesuffix(END), items[one.image]) for one in free}
        queue, _ = queue_of(ranking, archive.folder, len(items))
        review = [name for name in queue if name not in labelled][: a.labels]
        print(f"round {number}: {len(labelled)} labels, {decision}", flush=True)
        print(f"  training {trained - begun:.0f} s, batch run {ended - trained:.0f} s", flush=True)
        reviewed = [dice[f"{name}{END}"] for name in review]
        print(
            f"  Dice of {len(free)} unlabelled images {told(list(dice.values()))}, of the {len(review)} to "
            f"review {told(reviewed)}"
        )
        for quantity in QUANTITIES:
            known = [one for one in free if math.isfinite(getattr(one, quantity))]
            if len(known) < 3:
                continue
            values = [getattr(one, quantity) for one in known]
            errors = [1 - dice[one.image] for one in known]
            first = np.argsort(values)[::-1][: a.labels]
            print(
                f"  {quantity}: rank correlation with 1 - Dice {spearmanr(values, errors).statistic:.2f}, "
                f"Dice of its first {len(first)}: {told([1 - errors[n] for n in first])}",
                flush=True,
            )
        labelled, before = labelled + review, run


if __name__ == "__main__":
    main()
