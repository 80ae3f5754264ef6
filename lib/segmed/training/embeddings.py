"""Embeddings of slices kept on disk, so that an encoder that does not train runs once per slice.

They are stored in half precision in one file of slots, each with a checksum. Nothing is mapped into memory: a full disk
is an error that can be caught, and the pages count for nobody's memory.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import weakref
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from segmed.methods.segmenter import Segmenter
from segmed.sam.embedding import Embedding

logger = logging.getLogger(__name__)
_HEAD = 16  # bytes; the checksum is in the first eight
_ALIGN = 16
_LEAST_FREE = 0.5  # share of the free disk that is left to others


class EmbeddingFile:
    """One slot per slice, as far as they fit. Several processes of one machine may use the file at once.

    Args:
        path: of the file; what it holds stays if `facts` and the layout are the same.
        like: any embedding of one slice, for the layout.
        count: slices.
        max_bytes: bound of the file; half of the free disk is another.
        facts: what the embeddings depend on, such as the data and the encoder's weights.
        prepare: whether this process may start the file anew; one per machine does.
    """

    def __init__(
        self, path: Path, like: Embedding, count: int, max_bytes: int, facts: str = "", prepare: bool = True
    ) -> None:
        self.path, self.frame = path, like.frame
        tensors = [_halved(t) for t in (like.features, *like.extras)]
        self._shapes = [(t.dtype, tuple(t.shape[1:])) for t in tensors]
        sizes = [-(-t[0].numel() * t.element_size() // _ALIGN) * _ALIGN for t in tensors]
        self.slot = _HEAD + sum(sizes)
        self._starts = [_HEAD + sum(sizes[:n]) for n in range(len(sizes))]
        layout = json.dumps([facts, count, repr(self._shapes), repr(self.frame)])
        beside = path.with_suffix(".json")
        known = beside.read_text(encoding="utf-8") if beside.is_file() and path.is_file() else ""
        if prepare and known != layout:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            beside.write_text(layout, encoding="utf-8")
        there = path.stat().st_size if path.is_file() else 0
        bound = min(max_bytes, there + int(_LEAST_FREE * shutil.disk_usage(path.parent).free))
        self.slots = min(count, bound // self.slot)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._close = weakref.finalize(self, os.close, self._file)

    def get(self, n: int) -> Embedding | None:
        """The embedding of slice n in half precision, or None if it is not there or damaged."""
        if n >= self.slots:
            return None
        raw = torch.empty(self.slot, dtype=torch.uint8)
        view = memoryview(raw.numpy())  # type: ignore[arg-type]
        if os.preadv(self._file, [view], n * self.slot) != self.slot or int(raw[:8].view(torch.long)) != _sum(view):
            return None
        parts = []
        for start, (dtype, shape) in zip(self._starts, self._shapes, strict=True):
            size = torch.Size(shape).numel() * torch.empty(0, dtype=dtype).element_size()
            parts.append(raw[start : start + size].view(dtype).view(1, *shape))
        return Embedding(parts[0], self.frame, tuple(parts[1:]))

    def put(self, n: int, embedding: Embedding) -> None:
        """Keep that of slice n if it fits; a full disk ends the keeping and not the training."""
        if n >= self.slots:
            return
        raw = torch.zeros(self.slot, dtype=torch.uint8)
        for start, tensor in zip(self._starts, (embedding.features, *embedding.extras), strict=True):
            flat = _halved(tensor).cpu().contiguous().view(-1).view(torch.uint8)
            raw[start : start + len(flat)] = flat
        view = memoryview(raw.numpy())  # type: ignore[arg-type]
        raw[:8] = torch.tensor([_sum(view)]).view(torch.uint8)
        try:
            if os.pwrite(self._file, view, n * self.slot) != self.slot:
                raise OSError("the file was cut off")
        except OSError as error:
            self.slots = min(self.slots, n)
            logger.warning("Embeddings are not kept any more, training goes on more slowly: %s", error)

    def remove(self) -> None:
        """Close and delete the file."""
        self._close()
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".json").unlink(missing_ok=True)


class FrozenEncoder:
    """A method's encoder that runs once per slice as long as its output cannot change.

    Args:
        method: in the mode (training or evaluation) in which it will encode.
        first: pixels (3, S, S) of slice 0, to find out whether gradients pass through the encoder.
        path: of the file of embeddings.
        count: slices.
        max_bytes: bound of the file; 0 keeps nothing.
        facts: what the embeddings depend on beside the method.
        prepare: as in `EmbeddingFile`.
    """

    def __init__(
        self,
        method: Segmenter,
        first: Tensor,
        path: Path,
        count: int,
        max_bytes: int,
        facts: str = "",
        prepare: bool = True,
    ) -> None:
        self.method = method
        self.file: EmbeddingFile | None = None
        self.encoded = 0
        if max_bytes == 0 or any(p.requires_grad for n, p in method.named_parameters() if ".vision_encoder." in n):
            return
        embedding = self._encode(first[None])
        if any(t.requires_grad for t in (embedding.features, *embedding.extras)):
            return
        self.file = EmbeddingFile(path, embedding, count, max_bytes, facts, prepare)
        kept = self.file.get(0)
        same = kept is None or torch.allclose(_single(kept).features, embedding.features.cpu(), 0.05, 0.01)
        if prepare and not same:  # the weights have changed under the same name
            self.file.remove()
            self.file = EmbeddingFile(path, embedding, count, max_bytes, facts, prepare)
        self.file.put(0, embedding)

    @property
    def frozen(self) -> bool:
        return self.file is not None

    def kept(self, n: int) -> Embedding | None:
        """The embedding of slice n in half precision, if it is on disk."""
        return self.file.get(n) if self.file else None

    @torch.no_grad()
    def join(self, numbers: Sequence[int], parts: Sequence[Embedding | Tensor]) -> Embedding:
        """One batch in single precision on the method's device; what comes as pixels is encoded, and kept.

        Args:
            numbers: of the slices.
            parts: what `kept` gave, or pixels (3, S, S).
        """
        device = next(self.method.parameters()).device
        ready = []
        for n, part in zip(numbers, parts, strict=True):
            if isinstance(part, Tensor):
                # one by one and rounded, so that neither its neighbours nor the disk change what is learnt
                fresh = self._encode(part[None])
                features, *extras = (_halved(t) for t in (fresh.features, *fresh.extras))
                part = Embedding(features, fresh.frame, tuple(extras))
                if self.file:
                    self.file.put(n, part)
            ready.append(part)
        # autocast on CPUs joins no half precision
        return Embedding.join([_single(part.to(device)) for part in ready])

    def remove(self) -> None:
        """Delete what is on disk."""
        if self.file:
            self.file.remove()
            self.file = None

    def _encode(self, pixels: Tensor) -> Embedding:
        self.encoded += len(pixels)
        return self.method.encode(pixels.to(next(self.method.parameters()).device))


def _halved(tensor: Tensor) -> Tensor:
    """In half precision; formats other than single, such as 8-bit images, stay."""
    return tensor.half() if tensor.dtype == torch.float32 else tensor


def _single(embedding: Embedding) -> Embedding:
    features, *extras = (t.float() if t.dtype == torch.float16 else t for t in (embedding.features, *embedding.extras))
    return replace(embedding, features=features, extras=tuple(extras))


def _sum(slot: memoryview) -> int:
    return zlib.crc32(slot[_HEAD:]) + 1  # an empty slot is all zero
