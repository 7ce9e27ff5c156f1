"""What the rating network learns from: human scores, and pictures that are known to be worse than their source.

*Scored* photos come from an annotation file (`training.compact.scored`). *Chains* need no scores: a source and two
versions of it, each worse than the one before, by a known operation - the distortions of `zoomiqa.imaging.distortions`
(everywhere or in one box), unsharp masks of rising strength, or the invented detail of Real-ESRGAN after reduction to a
quarter. Sources are scored photos and clean photographs; of the latter only those with an odd number in their folder,
so that the even ones stay unseen for the measurements.

It must not know networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from zoomiqa.assessors.compact.features import choose_region, viewing_copy
from zoomiqa.imaging import open_picture
from zoomiqa.imaging.distortions import DISTORTIONS, distort
from zoomiqa.types import BoxFraction

from ..scored import Scored, picture_digest  # noqa: TID252 - in a wheel it is zoomiqa.training

PixelArray = NDArray[np.uint8]

SIDE = 512
"""Of a scored photo, in pixels."""

WINDOW = 320
"""Of a chain's pictures, and of the viewing copy of a scored photo."""

CROP = 352
"""Of the part of a scored photo that is shown in full resolution: the second look's region, 45 % of the area."""

LINKS = 3
"""Pictures of a chain: the source and two versions."""

SHARPENING, INVENTION = "unsharp", "realesrgan"
CLEAN_FROM = 3.6
"""A scored photo from this rating on counts as sharp enough that more sharpening is worse."""

SHARE_KEPT = {0: 1.0, 1: 0.88, 2: 0.70, 3: 0.50, 4: 0.32, 5: 0.18}
"""Share of the quality above 1 that a distortion leaves by severity (about KADID-10k's mean scores per level)."""

AFFECTED = {
    "gaussian_blur": 0,
    "motion_blur": 0,
    "low_resolution": 0,
    "ringing": 0,
    "oversharpen": 0,
    SHARPENING: 0,
    INVENTION: 0,
    "color_cast": 1,
    "desaturation": 1,
    "oversaturation": 1,
    "gaussian_noise": 2,
    "camera_noise": 2,
    "jpeg": 2,
    "banding": 2,
    "low_light": 3,
    "overexposure": 3,
    "low_contrast": 3,
    "haze": 3,
}
"""The attribute (a place in `network.ATTRIBUTES`) that each operation lowers."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A source and how its two worse versions are made."""

    path: Path
    source: int
    """Place of the source among the scored photos; -1 for a clean photograph."""

    operation: str
    levels: tuple[float, float]
    """Severities; amounts of an unsharp mask; blends of the invented detail."""

    share: tuple[float, float]
    """Share of the quality above 1 that is left."""

    seed: int
    box: BoxFraction | None = None
    is_view: bool = False
    """Whether the whole picture is reduced after the change, instead of cutting a window."""

    @property
    def identity(self) -> list[Any]:
        """What its pictures depend on, for JSON."""
        of_scored = self.source >= 0
        return [picture_digest(self.path), of_scored, self.operation, self.levels, self.seed, self.box, self.is_view]


def plan_chains(
    scored: Sequence[Scored], sources: NDArray[np.int64], clean: Sequence[Path], seed: int, *, invented: int
) -> list[Chain]:
    """Every chain, by the seed: of each eighteenth of the scored photos `sources`, two of each clean photograph, and
    `invented` ones.
    """
    rng = np.random.default_rng(seed)
    chains = []
    for index in rng.permutation(sources)[: max(1, len(sources) // 18)]:
        photo = scored[int(index)]
        kinds, is_sharp = (False, True)[: 1 + int(rng.random() < 0.45)], photo.score >= CLEAN_FROM
        chains += [_draw(rng, photo.path, int(index), is_sharp=is_sharp, is_view=is_view) for is_view in kinds]
    chains += [_draw(rng, path, -1, is_sharp=True) for path in clean for _ in range(2)]
    for path in clean[:invented]:
        chains.append(Chain(path, -1, INVENTION, (0.55, 1.0), (0.8, 0.6), int(rng.integers(2**31))))
    return chains


def _draw(rng: np.random.Generator, path: Path, source: int, *, is_sharp: bool, is_view: bool = False) -> Chain:
    seed = int(rng.integers(2**31))
    if is_sharp and rng.random() < 0.28:
        low = float(rng.uniform(0.5, 2.0))
        levels = (low, low + float(rng.uniform(1.0, 4.0)))
        return Chain(
            path, source, SHARPENING, levels, (1 - 0.09 * levels[0], 1 - 0.11 * levels[1]), seed, None, is_view
        )
    names = [name for name in DISTORTIONS if is_sharp or name != "oversharpen"]
    name = names[int(rng.integers(len(names)))]
    low_severity = int(rng.integers(1, 4))
    severities = (low_severity, min(5, low_severity + int(rng.integers(1, 3))))
    box, kept = None, [SHARE_KEPT[severity] for severity in severities]
    if not is_view and rng.random() < 0.25:
        width, height = rng.uniform(0.35, 0.65, 2)
        x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
        box = (float(x), float(y), float(x + width), float(y + height))
        kept = [1 - (1 - share) * float(np.sqrt(width * height)) for share in kept]
    return Chain(path, source, name, severities, (kept[0], kept[1]), seed, box, is_view)


def open_scored(path: Path) -> PixelArray:
    """A scored photo at `SIDE` x `SIDE`."""
    pixels = open_picture(path).pixels
    if pixels.shape[:2] != (SIDE, SIDE):
        pixels = np.asarray(cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), np.uint8)
    return pixels


def view_of(pixels: PixelArray) -> PixelArray:
    """The viewing copy of a square picture."""
    return np.asarray(cv2.resize(pixels, (WINDOW, WINDOW), interpolation=cv2.INTER_AREA), np.uint8)


def crop_of(pixels: PixelArray, rng: np.random.Generator) -> PixelArray:
    """A part of a scored photo: half of the time where the finest detail is, else anywhere."""
    if rng.random() < 0.5:
        x1, y1, x2, y2 = choose_region(viewing_copy(pixels)).box_fraction
        centre = np.array([y1 + y2, x1 + x2]) / 2 * SIDE
        y, x = (int(np.clip(round(at - CROP / 2), 0, SIDE - CROP)) for at in centre)
    else:
        y, x = (int(rng.integers(0, SIDE - CROP + 1)) for _ in range(2))
    return np.ascontiguousarray(pixels[y : y + CROP, x : x + CROP])


def looks_of(photo: Scored, number: int, seed: int) -> tuple[PixelArray, PixelArray]:
    """A scored photo's viewing copy, and a part of it drawn by its number and the seed."""
    pixels = open_scored(photo.path)
    return view_of(pixels), crop_of(pixels, np.random.default_rng((seed, number)))


def unsharp(pixels: PixelArray, amount: float, sigma: float) -> PixelArray:
    """Unsharp mask: x + amount (x - blur(x, sigma))."""
    values = pixels.astype(np.float32)
    soft = cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return np.clip(np.rint(values + np.float32(amount) * (values - soft)), 0, 255).astype(np.uint8)


def invent(pixels: PixelArray) -> PixelArray:
    """Reduced to a quarter and enlarged again by Real-ESRGAN; needs the extra `upscale`."""
    from restore_bridge.guidance import Guidance
    from restore_bridge.restorers import RestoreSettings, load_restorer
    from zoomiqa.imaging import picture_from_array

    height, width = pixels.shape[:2]
    small = cv2.resize(pixels, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    settings = RestoreSettings(scale=4)
    restored = load_restorer("realesrgan").restore(picture_from_array(small), Guidance(), settings=settings)
    return np.asarray(cv2.resize(restored.picture.pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def render(chain: Chain) -> list[PixelArray]:
    """The three pictures of a chain, `WINDOW` x `WINDOW`, the best first."""
    pixels = open_scored(chain.path) if chain.source >= 0 else open_picture(chain.path).pixels
    rng = np.random.default_rng(chain.seed)
    if not chain.is_view:
        y, x = (int(rng.integers(0, side - WINDOW + 1)) for side in pixels.shape[:2])
        pixels = np.ascontiguousarray(pixels[y : y + WINDOW, x : x + WINDOW])
    if chain.operation == SHARPENING:
        sigma = float(rng.uniform(0.7, 2.4))
        versions = [unsharp(pixels, level, sigma) for level in chain.levels]
    elif chain.operation == INVENTION:
        made = invent(pixels).astype(np.float32)
        versions = [np.rint(pixels + share * (made - pixels)).astype(np.uint8) for share in chain.levels]
    else:
        versions = [
            distort(pixels, chain.operation, int(level), chain.seed, chain.box).pixels for level in chain.levels
        ]
    pictures = [pixels, *versions]
    return [view_of(picture) for picture in pictures] if chain.is_view else pictures


def mask_of(chain: Chain, cells: int) -> NDArray[np.float32]:
    """Share of each of `cells` x `cells` cells that the operation changed."""
    x1, y1, x2, y2 = chain.box or (0.0, 0.0, 1.0, 1.0)
    edges = np.arange(cells + 1) / cells

    def covered(low: float, high: float) -> NDArray[np.float64]:
        return np.clip(np.minimum(edges[1:], high) - np.maximum(edges[:-1], low), 0, None) * cells

    return np.outer(covered(y1, y2), covered(x1, x2)).astype(np.float32)
