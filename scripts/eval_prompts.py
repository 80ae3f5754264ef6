#!/usr/bin/env python
"""Dice of a method on labelled pictures: boxes, careless boxes, clicks and scribbles, beside what a box alone gives.

    python scripts/eval_prompts.py CASES [--method segmed] [--backbone WEIGHTS] [--sheet overlays.png]

Every label is prompted on at most --max-slices slices; objects of at least --min-area px count. Clicks are simulated:
the first one in the middle of the object, each further one in the middle of the largest error; so are scribbles: lines,
centre lines or inner contours on the object, then in the largest error. Dice is averaged over the objects of a case,
then over the cases of a source, then over the sources of a modality, so that a volume with many slices weighs no more
than a picture; NSD is the share of both outlines that is right within --tolerance px. Intervals are those of the mean
over modalities when cases are redrawn.

CASES is a folder with an index.json, restricted by --sources; or name a dataset that `segmed data list` knows:

    python scripts/eval_prompts.py --data lgg --root kaggle_3m --limit 20

Any method and any weights can be compared, by itself or beside another one on the same objects:

    python scripts/eval_prompts.py CASES --method medsam --backbone medsam_vit_b.pth --only box
    python scripts/eval_prompts.py CASES --only box "1 click" --peer medsam:medsam_vit_b.pth --peer classical
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import torch
from rich.progress import track
from segmed.data.catalogue import DATASETS
from segmed.evaluation.cases import SliceObject, chosen_cases
from segmed.evaluation.metrics import Overlap
from segmed.evaluation.overlay_sheet import Tile, best_median_worst, draw_sheet
from segmed.evaluation.peers import Peer, load_peer
from segmed.evaluation.prompt_trials import (
    BASELINES,
    BOXES,
    CLICKS,
    SCRIBBLES,
    Trial,
    baseline_trials,
    prompt_trials,
    slice_predictor,
)
from segmed.evaluation.score_tree import ObjectScore, as_json, group_table, modality_table, source_table
from segmed.evaluation.surface import surface_dice
from segmed.methods import METHODS
from segmed.methods.loading import BackboneConfig, Loader

NSD = "box NSD"
OPTIONAL = ("scribble + 3 corrections",)
COLUMNS = (*BOXES, NSD, *CLICKS, *SCRIBBLES, *BASELINES)
SIZES = {"< 0.5 %": 0.005, "0.5–2 %": 0.02, "2–8 %": 0.08, "> 8 %": 1.0}  # of the slice's area


def measure(
    trials: Iterator[Trial], item: SliceObject, columns: Collection[str], tolerance: float, ending: str = ""
) -> tuple[dict[str, float], dict[str, Trial]]:
    """Numbers by column, and masks; a method that does not take a kind of prompt has no number there."""
    values, masks = {}, {}
    try:
        for name, mask in trials:
            masks[name] = name, mask
            if name in columns:
                values[name + ending] = Overlap.of(mask, item.mask).dice()
            if name == "box" and NSD in columns:
                values[NSD + ending] = surface_dice(mask, item.mask, tolerance)
    except ValueError as error:
        print(f"{ending or 'the method'}: {error}")
    return values, masks


def size_of(score: ObjectScore) -> str:
    return next(name for name, limit in SIZES.items() if score.share <= limit)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path, nargs="?", help="folder with an index.json")
    parser.add_argument("--data", choices=list(DATASETS), default="", help="a dataset in place of CASES")
    parser.add_argument("--root", type=Path, help="its folder")
    parser.add_argument("--sources", nargs="+", default=(), help="of CASES; all if not given")
    parser.add_argument("--limit", type=int, help="cases of each source, evenly spaced")
    parser.add_argument("--method", choices=list(METHODS), default="segmed")
    parser.add_argument("--backbone", default="", help="weights, if not the embedded ones")
    parser.add_argument("--peer", action="append", default=[], help="METHOD[:WEIGHTS] to compare with; repeat for more")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--min-area", type=int, default=100, help="px")
    parser.add_argument("--max-slices", type=int, default=3)
    parser.add_argument("--tolerance", type=float, default=2.0, help="of NSD, px")
    parser.add_argument(
        "--only", nargs="+", choices=COLUMNS, help="columns; all but the corrected scribble if not given"
    )
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--sheet", type=Path, help="PNG with the first object of every case, by the first column")
    parser.add_argument("--worst", type=int, help="show so many best, median and worst objects on the sheet instead")
    arguments = parser.parse_args()
    if bool(arguments.data) == bool(arguments.cases) or bool(arguments.data) != bool(arguments.root):
        parser.error("give either a folder of cases, or --data and --root")
    return arguments


@torch.inference_mode()
def main() -> None:
    arguments = parsed()
    columns = arguments.only or [c for c in COLUMNS if c not in OPTIONAL]
    compared = [c for c in columns if c not in BASELINES]
    tried = {*columns, *(["box"] if NSD in columns else [])}
    loader = Loader()
    method = loader.get(arguments.method, BackboneConfig(arguments.backbone), arguments.device)
    classical = loader.get("classical", BackboneConfig())
    peers: list[Peer] = [load_peer(text, arguments.device, loader) for text in arguments.peer]
    scores: list[ObjectScore] = []
    tiles: list[Tile] = []
    skipped = []
    start = time.perf_counter()
    cases, total = chosen_cases(arguments.cases, arguments.sources, arguments.limit, arguments.data, arguments.root)
    for case in track(cases, "cases", total):
        items = list(case.objects(arguments.min_area, arguments.max_slices))
        if not items:
            skipped.append(case.name)
        for n, item in enumerate(items):
            image, seed = case.picture.slice(item.k), len(scores)
            values, masks = measure(
                prompt_trials(item, slice_predictor(method, case, item.k), tried, seed),
                item,
                columns,
                arguments.tolerance,
            )
            free = baseline_trials(item, image, slice_predictor(classical, case, item.k), tried)
            more, others = measure(free, item, columns, arguments.tolerance)
            values |= more
            shown = (masks | others).get("box" if columns[0] == NSD else columns[0])
            if shown and arguments.sheet and (arguments.worst or not n):
                tiles.append(Tile.cut(case.name, image, item.mask, shown[1], values.get(columns[0], math.nan)))
            for peer in peers:
                asked = prompt_trials(item, slice_predictor(peer.segmenter, case, item.k), tried, seed)
                values |= measure(asked, item, compared, arguments.tolerance, f" · {peer.name}")[0]
            place = f"label {item.label}, slice {item.k}"
            kind = case.names.get(item.label, "")
            share = float(item.mask.mean())
            scores.append(ObjectScore(case.modality, case.source, case.name, kind, place, share, values))
    if not scores:
        raise SystemExit(
            f"There is no labelled object of {arguments.min_area} px. Lower --min-area, or give other cases."
        )
    report(scores, columns, [p.name for p in peers], compared)
    seconds = time.perf_counter() - start
    print(f"\n{len(scores)} objects in {seconds:.0f} s.", end=" ")
    measured = {s.case for s in scores}  # a patient may have pictures without an object beside others
    missing = [name for name in dict.fromkeys(skipped) if name not in measured]
    print(f"Without an object of {arguments.min_area} px: {', '.join(missing) or 'none'}.")
    if arguments.json:
        every = [*columns, *(f"{c} · {p.name}" for p in peers for c in compared)]
        told = {"method": arguments.method, "backbone": arguments.backbone, "seconds": seconds}
        told["tolerance_px"] = arguments.tolerance
        arguments.json.write_text(json.dumps(as_json(scores, every, **told), indent=1), encoding="utf-8")
    if arguments.sheet:
        draw_sheet(best_median_worst(tiles, arguments.worst) if arguments.worst else tiles, arguments.sheet)


def report(scores: list[ObjectScore], columns: list[str], peers: list[str], compared: list[str]) -> None:
    """Print the tables."""
    print(f"\n{modality_table(scores, columns)}")
    if peers:
        beside = [name for c in compared for name in (c, *(f"{c} · {peer}" for peer in peers))]
        print(f"\nBeside others, on the same objects:\n\n{modality_table(scores, beside)}")
    print(f"\nBy source:\n\n{source_table(scores, columns)}")
    ordered = sorted(scores, key=lambda s: s.share)
    print("\nBy the object's share of the slice, mean over objects:\n")
    print(group_table(ordered, columns, "area", size_of))


if __name__ == "__main__":
    main()
