"""The encoder and the decoder of a SAM as graphs, and a SAM whose parts run elsewhere than in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from segmed.methods.base.graph import Graph, Run

if TYPE_CHECKING:
    from transformers import SamModel

_PADDING = -1.0  # label of the point that SAM adds to clicks without a box
_CORNERS = (2.0, 3.0)  # labels of the first and the last corner of a box


def sam_graphs(model: SamModel) -> tuple[Graph, Graph]:
    """The encoder and the decoder of a SAM.

    The encoder has a batch of one slice. The decoder has P prompts with N points each, which are clicks and
    corners of boxes, and returns the single mask followed by the multi-mask outputs.
    """
    encoder = _Encoder(model)
    side = int(model.prompt_encoder.input_image_size)
    tokens = model.prompt_encoder.image_embedding_size[0]
    width = int(model.prompt_encoder.hidden_size)
    points = torch.tensor([[[0.3, 0.3], [0.7, 0.6], [0.0, 0.0]]]) * side
    free = {0: "prompts"}
    return (
        Graph("encoder", encoder, {"pixel_values": torch.zeros(1, 3, side, side)}, ("image_embeddings",)),
        Graph(
            "decoder",
            _Decoder(model),
            {
                "image_embeddings": torch.zeros(1, width, tokens, tokens),
                "points": points,
                "labels": torch.tensor([[1.0, 0.0, _PADDING]]),
                "mask": torch.zeros(1, 1, 4 * tokens, 4 * tokens),
                "has_mask": torch.zeros(1, 1, 1, 1),
            },
            ("masks", "iou"),
            {
                "image_embeddings": free,
                "points": {0: "prompts", 1: "points"},
                "labels": {0: "prompts", 1: "points"},
                "mask": free,
                "has_mask": free,
                "masks": free,
                "iou": free,
            },
        ),
    )


class _Encoder(nn.Module):
    """Normalised slices (1, 3, S, S) to features (1, C, t, t)."""

    def __init__(self, model: SamModel) -> None:
        super().__init__()
        self.encoder = model.vision_encoder

    def forward(self, pixel_values: Tensor) -> Tensor:
        features: Tensor = self.encoder(pixel_values).last_hidden_state
        return features.float()


class _Decoder(nn.Module):
    """Features and prompts to all masks (P, M, 4t, 4t) and their predicted IoU (P, M)."""

    place: Tensor
    kinds: Tensor
    labels: Tensor

    def __init__(self, model: SamModel) -> None:
        super().__init__()
        self.prompt_encoder, self.mask_decoder = model.prompt_encoder, model.mask_decoder
        prompts = model.prompt_encoder
        kinds = [prompts.not_a_point_embed.weight, *(e.weight for e in prompts.point_embed)]
        self.register_buffer("place", model.get_image_wide_positional_embeddings().detach())
        self.register_buffer("kinds", torch.cat([kind.detach() for kind in kinds]))
        self.register_buffer("labels", torch.arange(_PADDING, len(kinds) - 1))

    def forward(
        self, image_embeddings: Tensor, points: Tensor, labels: Tensor, mask: Tensor, has_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        # A point is the Fourier code of its place, none for padding, plus the learned code of its label.
        prompts, decoder = self.prompt_encoder, self.mask_decoder
        code = prompts.shared_embedding((points[:, None] + 0.5) / prompts.input_image_size)[:, 0]
        kind = (labels[..., None] == self.labels).float()
        sparse = code * (labels >= 0).float()[..., None] + kind @ self.kinds
        none = prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
        dense = has_mask * prompts.mask_embed(mask) + (1 - has_mask) * none
        # The decoder computes the masks of all tokens, but returns one or the others: that of the first token
        # is put together here from its parts, the output of its network and the upscaled features.
        kept: dict[str, Tensor] = {}
        parts = {
            "token": decoder.output_hypernetworks_mlps[0],
            "upscaled": decoder.activation,
            "iou": decoder.iou_prediction_head,
        }
        hooks = [
            part.register_forward_hook(lambda _module, _given, out, name=name: kept.update({name: out}))
            for name, part in parts.items()
        ]
        try:
            others, _ = decoder(
                image_embeddings=image_embeddings,
                image_positional_embeddings=self.place.expand_as(image_embeddings),
                sparse_prompt_embeddings=sparse[:, None],
                dense_prompt_embeddings=dense,
                multimask_output=True,
            )
        finally:
            for hook in hooks:
                hook.remove()
        first = torch.einsum("bpc,bchw->bphw", kept["token"], kept["upscaled"])
        return torch.cat([first, others[:, 0]], 1), kept["iou"][:, 0]


class RunSam(nn.Module):
    """A SAM whose graphs run elsewhere, with the calls that `segmed.sam.decoding` and the methods make.

    Args:
        model: The SAM that the graphs were made of; its weights are not kept.
        runs: What computes `encoder` and `decoder`.
    """

    def __init__(self, model: SamModel, runs: Mapping[str, Run]) -> None:
        super().__init__()
        prompts = model.prompt_encoder
        self.config = model.config
        self.prompt_encoder = SimpleNamespace(
            image_embedding_size=prompts.image_embedding_size, input_image_size=prompts.input_image_size
        )
        self._runs = runs

    def vision_encoder(self, pixels: Tensor) -> Any:
        """Features (B, C, t, t) of normalised slices (B, 3, S, S), as `last_hidden_state`."""
        features = [self._runs["encoder"](image[None])[0] for image in pixels]
        return SimpleNamespace(last_hidden_state=torch.cat(features))

    def forward(
        self,
        image_embeddings: Tensor,
        multimask_output: bool,
        input_points: Tensor | None = None,
        input_labels: Tensor | None = None,
        input_boxes: Tensor | None = None,
        input_masks: Tensor | None = None,
    ) -> Any:
        """Masks (P, 1, M, 4t, 4t) and predicted IoU (P, 1, M) as a SamModel returns them."""
        count, side = len(image_embeddings), 4 * self.prompt_encoder.image_embedding_size[0]
        points, labels = torch.zeros(count, 0, 2), torch.zeros(count, 0)
        if input_points is not None and input_labels is not None:
            points, labels = input_points[:, 0].float(), input_labels[:, 0].float()
        if input_boxes is not None:
            points = torch.cat([points, input_boxes.reshape(count, 2, 2).float()], 1)
            labels = torch.cat([labels, torch.tensor(_CORNERS).expand(count, 2)], 1)
        elif input_points is not None:
            points = torch.cat([points, torch.zeros(count, 1, 2)], 1)
            labels = torch.cat([labels, torch.full((count, 1), _PADDING)], 1)
        mask = torch.zeros(count, 1, side, side) if input_masks is None else input_masks
        has_mask = torch.full((count, 1, 1, 1), 0.0 if input_masks is None else 1.0)
        masks, iou = self._runs["decoder"](image_embeddings, points, labels, mask, has_mask)
        chosen = slice(1, None) if multimask_output else slice(0, 1)
        return SimpleNamespace(pred_masks=masks[:, None, chosen], iou_scores=iou[:, None, chosen])
