"""The predictor of a model under the name that the viewers show, with the served or a given version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is imported late, so that --help answers at once
    from segmed.inference.predictor import Predictor
    from segmed.methods.base.method import Method
    from segmed.registry.model_version import ModelVersion

UNTRAINED = "untrained"


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to predict, and what identifies it.

    Attributes:
        predictor: The predictor.
        automatic: Whether it labels without prompts.
        version: Version in the registry, or "untrained".
        weights: What identifies the weights: SHA-256 of the file of a trained version, otherwise name and
            digest as `Segmenter.version` has them.
        warning: Why another model than the wanted one answers, or "".
    """

    predictor: Predictor
    automatic: bool
    version: str
    weights: str
    warning: str = ""


def find_model(model: str, backbone: str = "", precision: str = "auto") -> Method:
    """The method of a model as the viewers name it; "" stands for the default. Nothing is loaded.

    Raises:
        ValueError: No such model or precision.
        FileNotFoundError: Weights are not there.
    """
    from segmed.methods import METHODS, find_method
    from segmed.methods.base.backbone import BackboneConfig

    BackboneConfig(backbone, precision=precision)
    offered = {name: method for method in METHODS.values() for name in method.offered_as()}
    return offered.get(model) or find_method(
        model.removesuffix("_3d") or ("medsam" if backbone else "segmed")
    )


def find_version(registry: Path, method: Method, version: str = "") -> ModelVersion | None:
    """A version of a model: the served one, or the one that is named.

    Args:
        registry: Folder of trained models.
        method: Its method.
        version: Name of a version, "untrained" for the method itself, "" for the served version.

    Returns:
        The version, or None for the untrained method.

    Raises:
        ValueError: The version is damaged, or nothing has been trained and the method needs it.
        FileNotFoundError: There is no such version.
    """
    from segmed.registry.versions import Registry

    found = None
    if version not in ("", UNTRAINED):
        found = Registry(registry).get(method.name, version)
        if found.damage:
            raise ValueError(
                f"{method.name} {version} cannot be used: {found.damage}. Choose another version."
            )
    elif not version:
        found = Registry(registry).served(method.name)
    if found is None and not method.ready:
        raise ValueError(
            f"{method.name!r} has not been trained, so there is nothing to predict with. Train it with "
            f"`segmed train --method {method.name} …`, or name the folder of your models by --registry."
        )
    return found


def open_model(
    model: str,
    backbone: str,
    device: str,
    precision: str,
    registry: Path,
    version: str = "",
    fallback: bool = True,
    embedding_bytes: int = 2**30,
) -> LoadedModel:
    """Load a model.

    Args:
        model: Name as the viewers show it.
        backbone: SAM weights, "" for those of the method.
        device: Such as `cpu`; "" takes the GPU if there is one.
        precision: Of the encoder.
        registry: Folder of trained models.
        version: As for `find_version`.
        fallback: Whether a simpler model may answer where weights are missing or damaged.
        embedding_bytes: Size of the cache of embeddings.

    Raises:
        ValueError: No such model or device, or one that has not been trained.
        FileNotFoundError: Weights are not there.
    """
    import torch

    from segmed.imaging.store import ByteBoundedStore
    from segmed.inference.cpu_fallback import CpuFallback
    from segmed.inference.device_queue import DeviceQueue
    from segmed.inference.loading import Loader
    from segmed.inference.predictor import Predictor
    from segmed.methods.base.backbone import BackboneConfig
    from segmed.sam.embedding import Embedding
    from segmed.sam.sources import EMBEDDED

    method = find_model(model, backbone, precision)
    if method.detects and model == method.name:
        raise ValueError(f"{model!r} gives boxes and no mask. Take the model 'auto', which outlines them.")
    automatic = method.detects or (method.automatic and model == method.name)
    device = device or ("cuda" if torch.cuda.is_available() and method.needs_backbone else "cpu")
    _check_device(device)
    found = find_version(registry, method, version)
    base = BackboneConfig(backbone, precision=precision)
    if not base.source and not method.ready and method.needs_backbone and not method.weights:
        base = BackboneConfig(EMBEDDED, precision=precision)
    trained, loader, warning = found.folder if found else None, Loader(), ""
    if fallback:
        segmenter, warning = loader.get_or_fallback(method.name, base, device, trained)
    else:
        segmenter = loader.get(method.name, base, device, trained)
    if automatic and not segmenter.labels:
        raise ValueError(f"This version of {model!r} was trained for boxes. Take {model}_prompt.")
    cache = ByteBoundedStore[Embedding](embedding_bytes)
    spare = None
    if fallback and device != "cpu":
        spare = CpuFallback(
            method.name,
            device,
            lambda: (loader.get_or_fallback(method.name, base, "cpu", trained)[0], DeviceQueue()),
        )
    predictor = Predictor(segmenter, cache, batch=4 if device != "cpu" else 1, fallback=spare)
    predictor.origin = name, weights = identify(None if warning else found, segmenter.version)
    return LoadedModel(predictor, automatic, name, weights, warning)


def identify(found: ModelVersion | None, weights: str) -> tuple[str, str]:
    """What identifies a loaded model in the provenance of its masks.

    Args:
        found: Version that it was loaded from, None for the untrained method.
        weights: `Segmenter.version` of the loaded model.

    Returns:
        Name of the version, or "untrained"; and the SHA-256 of its file of weights, or `weights`.
    """
    from segmed.registry.model_version import WEIGHTS

    if found is None:
        return UNTRAINED, weights
    return found.version, found.record.files[WEIGHTS] if found.record else weights


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where torch comes without CUDA
        raise ValueError(f"There is no device {device!r} here. Use cpu, or leave --device out.") from error
