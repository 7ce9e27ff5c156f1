"""The colour fix that SUPIR and DreamClear bring along, on tensors: the result takes its colours from a reference.

Sources: `wavelet` is the à trous pyramid with the kernel 1 2 1 that StableSR (Wang et al., IJCV 2024) made common;
`adain` is Huang and Belongie (ICCV 2017). Unlike `restore_bridge.color`, which holds a channel's mean on 8-bit pictures,
these are the formulas of their released code, on numbers that are not rounded and may lie outside 0..1.

It must not know where the pictures come from.
"""  # noqa: E501

from __future__ import annotations

from typing import TYPE_CHECKING

from zoomiqa.errors import OptionInvalid

if TYPE_CHECKING:
    from torch import Tensor

METHODS = ("wavelet", "adain", "none")
LEVELS = 5
"""Levels of the pyramid; detail up to 2^5 pixels stays the result's own."""

EPSILON = 1e-5
"""Added to variances, so that a flat channel does not divide by 0."""


def align_colour(picture: Tensor, reference: Tensor, method: str) -> Tensor:
    """`picture` with the colours of `reference`, both (b, c, h, w).

    Raises:
        OptionInvalid: there is no such method.
    """
    if method not in METHODS:
        raise OptionInvalid("there is no colour fix of that name", method, f"choose one of {', '.join(METHODS)}")
    if method == "none":
        return picture
    return {"wavelet": wavelet, "adain": adain}[method](picture, reference)


def wavelet(picture: Tensor, reference: Tensor) -> Tensor:
    """The picture's detail on the reference's coarse part."""
    return split(picture)[0] + split(reference)[1]


def split(picture: Tensor, levels: int = LEVELS) -> tuple[Tensor, Tensor]:
    """(b, c, h, w) → detail and coarse part, which add up to it."""
    import torch

    detail, coarse = torch.zeros_like(picture), picture
    for level in range(levels):
        smooth = blur(coarse, 2**level)
        detail = detail + (coarse - smooth)
        coarse = smooth
    return detail, coarse


def blur(picture: Tensor, radius: int) -> Tensor:
    """Each pixel averaged with its eight neighbours `radius` pixels away (1 2 1 both ways); edges are repeated."""
    import torch
    from torch.nn import functional

    line = torch.tensor([1.0, 2.0, 1.0], dtype=picture.dtype, device=picture.device) / 4
    kernel = torch.outer(line, line).expand(picture.shape[1], 1, 3, 3)
    padded = functional.pad(picture, (radius,) * 4, mode="replicate")
    return functional.conv2d(padded, kernel, groups=picture.shape[1], dilation=radius)


def adain(picture: Tensor, reference: Tensor) -> Tensor:
    """Each channel with the reference's mean and spread."""
    mean, spread = statistics(picture)
    wanted_mean, wanted_spread = statistics(reference)
    return (picture - mean) / spread * wanted_spread + wanted_mean


def statistics(picture: Tensor) -> tuple[Tensor, Tensor]:
    """(b, c, h, w) → mean and standard deviation of each channel (b, c, 1, 1)."""
    variance = picture.var(dim=(2, 3), keepdim=True) + EPSILON
    return picture.mean(dim=(2, 3), keepdim=True), variance.sqrt()
