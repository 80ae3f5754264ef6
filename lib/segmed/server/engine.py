"""Everything that requests share: loaded models, caches, and one queue per device."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch
from monailabel.utils.others.generic import device_list, name_to_device

from segmed.denoising.dncnn import load_dncnn
from segmed.denoising.pictures import Denoiser, gaussian
from segmed.imaging.picture import Picture, PictureCache
from segmed.imaging.reading import fingerprint
from segmed.imaging.store import ByteBoundedStore
from segmed.imaging.volume import Volume
from segmed.inference.cpu_fallback import CpuFallback
from segmed.inference.device_queue import DeviceQueue
from segmed.inference.loading import Loader
from segmed.inference.predictor import Predictor
from segmed.methods import find_method
from segmed.methods.base.backbone import BackboneConfig
from segmed.methods.base.method import Method
from segmed.methods.base.segmenter import Segmenter
from segmed.methods.base.trained_facts import read_facts
from segmed.registry.model_version import ModelVersion
from segmed.registry.predictors import identify
from segmed.registry.versions import Registry
from segmed.sam.embedding import Embedding
from segmed.sam.sources import local_source
from segmed.server.config.settings import ServerSettings
from segmed.server.decoding import decoder
from segmed.server.free_memory import return_free_memory

_SMALL_INPUT = 512  # px; above it one slice fills a CPU


class Engine:
    """Hands out predictors; nothing is loaded before its first use.

    Args:
        settings: of the app.
        registry: trained models; which version answers is looked up on each request.
    """

    def __init__(self, settings: ServerSettings, registry: Registry) -> None:
        self.settings = settings
        self.registry = registry
        self.pictures = PictureCache(settings.picture_bytes, decoder().picture)
        self.embeddings: ByteBoundedStore[Embedding] = ByteBoundedStore(settings.embedding_bytes)
        self.denoisers: dict[str, Callable[[], Denoiser]] = {"gaussian": gaussian}
        if settings.denoiser:
            self.denoisers["dncnn"] = cache(partial(load_dncnn, settings.denoiser))
        self._loader = Loader()
        self._queues: dict[str, DeviceQueue] = {}
        self._predictors: dict[tuple[str, str], tuple[Path | None, Predictor]] = {}
        self._lock = threading.Lock()

    @staticmethod
    def devices() -> list[str]:
        """Names for the viewers' option table, the default first."""
        return list(device_list())

    def offered(self) -> list[Method]:
        """The methods of the settings that can answer now: those that need training, once they have it."""
        methods = [find_method(name) for name in self.settings.models]
        return [m for m in methods if m.ready or self.settings.untrained or self.registry.served(m.name)]

    def names(self, method: Method) -> list[str]:
        """Its models in the viewers; a version that tells no classes apart has no automatic one."""
        version = self.registry.served(method.name)
        told = read_facts(version.folder)["config"].get("labels") if version else None
        return [name for name in method.offered_as() if name != method.name or told != []]

    def labels(self, method: str) -> tuple[str, ...]:
        """Names of the structures that a method was trained for, else those of the settings."""
        version = self.registry.served(method)
        known = read_facts(version.folder)["config"].get("labels") if version else None
        return tuple(known or self.settings.labels)

    def predictor(self, method: str, device_name: str | None = None) -> Predictor:
        """The predictor of a method on a device, with the version that is served at this moment.

        Args:
            method: name of the method.
            device_name: a name out of `devices()`, or such as `cpu` and `cuda:0`; None for the default.

        Raises:
            ValueError: unknown device, or unusable weights.
            FileNotFoundError: weights are not there.
        """
        device = self.device(device_name)
        version = self.registry.served(method)
        trained = version.folder if version else None
        found = self._predictors.get((method, device))
        return found[1] if found and found[0] == trained else self._load(method, device, version)

    def picture(self, path: str | Path, window: str | None = None) -> Picture:
        """An image in an intensity window, that of the settings if None; read once and cached.

        Raises:
            ValueError: if the image cannot be read, or the window is unknown.
        """
        return self.pictures.get(path, window or self.settings.window)

    def volume(self, path: str | Path) -> Volume:
        """The voxels of an image. Viewers ask for masks next, so the picture is cached on the way and the
        file read once for both.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The image cannot be read.
        """
        key = fingerprint(path) if Path(path).exists() else ""
        volume = decoder().volume(path)
        self.pictures.offer(volume, key, self.settings.window)
        return volume

    def denoised(self, picture: Picture, name: str) -> Picture:
        """The picture as a denoiser leaves it, or as it is for `nothing`. Raises ValueError if there is no
        such one."""
        if name == "nothing":
            return picture
        if name not in self.denoisers:
            raise ValueError(
                f"There is no denoiser {name!r}. Choose one of {', '.join(self.denoisers)}, or start with "
                "--conf denoiser FILE; `segmed denoiser` makes the file."
            )
        return self.denoisers[name]()(picture)

    def warning(self) -> str:
        """What users are told of the models that are loaded, such as that another one had to take over."""
        return " ".join(dict.fromkeys(p.warning for _, p in list(self._predictors.values()) if p.warning))

    def queue(self, device: str) -> DeviceQueue:
        """The turns of a device, such as `cpu` or `cuda:0`."""
        return self._queues.setdefault(device, DeviceQueue())

    def _load(self, method: str, device: str, version: ModelVersion | None) -> Predictor:
        trained = version.folder if version else None
        backbone = self.settings.backbones[method]
        if (
            backbone.source and not find_method(method).weights
        ):  # a download must keep neither the lock nor the device
            backbone = replace(backbone, source=local_source(backbone.source))
        with self._lock:
            before = self._predictors.get((method, device))
            if before is None or before[0] != trained:
                queue, labels = self.queue(device), self.settings.labels
                segmenter, warning = queue.run(
                    lambda: self._loader.get_or_fallback(method, backbone, device, trained, labels)
                )
                small = (segmenter.input_size or 0) <= _SMALL_INPUT
                batch = self.settings.batch if small or device != "cpu" else 1
                on_cpu = partial(self._on_cpu, method, backbone, trained)
                predictor = Predictor(
                    segmenter,
                    self.embeddings,
                    queue,
                    batch,
                    warning,
                    self.settings.loose_parts,
                    CpuFallback(method, device, on_cpu) if device != "cpu" else None,
                )
                predictor.origin = identify(None if warning else version, segmenter.version)
                self._predictors[method, device] = trained, predictor
                if before and before[0]:
                    self._loader.forget(before[0])
                    return_free_memory()
            return self._predictors[method, device][1]

    def _on_cpu(
        self, method: str, backbone: BackboneConfig, trained: Path | None
    ) -> tuple[Segmenter, DeviceQueue]:
        queue = self.queue("cpu")
        load = partial(self._loader.get_or_fallback, method, backbone, "cpu", trained, self.settings.labels)
        return queue.run(load)[0], queue

    def device(self, name: str | None) -> str:
        """The device of a name out of `devices()`. Raises ValueError if there is none."""
        if name in ("cuda:0", "cuda") and torch.cuda.device_count() == 1:
            return "cuda"
        device = str(name_to_device(name))
        known = {"cpu", "cuda", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))}
        if device not in known or (device.startswith("cuda") and not torch.cuda.is_available()):
            raise ValueError(f"There is no device {name!r}. Choose one of {', '.join(self.devices())}.")
        return device
