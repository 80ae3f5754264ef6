"""A GPU whose memory is full in the middle of the work: the CPU takes over, and users are told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from segmed.imaging.picture import Picture
from segmed.imaging.prompts import Box, Prompt, SlicePrompt
from segmed.imaging.store import ByteBoundedStore
from segmed.inference.cpu_fallback import CpuFallback
from segmed.inference.device_queue import DeviceQueue
from segmed.inference.predictor import Predictor
from segmed.methods.base.segmenter import Logits, StackPrompt
from segmed.methods.classical import Classical
from segmed.sam.embedding import Embedding
from torch import Tensor


class Full(Classical):
    """As on a GPU that has room for some steps only."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def step(self) -> None:
        self.room -= 1
        if self.room < 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def decode(
        self, embedding: Embedding, prompts: Sequence[Sequence[SlicePrompt]] | None, size: tuple[int, int]
    ) -> Logits:
        self.step()
        return super().decode(embedding, prompts, size)


class Memory(Classical):
    """Finds a square that grows with the slice, by a memory of its own."""

    has_memory = True

    def segment_stack(
        self,
        embedding: Callable[[int], Embedding],
        depth: int,
        prompts: Sequence[StackPrompt],
        size: tuple[int, int],
    ) -> Iterator[tuple[int, int, Tensor]]:
        for k in range(depth):
            self.step()
            logits = torch.full(size, -9.0)
            logits[: k + 1, : k + 1] = 9
            yield 0, k, logits

    def step(self) -> None:
        """There is room."""


class FullMemory(Memory, Full):
    """The same with little room."""

    step = Full.step


@pytest.fixture
def picture() -> Picture:
    voxels = np.random.default_rng(0).integers(0, 255, (24, 20, 6), dtype=np.uint8)
    voxels[8:16, 6:14] //= 4
    return Picture(voxels, np.eye(4), "image", "CT")


BOX = Prompt(box=Box((7, 16), (5, 14), (1, 4)))


def predictor(full: Full, spare: Classical, loads: list[str]) -> Predictor:
    def load() -> tuple[Classical, DeviceQueue]:
        loads.append("cpu")
        return spare, DeviceQueue()

    return Predictor(
        full, ByteBoundedStore(2**20), warning="old", fallback=CpuFallback("sam", "cuda:0", load)
    )


@pytest.mark.parametrize("room", [0, 2])
def test_the_cpu_takes_over_in_the_middle(picture: Picture, room: int) -> None:
    loads: list[str] = []
    ours = predictor(Full(room), Classical(), loads)
    masks = ours.segment_volume(picture, BOX)
    wanted = Predictor(Classical(), ByteBoundedStore(2**20)).segment_volume(picture, BOX)
    assert {k: mask.tolist() for k, mask in masks.items()} == {k: m.tolist() for k, m in wanted.items()}
    assert any(mask.any() for mask in masks.values())
    assert loads == ["cpu"] and not isinstance(ours.segmenter, Full)
    assert ours.warning.startswith("cuda:0 has no memory left for sam, which therefore runs on the CPU")
    assert ours.warning.endswith("old")
    told = ours.warning
    ours.segment_volume(picture, BOX)
    assert loads == ["cpu"] and ours.warning == told


def test_a_memory_begins_again_on_the_cpu(picture: Picture) -> None:
    loads: list[str] = []
    ours = predictor(FullMemory(3), Memory(), loads)
    seen: list[tuple[int, int]] = []
    masks = ours.segment_volume(
        picture,
        Prompt(box=Box((7, 16), (5, 14), (2, 2))),
        lambda done, total, found: seen.append((done, total)),
    )
    assert {k: int(mask.sum()) for k, mask in masks.items()} == {k: (k + 1) ** 2 for k in range(6)}
    assert loads == ["cpu"] and "runs on the CPU" in ours.warning
    assert all(done <= total == 6 for done, total in seen) and seen[-1] == (6, 6)


def test_requests_that_fail_together_load_the_cpu_once(picture: Picture) -> None:
    loads: list[str] = []
    ours = predictor(Full(0), Classical(), loads)
    start = threading.Barrier(4)

    def ask(_: int) -> int:
        start.wait()
        return sum(int(mask.sum()) for mask in ours.segment_slices(picture, BOX).values())

    with ThreadPoolExecutor(4) as users:
        found = set(users.map(ask, range(4)))
    assert len(found) == 1 and found != {0}
    assert loads == ["cpu"]


def test_without_a_fallback_the_error_stays(picture: Picture) -> None:
    alone = Predictor(Full(0), ByteBoundedStore(2**20))
    with pytest.raises(torch.OutOfMemoryError):
        alone.segment_slices(picture, BOX)
    both_full = predictor(Full(0), Full(0), [])
    with pytest.raises(torch.OutOfMemoryError):
        both_full.segment_slices(picture, BOX)
