"""Several processes that train one model, each on its share of every batch; `torchrun` starts and numbers them.

Gradients and the loss, weighted by images, and the running statistics of normalisation layers are averaged over the
processes after every step, in one sum, so that all have the same model at all times, and process 0 can write it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist

from automl_pt.core.errors import PeerError


@dataclass(frozen=True)
class Group:
    """The processes of a run; for a single one every method returns its argument."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Return whether this process is the one that writes and reports."""
        return self.rank == 0

    @property
    def name(self) -> tuple[int, ...]:
        """Return the suffix of this process's random seeds; empty for the leader, which equals a single process."""
        return () if self.leads else (self.rank,)

    def average(self, gradients: Sequence[Tensor], buffers: Sequence[Tensor], loss: Tensor, weight: Tensor) -> Tensor:
        """Replace gradients by their mean weighted by `weight`, buffers by their plain mean; return the mean loss."""
        if self.size == 1:
            return loss
        weighted = [gradient.reshape(-1) * weight for gradient in gradients]
        plain = [buffer.reshape(-1).to(loss.dtype) / self.size for buffer in buffers]
        flat = torch.cat([torch.stack([weight, loss * weight]), *weighted, *plain])
        dist.all_reduce(flat)
        flat[1 : 2 + sum(map(len, weighted))] /= flat[0].clone()
        targets = [*gradients, *buffers]
        parts = torch.split(flat[2:], [target.numel() for target in targets])
        with torch.no_grad():
            for target, part in zip(targets, parts, strict=True):
                target.copy_(part.view(target.shape))
        return flat[1].clone()

    def highest(self, value: int) -> int:
        """Return the highest of all processes' values, which all then follow."""
        if self.size == 1:
            return value
        shared = torch.tensor(value)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return int(shared.item())

    def gather(self, values: Tensor) -> Tensor:
        """Concatenate the processes' tensors on the CPU, in the processes' order; every process gets the result."""
        if self.size == 1:
            return values
        counts = [torch.zeros((), dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor(len(values)))
        longest = max(int(count) for count in counts)
        padded = values.new_zeros(longest, *values.shape[1:])
        padded[: len(values)] = values
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])

    def wait(self) -> None:
        """Wait until all processes have called this."""
        self.highest(0)

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Run the block in process 0 before the others, which then find the files that it created."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()


ALONE = Group()


def local_device(name: str) -> str:
    """Return this process's device if several share a machine: each uses the GPU of its local number."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    gpu = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if several and gpu else name


def processes_here() -> int:
    """Return how many processes of a run share this machine, and its memory."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if several else 1


@contextmanager
def joined() -> Iterator[Group]:
    """Join the processes that `torchrun` started; a single process without it. NCCL for CUDA tensors, gloo for others.

    If one process ends with an error the others end with PeerError at their next synchronisation.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Group(dist.get_rank(), size)
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(word in str(error) for word in ("gloo", "Connection")):
            raise
        raise PeerError(
            "another process of this run has ended",
            given=f"process {dist.get_rank()} of {size} waited for it",
            remedy="read that process's message, and start all of them again; the run resumes from its last checkpoint",
        ) from error
    finally:
        dist.destroy_process_group()
