"""A method on another runtime than PyTorch, used only where its masks stay the same."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch

from segmed.inference.runtimes.agreement import ENOUGH, demo_masks, mean_dice
from segmed.inference.runtimes.openvino_graphs import Compiler, has_bf16
from segmed.methods.base.segmenter import Segmenter
from segmed.methods.sam.sharing import share_weights
from segmed.places import CACHE

logger = logging.getLogger(__name__)


def compile_method(
    plain: Segmenter,
    precision: str = "auto",
    folder: Path | None = None,
    tell: Callable[[str], None] = logger.info,
) -> Segmenter:
    """The same method with its networks compiled by OpenVINO for this CPU.

    Its masks on slices of the demo study are compared with those of PyTorch. In bf16, where the CPU has it,
    they may differ too much; then the networks are compiled in float32.

    Args:
        plain: The method in float32 on the CPU, which is not changed.
        precision: `auto`, `bf16` or `fp32`.
        folder: Folder of compiled networks, or None for that of this user.
        tell: Function that is told of progress.

    Raises:
        ValueError: If the method has no graphs, they cannot be compiled, or the masks differ from those of
            PyTorch.
    """
    graphs = plain.graphs()
    compiler = Compiler(folder or CACHE / "openvino", torch.get_num_threads(), tell)
    formats = ["fp32"] if precision == "fp32" or not has_bf16() else ["bf16", "fp32"]
    wanted = demo_masks(plain)
    dice = {}
    for name in formats:
        try:
            runs = {graph.name: compiler.compile(graph, name) for graph in graphs}
            method = share_weights(plain)
            method.run_by(runs)
            dice[name] = mean_dice(demo_masks(method), wanted)
        except RuntimeError as error:  # OpenVINO's errors of conversion and compilation
            raise ValueError(
                f"OpenVINO cannot compile {type(plain).__name__}: {str(error).strip().splitlines()[-1][:200]}"
            ) from error
        tell(f"OpenVINO in {name}: Dice {dice[name]:.4f} with PyTorch on the demo study")
        if dice[name] >= ENOUGH:
            method.version = f"{plain.version}-openvino-{name}"
            return method
    found = ", ".join(f"{value:.3f} in {name}" for name, value in dice.items())
    raise ValueError(f"With OpenVINO, Dice with the masks of PyTorch is {found}, but {ENOUGH} is needed.")
