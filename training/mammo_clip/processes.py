"""One process or several: who this one is, as torchrun says by the environment, and what they tell each other."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed


@dataclass(frozen=True, slots=True)
class Process:
    """This process: `rank` of `count`; `first_here` decodes for the processes of its machine."""

    rank: int
    count: int
    first_here: bool
    device: torch.device

    @property
    def leads(self) -> bool:
        """The one that prints and writes."""
        return self.rank == 0

    def part(self, rows: list[int]) -> list[int]:
        """This process's rows of a batch: equally many each, in the order of the ranks."""
        size = len(rows) // self.count
        return rows[self.rank * size : (self.rank + 1) * size]

    def mean(self, value: float) -> float:
        """The mean of a number over all processes."""
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return float(total.item()) / self.count

    def agree(self, wish: bool) -> bool:
        """What the leading process wishes."""
        if self.count == 1:
            return wish
        said = torch.tensor(int(wish), device=self.device)
        distributed.broadcast(said, 0)
        return bool(said.item())

    def all_of(self, value: Any) -> list[Any]:
        """A value of each process, in the order of the ranks."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, value)
        return found


def this_process() -> Process:
    """By the environment that torchrun sets; alone where there is none. Takes a GPU where there is one."""
    rank, count, local = (int(os.environ.get(name, fallback)) for name, fallback in _VARIABLES)
    gpu = torch.cuda.is_available()
    return Process(rank, count, local == 0, torch.device("cuda", local) if gpu else torch.device("cpu"))


_VARIABLES = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


@contextmanager
def joined(process: Process) -> Iterator[None]:
    """Inside, the processes know each other: over NCCL where there are GPUs, else over gloo.

    They part together: one that is gone while another still holds what belongs to the group can leave that one waiting.
    """
    if process.device.type == "cuda":
        torch.cuda.set_device(process.device)
    if process.count == 1:
        yield
        return
    distributed.init_process_group("nccl" if process.device.type == "cuda" else "gloo")
    try:
        yield
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
