"""The number format that a device computes fastest."""

from __future__ import annotations

import torch

from segmed.sam.cpu.number_format import check_precision, cpuinfo_has_bf16


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (AVX512-BF16 or AMX-BF16). Never raises."""
    try:
        # Private in torch, so a later version may lack them.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    except Exception:
        return cpuinfo_has_bf16()


def encoder_dtype(device: torch.device, precision: str = "auto") -> torch.dtype:
    """The number format to run the image encoder in.

    Args:
        device: Where the encoder runs.
        precision: "bf16" or "fp32" to force one; "auto" takes bf16 where the device computes it in hardware.

    Returns:
        ``torch.bfloat16`` or ``torch.float32``.

    Raises:
        ValueError: If ``precision`` is none of ``PRECISIONS``.
    """
    check_precision(precision)
    if precision == "auto":
        device = torch.device(device)
        native = cpu_has_bf16() if device.type == "cpu" else _cuda_has_bf16(device)
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _cuda_has_bf16(device: torch.device) -> bool:
    """Whether ``device`` is a CUDA device that computes bfloat16 in hardware."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return False
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
