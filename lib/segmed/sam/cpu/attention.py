"""Vision attention of the SAM image encoder that never builds the full relative position bias.

The stock layer adds a decomposed bias ``rel_h[..., k_h] + rel_w[..., k_w]`` to the attention logits and
materialises it for all query-key pairs, which for a 64 x 64 token map is hundreds of megabytes per layer.
Here the queries are taken in chunks whose logits stay in the processor's caches.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.sam.modeling_sam import SamVisionAttention, SamVisionSdpaAttention

# Sizes of one chunk per thread. Larger chunks spill out of the caches, and their buffers go back to the
# system and have to be mapped again in every layer; smaller ones spend their time on calls.
_TOKENS_PER_THREAD = 512
_LOGITS_PER_THREAD = 1024 * 1024


class FastVisionAttention(SamVisionSdpaAttention):
    """Drop-in replacement for the forward pass of ``SamVisionSdpaAttention`` on CPUs.

    It has the same parameters, state-dict keys, arguments and results. Calls that need gradients, run on
    another device, or are being traced or compiled go to the stock implementation.
    """

    def forward(  # type: ignore[override]
        self, hidden_states: torch.Tensor, output_attentions: bool = False
    ) -> tuple[torch.Tensor, None]:
        """Attend within each map of tokens.

        Args:
            hidden_states: Token maps, (B, H, W, C); for windowed layers B counts the windows.
            output_attentions: Accepted for compatibility; the attention weights are never returned.

        Returns:
            The attended tokens, (B, H, W, C), and None.
        """
        if not self._runs_fast(hidden_states) or output_attentions:
            stock, _ = super().forward(hidden_states, output_attentions=output_attentions)
            return stock, None
        batch, height, width, _ = hidden_states.shape
        step = max(1, torch.get_num_threads() * _TOKENS_PER_THREAD // (height * width))
        if batch <= step:
            return self._attend(hidden_states), None
        return torch.cat([self._attend(part) for part in hidden_states.split(step)]), None

    def _attend(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Project, attend and project back, (B, H, W, C) -> (B, H, W, C)."""
        # Per head: softmax(scale * q k^T + rel_h + rel_w) v, where rel_h and rel_w depend on the query and on
        # the row or the column of the key only.
        batch, height, width, _ = hidden_states.shape
        heads = self.num_attention_heads
        qkv = self.qkv(hidden_states).reshape(batch, height * width, 3, heads, -1)
        with torch.autocast("cpu", enabled=False):
            # (3, B * heads, N, D): one batch dimension, so that every product below is a single bmm.
            qkv = qkv.permute(2, 0, 3, 1, 4).reshape(3, batch * heads, height * width, -1)
            query, key, value = qkv.unbind(0)
            rel = self._relative_logits(query, height, width) if self.use_rel_pos else None
            if query.dtype is torch.bfloat16:
                attended = _attend_bf16(query * self.scale, _centred(key), value, rel)
            else:
                attended = _attend_sdpa(query, key, value, rel, self.scale)
            attended = attended.view(batch, heads, height, width, -1).permute(0, 2, 3, 1, 4)
            attended = attended.reshape(batch, height, width, -1)
        return self.proj(attended)

    def _runs_fast(self, hidden_states: torch.Tensor) -> bool:
        """Whether the fast path applies; in training mode it is avoided even without gradients.

        Gradient checkpointing runs a layer once without gradients and once more with them, and both runs
        must agree bit for bit.
        """
        if hidden_states.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return False
        if not (torch.is_grad_enabled() or self.training):
            return True
        return not (hidden_states.requires_grad or any(p.requires_grad for p in self.parameters()))

    def _relative_logits(
        self, query: torch.Tensor, height: int, width: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Bias of each query towards each key row and each key column.

        Args:
            query: Unscaled queries, (B * heads, H * W, D).
            height: H, rows of the token map.
            width: W, columns of the token map.

        Returns:
            Two tensors, (B * heads, H * W, H) and (B * heads, H * W, W), each with zero mean over the keys.
        """
        # rel_h[q, k] = q . (R_h[row(q) - k] - mean over k), likewise for columns: each query is multiplied
        # with the embedding of its distance to every key row (h) and every key column (w). Tables: (H, H, D)
        # and (W, W, D).
        maps = query.view(query.shape[0], height, width, -1)
        table_h = _centred(self.get_rel_pos(height, height, self.rel_pos_h)).to(query.dtype)
        table_w = _centred(self.get_rel_pos(width, width, self.rel_pos_w)).to(query.dtype)
        rel_h = torch.einsum("bhwc,hkc->bhwk", maps, table_h)
        rel_w = torch.einsum("bhwc,wkc->bhwk", maps, table_w)
        return rel_h.reshape(query.shape[0], -1, height), rel_w.reshape(query.shape[0], -1, width)


def use_fast_attention(encoder: nn.Module) -> None:
    """Switch every SAM vision attention layer below ``encoder`` to the fast forward pass, in place.

    Only the class of the modules changes: weights, hooks, adapters and state-dict keys stay as they are.
    Calling it again changes nothing.

    Args:
        encoder: A SAM image encoder, or any module that contains one.

    Raises:
        ValueError: If ``encoder`` holds no SAM vision attention layer with the SDPA implementation.
    """
    has_fast_attention = False
    for module in encoder.modules():
        if type(module) is SamVisionSdpaAttention:
            module.__class__ = FastVisionAttention
        has_fast_attention = has_fast_attention or isinstance(module, FastVisionAttention)
    if not has_fast_attention:
        kind = type(encoder).__name__
        eager = any(type(module) is SamVisionAttention for module in encoder.modules())
        why = "uses eager attention" if eager else "holds no SAM vision attention layer"
        raise ValueError(
            f"use_fast_attention got a {kind} that {why}; allowed is a SAM image encoder with SDPA "
            "attention; load the model with attn_implementation='sdpa' and pass its vision encoder."
        )


def _centred(keys: torch.Tensor) -> torch.Tensor:
    """Subtract the mean over the keys, (..., K, D) -> (..., K, D).

    It shifts all logits of a query by one constant, which softmax ignores, and keeps them small, where
    bfloat16 is precise.
    """
    return keys - keys.mean(dim=-2, keepdim=True)


def _attend_bf16(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rel: tuple[torch.Tensor, torch.Tensor] | None,
) -> torch.Tensor:
    """Attention as plain matrix products in chunks, which use the bf16 instructions that SDPA does not.

    Args:
        query: Scaled queries, (B, N, D).
        key: Keys, (B, N, D).
        value: Values, (B, N, D).
        rel: Row and column bias, (B, N, H) and (B, N, W) with H * W = N, or None.

    Returns:
        Attended values, (B, N, D).
    """
    batch, tokens, dim = query.shape
    if rel is not None and rel[0].shape[-1] + rel[1].shape[-1] <= dim:
        # On small maps the bias is cheapest as extra columns of the product: each query carries its bias per
        # key row and column, and each key marks its own row and column with a one.
        positions = _one_hot_positions(rel[0].shape[-1], rel[1].shape[-1], query.dtype)
        query = torch.cat((query, *rel), dim=-1)
        key = torch.cat((key, positions.expand(batch, -1, -1)), dim=-1)
        rel = None
    # Without the copy, the accumulating product would copy the transposed keys again for every chunk.
    key = key.transpose(1, 2) if rel is None else key.transpose(1, 2).contiguous()
    group, rows = _chunk_shape(batch, tokens)
    out = torch.empty_like(value)
    buffer = query.new_empty(group * rows * tokens)
    for first in range(0, batch, group):
        maps = slice(first, min(first + group, batch))
        for start in range(0, tokens, rows):
            part = (maps, slice(start, min(start + rows, tokens)))
            chunk = query[part]
            logits = buffer[: chunk.shape[0] * chunk.shape[1] * tokens].view(*chunk.shape[:2], tokens)
            if rel is None:
                torch.bmm(chunk, key[maps], out=logits)
            else:
                rel_h, rel_w = rel[0][part], rel[1][part]
                grid = logits.view(*chunk.shape[:2], rel_h.shape[-1], rel_w.shape[-1])
                torch.add(rel_h[..., :, None], rel_w[..., None, :], out=grid)
                logits.baddbmm_(chunk, key[maps])
            torch.softmax(logits, dim=-1, out=logits)
            torch.bmm(logits, value[maps], out=out[part])
    return out


def _attend_sdpa(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    rel: tuple[torch.Tensor, torch.Tensor] | None,
    scale: float,
) -> torch.Tensor:
    """Attention with the fused kernel, the bias built for a chunk of the queries at a time in one buffer.

    Args:
        query: Unscaled queries, (B, N, D).
        key: Keys, (B, N, D).
        value: Values, (B, N, D).
        rel: Row and column bias, (B, N, H) and (B, N, W) with H * W = N, or None.
        scale: Factor of the query-key products.

    Returns:
        Attended values, (B, N, D).
    """
    if rel is None:
        return F.scaled_dot_product_attention(query[None], key[None], value[None], scale=scale)[0]
    batch, tokens, _ = query.shape
    group, rows = _chunk_shape(batch, tokens)
    out = torch.empty_like(value)
    buffer = query.new_empty(group * rows * tokens)
    for first in range(0, batch, group):
        maps = slice(first, min(first + group, batch))
        for start in range(0, tokens, rows):
            part = (maps, slice(start, min(start + rows, tokens)))
            rel_h, rel_w = rel[0][part], rel[1][part]
            bias = buffer[: rel_h.shape[0] * rel_h.shape[1] * tokens].view(*rel_h.shape[:2], tokens)
            grid = bias.view(*rel_h.shape, rel_w.shape[-1])
            torch.add(rel_h[..., :, None], rel_w[..., None, :], out=grid)
            out[part] = F.scaled_dot_product_attention(
                query[part][None], key[maps][None], value[maps][None], attn_mask=bias[None], scale=scale
            )[0]
    return out


def _one_hot_positions(height: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    """One-hot row and column of each position of an H x W map, (H * W, H + W)."""
    row = torch.eye(height, dtype=dtype).repeat_interleave(width, dim=0)
    column = torch.eye(width, dtype=dtype).repeat(height, 1)
    return torch.cat((row, column), dim=-1)


def _chunk_shape(batch: int, tokens: int) -> tuple[int, int]:
    """How many maps and how many queries of each to take per chunk.

    Args:
        batch: Maps of tokens (images times heads, or windows times heads).
        tokens: Tokens per map, N.

    Returns:
        Maps per chunk and queries per map, both at least one.
    """
    queries = max(1, torch.get_num_threads() * _LOGITS_PER_THREAD // tokens)
    rows = min(tokens, queries)
    chunks = math.ceil(batch / (queries // rows))
    return math.ceil(batch / chunks), rows
