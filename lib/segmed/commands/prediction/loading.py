"""The model of a prediction: checked before the imports that take seconds, then loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segmed.commands.prediction.options import console, say

if TYPE_CHECKING:  # torch is imported late, so that --help answers at once
    from segmed.inference.predictor import Predictor
    from segmed.methods.base.method import Method
    from segmed.registry.predictors import LoadedModel


def check_model(model: str, backbone: str, precision: str) -> Method:
    """The method of a model as the viewers name it; "" stands for the default. Nothing is loaded.

    Raises:
        ValueError: no such model or precision.
        FileNotFoundError: weights are not there.
    """
    from segmed.registry.predictors import find_model

    return find_model(model, backbone, precision)


def default_model(backbone: str) -> str:
    """The model that answers if none is named."""
    return "medsam" if backbone else "segmed"


def load_model(model: str, backbone: str, device: str, precision: str, registry: Path) -> LoadedModel:
    """Load a model with the version that is served, and tell the user what is loaded.

    Raises what `open_model` raises.
    """
    from segmed.registry.predictors import open_model

    with console.status(f"loading {model}"):
        loaded = open_model(model, backbone, device, precision, registry)
    if loaded.warning:
        say(loaded.warning, "yellow")
    return loaded


def load_predictor(
    model: str, backbone: str, device: str, precision: str, registry: Path
) -> tuple[Predictor, bool]:
    """The predictor of `load_model`, and whether it labels without prompts."""
    loaded = load_model(model, backbone, device, precision, registry)
    return loaded.predictor, loaded.automatic
