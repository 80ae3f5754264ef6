"""Base weights from a folder, a file, the list of published weights or a Hugging Face id; nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import SamConfig, SamModel

from segmed.sam.checkpoint import FILE_TYPES, read_state, weights_in
from segmed.sam.families import is_sam2
from segmed.sam.keymap import infer_config, is_original, to_transformers
from segmed.sam.resize import resize_weights, resized_config
from segmed.sam.stem import build_sam
from segmed.weights import hub
from segmed.weights.errors import MissingFileError
from segmed.weights.lookup import is_name, resolve

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
EMBEDDED = "segmed-tiny"  # the name of the small SAM that comes with the app
DEFAULT_MODEL = "segmed-default"  # the name of the default model that comes with the app
EMBEDDED_FOLDERS = {
    name: Path(__file__).resolve().parents[3] / "apps" / "segmed" / "model" / name for name in (EMBEDDED, DEFAULT_MODEL)
}
_SHARED = "shared_image_embedding.positional_embedding"
_TIED = "prompt_encoder.shared_embedding.positional_embedding"  # the same matrix; files may hold either name
_WHERE = (
    "Give a name that `segmed weights list` shows, a folder with config.json and model.safetensors, a .pth file in the "
    "original format such as medsam_vit_b.pth, or a Hugging Face id such as facebook/sam-vit-base."
)


def is_hub_id(source: str) -> bool:
    """Whether `source` names a Hugging Face repository and not a path."""
    if source in EMBEDDED_FOLDERS or Path(source).exists() or Path(source).suffix in FILE_TYPES:
        return False
    return bool(_HUB_ID.match(source))


def check_source(source: str) -> None:
    """Refuse, without reading weights or using a network, what cannot be base weights.

    Raises:
        FileNotFoundError: neither an existing path nor the form of a Hugging Face id, or the name of published weights
            that have not been fetched.
        ValueError: the name of published weights that SegMed cannot load.
    """
    if source in EMBEDDED_FOLDERS:
        return
    if is_name(source):
        resolve(source)
        return
    if not Path(source).expanduser().exists() and not is_hub_id(source):
        raise FileNotFoundError(f"There are no SAM weights at {source!r}. {_WHERE}")


def local_source(source: str) -> str:
    """The path of base weights on this machine; a Hugging Face id is fetched if it is not there yet.

    Raises:
        FileNotFoundError: nothing there, or the id cannot be fetched.
    """
    check_source(source)
    if source in EMBEDDED_FOLDERS:
        if not EMBEDDED_FOLDERS[source].is_dir():
            raise FileNotFoundError(f"The embedded model is missing: there is no folder apps/segmed/model/{source}.")
        return str(EMBEDDED_FOLDERS[source])
    if is_name(source):
        return str(resolve(source))
    return str(_fetch(source) if is_hub_id(source) else Path(source).expanduser())


def load_sam(source: str, image_size: int | None = None) -> SamModel:
    """Load a SAM of any size.

    Args:
        source: folder (config.json and model.safetensors or pytorch_model.bin), `.safetensors` or original-format
            `.pth` file, name of published weights, `segmed-tiny` for the embedded model, or a Hugging Face id, which is
            fetched on first use and then read from its cache.
        image_size: input size in px if it shall differ from the weights' own.

    Returns:
        The model in eval mode, fp32, on the CPU, its positional matrix frozen.

    Raises:
        FileNotFoundError: nothing there, or the id cannot be fetched.
        ValueError: the weights are damaged, are not those of a SAM, or do not fit `image_size`.
    """
    path = Path(local_source(source))
    config, state = _read_folder(path) if path.is_dir() else (None, read_state(path, _WHERE))
    if is_sam2(state):
        raise ValueError(f"{path.name} is a SAM 2, which the model sam2 uses: --conf backbone_sam2 {source}. {_WHERE}")
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
        raise ValueError(f"{path.name} does not hold a SAM: the weight {error} is missing. {_WHERE}") from error
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
    """A short hash of weights and of what else counts."""
    digest = hashlib.sha256(facts.encode())
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def _fetch(hub_id: str) -> Path:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if folder := hub.cached(hub_id, ("config.json", name)):
            return folder
    try:
        return _fetch_newest(hub_id)
    except OSError as error:
        logger.info("cannot fetch %s: %s", hub_id, error)
        raise FileNotFoundError(
            f"The weights {hub_id!r} cannot be fetched from Hugging Face. {error} On a machine with a network, fetch "
            "them, copy the folder here and start with --conf backbone FOLDER."
        ) from error


def _fetch_newest(hub_id: str) -> Path:
    try:
        return hub.fetch_files(hub_id, ("config.json", "model.safetensors"))
    except MissingFileError:
        return hub.fetch_files(hub_id, ("config.json", "pytorch_model.bin"))


def _read_folder(folder: Path) -> tuple[SamConfig | None, dict[str, Tensor]]:
    weights = weights_in(folder)
    if weights is None:
        raise FileNotFoundError(f"The folder {folder.name} has no model.safetensors or pytorch_model.bin. {_WHERE}")
    config = None
    if (folder / "config.json").is_file():
        try:
            raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if not isinstance(raw, Mapping) or raw.get("model_type") != "sam":
                raise ValueError(f"model_type is {raw.get('model_type') if isinstance(raw, Mapping) else raw!r}")
            config = SamConfig.from_dict(dict(raw))
        except (ValueError, TypeError) as error:
            raise ValueError(f"The config.json in {folder.name} is not that of a SAM ({error}). {_WHERE}") from error
    return config, read_state(weights, _WHERE)


def _check_shapes(name: str, model: SamModel, state: Mapping[str, Tensor]) -> None:
    """Every weight of the model must be there with its shape; what the file holds beyond that is a foreign model."""
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
