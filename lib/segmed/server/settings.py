"""What `--conf KEY VALUE` may say, checked once at start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from segmed.imaging.intensity import WINDOWS
from segmed.methods import METHODS
from segmed.methods.loading import BackboneConfig, find_method

_MIB = 2**20


@dataclass(frozen=True)
class ServerSettings:
    """Settings of the app, see `KEYS` for their names in `--conf`.

    Attributes:
        models: methods to offer, each also as `<name>_3d`.
        backbones: base weights per method.
        labels: names of structures that the viewers offer.
        window: intensity window where a request names none.
        picture_bytes: memory for windowed volumes.
        embedding_bytes: memory for slice embeddings.
        batch: slices encoded together, on GPUs and by small models.
    """

    models: tuple[str, ...]
    backbones: Mapping[str, BackboneConfig]
    labels: tuple[str, ...] = ("object",)
    window: str = "auto"
    picture_bytes: int = 1024 * _MIB
    embedding_bytes: int = 1024 * _MIB
    batch: int = 4

    KEYS: ClassVar[Mapping[str, str]] = {
        "models": f"comma-separated methods out of {', '.join(METHODS)}",
        "backbone": "SAM weights: folder, original-format .pth file, Hugging Face id, or segmed-tiny",
        "backbone_<method>": "other weights for one method, such as backbone_medsam",
        "image_size": "input size of the model in px, if not that of its weights",
        "precision": "of the image encoder: auto, bf16 or fp32",
        "labels": "comma-separated names of structures for the viewers",
        "window": f"intensity window: {', '.join(WINDOWS)}",
        "picture_cache_mb": "memory for opened volumes, in MiB",
        "embedding_cache_mb": "memory for encoded slices, in MiB",
        "batch": "slices encoded together, on GPUs and by small models",
    }

    @classmethod
    def from_conf(cls, conf: Mapping[str, str]) -> ServerSettings:
        """Read and check `--conf` values.

        Raises:
            ValueError: unknown key, method, window or precision, or a number that is none.
            FileNotFoundError: weights that are not there.
        """
        per_method = {f"backbone_{name}": name for name in METHODS}
        unknown = sorted(set(conf) - set(cls.KEYS) - set(per_method) - {"server_mode"})
        if unknown:
            raise ValueError(f"Unknown --conf {', '.join(unknown)}. Known are {', '.join(cls.KEYS)}.")
        size, precision = conf.get("image_size"), conf.get("precision", "auto")
        window = conf.get("window", "auto")
        if window not in WINDOWS:
            raise ValueError(f"--conf window {window!r} must be one of {', '.join(WINDOWS)}.")

        def backbone(method: str) -> BackboneConfig:
            own = METHODS[method].weights
            source = conf.get(f"backbone_{method}", own or conf.get("backbone", ""))
            return BackboneConfig(source, _positive("image_size", size) if size and source != own else None, precision)

        backbones = {name: backbone(name) for name in METHODS}
        ready = [n for n, m in METHODS.items() if not m.needs_backbone or backbones[n].source]
        models = _names(conf["models"]) if conf.get("models") else tuple(ready)
        for name in models:
            if find_method(name).needs_backbone and not backbones[name].source:
                raise ValueError(
                    f"The model {name!r} needs SAM weights: add --conf backbone FOLDER, a .pth FILE, or a Hugging Face "
                    "id such as facebook/sam-vit-base."
                )
        return cls(
            models=models,
            backbones=backbones,
            labels=_names(conf["labels"]) if conf.get("labels") else cls.labels,
            window=window,
            picture_bytes=_positive("picture_cache_mb", conf.get("picture_cache_mb", "1024")) * _MIB,
            embedding_bytes=_positive("embedding_cache_mb", conf.get("embedding_cache_mb", "1024")) * _MIB,
            batch=_positive("batch", conf.get("batch", "4")),
        )


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _positive(key: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"--conf {key} {text!r} must be a whole number above 0.")
    return int(text)
