"""Whether a weights file orders known degradations, and their undoing, rightly. It must not fit anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from zoomiqa.assessors.compact.rating import RatingModel
from zoomiqa.imaging import open_picture

from .degrade import STRENGTHS, UNDOINGS, degrade, undo
from .looks import Books, Floats, PixelArray, both_looks, in_processes

CLEAN = "clean"
UNDONE = slice(1, 3)
"""Of a degradation's strengths, those that are undone."""

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""A box for ratings, which do not depend on it."""

DIGITS = 3


def known_changes(
    weights: Path, photos: Sequence[Path], books: Books, processes: int, cache: Path | None = None
) -> dict[str, Any]:
    """Figures of the second look at clean photos, at their degraded copies, and at these when undone.

    Args:
        weights: The file that rates.
        photos: Clean photographs.
        books: The codebooks of the features.
        processes: How many work at once.
        cache: A file that keeps the features between runs on the same photos.

    Returns:
        For each degradation and strength the share of copies rated below their photo (`right`) and how far (`drop`),
        and the share of steps between neighbouring strengths that are ordered rightly; for each undoing the share of
        results rated above what they were made of, and how far (`gain`).
    """
    names, view, crop = _features(photos, books, processes, cache)
    model = RatingModel.load(weights)
    rated = np.array(
        [
            [model.second(*looks, WHOLE).value for looks in zip(views, crops, strict=True)]
            for views, crops in zip(view, crop, strict=True)
        ]
    )
    return figures({name: rated[:, column] for column, name in enumerate(names)})


def figures(rating: dict[str, Floats]) -> dict[str, Any]:
    """The figures of `known_changes`, from the ratings (one of each photo) of every version."""
    clean = rating[CLEAN]
    found: dict[str, Any] = {"photos": len(clean), "clean_mean": round(float(clean.mean()), DIGITS)}
    for name, strengths in STRENGTHS.items():
        series = np.stack([clean, *(rating[_version(name, strength)] for strength in strengths)])
        found[name] = {
            f"{strength:g}": _comparison("drop", clean - changed)
            for strength, changed in zip(strengths, series[1:], strict=True)
        }
        found[name]["steps_right"] = _share(series[:-1] - series[1:])
    for undoing, cause in UNDOINGS.items():
        found[undoing] = {
            f"{strength:g}": _comparison(
                "gain", rating[_version(undoing, strength)] - rating[_version(cause, strength)]
            )
            for strength in STRENGTHS[cause][UNDONE]
        }
    return found


def _comparison(name: str, better: Floats) -> dict[str, float]:
    return {"right": _share(better), name: round(float(better.mean()), DIGITS)}


def _share(better: Floats) -> float:
    return round(float((better > 0).mean()), DIGITS)


def _features(
    photos: Sequence[Path], books: Books, processes: int, cache: Path | None
) -> tuple[list[str], Floats, Floats]:
    """Names of the versions, and their features in both looks, photos x versions x `FEATURE_COUNT`."""
    if cache and cache.exists():
        with np.load(cache, allow_pickle=False) as held:
            return list(held["names"]), held["view"], held["crop"]
    rows = in_processes(partial(_versions, books), photos, processes, chunk=1)
    names = list(rows[0])
    view, crop = (np.stack([[row[name][look] for name in names] for row in rows]) for look in (0, 1))
    if cache:
        np.savez(cache, allow_pickle=False, names=np.array(names), view=view, crop=crop)
    return names, view, crop


def _versions(books: Books, path: Path) -> dict[str, tuple[Floats, Floats]]:
    """Features in both looks of every version of a photo."""
    return {version: both_looks(picture, books)[:2] for version, picture in _changed(open_picture(path).pixels)}


def _changed(rgb: PixelArray) -> Iterator[tuple[str, PixelArray]]:
    """A photo, its degraded copies, and some of these when undone; one at a time, as photos may be large."""
    rng = np.random.default_rng(0)
    cures = {cause: undoing for undoing, cause in UNDOINGS.items()}
    yield CLEAN, rgb
    for name, strengths in STRENGTHS.items():
        for strength in strengths:
            bad = degrade(rgb, name, strength, rng)
            yield _version(name, strength), bad
            if name in cures and strength in strengths[UNDONE]:
                yield _version(cures[name], strength), undo(bad, rgb, cures[name], strength)


def _version(name: str, strength: float) -> str:
    return f"{name} {strength:g}"
