#!/usr/bin/env python
"""3-D Dice and NSD of a method on labelled volumes: from a flat box, a box over the slices, a click, and
corrections.

    python scripts/eval_volumes.py CASES [--limit 4] [--json volumes.json]
    python scripts/eval_volumes.py --data msd --root Task04_Hippocampus --volumes 20

Each object of every volume of more than 4 slices is segmented from a tight box on its largest slice, from a
tight box around all of it, from a click in the middle of its largest slice, and from the flat box and 1 to
--corrections clicks, each in the deepest place of the largest error anywhere in the volume. A correction is
sent as the viewers send it: the box and all clicks so far. The mask so far goes along to methods that correct
masks, and with --previous-mask to all, as where a user refines an object. The largest loss is the most Dice
that one correction has cost.

Volumes run whole. Dice is averaged over the objects of a volume, then over the volumes of a source, then over
the sources of a modality. NSD is the share of both surfaces that is right within --tolerance mm. Other
methods are measured beside it on the same objects, each with corrections of its own errors:

    python scripts/eval_volumes.py CASES --peer medsam:medsam_vit_b.pth --peer classical
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from segmed.data.datasets.catalogue import DATASETS
from segmed.evaluation.cases import Case, VolumeObject, chosen_cases, volume_objects
from segmed.evaluation.peers import Peer, load_peer
from segmed.evaluation.score_tree import ObjectScore, as_json, group_table, modality_table, source_table
from segmed.evaluation.volume_trials import (
    LOSS,
    STARTS,
    correction_columns,
    keeps_its_promise,
    largest_loss,
    volume_numbers,
    volume_trials,
)
from segmed.imaging.store import ByteBoundedStore
from segmed.inference.loading import BackboneConfig, Loader
from segmed.inference.predictor import Predictor
from segmed.methods import METHODS

FEWEST_SLICES = 5


def measured(
    predictor: Predictor, case: Case, item: VolumeObject, arguments: argparse.Namespace, ending: str = ""
) -> dict[str, float]:
    """Numbers by column; a method that does not take a kind of prompt has none from there on."""
    values: dict[str, float] = {}
    count = arguments.corrections
    previous = arguments.previous_mask or predictor.segmenter.corrects_masks
    try:
        for trial in volume_trials(predictor, case.picture, item.mask, STARTS, count, previous):
            values |= volume_numbers(trial, item.mask, case.picture.affine, arguments.tolerance)
            if trial.column in correction_columns(count)[-1:]:
                values[LOSS] = largest_loss(values, count)
    except ValueError as error:
        print(f"{case.name}, label {item.label}{ending}: {error}")
    return {name + ending: value for name, value in values.items()}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", type=Path, nargs="?", help="folder with an index.json")
    parser.add_argument("--data", choices=list(DATASETS), default="", help="a dataset in place of CASES")
    parser.add_argument("--root", type=Path, help="its folder")
    parser.add_argument(
        "--seen", type=Path, help="folder of training images; leave out the volumes they come from"
    )
    parser.add_argument("--sources", nargs="+", default=(), help="of CASES; all if not given")
    parser.add_argument("--volumes", type=int, help="of each source, evenly spaced; all if not given")
    parser.add_argument("--limit", type=int, help="objects of each volume, evenly spaced; all if not given")
    parser.add_argument("--method", choices=list(METHODS), default="segmed")
    parser.add_argument("--backbone", default="", help="weights, if not the embedded ones")
    parser.add_argument(
        "--peer", action="append", default=[], help="METHOD[:WEIGHTS] to compare with; repeat for more"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--corrections", type=int, default=8, help="clicks after the flat box")
    parser.add_argument("--previous-mask", action="store_true", help="send the mask with each correction")
    parser.add_argument("--min-voxels", type=int, default=100, help="of an object")
    parser.add_argument("--tolerance", type=float, default=2.0, help="of NSD, mm")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    arguments = parser.parse_args()
    if bool(arguments.data) == bool(arguments.cases) or bool(arguments.data) != bool(arguments.root):
        parser.error("give either a folder of cases, or --data and --root")
    if arguments.corrections < 0:
        parser.error("--corrections cannot be negative")
    return arguments


def main() -> None:
    arguments = parsed()
    loader = Loader()
    segmenter = loader.get(arguments.method, BackboneConfig(arguments.backbone), arguments.device)
    methods = [Peer("", segmenter), *(load_peer(text, arguments.device, loader) for text in arguments.peer)]
    batch = 1 if arguments.device == "cpu" else 4
    predictors = {
        peer.name: Predictor(peer.segmenter, ByteBoundedStore(2**30), batch=batch) for peer in methods
    }
    start = time.perf_counter()
    scores = measure_all(predictors, arguments)
    if not scores:
        raise SystemExit(f"There is no labelled object in a volume of {FEWEST_SLICES} slices or more.")
    report(scores, list(predictors), arguments.corrections)
    seconds = time.perf_counter() - start
    print(f"\n{len(scores)} objects in {seconds:.0f} s.")
    if arguments.json:
        columns = list(dict.fromkeys(name for s in scores for name in s.values))
        told = {"method": arguments.method, "backbone": arguments.backbone, "seconds": seconds}
        told |= {"tolerance_mm": arguments.tolerance, "previous_mask": arguments.previous_mask}
        arguments.json.write_text(json.dumps(as_json(scores, columns, **told), indent=1), encoding="utf-8")


def measure_all(predictors: Mapping[str, Predictor], arguments: argparse.Namespace) -> list[ObjectScore]:
    """What every object of the chosen volumes gave, with a bar for volumes and one for the objects of a
    volume."""
    scores: list[ObjectScore] = []
    cases, total = chosen_cases(
        arguments.cases, arguments.sources, arguments.volumes, arguments.data, arguments.root, arguments.seen
    )
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    ) as progress:
        volumes, objects = progress.add_task("cases", total=total), progress.add_task("objects", total=None)
        for case in cases:
            deep = case.picture.shape[2] >= FEWEST_SLICES
            items = list(volume_objects(case, arguments.min_voxels, limit=arguments.limit)) if deep else []
            progress.reset(objects, total=len(items), description=case.name[:30])
            for item in items:
                values: dict[str, float] = {}
                for name, predictor in predictors.items():
                    values |= measured(predictor, case, item, arguments, f" · {name}" if name else "")
                place, share = f"label {item.label}", float(item.mask.mean())
                scores.append(
                    ObjectScore(case.modality, case.source, case.name, item.kind, place, share, values)
                )
                progress.advance(objects)
            progress.advance(volumes)
    return scores


def report(scores: list[ObjectScore], methods: list[str], corrections: int) -> None:
    """Print the tables."""

    def beside(columns: list[str]) -> list[str]:
        return [name for c in columns for name in (f"{c} · {m}" if m else c for m in methods)]

    later = correction_columns(corrections)
    dice = beside([*STARTS, *later, *([LOSS] if later else [])])
    print(f"\nDice:\n\n{modality_table(scores, dice)}")
    print(f"\nNSD:\n\n{modality_table(scores, beside([f'{c} NSD' for c in (*STARTS, *later[-1:])]))}")
    print(f"\nBy source:\n\n{source_table(scores, dice)}")
    named = sorted(scores, key=lambda s: s.kind)
    print(
        f"\nBy kind, mean over objects:\n\n{group_table(named, dice, 'kind', lambda s: s.kind or 'unnamed')}"
    )
    print("\nSeconds for an object in its volume, mean over objects:\n")
    timed = beside([f"{c} s" for c in (*STARTS, *later[-1:])])
    print(group_table(sorted(scores, key=lambda s: s.modality), timed, "modality", lambda s: s.modality))
    for column in beside([LOSS]) if later else []:
        losses = np.array([s.values.get(column, math.nan) for s in scores])
        losses = losses[~np.isnan(losses)]
        if len(losses):
            kept = sum(keeps_its_promise(float(loss)) for loss in losses)
            print(
                f"\n{column}: {losses.max():.3f}; on {kept} of {len(losses)} objects no correction costs "
                f"over .01."
            )


if __name__ == "__main__":
    main()
