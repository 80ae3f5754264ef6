#!/usr/bin/env python
"""Dice of a method on labelled pictures: boxes, jittered boxes, clicks and scribbles, beside what a box alone
gives.

    python scripts/eval_prompts.py CASES [--method segmed] [--backbone WEIGHTS] [--sheet overlays.png]

Every label is prompted on at most --max-slices slices; objects of at least --min-area px count. Clicks are
simulated: the first one in the middle of the object, each further one in the middle of the largest error; so
are scribbles: lines, centre lines or inner contours on the object, then in the largest error. Dice is
averaged over the objects of a case, then over the cases of a source, then over the sources of a modality, so
that a volume with many slices weighs no more than a picture; NSD is the share of both outlines that is right
within --tolerance px. Intervals are those of the mean over modalities when cases are redrawn.

CASES is a folder with an index.json, restricted by --sources; or name a dataset that `segmed data list`
knows:

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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from segmed.data.datasets.catalogue import DATASETS
from segmed.evaluation.cases import Case, SliceObject, chosen_cases
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
from segmed.inference.loading import BackboneConfig, Loader
from segmed.methods import METHODS
from segmed.methods.base.segmenter import Segmenter

NSD = "box NSD"
OPTIONAL = ("scribble + 3 corrections",)
COLUMNS = (*BOXES, NSD, *CLICKS, *SCRIBBLES, *BASELINES)
SIZES = {"< 0.5 %": 0.005, "0.5–2 %": 0.02, "2–8 %": 0.08, "> 8 %": 1.0}  # of the slice's area


def measure(
    trials: Iterator[Trial], item: SliceObject, columns: Collection[str], tolerance: float, ending: str = ""
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Numbers by column, and masks; a method that does not take a kind of prompt has no number there."""
    values, masks = {}, {}
    try:
        for name, mask in trials:
            masks[name] = mask
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", type=Path, nargs="?", help="folder with an index.json")
    parser.add_argument("--data", choices=list(DATASETS), default="", help="a dataset in place of CASES")
    parser.add_argument("--root", type=Path, help="its folder")
    parser.add_argument("--sources", nargs="+", default=(), help="of CASES; all if not given")
    parser.add_argument("--limit", type=int, help="cases of each source, evenly spaced")
    parser.add_argument("--method", choices=list(METHODS), default="segmed")
    parser.add_argument("--backbone", default="", help="weights, if not the embedded ones")
    parser.add_argument(
        "--peer", action="append", default=[], help="METHOD[:WEIGHTS] to compare with; repeat for more"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--min-area", type=int, default=100, help="px")
    parser.add_argument("--max-slices", type=int, default=3)
    parser.add_argument("--tolerance", type=float, default=2.0, help="of NSD, px")
    parser.add_argument(
        "--only", nargs="+", choices=COLUMNS, help="columns; all but the corrected scribble if not given"
    )
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument(
        "--sheet", type=Path, help="PNG with the first object of every case, by the first column"
    )
    parser.add_argument(
        "--worst", type=int, help="show so many best, median and worst objects on the sheet instead"
    )
    arguments = parser.parse_args()
    if bool(arguments.data) == bool(arguments.cases) or bool(arguments.data) != bool(arguments.root):
        parser.error("give either a folder of cases, or --data and --root")
    return arguments


@dataclass(frozen=True)
class Lineup:
    """What is measured, and by what.

    Attributes:
        method: the one whose columns have plain names.
        classical: the fallback, as a baseline.
        peers: further ones.
        columns: of the tables.
        tolerance: of NSD, px.
    """

    method: Segmenter
    classical: Segmenter
    peers: list[Peer]
    columns: list[str]
    tolerance: float

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Lineup:
        """Load the methods that the command names."""
        loader = Loader()
        return cls(
            loader.get(arguments.method, BackboneConfig(arguments.backbone), arguments.device),
            loader.get("classical", BackboneConfig()),
            [load_peer(text, arguments.device, loader) for text in arguments.peer],
            arguments.only or [c for c in COLUMNS if c not in OPTIONAL],
            arguments.tolerance,
        )

    @property
    def compared(self) -> list[str]:
        """The columns that peers have, too."""
        return [c for c in self.columns if c not in BASELINES]

    def measure(self, case: Case, item: SliceObject, seed: int) -> tuple[dict[str, float], np.ndarray | None]:
        """Numbers by column, and the mask of the first column."""
        tried = {*self.columns, *(["box"] if NSD in self.columns else [])}
        asked = prompt_trials(item, slice_predictor(self.method, case, item.k), tried, seed)
        values, masks = measure(asked, item, self.columns, self.tolerance)
        free = baseline_trials(
            item, case.picture.slice(item.k), slice_predictor(self.classical, case, item.k), tried
        )
        more, others = measure(free, item, self.columns, self.tolerance)
        for peer in self.peers:
            asked = prompt_trials(item, slice_predictor(peer.segmenter, case, item.k), tried, seed)
            more |= measure(asked, item, self.compared, self.tolerance, f" · {peer.name}")[0]
        return values | more, (masks | others).get("box" if self.columns[0] == NSD else self.columns[0])


@torch.inference_mode()
def main() -> None:
    arguments = parsed()
    lineup = Lineup.of(arguments)
    scores: list[ObjectScore] = []
    tiles: list[Tile] = []
    empty = []
    start = time.perf_counter()
    cases, total = chosen_cases(
        arguments.cases, arguments.sources, arguments.limit, arguments.data, arguments.root
    )
    for case in track(cases, "cases", total):
        items = list(case.objects(arguments.min_area, arguments.max_slices))
        if not items:
            empty.append(case.name)
        for n, item in enumerate(items):
            values, mask = lineup.measure(case, item, seed=len(scores))
            if mask is not None and arguments.sheet and (arguments.worst or not n):
                first = values.get(lineup.columns[0], math.nan)
                tiles.append(Tile.cut(case.name, case.picture.slice(item.k), item.mask, mask, first))
            place, kind = f"label {item.label}, slice {item.k}", case.names.get(item.label, "")
            share = float(item.mask.mean())
            scores.append(ObjectScore(case.modality, case.source, case.name, kind, place, share, values))
    if not scores:
        raise SystemExit(f"No object has {arguments.min_area} px. Lower --min-area, or give other cases.")
    report(scores, lineup.columns, [p.name for p in lineup.peers], lineup.compared)
    seconds = time.perf_counter() - start
    print(f"\n{len(scores)} objects in {seconds:.0f} s.", end=" ")
    # a patient may have pictures without an object beside others
    missing = [name for name in dict.fromkeys(empty) if name not in {s.case for s in scores}]
    print(f"Without an object of {arguments.min_area} px: {', '.join(missing) or 'none'}.")
    if arguments.json:
        every = [*lineup.columns, *(f"{c} · {p.name}" for p in lineup.peers for c in lineup.compared)]
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
