#!/usr/bin/env python
"""What each rule and each further look of the default model is worth: Dice without it, on the same objects.

    python scripts/ablate_rules.py CASES --sources NAME … [--limit 20] [--variants "no evidence" …]

CASES is a folder with an index.json of labelled cases; name sources that the model was not trained on.
Objects and prompts are those of eval_prompts.py, averaged over the objects of a case and then over cases.
Below the Dice of the model as it is stands how much each variant differs from it, with the 95 % interval of
the mean difference when cases are redrawn.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from segmed.evaluation.cases import chosen_cases
from segmed.evaluation.metrics import Overlap
from segmed.evaluation.prompt_trials import BOXES, CLICKS, SCRIBBLES, prompt_trials, slice_predictor
from segmed.inference.loading import BackboneConfig, Loader
from segmed.methods.segmed.network import PromptNetwork, WindowFeatures
from segmed.methods.segmed.prompt_channels import EVIDENCE
from segmed.methods.segmed.segmenter import LookConfig, Segmed
from torch import Tensor

COLUMNS = (*BOXES, *CLICKS, *SCRIBBLES)
_REDRAWN = 2000  # bootstrap samples


class WithoutEvidence(PromptNetwork):
    """The same network, which gets 0 as evidence, as for an image without grey values that tell."""

    def forward(self, features: WindowFeatures, images: Tensor, channels: Tensor) -> tuple[Tensor, Tensor]:
        hidden = channels.clone()
        hidden[:, list(EVIDENCE)] = 0
        return super().forward(features, images, hidden)


def _without_evidence(model: Segmed) -> Segmed:
    network = WithoutEvidence()
    network.load_state_dict(model.network.state_dict())
    network.choice = model.network.choice
    return Segmed(network.eval().to(memory_format=torch.channels_last), look=model.look)


def _without_choice(model: Segmed) -> Segmed:
    changed = Segmed(model.network, look=model.look)
    changed.choice = None
    return changed


def _clicks_anew(model: Segmed) -> Segmed:
    changed = Segmed(model.network, look=model.look)
    changed.corrects_masks = False
    return changed


def _clicks_for_scribbles(model: Segmed) -> Segmed:
    changed = Segmed(model.network, look=model.look)
    changed.takes_scribbles = False
    return changed


def _looking(**settings: object) -> Callable[[Segmed], Segmed]:
    return lambda model: Segmed(model.network, look=replace(model.look, **settings))  # type: ignore[arg-type]


VARIANTS: dict[str, Callable[[Segmed], Segmed]] = {
    "masks not grown to boxes": _looking(fill_boxes=False),
    "not pulled to clicks": _looking(pull_to_clicks=False),
    "no evidence": _without_evidence,
    "no choice among masks of clicks": _without_choice,
    "scribbles as clicks": _clicks_for_scribbles,
    "all clicks anew": _clicks_anew,
    "not mirrored": _looking(flips=False),
    "one window": _looking(zooms=(LookConfig.quick_zoom,)),
    "three windows": _looking(zooms=(1.3, 1.55, 1.9)),
    "windows of 192 px": _looking(size=192),
}


def interval(differences: dict[str, list[float]], rng: np.random.Generator) -> tuple[float, float, float]:
    """Mean over cases of the mean difference of their objects, and its 95 % interval."""
    means = np.array([np.mean(values) for values in differences.values()])
    redrawn = means[rng.integers(len(means), size=(_REDRAWN, len(means)))].mean(1)
    low, high = np.quantile(redrawn, (0.025, 0.975))
    return float(means.mean()), float(low), float(high)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", type=Path, help="folder with an index.json")
    parser.add_argument("--sources", nargs="+", default=(), help="of CASES; all if not given")
    parser.add_argument("--limit", type=int, help="cases of each source, evenly spaced")
    parser.add_argument("--backbone", default="", help="a folder with other weights of the default model")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument(
        "--only", nargs="+", choices=COLUMNS, default=["box", "box ±10 %", *CLICKS, "scribble"]
    )
    parser.add_argument("--most", type=int, default=3, help="objects per label and slice")
    parser.add_argument("--min-area", type=int, default=100, help="px")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    options = parsed()
    model = Loader().get("segmed", BackboneConfig(options.backbone), "cpu")
    if not isinstance(model, Segmed):
        raise SystemExit("Only the default model has these rules. Leave out --backbone, or give its folder.")
    compared = {"": model, **{name: VARIANTS[name](model).eval() for name in options.variants}}
    dice: dict[tuple[str, str], dict[str, list[float]]] = {}
    cases, total = chosen_cases(options.cases, options.sources, options.limit, "", None)
    for number, case in enumerate(track(cases, "cases", total)):
        for n, item in enumerate(list(case.objects(options.min_area, 1))[: options.most]):
            for name, segmenter in compared.items():
                asked = prompt_trials(
                    item, slice_predictor(segmenter, case, item.k), options.only, 100 * number + n
                )
                for column, mask in asked:
                    found = Overlap.of(mask, item.mask).dice()
                    dice.setdefault((name, column), {}).setdefault(case.name, []).append(found)
    print("| variant | " + " | ".join(options.only) + " |\n|---|" + "---|" * len(options.only))
    rng = np.random.default_rng(0)
    for name in compared:
        row = []
        for column in options.only:
            here, base = dice[name, column], dice["", column]
            if not name:
                row.append(f"{interval(here, rng)[0]:.3f}")
                continue
            less = {case: list(np.subtract(here[case], base[case])) for case in here}
            mean, low, high = interval(less, rng)
            row.append(f"{mean:+.3f} ({low:+.3f} to {high:+.3f})")
        print(f"| {name or 'as it is'} | " + " | ".join(row) + " |")
    objects = sum(map(len, dice["", options.only[0]].values()))
    print(f"\n{len(dice['', options.only[0]])} cases, {objects} objects.")


if __name__ == "__main__":
    main()
