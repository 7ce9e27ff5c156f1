"""How well the trained network agrees with people, and whether it orders known changes. It must not train anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from zoomiqa.assessors.compact.features import viewing_copy
from zoomiqa.assessors.compact.network import ATTRIBUTES, combined
from zoomiqa.assessors.compact.raters import NetworkRater
from zoomiqa.assessors.compact.rating import Rating
from zoomiqa.imaging import open_picture
from zoomiqa.imaging.distortions import DISTORTIONS, distort

from ..agreement import by_subset  # noqa: TID252 - in a wheel it is zoomiqa.training
from . import corpus
from .learning import Material
from .network import Heads

AMOUNTS = (0.5, 1.0, 2.0, 3.5, 5.0)
"""Of the unsharp masks that a true photo is compared with."""

SIGMA = 1.5
SEVERITIES = (1, 3, 5)


@dataclass(frozen=True, slots=True)
class Held:
    """What heads trained without some photos say of them."""

    rows: NDArray[np.int64]
    first: Mapping[str, NDArray[np.float32]]
    """See `learning.look`: the viewing copies."""

    crop: Mapping[str, NDArray[np.float32]]


def errors(held: Iterable[Held], scores: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Doubts of both looks at photos that were held back, and their absolute errors."""
    looks = [(part.rows, look) for part in held for look in (part.first, part.crop)]
    doubts = np.concatenate([look["doubts"] for _, look in looks])
    return doubts, np.concatenate([np.abs(look["rating"] - scores[rows]) for rows, look in looks])


def agreement(heads: Heads, held: Sequence[Held], material: Material) -> dict[str, Any]:
    """Figures of the first look, of the crop alone, and of both together, with the spreads that `heads` gives."""
    rows = np.concatenate([part.rows for part in held])
    score, subset = material.scores[rows], np.array([material.scored[int(row)].subset for row in rows])
    found = {}
    for name in ("first", "crop"):
        looks = [getattr(part, name) for part in held]
        doubts = torch.from_numpy(np.concatenate([look["doubts"] for look in looks]))
        with torch.no_grad():
            found[name] = np.concatenate([look["rating"] for look in looks]), heads.spread(doubts).numpy()
    both = [
        combined(Rating(float(a), float(b)), Rating(float(c), float(d)))
        for a, b, c, d in zip(*found["first"], *found["crop"], strict=True)
    ]
    last, spread = (np.array([getattr(rating, name) for rating in both]) for name in ("value", "spread"))
    error = np.abs(last - score)
    return {
        "photos": len(rows),
        "first": by_subset(found["first"][0], score, subset),
        "crop": by_subset(found["crop"][0], score, subset),
        "last": by_subset(last, score, subset),
        "mean_absolute_error": round(float(error.mean()), 4),
        "mean_spread": round(float(spread.mean()), 4),
        "spread_against_error": round(float(spearmanr(spread, error).statistic), 4),
        "mean_crop_minus_view": round(float((found["crop"][0] - found["first"][0]).mean()), 4),
    }


def line(figures: Mapping[str, Any]) -> str:
    """The figures in one line."""
    looks = (
        f"{name} "
        + " ".join(f"{part} {value['srcc']:.3f}/{value['plcc']:.3f}" for part, value in figures[name].items())
        for name in ("first", "crop", "last")
    )
    return "; ".join(looks) + f"; mae {figures['mean_absolute_error']}, spread srcc {figures['spread_against_error']}"


def known_changes(path: Path, photos: Sequence[Path], invented: int) -> dict[str, Any]:
    """Share of changes that the two looks of the model file `path` order rightly, on photos it has not seen.

    Args:
        path: The model.
        photos: Clean photographs.
        invented: Of how many of them Real-ESRGAN's version is compared as well.
    """
    rater = NetworkRater(path)

    def rate(pixels: corpus.PixelArray) -> tuple[float, Mapping[str, float]]:
        first = rater.first(viewing_copy(pixels))
        rating, attributes = rater.second(first, pixels, first.region.box_fraction)
        return rating.value, attributes

    preferred: dict[str, list[bool]] = {}
    correlations: dict[str, list[float]] = {name: [] for name in ATTRIBUTES}
    clean: list[float] = []
    for number, photo in enumerate(photos):
        pixels = open_picture(photo).pixels
        true, attributes = rate(pixels)
        clean.append(true)
        for amount in AMOUNTS:
            preferred.setdefault(f"unsharp {amount:g}", []).append(
                true > rate(corpus.unsharp(pixels, amount, SIGMA))[0]
            )
        if number < invented:
            preferred.setdefault(corpus.INVENTION, []).append(true > rate(corpus.invent(pixels))[0])
        name = sorted(DISTORTIONS)[number % len(DISTORTIONS)]
        attribute = ATTRIBUTES[corpus.AFFECTED[name]]
        levels, falls = [0], [attributes[attribute]]
        for severity in SEVERITIES:
            rating, changed = rate(distort(pixels, name, severity, number).pixels)
            preferred.setdefault(f"severity {severity}", []).append(true > rating)
            levels.append(severity)
            falls.append(changed[attribute])
        correlations[attribute].append(-float(spearmanr(levels, falls).statistic))
    return {
        "photos": len(photos),
        "mean_rating_of_clean": round(float(np.mean(clean)), 3),
        "true_preferred": {name: round(float(np.mean(found)), 3) for name, found in preferred.items()},
        "attribute_follows_level": {
            name: round(float(np.mean(found)), 3) for name, found in correlations.items() if found
        },
    }
