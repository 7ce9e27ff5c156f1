"""One distorted photo with its truth, from an index and a seed. It must not know questions, ratings or files written.

What sample `i` is depends on the seed, the photos and the options alone, never on the samples before it: a run can be
cut short, gone on with and made longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from zoomiqa.batch import OpenOptions, open_one
from zoomiqa.errors import ImageShapeRefused, ImageValuesInvalid, OptionInvalid, ZoomIQAError
from zoomiqa.imaging import PixelArray
from zoomiqa.imaging.distortions import DISTORTIONS, SEVERITIES, distort
from zoomiqa.types import BoxFraction
from zoomiqa.vocabulary import Flaw

from .masks import FloatArray, draw_mask

Scope = Literal["local", "global", "none"]

LEAST_CHANGE = 1.5
"""Mean change (levels of 255, all channels) where a distortion is said to be; below it nobody could see it."""

LEAST_SHARE_OF_CHANGE = 0.7
"""A place changes at least this much of what the picture does on average: blur in a clear sky is not asked for."""

PLACES_TRIED, PHOTOS_TRIED = 12, 6
"""Places per photo and photos per sample until the distortion shows."""

LEAST_SIDE = 64
"""Photos with a shorter side (pixels) hold no places."""

WHOLE: BoxFraction = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Mix:
    """What is made. Part of a run's settings."""

    side: int = 1024
    """Longest side in pixels; larger photos are reduced by area first."""

    local_share: float = 0.6
    """Samples with a distortion in one place."""

    clean_share: float = 0.2
    """Samples without a distortion; the rest are distorted everywhere. Without them, a closer look would always end
    in a flaw."""

    distortions: tuple[str, ...] = tuple(DISTORTIONS)
    """Names of `zoomiqa.imaging.distortions.DISTORTIONS`."""

    def __post_init__(self) -> None:
        if self.side < LEAST_SIDE:
            raise OptionInvalid(f"side must be at least {LEAST_SIDE}", self.side, "1024 is the default")
        if not (self.local_share >= 0 and self.clean_share >= 0 and self.local_share + self.clean_share <= 1):
            raise OptionInvalid(
                "local_share and clean_share are shares of the samples",
                (self.local_share, self.clean_share),
                "choose two numbers of 0..1 with a sum of at most 1",
            )
        unknown = [name for name in self.distortions if name not in DISTORTIONS]
        if unknown or not self.distortions:
            known = ", ".join(DISTORTIONS)
            raise OptionInvalid("unknown distortion", ", ".join(unknown) or "none at all", f"choose of {known}")

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "distortions": list(self.distortions)}


@dataclass(frozen=True, slots=True)
class Photo:
    """A clean photograph."""

    path: Path
    name: str
    """What records call it: its path below the given folder."""

    sha256: str


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of a sample."""

    scope: Scope
    distortion: str | None = None
    """Key of `DISTORTIONS`; `None` in a clean sample, as are the other entries."""

    flaw: Flaw | None = None
    severity: int | None = None
    """1 (about just noticeable) to 5 (strong)."""

    parameter: float | None = None
    detail: str = ""
    """The hue of a cast or the angle of a motion; else empty."""

    box_fraction: BoxFraction | None = None
    """The box around the mask's half weight; the whole picture for a global distortion."""

    area_share: float = 0.0
    """Share of pixels with at least half of the distortion."""

    shape: str | None = None
    change: float = 0.0
    """Mean change there, in levels of 255."""

    def to_dict(self) -> dict[str, Any]:
        box = None if self.box_fraction is None else [round(edge, 4) for edge in self.box_fraction]
        return {
            **asdict(self),
            "flaw": None if self.flaw is None else str(self.flaw),
            "box_fraction": box,
            "area_share": round(self.area_share, 5),
            "change": round(self.change, 3),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A distorted photo."""

    index: int
    photo: Photo
    clean: PixelArray
    """The photo before, at the sample's size; HxWx3 uint8 RGB."""

    everywhere: PixelArray
    """The photo with the same distortion everywhere; `clean` itself in a clean sample."""

    pixels: PixelArray
    mask: FloatArray | None
    """HxW in 0..1 in a local sample, else `None`."""

    truth: Truth


def draw_sample(index: int, seed: int, photos: Sequence[Photo], mix: Mix, options: OpenOptions | None = None) -> Sample:
    """Make sample number `index` (from 0).

    Every combination of distortion and severity has its turn once before any has it again (a clean sample lets its turn
    pass), and so has every photo (one in which the distortion would not show gives way to the next).

    Raises:
        ZoomIQAError: none of the photos tried could be opened, or the distortion shows in none of them.
    """
    rng = np.random.default_rng([seed, 0, index])
    turn = float(rng.random())
    scope: Scope = (
        "local" if turn < mix.local_share else ("none" if turn < mix.local_share + mix.clean_share else "global")
    )
    cells = [(name, severity) for name in mix.distortions for severity in SEVERITIES]
    name, severity = cells[_shuffled(seed, 1, index, len(cells))]
    refusal: ZoomIQAError | None = None
    for attempt in range(min(PHOTOS_TRIED, len(photos))):
        photo = photos[(_shuffled(seed, 2, index, len(photos)) + attempt) % len(photos)]
        try:
            clean = open_photo(photo, mix.side, options or OpenOptions())
        except ZoomIQAError as error:
            refusal = error
            continue
        if scope == "none":
            return Sample(index, photo, clean, clean, clean, None, Truth("none"))
        sample = _distorted(index, photo, clean, scope, name, severity, rng)
        if sample is not None:
            return sample
    raise refusal or ImageValuesInvalid(
        f"{name} of severity {severity} changes too little in the photos tried", None, "give more varied photos"
    )


@lru_cache(maxsize=8)
def open_photo(photo: Photo, side: int, options: OpenOptions) -> PixelArray:
    """The photo's pixels, reduced to `side` at most; read-only, as they are shared.

    Raises:
        ImageError: it cannot be opened, or is too small.
    """
    pixels = open_one(photo.path, options).pixels
    factor = side / max(pixels.shape[:2])
    if factor < 1:
        size = tuple(max(1, round(edge * factor)) for edge in (pixels.shape[1], pixels.shape[0]))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
        pixels.setflags(write=False)
    if min(pixels.shape[:2]) < LEAST_SIDE:
        raise ImageShapeRefused(f"a photo needs at least {LEAST_SIDE} px per side", photo.name, "leave it out")
    return pixels


# Streams of random numbers under one seed: 0 a sample's own, 1 distortions, 2 photos, 3 (see `command`) words.
def _shuffled(seed: int, stream: int, index: int, count: int) -> int:
    """Which of `count` things comes at `index`: all of them in random order, then all again in another."""
    order = np.random.default_rng([seed, stream, index // count]).permutation(count)
    return int(order[index % count])


def _distorted(
    index: int, photo: Photo, clean: PixelArray, scope: Scope, name: str, severity: int, rng: np.random.Generator
) -> Sample | None:
    """The sample, or `None` where the distortion would not show."""
    own_seed = int(rng.integers(2**31))
    everywhere = distort(clean, name, severity, own_seed)
    change = np.abs(everywhere.pixels.astype(np.int16) - clean).mean(2)
    mean = float(change.mean())

    def sample(pixels: PixelArray, mask: FloatArray | None, box: BoxFraction, shape: str | None) -> Sample:
        inside = np.ones(clean.shape[:2], bool) if mask is None else mask >= 0.5
        truth = Truth(
            scope, name, everywhere.flaw, severity, everywhere.parameter, everywhere.detail, box,
            float(inside.mean()), shape, float(change[inside].mean()),
        )  # fmt: skip
        return Sample(index, photo, clean, everywhere.pixels, pixels, mask, truth)

    if scope == "global":
        return sample(everywhere.pixels, None, WHOLE, None) if mean >= LEAST_CHANGE else None
    for _ in range(PLACES_TRIED):
        mask, shape = draw_mask((clean.shape[0], clean.shape[1]), rng)
        if float(change[mask >= 0.5].mean()) >= max(LEAST_CHANGE, LEAST_SHARE_OF_CHANGE * mean):
            result = distort(clean, name, severity, own_seed, mask=mask)
            return sample(result.pixels, mask, result.box_fraction, shape)
    return None
