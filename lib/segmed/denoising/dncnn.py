"""DnCNN: a plain convolutional network that predicts the noise of an image.

Source: Zhang, Zuo, Chen, Meng and Zhang, Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image
Denoising, 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from segmed.data.checksums import file_checksum
from segmed.denoising.pictures import Denoiser

_STRIP = 256  # rows processed at a time, so that a large image does not fill the memory


@dataclass(frozen=True)
class DnCnnConfig:
    """The shape of the network; published with 17 layers for one strength of noise, 20 for any.

    Attributes:
        depth: Number of layers.
        width: Channels between layers.
    """

    depth: int = 17
    width: int = 64

    def __post_init__(self) -> None:
        if self.depth < 3 or self.width < 1:
            raise ValueError(
                f"A DnCNN of {self.depth} layers and {self.width} channels is not possible: depth must be at "
                "least 3 and width at least 1."
            )


class DnCnn(nn.Module):
    """The network, which removes noise from grey images (B, 1, H, W) in [0, 1]."""

    def __init__(self, config: DnCnnConfig | None = None) -> None:
        super().__init__()
        self.config = config or DnCnnConfig()
        depth, width = self.config.depth, self.config.width
        layers: list[nn.Module] = [nn.Conv2d(1, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width, eps=1e-4, momentum=0.05),  # the published running mean keeps 0.95
                nn.ReLU(),
            ]
        last = nn.Conv2d(width, 1, 3, padding=1)
        layers.append(last)
        self.noise = nn.Sequential(*layers)
        for layer in self.noise:
            if isinstance(layer, nn.Conv2d):
                nn.init.orthogonal_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.zeros_(last.weight)  # the untrained network leaves images unchanged

    def forward(self, noisy: Tensor) -> Tensor:
        """Subtract the predicted noise: x - noise(x), (B, 1, H, W) → (B, 1, H, W)."""
        return noisy - self.noise(noisy)

    @torch.inference_mode()
    def clean(self, image: np.ndarray) -> np.ndarray:
        """Remove the noise of a uint8 slice (H, W) or (H, W, 3), each colour channel alone."""
        device = next(self.parameters()).device
        channels = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        pixels = torch.from_numpy(np.ascontiguousarray(channels)).float()[:, None].to(device) / 255
        # Each 3 × 3 convolution reaches one row further, so strips overlap by as many rows as there are
        # layers.
        reach, height = self.config.depth, pixels.shape[2]
        rows = []
        for top in range(0, height, _STRIP):
            begin, end = max(top - reach, 0), min(top + _STRIP + reach, height)
            strip = self(pixels[:, :, begin:end])
            rows.append(strip[:, :, top - begin : top - begin + _STRIP])
        cleaned = torch.cat(rows, dim=2).mul(255).round().clamp(0, 255).byte().cpu().numpy()[:, 0]
        return cleaned[0] if image.ndim == 2 else cleaned.transpose(1, 2, 0)


def save_dncnn(model: DnCnn, path: Path, facts: dict[str, str]) -> None:
    """Write weights and shape of a model as safetensors, with further facts as metadata."""
    shape = {"depth": str(model.config.depth), "width": str(model.config.width)}
    save_file(
        {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, path, {**facts, **shape}
    )


def load_dncnn(path: Path, device: str = "cpu") -> Denoiser:
    """Read what `save_dncnn` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is of another kind or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no denoiser at {path}. Make one with `segmed denoiser`.")
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        model = DnCnn(DnCnnConfig(int(facts["depth"]), int(facts["width"])))
        model.load_state_dict(state)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path.name} is not a denoiser, or is damaged ({str(error).splitlines()[0]:.120}). Give a file "
            "that `segmed denoiser` wrote."
        ) from error
    return Denoiser(f"dncnn {file_checksum(path)[:12]}", model.to(device).eval().clean)
