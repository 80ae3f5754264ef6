"""A filter of an image's spectrum with one learned coefficient per frequency.

Source: Shipitsin, Bespalov, Dylov, GAFL: Global Adaptive Filtering Layer for Computer Vision (2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Variant = Literal["spectrum", "spectrum_log", "phase", "general_spectrum"]
Activation = Literal["relu", "sigmoid", "relu6", "softplus", "tanh", "swish", "mish"]

VARIANTS: tuple[Variant, ...] = get_args(Variant)
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "relu6": F.relu6,
    "softplus": F.softplus,
    "tanh": torch.tanh,
    "swish": F.silu,
    "mish": F.mish,
}
# The parameters of each variant, with the value that leaves images unchanged
_NEUTRAL: dict[Variant, dict[str, float]] = {
    "spectrum": {"weight": 1.0},
    "spectrum_log": {"weight": 1.0},
    "phase": {"weight": 0.0},
    "general_spectrum": {"weight1": 1.0, "bias1": 0.0, "weight2": 1.0, "bias2": 0.0},
}
_SHARPNESS = 100.0  # beta of the softplus around biases, whose smallest value is -log(2) / 100


class AdaptiveFilter(nn.Module):
    """A Fourier transform over channels, rows and columns, a learned filter, and the inverse transform.

    With X the spectrum, s = |X| its magnitude and real coefficients W, B of the shape of the half spectrum,
    (C, H, W // 2 + 1):

    - `spectrum`: X' = relu(W) X
    - `spectrum_log`: s' = exp(relu(W) log(1 + s)) - 1, phase kept
    - `phase`: X' = X exp(iW)
    - `general_spectrum`: s' = relu(W2) act(relu(W1) s + b(B1)) + b(B2), phase kept

    An untrained filter leaves images unchanged; that of `general_spectrum` does so with the activation `relu`
    only. A state for another image size is resampled when it is loaded.

    As published, W of `phase` is clamped to [0, 2 pi] and b is a relu; started at 0, neither ever gets a
    gradient. Here phases are free, as they are periodic, and b is a softplus shifted to 0 at 0. Transforms
    are orthonormal, which keeps the exponents of `spectrum_log` small, and magnitudes have a floor of 1e-6,
    which keeps their gradient finite.

    Args:
        variant: One of the four formulas above.
        size: Channels, height and width of the images; each may be odd or even.
        activation: The function act of `general_spectrum`.
        strict_reference: Whether to compute as published, including the gradients that are always zero.
    """

    weight: Tensor
    weight1: Tensor
    bias1: Tensor
    weight2: Tensor
    bias2: Tensor
    activation: Callable[[Tensor], Tensor]

    def __init__(
        self,
        variant: Variant,
        size: tuple[int, int, int],
        activation: Activation = "relu",
        strict_reference: bool = False,
    ) -> None:
        super().__init__()
        self.variant: Variant = variant
        self.size = size
        self.activation = ACTIVATIONS[activation]
        self.strict_reference = strict_reference
        channels, height, width = size
        for name, value in _NEUTRAL[variant].items():
            self.register_parameter(name, nn.Parameter(torch.full((channels, height, width // 2 + 1), value)))
        self.register_load_state_dict_pre_hook(_resample_state)

    def forward(self, images: Tensor) -> Tensor:
        """Filter images, (B, C, H, W) of any floating point format -> (B, C, H, W) float32.

        Raises:
            ValueError: If the images have another size than the filter.
        """
        if tuple(images.shape[1:]) != self.size:
            raise ValueError(
                f"The filter was made for images of {self.size} (channels, rows, columns), not "
                f"{tuple(images.shape[1:])}. Resample the image, or the filter with `resample_coefficients`."
            )
        norm = "backward" if self.strict_reference else "ortho"
        # CPUs have no Fourier transform of half-precision numbers.
        with torch.autocast(images.device.type, enabled=False):
            spectrum = torch.fft.rfftn(images.float(), dim=(1, 2, 3), norm=norm)
            return torch.fft.irfftn(self._filtered(spectrum), s=self.size, dim=(1, 2, 3), norm=norm)

    def _filtered(self, spectrum: Tensor) -> Tensor:
        """Apply the formula of the variant to the complex half spectrum, (B, C, H, W // 2 + 1)."""
        if self.variant == "spectrum":
            return F.relu(self.weight) * spectrum
        if self.variant == "phase":
            angle = self.weight.clamp(0, 2 * math.pi) if self.strict_reference else self.weight
            return spectrum * torch.polar(torch.ones_like(angle), angle)
        if self.strict_reference:
            magnitude = spectrum.abs()
        else:
            magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt()
        if self.variant == "spectrum_log":
            changed = torch.expm1(F.relu(self.weight) * torch.log1p(magnitude))
        else:
            inner = self.activation(F.relu(self.weight1) * magnitude + self._bias(self.bias1))
            changed = F.relu(self.weight2) * inner + self._bias(self.bias2)
        return spectrum * (changed / (magnitude + 1e-16))  # a spectrum of 0 stays 0

    def _bias(self, bias: Tensor) -> Tensor:
        if self.strict_reference:
            return F.relu(bias)
        return F.softplus(bias, beta=_SHARPNESS) - F.softplus(bias.new_zeros(()), beta=_SHARPNESS)


def resample_coefficients(coefficients: Tensor, height: int, width: int, neutral: float) -> Tensor:
    """Coefficients for images of another size that have the same effect on the same content.

    A frequency, counted in periods per image, keeps its coefficient; frequencies beyond the range of the old
    size pass unchanged.

    Args:
        coefficients: Coefficients (C, h, w // 2 + 1) of the old image size.
        height: Rows of the new images.
        width: Columns of the new images.
        neutral: The value that leaves a frequency unchanged, see `AdaptiveFilter`.

    Returns:
        Coefficients (C, height, width // 2 + 1) of the new image size.
    """
    # Row r of a spectrum of n rows holds frequency r for r < n / 2 and r - n above, so a negative frequency f
    # is found at row f mod n; columns hold frequencies from 0 up only.
    rows, columns = coefficients.shape[1:]
    frequency = torch.fft.fftfreq(height, 1 / height, device=coefficients.device).round().long()
    shared = frequency.abs() <= rows // 2
    out = coefficients.new_full((coefficients.shape[0], height, width // 2 + 1), neutral)
    kept = min(columns, out.shape[2])
    out[:, shared, :kept] = coefficients[:, frequency[shared] % rows, :kept]
    return out


def _resample_state(module: AdaptiveFilter, state: dict[str, Any], prefix: str, *_: object) -> None:
    for name, neutral in _NEUTRAL[module.variant].items():
        given, (channels, height, width) = state.get(prefix + name), module.size
        if given is not None and given.dim() == 3 and given.shape[0] == channels:
            state[prefix + name] = resample_coefficients(given, height, width, neutral)
