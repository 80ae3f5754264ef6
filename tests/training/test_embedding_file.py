"""Embeddings on disk: what was put in comes out, within bounds, and never that of something else."""

from __future__ import annotations

import errno
import io
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from segmed.sam.embedding import Embedding
from segmed.sam.frame import Frame
from segmed.training.embeddings import EmbeddingFile, FrozenEncoder
from small_training import tuned
from torch import nn

LIKE = Embedding(torch.zeros(1, 3, 4, 4), Frame(32, 32, 32), (torch.zeros(1, 5, dtype=torch.uint8),))


def _embedding(seed: int) -> Embedding:
    generator = torch.Generator().manual_seed(seed)
    extra = torch.randint(0, 255, (1, 5), generator=generator, dtype=torch.uint8)
    return Embedding(torch.randn(1, 3, 4, 4, generator=generator), LIKE.frame, (extra,))


def test_what_was_put_in_comes_out(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.bin"
    file = EmbeddingFile(path, LIKE, 4, 10**6)
    for n in (2, 0):
        file.put(n, _embedding(n))
    for reader in (
        file,
        EmbeddingFile(path, LIKE, 4, 10**6),
        EmbeddingFile(path, LIKE, 4, 10**6, prepare=False),
    ):
        for n in (0, 2):
            kept = reader.get(n)
            assert kept is not None
            assert kept.frame == LIKE.frame
            assert torch.equal(kept.features, _embedding(n).features.half())
            assert torch.equal(kept.extras[0], _embedding(n).extras[0])
        assert reader.get(1) is None
        assert reader.get(3) is None
    assert EmbeddingFile(path, LIKE, 4, 10**6, facts="other weights").get(0) is None


def test_damage_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.bin"
    file = EmbeddingFile(path, LIKE, 2, 10**6)
    for n in range(2):
        file.put(n, _embedding(n))
    raw = bytearray(path.read_bytes())
    raw[file.slot + 40] ^= 1
    path.write_bytes(raw[: 2 * file.slot])
    assert file.get(0) is not None
    assert file.get(1) is None
    os.truncate(path, file.slot - 1)
    assert file.get(0) is None


def test_the_file_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = threading.Event()

    class Disk(io.FileIO):
        def write(self, data: Any, /) -> int:
            if full.is_set():
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(os, "fdopen", lambda handle, *_, **__: Disk(handle, "r+"))
    path = tmp_path / "embeddings.bin"
    slot = EmbeddingFile(path, LIKE, 9, 10**6).slot
    file = EmbeddingFile(path, LIKE, 9, 2 * slot + 1)
    for n in range(9):
        file.put(n, _embedding(n))
    assert path.stat().st_size == 2 * slot
    assert [file.get(n) is None for n in range(3)] == [False, False, True]

    full.set()
    file.put(1, _embedding(5))
    assert "No space left" in caplog.text
    assert file.get(0) is not None
    assert file.get(1) is None
    file.put(1, _embedding(5))
    assert len(caplog.records) == 1


def test_other_weights_start_anew(tmp_path: Path) -> None:
    method = tuned().train()
    method.prepare_training()
    images = torch.rand(3, 3, 32, 32)

    def encoder() -> FrozenEncoder:
        return FrozenEncoder(method, images[0], tmp_path / "e.bin", 3, 10**6)

    first = encoder()
    joined = first.join([0, 1, 2], [first.kept(0) or images[0], images[1], images[2]])
    assert first.encoded == 3
    assert torch.allclose(joined.features, method.encode(images).features, atol=1e-3)
    again = encoder()
    assert torch.equal(
        again.join([0, 1, 2], [k for n in range(3) if (k := again.kept(n))]).features, joined.features
    )
    nn.init.normal_(method.model.vision_encoder.neck.conv1.weight)
    changed = encoder()
    assert changed.kept(1) is None
    changed.remove()
    assert list(tmp_path.iterdir()) == []
