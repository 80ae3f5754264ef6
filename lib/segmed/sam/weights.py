"""Loading of base weights from a folder, a file, the list of published weights or a Hugging Face id.

Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import SamConfig, SamModel

from segmed.sam.checkpoints.families import is_sam2
from segmed.sam.checkpoints.files import read_state, weights_in
from segmed.sam.checkpoints.keymap import infer_config, is_original, to_transformers
from segmed.sam.digest import state_digest
from segmed.sam.resize import resize_weights, resized_config
from segmed.sam.sources import WHERE, declared_preparation, local_source
from segmed.sam.stem import build_sam

_SHARED = "shared_image_embedding.positional_embedding"
_TIED = "prompt_encoder.shared_embedding.positional_embedding"  # the same matrix; files may hold either name


def load_sam(source: str, image_size: int | None = None) -> SamModel:
    """Load a SAM of any size.

    Args:
        source: A folder (config.json with model.safetensors or pytorch_model.bin), a `.safetensors` or
            original-format `.pth` file, the name of published weights, `segmed-tiny` for the embedded model,
            or a Hugging Face id, which is fetched on first use and then read from its cache.
        image_size: Input size in px, or None for that of the weights.

    Returns:
        The model in eval mode, in float32 on the CPU, with its positional matrix frozen.

    Raises:
        FileNotFoundError: If there are no weights at `source`, or the id cannot be fetched.
        ValueError: If the weights are damaged, are not those of a SAM, or do not fit `image_size`.
    """
    path = Path(local_source(source))
    config, state = _read_folder(path) if path.is_dir() else (None, read_state(path, WHERE))
    if is_sam2(state):
        raise ValueError(
            f"{path.name} is a SAM 2, which the model sam2 uses: --conf backbone_sam2 {source}. {WHERE}"
        )
    try:
        if is_original(state):
            state = to_transformers(state)
        if _TIED in state:
            state.setdefault(_SHARED, state[_TIED])
        config = config or infer_config(state)
        config.preparation = declared_preparation(source) or getattr(config, "preparation", "")
        if image_size is not None and image_size != config.vision_config.image_size:
            config = resized_config(config, image_size)
        state = resize_weights(state, config)
        with torch.device("meta"):
            model = build_sam(config)
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"{path.name} does not hold a SAM: the weight {error} is missing. {WHERE}"
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
    facts: tuple[object, ...] = (
        vision.image_size,
        vision.num_attention_heads,
        vision.window_size,
        tuple(vision.global_attn_indexes),
        decoder.num_attention_heads,
    )
    if prepared := getattr(model.config, "preparation", ""):
        facts = (*facts, prepared)
    return state_digest(repr(facts), model.state_dict())


def _read_folder(folder: Path) -> tuple[SamConfig | None, dict[str, Tensor]]:
    weights = weights_in(folder)
    if weights is None:
        raise FileNotFoundError(
            f"The folder {folder.name} has no model.safetensors or pytorch_model.bin. {WHERE}"
        )
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
                f"The config.json in {folder.name} is not that of a SAM ({error}). {WHERE}"
            ) from error
    return config, read_state(weights, WHERE)


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
    raise ValueError(f"{name} does not hold a SAM that fits its configuration: {', '.join(parts)}. {WHERE}")
