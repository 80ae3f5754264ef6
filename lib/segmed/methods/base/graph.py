"""Parts of a method as functions of tensors, for other formats and runtimes than PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

#: Computes the outputs of a graph from its inputs, in their order.
Run = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class Graph:
    """One part of a method, such as the encoder.

    Attributes:
        name: name of the part, and of its file.
        module: takes the inputs in their order and returns one tensor or a tuple, all float32.
        inputs: an example of each input by name.
        outputs: names of the outputs.
        free: axes of inputs and outputs that may have any length, with the name of that length, by input or
            output; all other axes are as in the examples.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    free: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs, computed by PyTorch."""
        out = self.module(*inputs)
        return out if isinstance(out, tuple) else (out,)


class RunNetwork(nn.Module):
    """Stands for a network of one graph that runs elsewhere than in PyTorch.

    Args:
        run: What computes the graph.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run
        self.nothing = nn.Parameter(torch.empty(0), requires_grad=False)  # methods ask it for their device

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The output of the network, or all of them if there are several."""
        out = self._run(*inputs)
        return out if len(out) > 1 else out[0]
