"""Segmenters ready to serve: weights read once per backbone and device, shared by the methods that use them."""

from __future__ import annotations

import hashlib
import logging
import threading
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open

from segmed.methods import METHODS
from segmed.methods.class_head import share_weights
from segmed.methods.segmenter import Method, Segmenter, Training
from segmed.methods.trainable import config_from, load_trained, read_facts
from segmed.sam.precision import encoder_dtype, prepare_encoder
from segmed.sam.weights import check_source, load_sam, weights_version
from segmed.weights.lookup import is_name
from segmed.weights.table import find

logger = logging.getLogger(__name__)


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in METHODS:
        raise ValueError(f"There is no method {name!r}. Choose from {', '.join(METHODS)}.")
    return METHODS[name]


def missing_weights(method: Method) -> str:
    """What to tell who wants a method without its base weights."""
    own = method.read is not None
    setting = f"backbone_{method.name}" if own else "backbone"
    example = method.example or "sam-vit-base"
    return (
        f"The model {method.name!r} needs {'weights of its own' if own else 'SAM weights'}. Run `segmed weights get "
        f"{example}` once and add --conf {setting} {example} (for other commands than serve: --backbone {example}). A "
        "folder, a file or a Hugging Face id works too."
    )


@dataclass(frozen=True)
class BackboneConfig:
    """Base weights and how to run them.

    Attributes:
        source: folder, file, name of published weights, Hugging Face id or `segmed-tiny`; "" for the method's own or
            none.
        image_size: input size in px, None for that of the weights.
        precision: `auto`, `bf16` or `fp32`, for the image encoder.
    """

    source: str = ""
    image_size: int | None = None
    precision: str = "auto"

    def __post_init__(self) -> None:
        encoder_dtype(torch.device("cpu"), self.precision)  # refuses unknown ones
        if self.source:
            check_source(self.source)
        if self.image_size is None and is_name(self.source):
            object.__setattr__(self, "image_size", find(self.source).image_size)


class Loader:
    """Builds segmenters on first use, never at start; safe for threads."""

    def __init__(self) -> None:
        self._models: dict[tuple[object, BackboneConfig, str], tuple[Any, str]] = {}
        self._bases: dict[tuple[object, BackboneConfig, str], tuple[Any, str]] = {}
        self._segmenters: dict[tuple[object, ...], Segmenter] = {}
        self._lock = threading.Lock()

    def get(
        self,
        method: str,
        backbone: BackboneConfig,
        device: str = "cpu",
        trained: Path | None = None,
        labels: tuple[str, ...] = (),
    ) -> Segmenter:
        """The segmenter of a method on a device.

        Args:
            method: name in `METHODS`.
            backbone: base weights.
            device: such as `cpu` or `cuda:0`.
            trained: folder that `save_trained` wrote, for these base weights; None for the untrained method.
            labels: names of the structures, for untrained methods that tell classes apart.

        Raises:
            ValueError: unknown method, no backbone for a method that needs one, or unusable weights.
            FileNotFoundError: weights are not there.
        """
        chosen = find_method(method)
        if chosen.weights and not backbone.source:
            backbone = replace(backbone, source=chosen.weights)
        if not chosen.needs_backbone:
            backbone, device = BackboneConfig(), device if chosen.training else "cpu"
        elif not backbone.source:
            raise ValueError(missing_weights(chosen))
        with self._lock:
            key = (method, backbone, device, trained, labels)
            if key not in self._segmenters:
                if trained is None and chosen.build is not None:
                    model, version = self._model(chosen, backbone, device) if chosen.needs_backbone else (None, "")
                    found = chosen.build(model, version)
                else:
                    found = self._with_training(chosen, backbone, device, trained, labels)
                self._segmenters[key] = found.to(device).eval()
            return self._segmenters[key]

    def forget(self, trained: Path) -> None:
        """Let go of the segmenters with these trained weights."""
        with self._lock:
            self._segmenters = {key: kept for key, kept in self._segmenters.items() if trained not in key}

    def get_or_fallback(
        self,
        method: str,
        backbone: BackboneConfig,
        device: str = "cpu",
        trained: Path | None = None,
        labels: tuple[str, ...] = (),
    ) -> tuple[Segmenter, str]:
        """As `get`, but what was trained gives way to the untrained method, and that one to `classical` where the
        embedded weights are missing or damaged.

        Returns:
            The segmenter, and what to tell the user: "" or why another one runs.
        """
        chosen = find_method(method)
        if trained is not None and chosen.build is not None:
            try:
                return self.get(method, backbone, device, trained), ""
            except (ValueError, FileNotFoundError) as error:
                logger.warning("%s is served untrained: %s", method, error)
                plain, warning = self.get_or_fallback(method, backbone, device)
                return (
                    plain,
                    f"The weights that were trained here cannot be used, the original ones answer. {error}"
                    + (f" {warning}" if warning else ""),
                )
        try:
            return self.get(method, backbone, device, trained, labels), ""
        except (ValueError, FileNotFoundError) as error:
            if not chosen.weights or (backbone.source and backbone.source != chosen.weights):
                raise
            logger.warning("%s falls back to classical: %s", method, error)
            return self.get("classical", BackboneConfig()), (
                f"{method} cannot run, so the simpler method 'classical' answers. {error} Restore the folder from the "
                "project's files."
            )

    def _with_training(
        self, method: Method, backbone: BackboneConfig, device: str, trained: Path | None, labels: tuple[str, ...]
    ) -> Segmenter:
        """What trains is put on base weights in float32, which all of these share; then the encoder is prepared.

        Methods that need no base weights are all their own.
        """
        training = method.training
        assert isinstance(training, Training)
        base, version = self._base(method, backbone, device) if method.needs_backbone else (None, "")
        name = f"{method.name}-{version}" if version else method.name
        if trained is None:
            tells_apart = labels and any(field.name == "labels" for field in fields(training.config))
            config = training.config(labels=labels) if tells_apart else training.config()
            with torch.random.fork_rng():  # heads of classes are drawn; the same ones each time
                torch.manual_seed(0)
                segmenter = training.kind(base and share_weights(base), config, f"{name}-untrained")
        else:
            config = config_from(training.config, read_facts(trained)["config"])
            own, digest = _contents(trained)
            segmenter = training.kind(base and share_weights(base, own), config, f"{name}-{digest}")
            load_trained(segmenter, trained, version)
        served: Any = training.finish(segmenter.eval())
        if base is not None and not method.read:
            served.version += f"-{backbone.precision}"
            served.model.vision_encoder = prepare_encoder(
                served.model.vision_encoder, torch.device(device), backbone.precision
            )
        return cast(Segmenter, served)

    def _base(self, method: Method, backbone: BackboneConfig, device: str) -> tuple[Any, str]:
        key = (method.read, backbone, device)
        if key not in self._bases:
            if method.read:
                model, version = method.read(backbone.source, backbone.image_size, torch.float32)
            else:
                model = load_sam(backbone.source, backbone.image_size)
                version = weights_version(model)
            self._bases[key] = model.requires_grad_(False).to(torch.device(device)), version
        return self._bases[key]

    def _model(self, method: Method, backbone: BackboneConfig, device: str) -> tuple[Any, str]:
        key = (method.read, backbone, device)
        if key not in self._models:
            target, model = torch.device(device), None
            if method.read:
                dtype = encoder_dtype(target, backbone.precision)
                other, version = method.read(backbone.source, backbone.image_size, dtype)
                model = other.requires_grad_(False).to(target)
            else:
                model = load_sam(backbone.source, backbone.image_size)
                version = weights_version(model)
                model = model.requires_grad_(False).to(target)
                model.vision_encoder = prepare_encoder(model.vision_encoder, target, backbone.precision)
            self._models[key] = model, f"{version}-{backbone.precision}"
        return self._models[key]


def _contents(trained: Path) -> tuple[set[str], str]:
    """Names of the base's parameters that trained weights replace, and a short hash of the weights."""
    path = trained / "weights.safetensors"
    if not path.is_file():
        return set(), ""  # `load_trained` says what is wrong
    try:
        with safe_open(path, "pt") as file:
            names = {name.removeprefix("model.") for name in file.keys()}  # noqa: SIM118
    except SafetensorError:
        names = set()
    return names, hashlib.sha256(path.read_bytes()).hexdigest()[:12]
