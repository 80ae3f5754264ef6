"""Everything that requests share: loaded models, caches, and one queue per device."""

from __future__ import annotations

import threading
from dataclasses import replace

import torch
from monailabel.utils.others.generic import device_list, name_to_device

from segmed.imaging.picture import PictureCache
from segmed.imaging.store import ByteBoundedStore
from segmed.methods.loading import Loader, find_method
from segmed.methods.predictor import DeviceQueue, Predictor
from segmed.sam.embedding import Embedding
from segmed.sam.weights import local_source
from segmed.server.settings import ServerSettings

_SMALL_INPUT = 512  # px; above it one slice fills a CPU


class Engine:
    """Hands out predictors; nothing is loaded before its first use.

    Args:
        settings: of the app.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.pictures = PictureCache(settings.picture_bytes)
        self.embeddings: ByteBoundedStore[Embedding] = ByteBoundedStore(settings.embedding_bytes)
        self._loader = Loader()
        self._queues: dict[str, DeviceQueue] = {}
        self._predictors: dict[tuple[str, str], Predictor] = {}
        self._lock = threading.Lock()

    @staticmethod
    def devices() -> list[str]:
        """Names for the viewers' option table, the default first."""
        return list(device_list())

    def predictor(self, method: str, device_name: str | None = None) -> Predictor:
        """The predictor of a method on a device.

        Args:
            method: name of the method.
            device_name: a name out of `devices()`, or such as `cpu` and `cuda:0`; None for the default.

        Raises:
            ValueError: unknown device, or unusable weights.
            FileNotFoundError: weights are not there.
        """
        device = self._device(device_name)
        found = self._predictors.get((method, device))
        return found or self._load(method, device)

    def _load(self, method: str, device: str) -> Predictor:
        backbone = self.settings.backbones[method]
        if backbone.source and not find_method(method).weights:  # a download must keep neither the lock nor the device
            backbone = replace(backbone, source=local_source(backbone.source))
        with self._lock:
            if (method, device) not in self._predictors:
                queue = self._queues.setdefault(device, DeviceQueue())
                segmenter, warning = queue.run(lambda: self._loader.get_or_fallback(method, backbone, device))
                small = (segmenter.input_size or 0) <= _SMALL_INPUT
                batch = self.settings.batch if small or device != "cpu" else 1
                self._predictors[method, device] = Predictor(segmenter, self.embeddings, queue, batch, warning)
            return self._predictors[method, device]

    def _device(self, name: str | None) -> str:
        if name in ("cuda:0", "cuda") and torch.cuda.device_count() == 1:
            return "cuda"
        device = str(name_to_device(name))
        known = {"cpu", "cuda", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))}
        if device not in known or (device.startswith("cuda") and not torch.cuda.is_available()):
            raise ValueError(f"There is no device {name!r}. Choose one of {', '.join(self.devices())}.")
        return device
