"""Where a network runs, with the reason, and one name for running out of memory. It must not know any network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from zoomiqa.errors import OptionInvalid
from zoomiqa.types import Choice

_OUT_OF_MEMORY = re.compile(r"out of memory|not enough memory|allocate memory", re.IGNORECASE)


def choose_device(requested: str | None = None) -> Choice:
    """The device to use, as torch names it, with the reason. Imports torch.

    Args:
        requested: `cpu`, `cuda`, `cuda:1`, `mps`; without it, or with `auto`, CUDA before MPS before the CPU.

    Raises:
        OptionInvalid: torch knows no such device, or it is not here.
    """
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if requested is None or requested == "auto":
        if cuda:
            return Choice("cuda", f"torch {torch.__version__} sees {torch.cuda.get_device_name(0)}")
        if mps:
            return Choice("mps", f"torch {torch.__version__} sees an Apple GPU")
        return Choice("cpu", f"torch {torch.__version__} sees no GPU")
    try:
        device = torch.device(requested)
    except (RuntimeError, ValueError):
        raise OptionInvalid("torch knows no such device", requested, "give cpu, cuda, cuda:1 or mps") from None
    here = {"cpu": 1, "cuda": torch.cuda.device_count() if cuda else 0, "mps": int(mps)}
    if (device.index or 0) >= here.get(device.type, 0):
        raise OptionInvalid("the device is not on this machine", requested, "leave it out to have one chosen")
    return Choice(requested, "asked for")


def choose_dtype(requested: str, device: str) -> Choice:
    """The number type to compute in (`bf16`, `fp16` or `fp32`), with the reason. Imports torch.

    Args:
        requested: One of them, or `auto`.
        device: As torch names it.
    """
    import torch

    if requested != "auto":
        return Choice(requested, "asked for")
    if not device.startswith("cuda"):
        return Choice("fp32", f"{device} is slow or unsafe with 16-bit numbers")
    if torch.cuda.is_bf16_supported():
        return Choice("bf16", "the device has it, and it does not overflow")
    return Choice("fp16", "the device has no bf16")


@contextmanager
def memory_errors() -> Iterator[None]:
    """Within it, torch's running out of memory is Python's `MemoryError`, on every device."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from None
    except RuntimeError as error:  # the CPU's and Apple's allocators have no class of their own
        if _OUT_OF_MEMORY.search(str(error)):
            raise MemoryError(str(error)) from None
        raise
