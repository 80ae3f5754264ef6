"""The settings in `--conf KEY VALUE`, checked once at the start."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from segmed.imaging.intensity import WINDOWS
from segmed.methods import METHODS, find_method
from segmed.methods.base.backbone import BackboneConfig, missing_weights
from segmed.sam.sources import EMBEDDED
from segmed.server.config.dicomweb_settings import DicomwebSettings
from segmed.server.config.learning_settings import LearningSettings

_MIB = 2**20


@dataclass(frozen=True)
class ServerSettings:
    """Settings of the app, see `KEYS` for their names in `--conf`.

    Attributes:
        models: Methods to offer; those that need training are offered once they are trained.
        backbones: Base weights by method.
        labels: Names of structures that the viewers offer.
        structures: Values by name of the structures to train on; empty for those found in the studies.
        patient: Regular expression whose first group is the patient in the id of an image; None makes each
            image a patient.
        window: Intensity window for requests that name none.
        picture_bytes: Memory for windowed volumes in bytes.
        embedding_bytes: Memory for slice embeddings in bytes.
        max_voxels: Largest number of voxels of an image; None for the default limit.
        batch: Number of slices encoded together, on GPUs and by small models.
        time_limit: Longest time in seconds of a request of the page or of OHIF; 0 for no limit.
        untrained: Whether methods that need training are offered without it, for demonstrations.
        loose_parts: Whether parts that are not connected with the object are kept in volumes.
        registry: Folder of trained models; None for that of the app.
        denoiser: Weights of a DnCNN that users may choose.
        codes: Codes of structures by name, in addition to the known ones.
        learning: Settings of active learning and continual retraining.
        dicomweb: Settings of DICOM studies.
    """

    models: tuple[str, ...]
    backbones: Mapping[str, BackboneConfig]
    labels: tuple[str, ...] = ("object",)
    structures: Mapping[str, int] = field(default_factory=dict)
    patient: re.Pattern[str] | None = None
    window: str = "auto"
    picture_bytes: int = 1024 * _MIB
    embedding_bytes: int = 1024 * _MIB
    max_voxels: int | None = None
    batch: int = 4
    time_limit: int = 3600
    untrained: bool = False
    loose_parts: bool = False
    registry: Path | None = None
    denoiser: Path | None = None
    codes: Path | None = None
    learning: LearningSettings = field(default_factory=LearningSettings)
    dicomweb: DicomwebSettings = field(default_factory=DicomwebSettings)

    KEYS: ClassVar[Mapping[str, str]] = {
        "models": f"comma-separated methods out of {', '.join(METHODS)}",
        "backbone": "SAM weights: name of `segmed weights list`, folder, original-format .pth file, Hugging "
        "Face id, or segmed-tiny",
        "backbone_<method>": "weights of one method, such as backbone_medsam; of SAM2 for backbone_sam2",
        "image_size": "input size of the model in px, if not that of its weights",
        "precision": "of the image encoder: auto, bf16 or fp32",
        "runtime": "of the networks on CPUs: torch, or openvino (an extra), which compiles them once",
        "labels": "structures: comma-separated names, or a JSON file of names and values",
        "patient": "regular expression whose first group is the patient in a file name, such as ^([^_]+)_, "
        "so that no patient is both trained and validated on; DICOM states it itself",
        "window": f"intensity window: {', '.join(WINDOWS)}",
        "picture_cache_mb": "memory for opened volumes, in MiB",
        "embedding_cache_mb": "memory for encoded slices, in MiB",
        "max_voxels": "largest size of an image by its header; 2^29, less on machines with little memory",
        "batch": "slices encoded together, on GPUs and by small models",
        "time_limit": "seconds after which a request of the web page or of OHIF is stopped and keeps what it "
        "has found; 3600",
        "registry": "folder of trained models, if not model/trained of the app",
        "denoiser": "weights of a denoiser that `segmed denoiser` made, offered as the option denoise",
        "codes": "JSON file of DICOM codes by name, see `segmed export --help`, for DICOM SEG and RTSTRUCT",
        "untrained": "true offers methods before the training that they need, for demonstrations",
        "loose_parts": "true keeps parts of slices that are not connected with the object in volumes",
        **LearningSettings.KEYS,
        **DicomwebSettings.KEYS,
    }

    @classmethod
    def from_conf(cls, conf: Mapping[str, str]) -> ServerSettings:
        """Read and check `--conf` values.

        Raises:
            ValueError: A key, method, window or precision is unknown, or a number is invalid.
            FileNotFoundError: Weights are missing.
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
            runtime = conf.get("runtime", "torch")
            if not METHODS[method].needs_backbone:
                return BackboneConfig(runtime=runtime)
            own = METHODS[method].weights
            default = EMBEDDED if not METHODS[method].ready else ""
            shared = "" if METHODS[method].own_format else conf.get("backbone", default)
            source = conf.get(f"backbone_{method}", own or shared)
            return BackboneConfig(
                source,
                _positive("image_size", size) if size and source != own else None,
                precision,
                runtime,
            )

        backbones = {name: backbone(name) for name in METHODS}
        ready = [n for n, m in METHODS.items() if not m.needs_backbone or backbones[n].source]
        models = _names(conf["models"]) if conf.get("models") else tuple(ready)
        for name in models:
            if find_method(name).needs_backbone and not backbones[name].source:
                raise ValueError(missing_weights(METHODS[name]))
        structures = _structures(conf.get("labels", ""))
        registry = conf.get("registry", "")
        return cls(
            models=models,
            backbones=backbones,
            labels=tuple(structures) or cls.labels,
            structures=structures,
            patient=_expression(conf["patient"]) if conf.get("patient") else None,
            window=window,
            picture_bytes=_positive("picture_cache_mb", conf.get("picture_cache_mb", "1024")) * _MIB,
            embedding_bytes=_positive("embedding_cache_mb", conf.get("embedding_cache_mb", "1024")) * _MIB,
            max_voxels=_positive("max_voxels", conf["max_voxels"]) if conf.get("max_voxels") else None,
            batch=_positive("batch", conf.get("batch", "4")),
            time_limit=_positive("time_limit", conf.get("time_limit", "3600")),
            untrained=_switch("untrained", conf),
            loose_parts=_switch("loose_parts", conf),
            registry=Path(registry).expanduser() if registry else None,
            denoiser=_file("denoiser", conf["denoiser"]) if conf.get("denoiser") else None,
            codes=_file("codes", conf["codes"]) if conf.get("codes") else None,
            learning=LearningSettings.from_conf(conf, models),
            dicomweb=DicomwebSettings.from_conf(conf),
        )


def _structures(text: str) -> dict[str, int]:
    """Values by name, from names separated by commas or from a JSON file."""
    if not text.endswith(".json"):
        return {name: value for value, name in enumerate(_names(text), 1)}
    path = Path(text).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"--conf labels {text!r} does not exist. Give a JSON file, or names separated by commas."
        )
    try:
        structures = {
            str(name): int(value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f'--conf labels {text!r} must hold names and values such as {{"liver": 1}}: {error}'
        ) from error
    if (
        not structures
        or len(set(structures.values())) < len(structures)
        or not all(1 <= v <= 255 for v in structures.values())
    ):
        raise ValueError(
            f"--conf labels {text!r} must hold different values from 1 to 255, one for each name."
        )
    return dict(sorted(structures.items(), key=lambda item: item[1]))


def _expression(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ValueError(
            f"--conf patient {text!r} is not a regular expression: {error}. Give one such as ^([^_]+)_"
        ) from error
    if not pattern.groups:
        raise ValueError(
            f"--conf patient {text!r} has no group. Put brackets around the patient, such as ^([^_]+)_"
        )
    return pattern


def _file(key: str, text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"--conf {key} {text!r} does not exist. Give the path of a file.")
    return path


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _switch(key: str, conf: Mapping[str, str]) -> bool:
    """The value of a switch, False if not given. Raises ValueError if it is neither true nor false."""
    value = conf.get(key, "false")
    if value not in ("true", "false"):
        raise ValueError(f"--conf {key} {value!r} must be true or false.")
    return value == "true"


def _positive(key: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"--conf {key} {text!r} must be a whole number above 0.")
    return int(text)
