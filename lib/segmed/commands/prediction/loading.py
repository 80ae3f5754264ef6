"""The model of a prediction: checked before the imports that take seconds, then loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segmed.commands.prediction.options import console, say

if TYPE_CHECKING:  # torch is imported late, so that --help answers at once
    from segmed.inference.predictor import Predictor
    from segmed.methods.base.method import Method


def check_model(model: str, backbone: str, precision: str) -> Method:
    """The method of a model as the viewers name it; "" stands for the default. Nothing is loaded.

    Raises:
        ValueError: no such model or precision.
        FileNotFoundError: weights are not there.
    """
    from segmed.methods import METHODS, find_method
    from segmed.methods.base.backbone import BackboneConfig

    BackboneConfig(backbone, precision=precision)
    offered = {name: method for method in METHODS.values() for name in method.offered_as()}
    return offered.get(model) or find_method(
        model.removesuffix("_3d") or ("medsam" if backbone else "segmed")
    )


def load_predictor(
    model: str, backbone: str, device: str, precision: str, registry: Path
) -> tuple[Predictor, bool]:
    """The predictor of a model as the viewers name them, and whether it labels without prompts.

    Args:
        model: name.
        backbone: SAM weights, "" for those of the method.
        device: such as `cpu`; "" takes the GPU if there is one.
        precision: of the encoder.
        registry: folder of trained models.

    Raises:
        ValueError: no such model or device, or one that has not been trained.
        FileNotFoundError: weights are not there.
    """
    import torch

    from segmed.imaging.store import ByteBoundedStore
    from segmed.inference.loading import Loader
    from segmed.inference.predictor import Predictor
    from segmed.methods.base.backbone import BackboneConfig
    from segmed.registry.versions import Registry
    from segmed.sam.sources import EMBEDDED

    method = check_model(model, backbone, precision)
    if method.detects and model == method.name:
        raise ValueError(f"{model!r} gives boxes and no mask. Take the model 'auto', which outlines them.")
    automatic = method.detects or (method.automatic and model == method.name)
    device = device or ("cuda" if torch.cuda.is_available() and method.needs_backbone else "cpu")
    _check_device(device)
    version = Registry(registry).served(method.name)
    if version is None and not method.ready:
        raise ValueError(
            f"{method.name!r} has not been trained, so there is nothing to predict with. Train it with "
            f"`segmed train --method {method.name} …`, or name the folder of your models by --registry."
        )
    base = BackboneConfig(backbone, precision=precision)
    if not base.source and not method.ready and method.needs_backbone and not method.weights:
        base = BackboneConfig(EMBEDDED, precision=precision)
    with console.status(f"loading {method.name}"):
        trained = version.folder if version else None
        segmenter, warning = Loader().get_or_fallback(method.name, base, device, trained)
    if warning:
        say(warning, "yellow")
    if automatic and not segmenter.labels:
        raise ValueError(f"This version of {model!r} was trained for boxes. Take {model}_prompt.")
    return Predictor(segmenter, ByteBoundedStore(2**30), batch=4 if device != "cpu" else 1), automatic


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where torch comes without CUDA
        raise ValueError(f"There is no device {device!r} here. Use cpu, or leave --device out.") from error
