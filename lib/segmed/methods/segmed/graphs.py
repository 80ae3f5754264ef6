"""The network of the default model as a graph, and a network that runs elsewhere than in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segmed.methods.base.graph import Graph, RunNetwork
from segmed.methods.segmed.network import PromptNetwork, WindowFeatures
from segmed.methods.segmed.prompt_channels import CHANNELS


def network_graph(network: PromptNetwork, size: int) -> Graph:
    """The whole network, from windows of `size` px and their prompt channels to masks and predicted IoU.

    Both halves of the encoder are in one graph, because no prompt uses the features of another one's windows.
    """
    windows = {0: "windows"}
    return Graph(
        "network",
        _Network(network),
        {"images": torch.zeros(2, 3, size, size), "channels": torch.zeros(2, CHANNELS, size, size)},
        ("masks", "iou"),
        dict.fromkeys(("images", "channels", "masks", "iou"), windows),
    )


class _Network(nn.Module):
    """Windows (B, 3, S, S) and channels (B, 9, S, S) to logits (B, 4, S, S) and predicted IoU (B, 4)."""

    def __init__(self, network: PromptNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, channels: Tensor) -> tuple[Tensor, Tensor]:
        masks, iou = self.network(self.network.features(images), images, channels)
        return masks, iou


class RunPromptNetwork(RunNetwork):
    """A `PromptNetwork` whose graph runs elsewhere; it computes no features ahead."""

    def features(self, images: Tensor) -> WindowFeatures:
        """Nothing: the graph computes the features itself."""
        return WindowFeatures(images[:, :0], images[:, :0])

    def forward(self, *inputs: WindowFeatures | Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits and predicted IoU of windows, from their (empty) features, pixels and prompt channels."""
        _, images, channels = inputs
        assert isinstance(images, Tensor) and isinstance(channels, Tensor)
        return super().forward(images, channels)
