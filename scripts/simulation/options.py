"""Options that the simulations of an annotator share."""

from __future__ import annotations

import argparse
from pathlib import Path


def parser_of(text: str | None, dataset: str, slices: int, rounds: int) -> argparse.ArgumentParser:
    """A parser with the options of the archive, the grid of runs, and the file of results.

    Args:
        text: What the script does.
        dataset: Default of `--dataset`.
        slices: Default of `--slices`.
        rounds: Default of `--rounds`.
    """
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default=dataset, help="phantoms, or a name of `segmed data list`")
    parser.add_argument("--root", default="", help="folder of the dataset")
    parser.add_argument("--patients", type=int, default=20, help="of the dataset, in the pool")
    parser.add_argument("--slices", type=int, default=slices, help="of each patient")
    parser.add_argument("--tested", type=int, default=10, help="other patients, to measure on")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="comma-separated; each draws other patients")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--batch", type=int, default=12, help="labels of a round")
    parser.add_argument("--report", action="store_true", help="report on what the file holds; run nothing")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; what is there is not run again")
    parser.add_argument("--plot", type=Path, help="PNG, of a report")
    return parser
