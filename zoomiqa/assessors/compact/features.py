"""What the compact rating sees: the viewing copy, the choice of one region, and the features of a picture.

All pictures are ``H x W x 3`` uint8 sRGB arrays.  Boxes are fractions ``(x1, y1, x2, y2)`` of the picture, in 0..1.
Features are one float32 vector, in the order of :data:`FEATURE_NAMES`, finite for every input.  The same features
serve the first look (the viewing copy) and the second (the reduced crop of the chosen region).

Errors: ``ValueError`` for anything that is not a non-empty ``H x W x 3`` uint8 array.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from zoomiqa.assessors.compact import families, meters
from zoomiqa.assessors.compact.fisher import VECTOR, Codebook, patches_of

#: Longest side of the viewing copy, in pixels (first look).
VIEW_SIDE = 320
#: Longest side at which a crop is rated (second look): a 12-megapixel photo is not soft for being large.
CROP_SIDE = 416
#: Share of the picture that the chosen region covers.
REGION_AREA = 0.45
#: Patches taken for the two codebooks (full size, half size).
_BUDGETS = (4500, 3000)
_SMALLEST = 64
_POSITIONS = 5
_GRID = 30
_CENTRE_PENALTY = 3.0
_WINDOW_UP_TO = 1.4

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class RegionChoice:
    """The region to look at next: ``box_fraction``, a machine-readable ``reason``, and how it scored.

    ``reason`` is ``"most_detail"`` or ``"uniform_centre"`` (no place beats the centre).  ``score`` is the chosen
    box's mean log absolute Laplacian (natural log, sRGB 0..1) less the centre penalty; ``margin`` is how far it lies
    above the centre box (0: the centre itself).
    """

    box_fraction: Box
    reason: str
    score: float
    margin: float


def _checked(rgb: np.ndarray) -> np.ndarray:
    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        raise ValueError("a picture must be a non-empty H x W x 3 uint8 array")
    return np.ascontiguousarray(rgb)


def _reduced(rgb: np.ndarray, side: int) -> np.ndarray:
    height, width = rgb.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return rgb
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # Exact halves have a fast path in OpenCV: four times quicker for a 12-megapixel photo, and the same average.
    while rgb.shape[1] > 4 * size[0] and rgb.shape[0] > 4 * size[1]:
        rgb = cv2.resize(rgb, (rgb.shape[1] // 2, rgb.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def viewing_copy(rgb: np.ndarray) -> np.ndarray:
    """The whole picture, area-averaged so that its long side is at most :data:`VIEW_SIDE` pixels."""
    return _reduced(_checked(rgb), VIEW_SIDE)


def crop_pixels(rgb: np.ndarray, box_fraction: Sequence[float]) -> tuple[int, int, int, int]:
    """Pixel box ``(x1, y1, x2, y2)`` (end exclusive, never empty) of a fraction box.

    Raises ``ValueError`` when the box is not ``0 <= x1 < x2 <= 1`` and likewise for y.
    """
    x1, y1, x2, y2 = (float(v) for v in box_fraction)
    if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
        raise ValueError(f"not a box of fractions: {tuple(box_fraction)}")
    height, width = rgb.shape[:2]
    left, top = min(round(x1 * width), width - 1), min(round(y1 * height), height - 1)
    return left, top, max(left + 1, round(x2 * width)), max(top + 1, round(y2 * height))


def crop_copy(rgb: np.ndarray, box_fraction: Sequence[float]) -> np.ndarray:
    """The region's pixels, with a long side of at most :data:`CROP_SIDE` pixels.

    A region up to 1.4 times that size gives its middle part as it is: resampling by a little would smear just the
    compression blocks and the noise that the second look is for.  Larger regions are area-averaged.
    """
    left, top, right, bottom = crop_pixels(_checked(rgb), box_fraction)
    if max(right - left, bottom - top) <= _WINDOW_UP_TO * CROP_SIDE:
        spare_x, spare_y = max(0, right - left - CROP_SIDE), max(0, bottom - top - CROP_SIDE)
        left, right = left + spare_x // 2, right - (spare_x - spare_x // 2)
        top, bottom = top + spare_y // 2, bottom - (spare_y - spare_y // 2)
    return _reduced(np.ascontiguousarray(rgb[top:bottom, left:right]), CROP_SIDE)


def choose_region(view: np.ndarray, doubt: np.ndarray | None = None) -> RegionChoice:
    """Pick the region of the viewing copy with the most fine structure, out of a 5 x 5 grid of positions.

    Shrinking hides blur, noise and compression where there is fine structure to lose; in flat parts the full
    resolution can add little.  The map is the log of the absolute Laplacian, averaged over each candidate, less a
    penalty on the squared distance from the centre, where the subject mostly is.  ``doubt`` (any rows x columns over
    the whole picture, in the same unit) is added to the map: where it is high, a closer look is worth more.
    """
    luma = cv2.cvtColor(_checked(view), cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    fine = cv2.log(np.abs(cv2.Laplacian(luma, cv2.CV_32F)) + 0.004)
    detail = cv2.resize(fine, (_GRID, _GRID), interpolation=cv2.INTER_AREA)
    if doubt is not None:
        detail = detail + cv2.resize(np.asarray(doubt, np.float32), (_GRID, _GRID), interpolation=cv2.INTER_LINEAR)
    side = math.sqrt(REGION_AREA)
    places = np.linspace(0.0, 1.0 - side, _POSITIONS)
    scores = np.empty((_POSITIONS, _POSITIONS))
    for row, y in enumerate(places):
        for col, x in enumerate(places):
            window = detail[round(y * _GRID) : round((y + side) * _GRID), round(x * _GRID) : round((x + side) * _GRID)]
            distance = (x + side / 2 - 0.5) ** 2 + (y + side / 2 - 0.5) ** 2
            scores[row, col] = float(window.mean()) - _CENTRE_PENALTY * distance
    row, col = divmod(int(np.argmax(scores)), _POSITIONS)
    middle = _POSITIONS // 2
    reason = "most_detail" if (row, col) != (middle, middle) else "uniform_centre"
    x, y = float(places[col]), float(places[row])
    box = (round(x, 4), round(y, 4), round(min(x + side, 1.0), 4), round(min(y + side, 1.0), 4))
    return RegionChoice(box, reason, float(scores[row, col]), float(scores[row, col] - scores[middle, middle]))


def enlarged(rgb: np.ndarray) -> np.ndarray:
    """The picture, at least 64 px on either side: smaller ones are enlarged, and slivers beyond 8:1 squeezed."""
    height, width = rgb.shape[:2]
    if min(height, width) >= _SMALLEST:
        return rgb
    scale = _SMALLEST / min(height, width)
    size = tuple(min(8 * _SMALLEST, max(_SMALLEST, round(side * scale))) for side in (width, height))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR)


def planes_of(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """RGB in 0..1, luma (BT.601, 0..1) and two opponent-colour planes (-1..1), all float32.

    Small pictures are enlarged, so that every family is defined.
    """
    rgb = enlarged(rgb)
    real = rgb.astype(np.float32) / 255
    red, green, blue = cv2.split(real)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return real, luma, (red - green) * np.float32(0.70711), (red + green - 2 * blue) * np.float32(0.40825)


def _half(plane: np.ndarray) -> np.ndarray:
    size = max(plane.shape[1] // 2, 16), max(plane.shape[0] // 2, 16)
    return cv2.resize(plane, size, interpolation=cv2.INTER_AREA)


def _handmade(planes: tuple[np.ndarray, ...]) -> dict[str, float]:
    real, luma, one, two = planes
    luma_1, one_1, two_1 = _half(luma), _half(one), _half(two)
    out: dict[str, float] = {}
    log_sigmas = families.luma_statistics(out, [luma, luma_1, _half(luma_1)])
    for name, plane in (("p0", one), ("q0", two), ("p1", one_1), ("q1", two_1)):
        families.chroma_statistics(out, name, plane)
    families.gradient_statistics(out, "x0", luma)
    families.gradient_statistics(out, "x1", luma_1)
    meters.spectrum_statistics(out, luma)
    meters.distortion_meters(out, luma, real)
    meters.colour_statistics(out, real, luma)
    meters.layout(out, log_sigmas[1], [luma, one, two])
    meters.covariance(out, [luma, one, two], "v0")
    meters.covariance(out, [luma_1, one_1, two_1], "v1")
    return out


#: Hand-made features, which come first, and all features.
HANDMADE_COUNT = 634
FEATURE_COUNT = HANDMADE_COUNT + 2 * VECTOR
FEATURE_NAMES: tuple[str, ...]


@lru_cache(maxsize=1)
def _names() -> tuple[str, ...]:
    """Names from a run on a blank picture, so that they can never fall out of step with the code."""
    blank = planes_of(np.zeros((_SMALLEST, _SMALLEST, 3), np.uint8))
    return (*_handmade(blank), *(f"fv{b}_{i:04d}" for b in (0, 1) for i in range(VECTOR)))


def __getattr__(name: str) -> tuple[str, ...]:
    # Worked out on first use: OpenCV builds its CIELAB tables in that run, which importing should not wait for.
    if name == "FEATURE_NAMES":
        return _names()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def sample_patches(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The patches (``N x 49``) that the two codebooks describe: at full and at half size."""
    luma = planes_of(_checked(rgb))[1]
    return patches_of(luma, _BUDGETS[0]), patches_of(_half(luma), _BUDGETS[1])


def extract_features(rgb: np.ndarray, codebooks: Sequence[Codebook] | None = None) -> np.ndarray:
    """Features of a viewing copy or a reduced crop, float32, as long as :data:`FEATURE_NAMES`.

    ``codebooks`` is for training; the shipped ones are loaded (once) when it is None.
    """
    if codebooks is None:
        from zoomiqa.assessors.compact.rating import shipped_codebooks

        codebooks = shipped_codebooks()
    planes = planes_of(_checked(rgb))
    fine, coarse = patches_of(planes[1], _BUDGETS[0]), patches_of(_half(planes[1]), _BUDGETS[1])
    return _finite(np.concatenate([_measured(planes), codebooks[0].encode(fine), codebooks[1].encode(coarse)]))


def measured_features(rgb: np.ndarray) -> np.ndarray:
    """The hand-made features alone, float32, ``HANDMADE_COUNT`` of them; no weights are needed."""
    return _finite(_measured(planes_of(_checked(rgb))))


def _measured(planes: tuple[np.ndarray, ...]) -> np.ndarray:
    return np.fromiter(_handmade(planes).values(), np.float32, HANDMADE_COUNT)


def _finite(vector: np.ndarray) -> np.ndarray:
    finite: np.ndarray = np.nan_to_num(vector, nan=0.0, posinf=0.0, neginf=0.0)
    return finite
