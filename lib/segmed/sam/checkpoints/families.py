"""Which model a state dict belongs to, by the names of its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_NOT_YET = "SegMed cannot load it as a backbone. `segmed weights list` shows what it can load."
# what SegMed cannot load: a name that only this family has, and what to call it
_FOREIGN: tuple[tuple[str, str], ...] = (
    (r"image_encoder\.backbone\.(input_)?stem", "a SAM with the encoder EfficientViT-B"),
    (r"image_encoder\.features\.\d+\.", "a SAM with the encoder RepViT, such as EdgeSAM or RepViT-SAM"),
    (r"mask_decoder\.(hf_token|hf_mlp)\.", "an HQ-SAM"),
    (
        r"w_[ab]_\d+$",
        "a file of SAMed, which holds low-rank updates of a SAM and no encoder. `segmed models import` makes "
        "a version of the method lora of it",
    ),
    (
        r"(.*\.)?(freq_norm|seg_net)\.",
        "a file of I-MedSAM. Its authors give no licence for their code, so that SegMed does not know the "
        "names of its weights; `segmed train --method imedsam` trains the method",
    ),
    (r"(upsampler\.)?up1\.range_(proj|temp)", "an upsampler of FeatUp, which the method featup uses (jbu)"),
    (r"(detector|tracker|detector_model|tracker_model|sam3_model)\.", "a SAM 3"),
)
_HIERA = re.compile(r"image_encoder\.trunk\.")


def is_sam2(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of SAM 2, in the format of its authors or in that of transformers."""
    names = ("image_encoder.trunk.pos_embed_window", "vision_encoder.backbone.pos_embed_window")
    return any(name in state for name in names)


def foreign(state: Mapping[str, Tensor]) -> str:
    """What the state dict is, in a whole sentence, if SegMed knows it but cannot load it; "" otherwise."""
    for pattern, what in _FOREIGN:
        if any(re.match(pattern, name) for name in state):
            return f"This is {what}. {_NOT_YET}"
    if any(_HIERA.match(name) for name in state) and not is_sam2(state):
        return f"This is a SAM 2 with an encoder that is no Hiera, such as EfficientTAM. {_NOT_YET}"
    patches = state.get("image_encoder.patch_embed.proj.weight")
    if patches is not None and patches.ndim == 5:
        return f"This is a SAM for volumes, such as SAM-Med3D. {_NOT_YET}"
    return ""
