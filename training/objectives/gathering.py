"""Vectors of all processes, brought together through torch.distributed. It must not know what is in them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def gather_ragged(values: Tensor) -> list[Tensor]:
    """The vectors of all processes in order of rank, on this one's device; lengths may differ and may be 0.

    Every process must call it, with the same type. Without a process group the own vector is all there is. No gradient
    flows through it.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return [values.detach()]
    length = torch.tensor([len(values)], device=values.device)
    lengths = [torch.zeros_like(length) for _ in range(dist.get_world_size())]
    dist.all_gather(lengths, length)
    longest = max(int(count) for count in lengths)
    padded = torch.nn.functional.pad(values.detach(), (0, longest - len(values)))
    gathered = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(gathered, padded)
    return [vector[: int(count)] for vector, count in zip(gathered, lengths, strict=True)]


def own_rank() -> int:
    """This process's place in what `gather_ragged` returns."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
