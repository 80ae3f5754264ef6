"""Processes that train one model together, as torchrun starts them: who takes which part, and how they agree."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: its number; 0 writes.
        world: how many there are.
        node_rank: its number on its machine.
    """

    rank: int = 0
    world: int = 1
    node_rank: int = 0

    @classmethod
    def current(cls) -> Processes:
        """Those of the process group, or this one alone where there is none."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", dist.get_rank())))

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """What of a list this process takes; sizes differ by one at most."""
        return list(items[self.rank :: self.world])

    def average(self, module: nn.Module) -> nn.Module:
        """The module with gradients that are means over the processes. What a step does not use has none."""
        return DistributedDataParallel(module, find_unused_parameters=True) if self.world > 1 else module

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def gather(self, items: Sequence[T]) -> list[T]:
        """The items of all processes, in all of them."""
        if self.world == 1:
            return list(items)
        parts: list[Any] = [None] * self.world
        dist.all_gather_object(parts, list(items))
        return [item for part in parts for item in part]

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` gives in the first process. Raises there what it raises, and ValueError in the others."""
        if self.world == 1:
            return make()
        box: list[Any] = [None, ""]
        error: Exception | None = None
        if self.first:
            try:
                box[0] = make()
            except Exception as caught:
                box[1], error = str(caught) or type(caught).__name__, caught
        dist.broadcast_object_list(box, 0)
        if error:
            raise error
        if box[1]:
            raise ValueError(box[1])
        return box[0]  # type: ignore[no-any-return]

    def check_batches(self, fewest: int) -> None:
        """Raises ValueError if some batch has fewer slices than there are processes."""
        if fewest < self.world:
            raise ValueError(
                f"A step has {fewest} slices, too few for {self.world} processes. Take larger batches, fewer processes "
                "or more data."
            )

    @contextmanager
    def first_on_each_machine(self) -> Iterator[bool]:
        """One process of each machine goes first, and is told so; the others follow when it is through."""
        if self.node_rank and self.world > 1:
            dist.barrier()
        yield self.node_rank == 0
        if not self.node_rank and self.world > 1:
            dist.barrier()


@contextmanager
def torchrun_processes(device: str = "cpu") -> Iterator[str]:
    """Join the other processes of torchrun, if it started this one, and leave them afterwards.

    Args:
        device: `cpu` or `cuda`.

    Yields:
        The device of this process, such as `cuda:1`.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield device
        return
    if device == "cuda":
        device = f"cuda:{int(os.environ['LOCAL_RANK'])}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()
