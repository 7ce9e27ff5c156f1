"""Before-and-after figures: what each metric means, and its value. It must not know restorers or text.

Three kinds: *full-reference* (against a pristine original), *consistency* (against the input, so that invented detail
is not rewarded), and *no-reference* (the picture alone). More come from pyiqa where it is installed ("pyiqa:NAME") and
from the entry-point group `restore_bridge.metrics`, whose entries are factories of `Metric`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restore_bridge import pyiqa_metrics
from restore_bridge.metric import Metric, Pixels, check_same_size
from zoomiqa import __version__
from zoomiqa.errors import OptionInvalid
from zoomiqa.plugins import Registry
from zoomiqa.types import Box, BoxFraction, Note

PSNR_CAP = 100.0
"""Decibels given for equal pictures, whose PSNR is infinite and has no JSON form; a note says so."""

CONSISTENCY_SIGMA = 1.5
"""Width in input pixels of the low-pass under which a result must agree with its input."""


@dataclass(frozen=True, slots=True)
class Score:
    """A metric's value for one picture."""

    metric: str
    value: float
    """Always finite."""

    notes: tuple[Note, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {"metric": self.metric, "value": self.value, "notes": [note.to_dict() for note in self.notes]}


def psnr(picture: Pixels, reference: Pixels) -> float:
    """Peak signal-to-noise ratio in dB over all RGB samples, peak 255; `inf` for equal pictures.

    Raises:
        OptionInvalid: different sizes.
    """
    check_same_size(picture, reference)
    error = float(np.mean(np.square(picture.astype(np.float64) - reference)))
    return float("inf") if error == 0 else 10 * float(np.log10(255.0**2 / error))


def ssim(picture: Pixels, reference: Pixels) -> float:
    """Structural similarity, mean over R, G and B: Gaussian window σ 1.5 (11×11), K1 0.01, K2 0.03, range 255.

    Source: Wang et al. (IEEE TIP 2004), as scikit-image computes it without sample covariance.

    Raises:
        OptionInvalid: different sizes, or a side under 11 pixels.
    """
    from skimage.metrics import structural_similarity

    check_same_size(picture, reference)
    if min(picture.shape[:2]) < 11:
        raise OptionInvalid("SSIM needs at least 11 x 11 pixels", picture.shape[:2], "leave it out for tiny pictures")
    return float(
        structural_similarity(  # type: ignore[no-untyped-call]
            reference,
            picture,
            data_range=255,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def consistency(result: Pixels, source: Pixels) -> float:
    """How far a result still shows what its input showed, 0..1.

    The result is brought to the input's size (area average downwards, bicubic upwards); both are low-passed with a
    Gaussian of σ = `CONSISTENCY_SIGMA` input pixels, which hides repaired noise, blur and blocks but no content. The
    value is the mean local correlation of brightness, ⟨cov(a, b) / (σ_a σ_b)⟩ over an 11×11 Gaussian window, where flat
    places count as agreeing in proportion to how flat both are: (cov + c) / (σ_a σ_b + c), c = (0.01·255)². It ignores
    brightness, contrast and colour, which a repair may change; 1 is the same structure, 0 unrelated. Negative means
    are given as 0.
    """
    import cv2

    if result.shape != source.shape:
        shrink = result.shape[0] * result.shape[1] > source.shape[0] * source.shape[1]
        size = (source.shape[1], source.shape[0])
        result = cv2.resize(result, size, interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC).astype(np.uint8)

    def low(pixels: Pixels) -> NDArray[np.float32]:
        grey = (pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.float32)
        return np.asarray(cv2.GaussianBlur(grey, (0, 0), CONSISTENCY_SIGMA), np.float32)

    def mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.GaussianBlur(values, (11, 11), 1.5 * CONSISTENCY_SIGMA), np.float32)

    first, second = low(result), low(source)
    mean_first, mean_second = mean(first), mean(second)
    covariance = mean(first * second) - mean_first * mean_second
    spread = np.sqrt(np.maximum(mean(first**2) - mean_first**2, 0) * np.maximum(mean(second**2) - mean_second**2, 0))
    steady = np.float32((0.01 * 255) ** 2)
    return float(np.clip(np.mean((covariance + steady) / (spread + steady)), 0.0, 1.0))


CHANGE_CELL_PX = 8
"""Least side in input pixels of the cells whose means `unasked_change` compares; noise, blocks and halos are gone."""

CHANGE_CELLS = 128
"""Most cells along the longer side."""

CHANGE_PERCENTILE = 99.0
"""Share of the cells whose change counts as ordinary: an invented object may be small, but not a single cell."""


def unasked_change(result: Pixels, source: Pixels, asked: Sequence[BoxFraction] = ()) -> float | None:
    """How far a result left its input where nothing asked it to, 0..255 levels; 0 is no change.

    Both are averaged down to cells of `CHANGE_CELL_PX` pixels or more. The difference of a cell is the root mean square
    over R, G and B; the value is its `CHANGE_PERCENTILE` over the cells that no box of `asked` touches. Unlike
    `consistency` it sees colour and brightness, and does not average a small invention away.

    Returns:
        The value, or `None` where the boxes leave nothing to compare.
    """
    import cv2

    height, width = source.shape[:2]
    cell = max(CHANGE_CELL_PX, math.ceil(max(width, height) / CHANGE_CELLS))
    size = (max(1, round(width / cell)), max(1, round(height / cell)))
    small = [cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.float32) for pixels in (result, source)]
    difference = np.sqrt(np.mean(np.square(small[0] - small[1]), axis=2))
    is_free = np.ones(difference.shape, bool)
    for box in asked:
        covered = Box.from_fraction(box, size)
        is_free[covered.y1 : covered.y2, covered.x1 : covered.x2] = False
    return float(np.percentile(difference[is_free], CHANGE_PERCENTILE)) if is_free.any() else None


def _against(function: Callable[[Pixels, Pixels], float]) -> Callable[[Pixels, Pixels | None], float]:
    def compute(picture: Pixels, reference: Pixels | None) -> float:
        if reference is None:
            raise OptionInvalid("this metric compares two pictures", "no reference", "give the reference")
        return function(picture, reference)

    return compute


_OWN = f"zoomiqa {__version__}"

BUILT_IN: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "psnr",
            "full-reference",
            True,
            (0.0, PSNR_CAP),
            f"peak signal-to-noise ratio over RGB; equal pictures give {PSNR_CAP:g}",
            _against(psnr),
            "dB",
            licence="Apache-2.0",
            version=_OWN,
        ),
        Metric(
            "ssim",
            "full-reference",
            True,
            (-1.0, 1.0),
            "structural similarity, mean of R, G and B",
            _against(ssim),
            licence="BSD-3 (scikit-image)",
            version=f"scikit-image {metadata.version('scikit-image')}",
        ),
        Metric(
            "consistency",
            "consistency",
            True,
            (0.0, 1.0),
            "agreement of structure with the input, low-passed; falls when content is invented",
            _against(consistency),
            licence="Apache-2.0",
            version=_OWN,
        ),
    )
}


METRICS: Registry[Metric] = Registry(
    "metric", "restore_bridge.metrics", {name: lambda metric=metric: metric for name, metric in BUILT_IN.items()}
)


def metric_names() -> tuple[str, ...]:
    """Built-in metrics and those of other packages; pyiqa's are reached as "pyiqa:NAME"."""
    return METRICS.names()


def load_metric(name: str) -> Metric:
    """The metric called `name`.

    Raises:
        BackendUnknown: there is none.
        ZoomIQAError: "pyiqa:…" that cannot be had; see `restore_bridge.pyiqa_metrics.load`.
    """
    return pyiqa_metrics.load(name) if name.startswith(pyiqa_metrics.PREFIX) else METRICS.load(name)


def score(name: str, picture: Pixels, reference: Pixels | None = None) -> Score:
    """Compute one metric; the value is always finite.

    Args:
        picture: H×W×3 uint8.
        reference: The pristine picture (full-reference) or the input (consistency). Full-reference metrics need equal
            sizes; `consistency` brings the picture to the input's size.

    Raises:
        OptionInvalid: sizes that cannot be compared, a missing reference, or a metric that gave no finite number.
    """
    metric = load_metric(name)
    value = metric.compute(picture, reference)
    if name == "psnr" and (value == float("inf") or value > PSNR_CAP):
        return Score(
            name,
            PSNR_CAP,
            (Note("psnr-capped", f"the pictures are equal; their infinite PSNR is given as {PSNR_CAP:g} dB"),),
        )
    if not np.isfinite(value):
        raise OptionInvalid(f"metric {name!r} gave no finite number", value, "leave it out for this picture")
    return Score(name, float(value))
