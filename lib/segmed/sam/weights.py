"""Loading of base weights from a folder, a file or a Hugging Face id; nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import SamConfig, SamModel

from segmed.sam.keymap import infer_config, is_original, to_transformers
from segmed.sam.resize import resize_weights, resized_config
from segmed.sam.stem import build_sam

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
_FILE_TYPES = (".safetensors", ".pth", ".pt", ".bin")
EMBEDDED = "segmed-tiny"  # the name of the small SAM that comes with the app
DEFAULT_MODEL = "segmed-default"  # the name of the default model that comes with the app
EMBEDDED_FOLDERS = {
    name: Path(__file__).resolve().parents[3] / "apps" / "segmed" / "model" / name
    for name in (EMBEDDED, DEFAULT_MODEL)
}
_SHARED = "shared_image_embedding.positional_embedding"
_TIED = "prompt_encoder.shared_embedding.positional_embedding"  # the same matrix; files may hold either name
_WHERE = (
    "Give a folder with config.json and model.safetensors, a .pth file in the original format such as "
    "medsam_vit_b.pth, or a Hugging Face id such as facebook/sam-vit-base."
)


def is_hub_id(source: str) -> bool:
    """Whether `source` names a Hugging Face repository and not a path."""
    if source in EMBEDDED_FOLDERS or Path(source).exists() or Path(source).suffix in _FILE_TYPES:
        return False
    return bool(_HUB_ID.match(source))


def check_source(source: str) -> None:
    """Refuse a source that cannot be base weights, without reading weights or using a network.

    Raises:
        FileNotFoundError: If `source` is neither an existing path nor has the form of a Hugging Face id.
    """
    if source in EMBEDDED_FOLDERS:
        return
    if not Path(source).expanduser().exists() and not is_hub_id(source):
        raise FileNotFoundError(f"There are no SAM weights at {source!r}. {_WHERE}")


def local_source(source: str) -> str:
    """The path of base weights on this machine; a Hugging Face id is fetched if it is not in the cache yet.

    Raises:
        FileNotFoundError: If there are no weights at `source`, or the id cannot be fetched.
    """
    check_source(source)
    if source in EMBEDDED_FOLDERS:
        if not EMBEDDED_FOLDERS[source].is_dir():
            raise FileNotFoundError(
                f"The embedded model is missing: there is no folder apps/segmed/model/{source}. Install "
                "SegMed again, or give other weights with --conf backbone."
            )
        return str(EMBEDDED_FOLDERS[source])
    return str(_fetch(source) if is_hub_id(source) else Path(source).expanduser())


def load_sam(source: str, image_size: int | None = None) -> SamModel:
    """Load a SAM of any size.

    Args:
        source: A folder with config.json and model.safetensors, a `.safetensors` or original-format `.pth`
            file, `segmed-tiny` for the embedded model, or a Hugging Face id, which is fetched on first use
            and then read from its cache.
        image_size: Input size in px, or None for that of the weights.

    Returns:
        The model in eval mode, in float32 on the CPU, with its positional matrix frozen.

    Raises:
        FileNotFoundError: If there are no weights at `source`, or the id cannot be fetched.
        ValueError: If the weights are damaged, are not those of a SAM, or do not fit `image_size`.
    """
    path = Path(local_source(source))
    config, state = _read_folder(path) if path.is_dir() else (None, _read_file(path))
    if is_original(state):
        state = to_transformers(state)
    if _TIED in state:
        state.setdefault(_SHARED, state[_TIED])
    try:
        config = config or infer_config(state)
        if image_size is not None and image_size != config.vision_config.image_size:
            config = resized_config(config, image_size)
        state = resize_weights(state, config)
        with torch.device("meta"):
            model = build_sam(config)
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"{path.name} does not hold a SAM: the weight {error} is missing. {_WHERE}"
        ) from error
    _check_shapes(path.name, model, state)
    model.load_state_dict(state, strict=False, assign=True)
    model.prompt_encoder.shared_embedding = model.shared_image_embedding
    model.requires_grad_(True)
    model.shared_image_embedding.requires_grad_(False)
    return model.float().eval()  # files may hold half precision


def weights_version(model: SamModel) -> str:
    """A short hash of architecture and weights: the version under which embeddings are cached."""
    vision, decoder = model.config.vision_config, model.config.mask_decoder_config
    facts = (
        vision.image_size,
        vision.num_attention_heads,
        vision.window_size,
        tuple(vision.global_attn_indexes),
        decoder.num_attention_heads,
    )
    return state_digest(repr(facts), model.state_dict())


def state_digest(facts: str, state: Mapping[str, Tensor]) -> str:
    """A short hash of weights, by name and shape, and of further facts about the model."""
    digest = hashlib.sha256(facts.encode())
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def _fetch(hub_id: str) -> Path:
    try:
        return Path(snapshot_download(hub_id, allow_patterns=["config.json", "model.safetensors"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        logger.info("Cannot fetch %s from Hugging Face: %s", hub_id, error)
        raise FileNotFoundError(
            f"The weights {hub_id!r} cannot be fetched from Hugging Face (no network, or no such name). "
            "Fetch them on a machine with a network, copy the folder here and start with --conf backbone "
            "FOLDER."
        ) from error


def _read_folder(folder: Path) -> tuple[SamConfig | None, dict[str, Tensor]]:
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(f"The folder {folder.name} has no model.safetensors. {_WHERE}")
    config = None
    if (folder / "config.json").is_file():
        try:
            raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if not isinstance(raw, Mapping) or raw.get("model_type") != "sam":
                raise ValueError(
                    f"model_type is {raw.get('model_type') if isinstance(raw, Mapping) else raw!r}"
                )
            config = SamConfig.from_dict(dict(raw))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"The config.json in {folder.name} is not that of a SAM ({error}). {_WHERE}"
            ) from error
    return config, _read_file(weights)


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True, mmap=False)
        )
    except (
        SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
    ) as error:
        raise ValueError(
            f"The weights file {path.name} cannot be read: it is cut off, damaged, or holds code instead of "
            f"weights ({str(error).splitlines()[0] if str(error) else type(error).__name__:.120}). "
            f"Copy it again. {_WHERE}"
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("model"), Mapping):
        state = state["model"]  # checkpoints of MedSAM's multi-GPU training
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ValueError(f"{path.name} does not hold named weights. {_WHERE}")
    return dict(state)


def _check_shapes(name: str, model: SamModel, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless the weights are exactly those of the model by name and shape."""
    wanted = {key: tuple(t.shape) for key, t in model.state_dict().items()}
    missing = sorted(key for key in wanted if key not in state and key != _TIED)
    extra = sorted(key for key in state if key not in wanted)
    wrong = sorted(key for key in wanted if key in state and tuple(state[key].shape) != wanted[key])
    if not (missing or extra or wrong):
        return
    parts = [
        f"{len(keys)} {what} (first: {keys[0]})"
        for keys, what in ((missing, "missing"), (extra, "unknown"), (wrong, "of another shape"))
        if keys
    ]
    raise ValueError(f"{name} does not hold a SAM that fits its configuration: {', '.join(parts)}. {_WHERE}")
