"""Files of SAMed as trained weights of the method `lora`.

Source of the names: the public code of SAMed (MIT), Zhang and Liu, Customized Segment Anything Model for
Medical Image Segmentation (2023).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from segmed.methods.lora import LoraSam, LoraSamConfig
from segmed.sam.checkpoints.files import read_named
from segmed.sam.checkpoints.keymap import to_transformers

if TYPE_CHECKING:
    from transformers import SamModel

_WHAT = "Give a file that `save_lora_parameters` of SAMed wrote, such as epoch_159.pth."
_POSITIONS = "shared_image_embedding.positional_embedding"
_TOKENS, _QUALITY = "mask_decoder.mask_tokens.weight", "mask_decoder.iou_prediction_head.proj_out."
_NETWORKS = "mask_decoder.output_hypernetworks_mlps."
# the attentions of a decoder layer with low-rank updates, by the letters that their names begin with
_ATTENTIONS = {"sa": "self_attn", "cti": "cross_attn_token_to_image", "cit": "cross_attn_image_to_token"}
_FINAL = "mask_decoder.transformer.final_attn_token_to_image"
_NUMBERED = re.compile(r"(w|sa|cti|cit)_([ab])_(\d+)")
_LAST = re.compile(r"fati_([qv])([ab])")


def read_samed(path: Path, labels: tuple[str, ...], base: SamModel, version: str = "0") -> LoraSam:
    """Build the method `lora` from a file of SAMed.

    SAMed has one mask token per class, the background first. They become tokens 1 … C, which are decoded
    alone; token 0, which answers prompts, stays that of the base weights.

    Args:
        path: a file with the low-rank updates (`w_a_000`, `w_b_000`, …), the prompt encoder and the mask
            decoder; of SAMed_s, whose decoder has low-rank updates as well, or of SAMed.
        labels: names of the structures, class 1 first.
        base: the SAM that it was trained on, at the same input size; it is not changed.
        version: of the weights.

    Raises:
        ValueError: the file is damaged, is not SAMed's, belongs to other base weights, or does not have that
            many classes.
    """
    state = read_named(path, _WHAT)
    if "w_a_000" not in state:
        raise ValueError(f"{path.name} has no w_a_000 and is not a file of SAMed. {_WHAT}")
    rank = len(state["w_a_000"])
    own = to_transformers({k: v for k, v in state.items() if k.startswith(("prompt_enc", "mask_dec"))})
    if _TOKENS not in own or _POSITIONS not in own:
        raise ValueError(f"{path.name} lacks the prompt encoder or the mask decoder. {_WHAT}")
    classes = len(own[_TOKENS])
    if classes != len(labels) + 1:
        raise ValueError(
            f"{path.name} has {classes - 1} structures beside the background, but {len(labels)} names were "
            "given. Name every structure once, class 1 first."
        )
    positions = base.state_dict()[_POSITIONS]
    if own[_POSITIONS].shape != positions.shape or not torch.allclose(
        own[_POSITIONS].to(positions), positions
    ):
        raise ValueError(
            f"{path.name} belongs to other base weights. Give those that it was trained on; those published "
            "by its authors were trained on sam-vit-base."
        )
    config = LoraSamConfig(labels, rank, "lora" if "fati_qa" in state else "all", prompt_token=False)
    segmenter = LoraSam(base, config, version)
    _load(segmenter, {**_behind_token_0(own, segmenter), **_updates(state)}, path.name)
    return segmenter.eval()


def _updates(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The low-rank updates by the names of peft; their order is layer by layer, queries before values."""
    found = {}
    for name, tensor in state.items():
        if match := _NUMBERED.fullmatch(name):
            layer, projection = divmod(int(match[3]), 2)
            if match[1] == "w":
                place = f"vision_encoder.layers.{layer}.attn.qkv.{'qv'[projection]}"
            else:
                attention = _ATTENTIONS[match[1]]
                place = f"mask_decoder.transformer.layers.{layer}.{attention}.{'qv'[projection]}_proj"
            found[f"{place}.lora_{match[2].upper()}.default.weight"] = tensor
        elif match := _LAST.fullmatch(name):
            found[f"{_FINAL}.{match[1]}_proj.lora_{match[2].upper()}.default.weight"] = tensor
    return found


def _behind_token_0(own: Mapping[str, Tensor], segmenter: LoraSam) -> dict[str, Tensor]:
    """Prompt encoder and mask decoder, with the classes' parts moved behind those of token 0."""
    ours = segmenter.model.state_dict()
    moved = {}
    for name, tensor in own.items():
        if name.endswith("positional_embedding"):
            continue
        if name == _TOKENS or name.startswith(_QUALITY):
            tensor = torch.cat([ours[name][:1], tensor.to(ours[name])])
        elif name.startswith(_NETWORKS):
            number, rest = name.removeprefix(_NETWORKS).split(".", 1)
            name = f"{_NETWORKS}{int(number) + 1}.{rest}"
        moved[name] = tensor
    return moved


def _load(segmenter: LoraSam, weights: Mapping[str, Tensor], file: str) -> None:
    """Put weights into the trained parameters; those that only token 0 has keep their values."""
    own = segmenter.model.state_dict()
    wanted = {name.removeprefix("model.") for name in segmenter.trained_names()}
    optional = {name for name in wanted if name.startswith(f"{_NETWORKS}0.")}
    wrong = sorted((wanted - optional) ^ set(weights)) + [
        f"{name} {tuple(tensor.shape)} for {tuple(own[name].shape)}"
        for name, tensor in weights.items()
        if name in own and tensor.shape != own[name].shape
    ]
    if wrong:
        raise ValueError(
            f"{file} does not fit the base weights ({len(wrong)} weights differ, first: {wrong[0]}). Give "
            "the base weights that it was trained on."
        )
    segmenter.model.load_state_dict(dict(weights), strict=False)
