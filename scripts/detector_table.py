#!/usr/bin/env python
"""How well a trained detector finds boxes, and what each prompt method makes of them: mAP, precision, recall, Dice.

    segmed train --method detector --data lgg --root LGG
    python scripts/detector_table.py lgg LGG [--backbone medsam_vit_b.pth --prompters medsam,sam]

The patients are those that the training held out.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from rich.progress import track
from segmed.commands.models import REGISTRY
from segmed.data.catalogue import load_dataset
from segmed.evaluation.detection_scores import FoundBoxes, score_boxes
from segmed.evaluation.segmentation_scores import score_mask
from segmed.imaging.label_maps import boxes_of_pieces
from segmed.methods.detection import Boxes
from segmed.methods.detector import DetectorSegmenter
from segmed.methods.loading import BackboneConfig, Loader, find_method
from segmed.training.job import hold_out
from segmed.training.registry import Registry


def told(boxes: Boxes) -> FoundBoxes:
    return FoundBoxes(boxes.corners.numpy(), boxes.labels.numpy(), boxes.scores.numpy())


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("root", type=Path)
    parser.add_argument("--registry", type=Path, default=REGISTRY)
    parser.add_argument("--backbone", default="", help="of the prompters; the detector's own if not given")
    parser.add_argument("--prompters", default="segmed")
    parser.add_argument("--validation", type=float, default=0.2, help="share that the training held out")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    arguments = parser.parse_args()
    served = Registry(arguments.registry).served("detector")
    if served is None:
        parser.error("There is no trained detector. Train one: segmed train --method detector …")
    data = load_dataset(arguments.dataset, arguments.root).readable()
    held_out = data.of(hold_out(data.patients, arguments.validation, arguments.seed)["validation"])
    loader = Loader()
    chain = cast(DetectorSegmenter, loader.get("detector", BackboneConfig(), "cpu", served.folder))
    prompters = {}
    for name in arguments.prompters.split(","):
        backbone = BackboneConfig(arguments.backbone or find_method("detector").weights)
        prompters[name] = loader.get(name, backbone)
    chosen = chain.config
    found, truth = [], []
    dice: dict[str, list[float]] = {name: [] for name in prompters}
    for n in track(range(len(held_out)), "slices"):
        sample = held_out[n]
        embedding = chain.embed([sample.image])
        chain.config = replace(chosen, confidence=0.001, most=100)  # the averages go over all thresholds
        found.append(chain.detect(embedding)[0])
        chain.config = chosen
        corners, kinds = boxes_of_pieces(sample.labels, chosen.min_area)
        truth.append(FoundBoxes(corners, kinds, np.ones(len(kinds))))
        if not sample.labels.any():
            continue
        for name, prompter in prompters.items():
            chain.prompter = prompter
            classes = chain.decode(embedding, None, sample.labels.shape).masks[0].argmax(0).numpy()
            values = [v for v in held_out.classes if (sample.labels == v).any()]
            scores = [score_mask(classes == v, sample.labels == v) for v in values]
            dice[name].append(float(np.mean([s.overlap.dice("zero") for s in scores])))
    sure = [
        Boxes(b.corners[s][: chosen.most], b.labels[s][: chosen.most], b.scores[s][: chosen.most])
        for b in found
        for s in [b.scores >= chosen.confidence]
    ]
    averages, chosen_ones = (
        score_boxes([*map(told, found)], truth, chain.labels),
        score_boxes([*map(told, sure)], truth, chain.labels),
    )
    print(f"{len(held_out)} slices of {len(held_out.patients)} patients, detector {served.version}\n")
    print("| mAP@0.5 | mAP@0.5:0.95 | precision | recall | objects | slices with an object and no box |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {averages.map50:.3f} | {averages.map50_95:.3f} | {chosen_ones.precision:.3f} | {chosen_ones.recall:.3f} | "
        f"{chosen_ones.objects} | {chosen_ones.slices_without} |\n"
    )
    print("| boxes → | Dice of slices with an object |\n|---|---|")
    for name, values in dice.items():
        print(f"| {name} | {np.mean(values):.3f} |")


if __name__ == "__main__":
    main()
