"""Distributed training by torchrun: the share of each process, and communication between processes."""

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
        rank: Number of the process; the one with 0 writes.
        world: Number of processes.
        node_rank: Number of the process on its machine.
    """

    rank: int = 0
    world: int = 1
    node_rank: int = 0

    @classmethod
    def current(cls) -> Processes:
        """The processes of the process group, or this process alone if there is none."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", dist.get_rank())))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """The share of a list for this process; sizes differ by at most one."""
        return list(items[self.rank :: self.world])

    def average(self, module: nn.Module) -> nn.Module:
        """Wrap a module so that its gradients are averaged over the processes."""
        return DistributedDataParallel(module, find_unused_parameters=True) if self.world > 1 else module

    def total(self, values: Tensor) -> Tensor:
        """Sum values over the processes."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def gather(self, items: Sequence[T]) -> list[T]:
        """Gather the items of all processes in each of them."""
        if self.world == 1:
            return list(items)
        parts: list[Any] = [None] * self.world
        dist.all_gather_object(parts, list(items))
        return [item for part in parts for item in part]

    def from_first(self, make: Callable[[], T]) -> T:
        """Call `make` in the first process only; others get its result, or ValueError for its error."""
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
        """Raise ValueError if the smallest batch has fewer slices (`fewest`) than there are processes."""
        if fewest < self.world:
            raise ValueError(
                f"A step has {fewest} slices, too few for {self.world} processes. Take larger batches, fewer "
                "processes or more data."
            )

    @contextmanager
    def first_on_each_machine(self) -> Iterator[bool]:
        """Run a block first in one process per machine, which gets True, then in the others."""
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
