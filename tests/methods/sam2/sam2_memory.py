"""A tiny SAM2 with memory on a small stack, and the same by transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Box
from segmed.imaging.store import ByteBoundedStore
from segmed.inference.predictor import Masks, Predictor
from segmed.methods.sam.sam2 import Sam2
from segmed.sam.embedding import Embedding
from segmed.sam.sam2 import Sam2Weights, image_model
from tiny_sam2 import SIDE
from torch import Tensor
from transformers import Sam2VideoInferenceSession, Sam2VideoModel

HEIGHT, WIDTH, DEPTH = 60, 84, 7
BOX = (20.0, 10.0, 60.0, 40.0)
SAID = Box((20, 60), (10, 40), (3, 3))


def method_of(memory: Sam2VideoModel) -> Sam2:
    return Sam2(Sam2Weights(image_model(memory), memory).eval(), "sam2-test").eval()


def predictor_of(memory: Sam2VideoModel, room: int = 2**28) -> Predictor:
    return Predictor(method_of(memory), ByteBoundedStore[Embedding](room))


def pixels_of(method: Sam2, picture: Picture) -> Tensor:
    prepared = torch.stack([method.prepare(picture.slice(k))[0] for k in range(picture.shape[2])])
    return method.preparation.normalise(prepared)


def to_model(xy: Any) -> Tensor:
    return torch.tensor(xy, dtype=torch.float32).view(-1, 2) * torch.tensor([SIDE / WIDTH, SIDE / HEIGHT])


def at_full_size(low: Tensor) -> np.ndarray:
    full = torch.nn.functional.interpolate(low.float(), (HEIGHT, WIDTH), mode="bilinear", align_corners=False)
    return (full[0, 0] > 0).numpy()


def by_transformers(
    memory: Sam2VideoModel, pixels: Tensor, shown: dict[int, tuple[Any, list[int]]], masks: dict[int, Tensor]
) -> Masks:
    """Masks as transformers' own video model gives them, one pass up and one down."""
    session = Sam2VideoInferenceSession(pixels, HEIGHT, WIDTH, dtype=torch.float32)
    session.obj_id_to_idx(1)
    found = {}
    for k in sorted({*shown, *masks}):
        if k in masks:
            session.add_mask_inputs(0, k, masks[k][None, None])
        else:
            points = {"point_coords": to_model(shown[k][0])[None, None]}
            session.add_point_inputs(
                0, k, {**points, "point_labels": torch.tensor(shown[k][1])[None, None].int()}
            )
        session.obj_with_new_inputs = [1]
        found[k] = at_full_size(memory(session, frame_idx=k).pred_masks)
    for reverse in (False, True):
        for out in memory.propagate_in_video_iterator(session, reverse=reverse):
            found[out.frame_idx] = at_full_size(out.pred_masks)
    return found
