"""How well ratings of photos that were not fitted on agree with people. It must not know how the members are made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..agreement import DIGITS, by_subset, correlation  # noqa: TID252 - in a wheel it is zoomiqa.training
from ..scored import FOLDS, folds_of  # noqa: TID252
from .looks import Floats
from .members import fit_members, fit_spread, predict
from .table import Indices, Table, originals

LOOKS = ("first", "second")
RATINGS = (*LOOKS, "first_kernel", "second_kernel", "first_trees", "second_trees", "crop_kernel")
"""What is reported, as `predict` names it."""


def cross_validate(
    table: Table, seeds: Iterable[int], scenes: Indices | None = None
) -> tuple[dict[str, Any], dict[str, Floats]]:
    """Repeated folds, stratified by subset, over a whole table; each run's figures are printed.

    Args:
        table: Photos and changed copies.
        seeds: Of the runs.
        scenes: Number of each photo's scene, which stays in one fold; each its own without them.

    Returns:
        The figures, and the mean over the runs of what was predicted of each photo by members that had not seen it.
    """
    photos = table.rows(originals(table))
    sums: dict[str, Floats] = {}
    runs = []
    for seed in seeds:
        fold = folds_of(list(photos.subset), seed, FOLDS, scenes)
        found = _held_out(table, photos, fold, seed)
        runs.append(_figures(photos, fold, found, seed))
        for name, values in found.items():
            sums[name] = sums.get(name, 0) + values
    return {"folds": FOLDS, "scenes_kept_together": scenes is not None, "runs": runs}, {
        name: values / len(runs) for name, values in sums.items()
    }


def _held_out(table: Table, photos: Table, fold: Indices, seed: int) -> dict[str, Floats]:
    """What is predicted of each photo. A copy of a photo is only ever fitted on when that photo is."""
    found: dict[str, Floats] = {}
    for number in range(FOLDS):
        held = np.flatnonzero(fold == number)
        fitted = fit_members(table.rows(np.flatnonzero(fold[table.source] != number)), seed)
        for name, values in predict(fitted, photos.rows(held)).items():
            found.setdefault(name, np.zeros((len(photos), *values.shape[1:])))[held] = values
    return found


def _figures(photos: Table, fold: Indices, found: dict[str, Floats], seed: int) -> dict[str, Any]:
    error = {look: np.abs(found[look] - photos.score) for look in LOOKS}
    run: dict[str, Any] = {
        "seed": seed,
        "spread_vs_error": {
            look: correlation(_held_out_spread(found[f"inputs_{look}"], error[look], fold), error[look])
            for look in LOOKS
        },
        "mean_second_minus_first": round(float((found["second"] - found["first"]).mean()), DIGITS),
    }
    for name in RATINGS:
        run[name] = by_subset(found[name], photos.score, photos.subset)
        line = "  ".join(f"{part} {value['srcc']:.4f}/{value['plcc']:.4f}" for part, value in run[name].items())
        print(f"seed {seed} {name:14s} {line}", flush=True)
    run["mean_absolute_error"] = {look: round(float(error[look].mean()), DIGITS) for look in LOOKS}
    print(
        f"seed {seed} second-first {run['mean_second_minus_first']:+.4f}  spread {run['spread_vs_error']}", flush=True
    )
    return run


def _held_out_spread(inputs: Floats, error: Floats, fold: Indices) -> Floats:
    """The spread of each photo by weights that were fitted to the errors of the other folds."""
    spread = np.zeros(len(error))
    for number in range(FOLDS):
        spread[fold == number] = inputs[fold == number] @ fit_spread(inputs[fold != number], error[fold != number])
    return spread
