"""SAM2: loading of its weights, and its memory for slices that are already encoded.

Source: Ravi et al., SAM 2: Segment Anything in Images and Videos (2024), as transformers has it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import Sam2Config, Sam2Model, Sam2VideoConfig, Sam2VideoInferenceSession, Sam2VideoModel

from segmed.sam.checkpoints.families import is_sam2
from segmed.sam.checkpoints.files import read_state, weights_in
from segmed.sam.checkpoints.sam2_keymap import infer_config, is_original, to_transformers
from segmed.sam.digest import state_digest
from segmed.sam.sources import local_source

_WHERE = (
    "Give --conf backbone_sam2 a name that `segmed weights list` shows, such as sam2.1-hiera-tiny, a folder "
    "with config.json and model.safetensors in the Hugging Face format, a .pt file of the authors of SAM 2 "
    "or MedSAM2, or a Hugging Face id such as facebook/sam2.1-hiera-tiny."
)
_SHARED = (
    "shared_image_embedding",
    "vision_encoder",
    "prompt_encoder",
    "mask_decoder",
    "no_memory_embedding",
)
_MULTIPLE = 32  # px; the windows of the first stage must tile the input


class Sam2Weights(nn.Module):
    """One SAM2 as transformers' image model and, where the weights have a memory, as its video model.

    Args:
        image: The model that encodes and decodes slices.
        memory: The video model with the same modules, or None.
        dtype: Number format of the encoder's matrix products.
    """

    def __init__(
        self, image: Sam2Model, memory: Sam2VideoModel | None, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.image = image
        self.memory = memory
        self.dtype = dtype


def load_sam2(
    source: str, image_size: int | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Sam2Weights, str]:
    """Load a SAM2 of any size.

    Args:
        source: A folder (config.json with model.safetensors or pytorch_model.bin, or one file of the
            authors), a `.pt` file of the authors, the name of published weights, or a Hugging Face id, which
            is fetched on first use and then read from its cache.
        image_size: Input size in px, or None for that of the weights.
        dtype: Number format of the encoder's matrix products.

    Returns:
        The models in eval mode, in float32 on the CPU, and the version of the weights.

    Raises:
        FileNotFoundError: If there are no weights at `source`, or the id cannot be fetched.
        ValueError: If the weights are damaged, are not those of a SAM2, or do not fit `image_size`.
    """
    path = Path(local_source(source))
    config, state = _read(path, image_size)
    kind = Sam2VideoModel if isinstance(config, Sam2VideoConfig) else Sam2Model
    try:
        model, loading_info = kind.from_pretrained(
            None, config=config, state_dict=state, dtype=torch.float32, output_loading_info=True
        )
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise ValueError(
            f"The SAM2 weights in {path.name} do not fit their configuration "
            f"({str(error).strip().splitlines()[0] if str(error).strip() else error!r:.120}). Copy them "
            f"again. {_WHERE}"
        ) from error
    if missing := sorted(loading_info["missing_keys"]):
        raise ValueError(
            f"{path.name} does not hold a SAM2 that fits its configuration: {len(missing)} weights are "
            f"missing (first: {missing[0]}). {_WHERE}"
        )
    version = state_digest(f"{kind.__name__} {config.prompt_encoder_config.image_size}", model.state_dict())
    memory = model if isinstance(model, Sam2VideoModel) else None
    return Sam2Weights(model if memory is None else image_model(memory), memory, dtype).eval(), version


def image_model(memory: Sam2VideoModel) -> Sam2Model:
    """The image model inside a video model; both share their modules."""
    with torch.device("meta"):
        image = Sam2Model(Sam2Config.from_dict(memory.config.to_dict()))
    for name in _SHARED:
        setattr(image, name, getattr(memory, name))
    return image.eval()


class StackSession(Sam2VideoInferenceSession):
    """The memory of SAM2 for one object in a stack of slices.

    Slices are already encoded, so that the model never runs its own encoder, and masks at the size of the
    input, which take megabytes per slice and are used once, are not kept.

    Args:
        depth: Number of slices.
        features: Function that returns the features of slice k as three levels (1, C, h, w), the finest
            first.
        position: Encoding of the positions in the coarsest level, (1, C, h, w).
    """

    def __init__(self, depth: int, features: Callable[[int], tuple[Tensor, ...]], position: Tensor) -> None:
        super().__init__(
            inference_device=position.device, inference_state_device=position.device, dtype=torch.float32
        )
        self.processed_frames = dict.fromkeys(range(depth))  # transformers counts them, but never reads them
        self.cache: Any = _Encoded(features, position)
        self.object = self.obj_id_to_idx(1)

    def show(self, k: int, points: Tensor, labels: Tensor) -> None:
        """Prompt the object on slice k with points.

        Args:
            k: Index of the slice.
            points: Points (N, 2) as x, y in px of the model input.
            labels: Labels (N,): 0 beside the object, 1 on it, 2 and 3 for the first and last corner of a box.
        """
        self.add_point_inputs(
            self.object, k, {"point_coords": points[None, None], "point_labels": labels[None, None].int()}
        )
        self.obj_with_new_inputs = [1]

    def show_mask(self, k: int, mask: Tensor) -> None:
        """Prompt the object on slice k with its mask (S, S) in the model input."""
        self.add_mask_inputs(self.object, k, mask[None, None])
        self.obj_with_new_inputs = [1]

    def forget(self, k: int) -> None:
        """Drop the memory of slice k that was computed without a prompt."""
        self.output_dict_per_obj[self.object]["non_cond_frame_outputs"].pop(k, None)

    def keep(self, k: int) -> None:
        """Remember slice k, which was followed and then corrected, for good as a prompted one."""
        outputs = self.output_dict_per_obj[self.object]
        outputs["cond_frame_outputs"][k] = outputs["non_cond_frame_outputs"].pop(k)

    def store_output(
        self,
        obj_idx: int,
        frame_idx: int,
        output_key: str | None = None,
        output_value: Any = None,
        is_conditioning_frame: bool = True,
    ) -> None:
        """Store an output of the model, except for masks at the size of the input."""
        if output_key != "high_res_masks":
            super().store_output(obj_idx, frame_idx, output_key, output_value, is_conditioning_frame)


class _Encoded:
    """A replacement for transformers' cache of vision features, which are laid out as (h w, 1, C)."""

    def __init__(self, features: Callable[[int], tuple[Tensor, ...]], position: Tensor) -> None:
        self._features = features
        self._position = _flat(position)

    def get_vision_features(self, frame_idx: int) -> dict[str, list[Tensor]]:
        levels = [_flat(level) for level in self._features(frame_idx)]
        return {"vision_feats": levels, "vision_pos_embeds": [self._position]}


def _flat(level: Tensor) -> Tensor:
    return level.flatten(2).permute(2, 0, 1)


def _read(path: Path, image_size: int | None) -> tuple[Sam2Config | Sam2VideoConfig, dict[str, Tensor]]:
    """Configuration and weights under the names of transformers."""
    file = weights_in(path) if path.is_dir() else path
    if file is None:
        raise FileNotFoundError(f"{path.name} is no folder with config.json and model.safetensors. {_WHERE}")
    config = _read_config(path) if path.is_dir() else None
    state = read_state(file, _WHERE)
    if not is_sam2(state):
        raise ValueError(f"{file.name} does not hold a SAM2. {_WHERE}")
    if is_original(state):
        state = to_transformers(state)
    try:
        config = config or infer_config(state)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{file.name} cannot be read as a SAM2: {error}. {_WHERE}") from error
    if image_size is not None:
        if image_size < _MULTIPLE or image_size % _MULTIPLE:
            raise ValueError(
                f"The input size {image_size} px does not suit SAM2: "
                f"it must be a positive multiple of {_MULTIPLE} px."
            )
        _resize(config, image_size)
    return config, state


def _read_config(folder: Path) -> Sam2Config | Sam2VideoConfig:
    kinds = {"sam2": Sam2Config, "sam2_video": Sam2VideoConfig}
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder.name} is no folder with config.json and model.safetensors. {_WHERE}"
        )
    try:
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(raw, dict) or raw.get("model_type") not in kinds:
            raise ValueError(f"model_type is {raw.get('model_type') if isinstance(raw, dict) else raw!r}")
        return kinds[raw["model_type"]].from_dict(raw)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"The config.json in {folder.name} is not that of a SAM2 ({error}). {_WHERE}"
        ) from error


def _resize(config: Sam2Config | Sam2VideoConfig, image_size: int) -> None:
    """Set the input size; no weight depends on it, because positions are interpolated or computed."""
    tokens = image_size // config.prompt_encoder_config.patch_size
    config.prompt_encoder_config.image_size = image_size
    config.vision_config.backbone_config.image_size = [image_size, image_size]
    config.vision_config.backbone_feature_sizes = [[factor * tokens] * 2 for factor in (4, 2, 1)]
    if isinstance(config, Sam2VideoConfig):
        config.image_size = image_size
        config.memory_attention_rope_feat_sizes = [tokens, tokens]
