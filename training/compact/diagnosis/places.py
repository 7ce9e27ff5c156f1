"""The coefficients by which an unsharp place is a flaw and no background (`zoomiqa.assessors.compact.places`).

Clean photographs, many with a background out of focus, against the same with a Gaussian blur in a random box
(`SEVERITIES`; one of them for the pictures beside). Logistic regression with a ridge, by Newton's method; the bias is
then set so that `ACCUSED` of the clean photographs are beyond it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoomiqa.assessors.compact.diagnosis import SEARCHES
from zoomiqa.assessors.compact.places import find_place, unsharp_cues
from zoomiqa.imaging import open_picture
from zoomiqa.imaging.distortions import distort
from zoomiqa.imaging.signals import measure
from zoomiqa.imaging.signals.canvas import PixelArray

ACCUSED = 0.004
EVERY_OTHER = 6
"""One in so many of the pictures beside the clean photographs is enough."""

SEVERITIES = (3, 5)

RIDGE, STEPS = 1.0, 30
SIDES = (0.35, 0.6)
FloatArray = NDArray[np.float64]


def random_box(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """A box of fractions whose sides are `SIDES` of the frame's."""
    width, height = rng.uniform(*SIDES, 2)
    x, y = float(rng.uniform(0, 1 - width)), float(rng.uniform(0, 1 - height))
    return x, y, float(x + width), float(y + height)


def cues_of(pixels: PixelArray) -> tuple[float, ...] | None:
    """The cues of a picture's unsharp place, or `None` where there is none that could be a flaw."""
    signals = measure(pixels, is_detail=True)
    cells = signals.map("resolution")
    place = None if cells is None else find_place(cells, SEARCHES["blur"])
    return None if place is None else unsharp_cues(place, signals.map("edge_sigma"))


def logistic(cues: FloatArray, is_flaw: NDArray[np.bool_]) -> FloatArray:
    """Bias and weights (in units of the cues) by Newton's method; the ridge is on standardised weights."""
    mean, deviation = cues.mean(0), cues.std(0) + 1e-6
    rows = np.column_stack([np.ones(len(cues)), (cues - mean) / deviation])
    penalty = RIDGE * np.diag([0.0, *np.ones(cues.shape[1])])
    weights = np.zeros(rows.shape[1])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-np.clip(rows @ weights, -30, 30)))
        curvature = (rows * (chance * (1 - chance))[:, None]).T @ rows + penalty
        weights -= np.linalg.solve(curvature, rows.T @ (chance - is_flaw) + penalty @ weights)
    scaled = weights[1:] / deviation
    return np.array([weights[0] - float(scaled @ mean), *scaled])


def report(clean: list[Path], others: list[Path]) -> None:
    """Fit, and print the coefficients with what they find and accuse among what they were fitted on."""
    rng = np.random.default_rng(0)
    found: list[tuple[float, ...] | None] = []
    is_flaw: list[bool] = []
    cases = [(path, SEVERITIES) for path in clean]
    cases += [(path, SEVERITIES[number % 2 :][:1]) for number, path in enumerate(others[::EVERY_OTHER])]
    for path, severities in cases:
        pixels = open_picture(path).pixels
        spoiled = (distort(pixels, "gaussian_blur", severity, 0, random_box(rng)).pixels for severity in severities)
        found += [cues_of(picture) for picture in (pixels, *spoiled)]
        is_flaw += [False] + [True] * len(severities)
    truth = np.array(is_flaw)
    known = np.array([cues is not None for cues in found])
    cues = np.array([row for row in found if row is not None], np.float64)
    weights = logistic(cues, truth[known])
    score = np.full(len(found), -np.inf)
    score[known] = weights[0] + cues @ weights[1:]
    least = float(np.quantile(score[~truth], 1 - ACCUSED, method="higher"))
    weights[0] -= least
    score -= least
    print("UNSHARP_WEIGHTS =", tuple(round(float(weight), 2) for weight in weights))
    print(f"accused {(score[~truth] > 0).mean():.3f} of {(~truth).sum()}, found {(score[truth] > 0).mean():.3f} of "
          f"{truth.sum()}")  # fmt: skip
