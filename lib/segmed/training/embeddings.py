"""A disk cache of embeddings, so that a frozen encoder runs only once per slice.

They are stored in half precision in one file of slots, each with a checksum. The file is not mapped into
memory, so that a full disk raises an error that can be caught, and its pages do not count as memory of the
process.
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

from segmed.methods.base.segmenter import Segmenter
from segmed.sam.embedding import Embedding

logger = logging.getLogger(__name__)
_HEAD = 16  # bytes before the data of a slot; the checksum is in the first eight
_ALIGN = 16  # alignment of tensors in bytes
_LEAST_FREE = 0.5  # share of the free disk space that is not used


class EmbeddingFile:
    """A file with one slot per slice, as far as they fit, shared by the processes of one machine.

    Args:
        path: Path of the file; its content is reused if `facts` and the layout are the same.
        like: Any embedding of one slice, which determines the layout.
        count: Number of slices.
        max_bytes: Largest size of the file; half of the free disk space is a further limit.
        facts: Description of what the embeddings depend on, such as the data and the encoder's weights.
        prepare: Whether this process may replace the file; exactly one per machine does.
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
        present = path.stat().st_size if path.is_file() else 0
        bound = min(max_bytes, present + int(_LEAST_FREE * shutil.disk_usage(path.parent).free))
        self.slots = min(count, bound // self.slot)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        self._file = os.fdopen(handle, "r+b", buffering=0)
        self._close = weakref.finalize(self, self._file.close)

    def get(self, n: int) -> Embedding | None:
        """The embedding of slice n in half precision, or None if it is missing or damaged."""
        if n >= self.slots:
            return None
        raw = torch.empty(self.slot, dtype=torch.uint8)
        view = memoryview(raw.numpy())  # type: ignore[arg-type]
        self._file.seek(n * self.slot)
        if self._file.readinto(view) != self.slot:
            return None
        if int(raw[:8].view(torch.long)) != _sum(view):
            return None
        parts = []
        for start, (dtype, shape) in zip(self._starts, self._shapes, strict=True):
            size = torch.Size(shape).numel() * torch.empty(0, dtype=dtype).element_size()
            parts.append(raw[start : start + size].view(dtype).view(1, *shape))
        return Embedding(parts[0], self.frame, tuple(parts[1:]))

    def put(self, n: int, embedding: Embedding) -> None:
        """Store the embedding of slice n if it fits; a full disk ends the caching, but not the training."""
        if n >= self.slots:
            return
        raw = torch.zeros(self.slot, dtype=torch.uint8)
        for start, tensor in zip(self._starts, (embedding.features, *embedding.extras), strict=True):
            flat = _halved(tensor).cpu().contiguous().view(-1).view(torch.uint8)
            raw[start : start + len(flat)] = flat
        view = memoryview(raw.numpy())  # type: ignore[arg-type]
        raw[:8] = torch.tensor([_sum(view)]).view(torch.uint8)
        try:
            self._file.seek(n * self.slot)
            if self._file.write(view) != self.slot:
                raise OSError("the file was cut off")
        except OSError as error:
            self.slots = min(self.slots, n)
            logger.warning("Embeddings are no longer cached, so training continues more slowly: %s", error)

    def remove(self) -> None:
        """Close and delete the file."""
        self._close()
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".json").unlink(missing_ok=True)


class FrozenEncoder:
    """A method's encoder with a disk cache, which is used if no gradients pass through the encoder.

    Args:
        method: The method, in the mode (training or evaluation) in which it will encode.
        first: Pixels (3, S, S) of slice 0, by which the constructor tests whether the encoder has gradients.
        path: Path of the file of embeddings.
        count: Number of slices.
        max_bytes: Largest size of the file; 0 disables the cache.
        facts: Description of what the embeddings depend on besides the method.
        prepare: Whether this process may replace the file, see `EmbeddingFile`.
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
        if max_bytes == 0 or any(
            p.requires_grad for n, p in method.named_parameters() if ".vision_encoder." in n
        ):
            return
        embedding = self._encode(first[None])
        if any(t.requires_grad for t in (embedding.features, *embedding.extras)):
            return
        self.file = EmbeddingFile(path, embedding, count, max_bytes, facts, prepare)
        kept = self.file.get(0)
        same = kept is None or torch.allclose(_single(kept).features, embedding.features.cpu(), 0.05, 0.01)
        if prepare and not same:  # the weights have changed, but not their version
            self.file.remove()
            self.file = EmbeddingFile(path, embedding, count, max_bytes, facts, prepare)
        self.file.put(0, embedding)

    @property
    def frozen(self) -> bool:
        """Whether embeddings are cached."""
        return self.file is not None

    def kept(self, n: int) -> Embedding | None:
        """The cached embedding of slice n in half precision, or None."""
        return self.file.get(n) if self.file else None

    @torch.no_grad()
    def join(self, numbers: Sequence[int], parts: Sequence[Embedding | Tensor]) -> Embedding:
        """Make a batch in single precision on the method's device; pixels are encoded and cached.

        Args:
            numbers: Numbers of the slices.
            parts: Embeddings from `kept`, or pixels (3, S, S).
        """
        device = next(self.method.parameters()).device
        ready = []
        for n, part in zip(numbers, parts, strict=True):
            if isinstance(part, Tensor):
                # One by one and rounded, so that results depend neither on the batch nor on the cache.
                fresh = self._encode(part[None])
                features, *extras = (_halved(t) for t in (fresh.features, *fresh.extras))
                part = Embedding(features, fresh.frame, tuple(extras))
                if self.file:
                    self.file.put(n, part)
            ready.append(part)
        # Autocast on CPUs cannot concatenate tensors of half precision.
        return Embedding.join([_single(part.to(device)) for part in ready])

    def remove(self) -> None:
        """Delete the cache."""
        if self.file:
            self.file.remove()
            self.file = None

    def _encode(self, pixels: Tensor) -> Embedding:
        self.encoded += len(pixels)
        return self.method.encode(pixels.to(next(self.method.parameters()).device))


def _halved(tensor: Tensor) -> Tensor:
    """Convert single to half precision; other formats, such as 8-bit images, are not converted."""
    return tensor.half() if tensor.dtype == torch.float32 else tensor


def _single(embedding: Embedding) -> Embedding:
    features, *extras = (
        t.float() if t.dtype == torch.float16 else t for t in (embedding.features, *embedding.extras)
    )
    return replace(embedding, features=features, extras=tuple(extras))


def _sum(slot: memoryview) -> int:
    return zlib.crc32(slot[_HEAD:]) + 1  # an empty slot is all zero
