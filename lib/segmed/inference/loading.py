"""Loading of segmenters for inference, with weights that are read once and shared between methods."""

from __future__ import annotations

import hashlib
import logging
import threading
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open

from segmed.inference.cpu_fallback import no_memory_left
from segmed.methods import find_method
from segmed.methods.base.backbone import BackboneConfig, missing_weights
from segmed.methods.base.config_values import build_config
from segmed.methods.base.method import Method, Training
from segmed.methods.base.segmenter import Segmenter
from segmed.methods.base.trainable import load_trained
from segmed.methods.base.trained_facts import read_facts
from segmed.methods.sam.sharing import share_weights
from segmed.sam.cpu.dtype import encoder_dtype

logger = logging.getLogger(__name__)


class Loader:
    """A thread-safe cache of segmenters, which are built on first use."""

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
        """Get the segmenter of a method on a device.

        Args:
            method: A name in `METHODS`.
            backbone: The base weights.
            device: The device, such as `cpu` or `cuda:0`.
            trained: Folder of trained weights from `save_trained`, for these base weights; None for the
                untrained method.
            labels: Names of the structures, for untrained methods with classes.

        Raises:
            ValueError: If the method is unknown, needs a backbone and has none, or the weights are unusable.
            FileNotFoundError: If weights do not exist.
        """
        chosen = find_method(method)
        if chosen.weights and not backbone.source:
            backbone = replace(backbone, source=chosen.weights)
        if not chosen.needs_backbone:
            runtime = backbone.runtime if chosen.learns else "torch"
            backbone, device = BackboneConfig(runtime=runtime), device if chosen.learns else "cpu"
        elif not backbone.source:
            raise ValueError(missing_weights(chosen))
        with self._lock:
            key = (method, backbone, device, trained, labels)
            if key not in self._segmenters and backbone.runtime != "torch":
                self._segmenters[key] = _on_runtime(method, backbone, device, trained, labels)
            if key not in self._segmenters:
                if trained is None and chosen.build is not None:
                    model, version = (
                        self._model(chosen, backbone, device) if chosen.needs_backbone else (None, "")
                    )
                    segmenter = chosen.build(model, version)
                else:
                    segmenter = self._with_training(chosen, backbone, device, trained, labels)
                self._segmenters[key] = segmenter.to(device).eval()
            return self._segmenters[key]

    def forget(self, trained: Path) -> None:
        """Drop the segmenters with these trained weights from the cache."""
        with self._lock:
            self._segmenters = {
                key: segmenter for key, segmenter in self._segmenters.items() if trained not in key
            }

    def get_or_fallback(
        self,
        method: str,
        backbone: BackboneConfig,
        device: str = "cpu",
        trained: Path | None = None,
        labels: tuple[str, ...] = (),
    ) -> tuple[Segmenter, str]:
        """Get a segmenter as `get` does, or a fallback if its weights are missing or damaged.

        The fallback of trained weights is the untrained method, and that of a method with embedded weights
        `classical`. A method that does not fit into the memory of the GPU runs on the CPU.

        Returns:
            The segmenter, and a warning for the user: "" or the reason for the fallback.
        """
        try:
            return self._get_or_simpler(method, backbone, device, trained, labels)
        except torch.OutOfMemoryError as error:
            if torch.device(device).type == "cpu":
                raise
            logger.warning("%s does not fit into the memory of %s: %s", method, device, error)
            segmenter, warning = self._get_or_simpler(method, backbone, "cpu", trained, labels)
            return segmenter, f"{no_memory_left(device, method)} {warning}".strip()

    def _get_or_simpler(
        self,
        method: str,
        backbone: BackboneConfig,
        device: str,
        trained: Path | None = None,
        labels: tuple[str, ...] = (),
    ) -> tuple[Segmenter, str]:
        chosen = find_method(method)
        if trained is not None and chosen.ready:
            try:
                found = self.get(method, backbone, device, trained)
                return found, found.notice
            except (ValueError, FileNotFoundError) as error:
                logger.warning("%s is served untrained: %s", method, error)
                plain, warning = self._get_or_simpler(method, backbone, device)
                return (
                    plain,
                    f"The weights that were trained here cannot be used, the original ones answer. {error}"
                    + (f" {warning}" if warning else ""),
                )
        try:
            found = self.get(method, backbone, device, trained, labels)
            return found, found.notice
        except (ValueError, FileNotFoundError) as error:
            if not chosen.weights or (backbone.source and backbone.source != chosen.weights):
                raise
            logger.warning("%s falls back to classical: %s", method, error)
            return self.get("classical", BackboneConfig()), (
                f"{method} cannot run, so the simpler method 'classical' answers. {error} Restore the folder "
                "from the project's files."
            )

    def _with_training(
        self,
        method: Method,
        backbone: BackboneConfig,
        device: str,
        trained: Path | None,
        labels: tuple[str, ...],
    ) -> Segmenter:
        """Build a trainable method on shared base weights in float32, then prepare its encoder for inference.

        Methods that need no base weights are built alone.
        """
        training = method.training
        assert isinstance(training, Training)
        base, version = self._base(method, backbone, device) if method.needs_backbone else (None, "")
        name = f"{method.name}-{version}" if version else method.name
        if trained is None:
            has_classes = labels and any(field.name == "labels" for field in fields(training.config))
            config = training.config(labels=labels) if has_classes else training.config()
            with torch.random.fork_rng():  # class heads are initialised at random, but the same each time
                torch.manual_seed(0)
                segmenter = training.kind(base and share_weights(base), config, f"{name}-untrained")
        else:
            config = build_config(training.config, read_facts(trained)["config"])
            replaced, digest = _contents(trained)
            segmenter = training.kind(base and share_weights(base, replaced), config, f"{name}-{digest}")
            load_trained(segmenter, trained, version)
        served: Any = training.for_inference(segmenter.eval())
        if base is not None and not method.own_format:
            from segmed.sam.cpu.precision import prepare_encoder

            served.version += f"-{backbone.precision}"
            served.model.vision_encoder = prepare_encoder(
                served.model.vision_encoder, torch.device(device), backbone.precision
            )
        return cast(Segmenter, served)

    def _base(self, method: Method, backbone: BackboneConfig, device: str) -> tuple[Any, str]:
        key = (method.name if method.own_format else "", backbone, device)
        if key not in self._bases:
            if method.read:
                model, version = method.read(backbone.source, backbone.image_size, torch.float32)
            else:
                model, version = _sam(backbone)
            self._bases[key] = model.requires_grad_(False).to(torch.device(device)), version
        return self._bases[key]

    def _model(self, method: Method, backbone: BackboneConfig, device: str) -> tuple[Any, str]:
        key = (method.name if method.own_format else "", backbone, device)
        if key not in self._models:
            target, model = torch.device(device), None
            if method.read:
                dtype = encoder_dtype(target, backbone.precision)
                other, version = method.read(backbone.source, backbone.image_size, dtype)
                model = other.requires_grad_(False).to(target)
            else:
                from segmed.sam.cpu.precision import prepare_encoder

                model, version = _sam(backbone)
                model = model.requires_grad_(False).to(target)
                model.vision_encoder = prepare_encoder(model.vision_encoder, target, backbone.precision)
            self._models[key] = model, f"{version}-{backbone.precision}"
        return self._models[key]


def _on_runtime(
    method: str, backbone: BackboneConfig, device: str, trained: Path | None, labels: tuple[str, ...]
) -> Segmenter:
    """A segmenter whose networks another runtime computes; PyTorch where that is impossible, with a notice.

    The weights in PyTorch are read by a loader of their own, so that they are freed afterwards.
    """
    plain = replace(backbone, runtime="torch")
    why = "it runs on CPUs only"
    if device == "cpu":
        from segmed.inference.runtimes.compiled import compile_method

        try:
            exact = Loader().get(method, replace(plain, precision="fp32"), device, trained, labels)
            return compile_method(exact, backbone.precision)
        except ValueError as error:
            why = str(error)
    logger.warning("%s runs on PyTorch and not on %s: %s", method, backbone.runtime, why)
    segmenter = Loader().get(method, plain, device, trained, labels)
    if device == "cpu":
        segmenter.notice = f"{method} runs on PyTorch and not on {backbone.runtime}. {why}"
    return segmenter


def _sam(backbone: BackboneConfig) -> tuple[Any, str]:
    """A SAM and the version of its weights; transformers is imported here, as the default method does without
    it."""
    from segmed.sam.weights import load_sam, weights_version

    model = load_sam(backbone.source, backbone.image_size)
    return model, weights_version(model)


def _contents(trained: Path) -> tuple[set[str], str]:
    """Names of the base's parameters that trained weights replace, and a short hash of the weights."""
    path = trained / "weights.safetensors"
    if not path.is_file():
        return set(), ""  # `load_trained` raises the error
    try:
        with safe_open(path, "pt") as file:
            names = {name.removeprefix("model.") for name in file.keys()}  # noqa: SIM118
    except SafetensorError:
        names = set()
    return names, hashlib.sha256(path.read_bytes()).hexdigest()[:12]
