"""Joint bilateral upsampling with learned kernels: features are upsampled along the edges of the image.

Source: Fu et al., FeatUp: A Model-Agnostic Framework for Features at Any Resolution (ICLR 2024).
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

# up1.range_proj.0.weight, up1.range_temp, fixup_proj.1.weight; the last without up is the mixing of channels
_PUBLISHED = re.compile(
    r"(^|\.)(up(?P<stage>\d+)\.(?P<part>range_proj|fixup_proj|range_temp|sigma_spatial)(?P<rest>\.\d+\.\w+)?"
    r"|fixup_proj\.1(?P<mix>\.\w+))$"
)
_STAGE_NAMES = {
    "range_proj": "range_projection",
    "fixup_proj": "fixup",
    "range_temp": "log_temperature",
    "sigma_spatial": "sigma",
}
_FIXUP = 0.1  # factor of the learned corrections of kernels and of features


class JbuStage(nn.Module):
    """One stage, which doubles the resolution of feature maps.

    The kernel of a pixel weights its neighbours by the similarity of the image (range kernel, learned keys),
    by distance (spatial kernel, learned width) and by a learned correction. It is the same for all channels:
    a stage is linear in the features and commutes with every linear map over channels.

    Args:
        radius: Radius of the kernel in px of the fine grid.
        keys: Channels in which pixels of the image are compared.
    """

    distance: Tensor

    def __init__(self, radius: int = 3, keys: int = 32) -> None:
        super().__init__()
        self.radius = radius
        taps = (2 * radius + 1) ** 2
        self.range_projection = nn.Sequential(
            nn.Conv2d(3, keys, 1), nn.GELU(), nn.Dropout2d(0.1), nn.Conv2d(keys, keys, 1)
        )
        self.fixup = nn.Sequential(
            nn.Conv2d(taps + 3, taps, 1), nn.GELU(), nn.Dropout2d(0.1), nn.Conv2d(taps, taps, 1)
        )
        self.log_temperature = nn.Parameter(torch.zeros(()))
        self.sigma = nn.Parameter(torch.ones(()))
        steps = torch.linspace(-1, 1, 2 * radius + 1).square()
        self.register_buffer("distance", (steps[:, None] + steps[None]).flatten(), persistent=False)

    def kernel(self, guidance: Tensor) -> Tensor:
        """Compute the weights of neighbours, (B, 3, H, W) in [0, 1] → (B, taps, H, W), taps row by row.

        They need not sum to 1.
        """
        # Range kernel r_n = softmax_n(T k_n · k_0) over the neighbours n of pixel 0, with T the temperature;
        # spatial kernel s_n = exp(-d_n² / (2 sigma²)) with d in radii; weights w = r s / sum(r s) + 0.1
        # fixup(w, image).
        keys = self.range_projection(guidance)
        # Without gradients all products share one buffer: allocating memory costs more than the arithmetic.
        buffer = None if keys.requires_grad else torch.empty_like(keys)
        likeness = torch.stack(
            [torch.mul(part, keys, out=buffer).sum(1) for part in self._neighbours(keys)], 1
        )
        weights = (self.log_temperature.exp().clamp(1e-4, 1e4) * likeness).softmax(1)
        weights = weights * torch.exp(-self.distance / (2 * self.sigma.square()))[:, None, None]
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-7)
        return weights + _FIXUP * self.fixup(torch.cat([weights, guidance], 1))

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        """Upsample features (B, C, h, w) with an image (B, 3, H, W) in [0, 1] → (B, C, 2h, 2w)."""
        size = (2 * features.shape[2], 2 * features.shape[3])
        kernel = self.kernel(F.adaptive_avg_pool2d(image, size))
        smooth = F.interpolate(features, size, mode="bicubic", align_corners=False)
        # Tap by tap: this takes the memory of one further map, unfolding would take one per tap.
        out = torch.zeros_like(smooth)
        for weight, part in zip(kernel.split(1, 1), self._neighbours(smooth), strict=True):
            out.addcmul_(part, weight)
        return out

    def _neighbours(self, maps: Tensor) -> list[Tensor]:
        """Views of maps (B, C, H, W), reflected at the borders, one for each tap."""
        height, width = maps.shape[2:]
        padded = F.pad(maps, [self.radius] * 4, mode="reflect")
        steps = range(2 * self.radius + 1)
        return [padded[..., y : y + height, x : x + width] for y in steps for x in steps]


class JbuStack(nn.Module):
    """A sequence of stages, each with weights of its own, and a learned correction of the result.

    SAM's encoders end in a normalisation over channels, so that the first stage needs none before it.

    Args:
        channels: Channels of the features.
        stages: Number of stages, each of which doubles the resolution.
    """

    def __init__(self, channels: int, stages: int = 2) -> None:
        super().__init__()
        self.channels = channels
        self.stages = nn.ModuleList(JbuStage() for _ in range(stages))
        self.dropout = nn.Dropout2d(0.2)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        """Upsample features (B, C, h, w) by images (B, 3, H, W) in [0, 1] to (B, C, 2^n h, 2^n w)."""
        with torch.autocast(features.device.type, enabled=False):
            fine = self._upsample(features.float(), image.float())
            return fine + _FIXUP * self.mix(self.dropout(fine))

    def projected(self, features: Tensor, image: Tensor, head: nn.Conv2d) -> Tensor:
        """Compute `head(self(features, image))`, a 1×1 convolution to c channels, at the cost of c channels.

        With U the stages, M the mixing and H the head, H(U x + 0.1 (M U x + m)) + h = U H(x + 0.1 M x) + 0.1
        H m + h: the stages commute with all maps over channels, the dropout of whole channels among them,
        which therefore come first. Only the biases come last, as kernels need not sum to 1.
        """
        with torch.autocast(features.device.type, enabled=False):
            mixed = features.float() + _FIXUP * F.conv2d(self.dropout(features.float()), self.mix.weight)
            bias = F.conv2d(_FIXUP * _as_map(self.mix.bias), head.weight, head.bias)
            return self._upsample(F.conv2d(mixed, head.weight), image.float()) + bias

    def _upsample(self, features: Tensor, image: Tensor) -> Tensor:
        for stage in self.stages:
            features = stage(features, image)
        return features


def save_jbu(jbu: JbuStack, path: Path) -> None:
    """Write the weights and their shape as safetensors."""
    metadata = {"channels": str(jbu.channels), "stages": str(len(jbu.stages))}
    save_file({k: v.detach().cpu().contiguous() for k, v in jbu.state_dict().items()}, path, metadata)


def load_jbu(path: Path) -> JbuStack:
    """Read what `save_jbu` wrote, or a checkpoint of the authors of FeatUp.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is of another kind or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no upsampler at {path}. Make one with scripts/pretrain_jbu.py.")
    if path.suffix != ".safetensors":
        return _load_published(path)
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        jbu = JbuStack(int(facts["channels"]), int(facts["stages"]))
        jbu.load_state_dict(state)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path.name} is not an upsampler, or is damaged ({str(error).splitlines()[0]:.120}). Give a "
            "file that scripts/pretrain_jbu.py wrote."
        ) from error
    return jbu


def _load_published(path: Path) -> JbuStack:
    """Read a checkpoint of FeatUp's authors, such as that for DINO: all stages, and their mixing.

    Source of the names: the public code of FeatUp (MIT).
    """
    from segmed.sam.checkpoints.pickles import load_pickled

    try:
        raw = load_pickled(path)
        state = {}
        for name, tensor in raw.items():
            match = _PUBLISHED.search(name)
            if match and match["stage"]:
                stage = f"stages.{int(match['stage']) - 1}."
                state[stage + _STAGE_NAMES[match["part"]] + (match["rest"] or "")] = tensor.float()
            elif match:
                state["mix" + match["mix"]] = tensor.float()
        stages = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("stages."))
        jbu = JbuStack(state["mix.weight"].shape[0], stages)
        for name, parameter in jbu.named_parameters():
            state[name] = state[name].reshape(parameter.shape)  # scalars may be saved as vectors
        jbu.load_state_dict(state)
    except (pickle.UnpicklingError, OSError, KeyError, ValueError, RuntimeError, AttributeError) as error:
        raise ValueError(
            f"{path.name} is not an upsampler of FeatUp, is damaged, or holds code beside the weights "
            f"({str(error).splitlines()[0]:.120}). Give a file like "
            "dino16_jbu_stack_cocostuff.ckpt that holds weights only, or one of scripts/pretrain_jbu.py."
        ) from error
    return jbu


def _as_map(vector: Tensor | None) -> Tensor:
    assert vector is not None
    return vector[None, :, None, None]
