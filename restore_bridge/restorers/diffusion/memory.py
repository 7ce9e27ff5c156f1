"""How much memory a run takes, before anything is loaded: figures with their formula. It must not know torch.

The estimate is

    resident + max(window, decoder) + pictures

- resident: weights on the device at once. Without offload all of them; with `model` the largest group that works
  together (text encoders one by one, denoiser with its ControlNet, decoder); with `sequential` one layer, taken as 5 %
  of the largest group.
- window: latent pixels of the largest window × 2 sides of the guidance × `window_bytes`.
- decoder: pixels decoded at once × `decoder_bytes` (32-bit numbers).
- pictures: pixels worked at × `PICTURE_BYTES`.

Parameters and the peak of live activations are counted by `benchmarks/diffusion_memory.py` on the published
configurations; the bytes per pixel here are about 1.4 times those, as room for kernels' workspaces. For the ControlNet
of FLUX, the VAE of the ×4 upscaler and Qwen-Image they are taken from their neighbours. None was compared with a real
GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Offload = Literal["none", "model", "sequential"]
OFFLOADS: tuple[Offload, ...] = ("none", "model", "sequential")
DTYPE_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
PICTURE_BYTES = 48
"""Of each worked-at pixel: 8-bit copies, the picture as 32-bit numbers going in and coming out."""

SEQUENTIAL_SHARE = 0.05
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Component:
    """One network of a pipeline."""

    name: str
    parameters: float
    """Millions."""

    group: Literal["text", "denoiser", "decoder"]


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a family of models costs, as data."""

    components: tuple[Component, ...]
    window_bytes: int
    """Of activations for each latent pixel of one side of the guidance, with 16-bit numbers."""

    decoder_bytes: int
    """Of activations for each pixel decoded at once, with 32-bit numbers."""

    decoded_at_once: int = 1024 * 1024
    """Pixels; larger pictures are decoded in tiles."""

    @property
    def parameters(self) -> float:
        """Millions, all together."""
        return sum(component.parameters for component in self.components)

    def words(self) -> str:
        """One line for lists: device memory with 16-bit numbers at one window of 1024 pixels."""
        needs = (estimate(self, "bf16", mode, (1024, 1024), (1024 // 8) ** 2).total for mode in OFFLOADS)
        return ", ".join(
            f"{need:.0f} GiB {label}"
            for need, label in zip(needs, ("at once", "with offload=model", "with offload=sequential"), strict=True)
        )


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """GiB on the device (the machine's memory where that is the CPU)."""

    resident: float
    window: float
    decoder: float
    pictures: float

    @property
    def total(self) -> float:
        return self.resident + max(self.window, self.decoder) + self.pictures

    def to_dict(self) -> dict[str, Any]:
        names = ("resident", "window", "decoder", "pictures", "total")
        return {f"{name}_gib": round(getattr(self, name), 2) for name in names} | {"formula": FORMULA}


FORMULA = "resident + max(window, decoder) + pictures"


def estimate(
    footprint: Footprint, dtype: str, offload: Offload, padded: tuple[int, int], window_latents: int
) -> MemoryEstimate:
    """The estimate for a picture worked at `padded` (width, height) pixels.

    Args:
        footprint: Of the models.
        dtype: One of `DTYPE_BYTES`.
        offload: What is moved to the device when.
        padded: What the model sees.
        window_latents: Latent pixels of the largest window.
    """
    size = DTYPE_BYTES[dtype]
    groups = {"text": 0.0, "denoiser": 0.0, "decoder": 0.0}
    total = 0.0
    for component in footprint.components:
        weight = component.parameters * 1e6 * (4 if component.group == "decoder" else size) / GIB
        total += weight
        if component.group == "text":
            groups["text"] = max(groups["text"], weight)
        else:
            groups[component.group] += weight
    largest = max(groups.values())
    resident = {"none": total, "model": largest, "sequential": SEQUENTIAL_SHARE * largest}[offload]
    pixels = padded[0] * padded[1]
    return MemoryEstimate(
        resident,
        window_latents * 2 * footprint.window_bytes * size / 2 / GIB,
        min(pixels, footprint.decoded_at_once) * footprint.decoder_bytes / GIB,
        pixels * PICTURE_BYTES / GIB,
    )
