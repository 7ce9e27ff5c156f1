"""The members of the rating: kernel ridge regression and boosted trees, and the spread. It must not open pictures.

The regression (Saunders, Gammerman and Vovk, ICML 1998) has one Gaussian kernel on the hand-made features and one on
the Fisher vectors; the second look averages the kernels of the viewing copy and of the crop. Both stand on compressed
features, rounded to what the file stores, so that the fit sees what the rating will.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg
from lightgbm import LGBMRegressor
from numpy.typing import NDArray
from scipy.optimize import nnls

from zoomiqa.assessors.compact.features import HANDMADE_COUNT
from zoomiqa.assessors.compact.rating import spread_inputs

from .looks import Floats
from .table import Table

HAND_WIDTH, PATCH_WIDTH = 300, 160
HAND_GAMMA, PATCH_GAMMA = 0.3 / HANDMADE_COUNT, 3.0
PATCH_WEIGHT, RIDGE, KERNEL_SHARE = 0.4, 0.1, 0.6
"""Chosen by cross-validation on the 3,600 photos (seed 0), like all settings here; see `compact_rating.json`."""

HAND_CLIP = 3.0
"""Deviations from the mean at which a hand-made feature is cut."""

PATCH_SCALE = np.float32(np.sqrt(2))
"""What joins the unit vectors of two codebooks into one."""

PROJECTED_ROWS = 4000
"""About how many Fisher vectors their projection is learnt from."""

POWER_STEPS, MORE_AXES = 5, 40
"""Of the subspace iteration: rounds, and axes beyond those that are kept."""

LARGEST_CODE = 127
NEAREST = 10
"""Training pictures whose nearness the spread knows."""

SPREAD_RIDGE = 1e-2

TREES = {
    "n_estimators": 400,
    "learning_rate": 0.035,
    "num_leaves": 12,
    "min_child_samples": 15,
    "feature_fraction": 0.12,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "extra_trees": True,
    "max_bin": 63,
    "n_jobs": 1,
    "verbose": -1,
    "deterministic": True,
    "force_row_wise": True,
}

Kernels = Mapping[str, Floats]
"""`view_hand`, `view_patch`, `crop_hand` and `crop_patch`, rows x training rows each."""


@dataclass(frozen=True, slots=True)
class Part:
    """One block of features of the training rows, compressed as the file stores it."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    """By which features are divided; one number 1 where they are not standardised."""

    projection: NDArray[np.float16]
    """Features x width."""

    step: NDArray[np.float32]
    """Unit of each column of `train`."""

    train: NDArray[np.int8]
    """N x width."""

    clip: float
    """Deviations at which a feature is cut; 0: none is."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """Everything that the fit makes, before the spread."""

    parts: Mapping[str, Part]
    """By the names of the kernels."""

    bias: float
    alpha_first: Floats
    """Training rows x 3: a column of weights for each of `first_kernels`."""

    alpha_second: Floats
    """Training rows x 4: a column of weights for each of `second_kernels`."""

    trees: tuple[LGBMRegressor, LGBMRegressor]
    """Of the first look and of the second."""


def compress(block: Floats, width: int, clip: float) -> Part:
    """Standardisation (only with a clip), PCA and 8-bit codes of rows of features.

    The PCA is a randomised subspace iteration (Halko, Martinsson and Tropp, SIAM Review 2011): a full decomposition of
    the Fisher vectors would take most of the fit's time.
    """
    mean = block.mean(0).astype(np.float32)
    if clip:
        scale = (block.std(0) + 1e-5).astype(np.float32)
        centred = np.clip((block - mean) / scale, -clip, clip)
    else:
        scale, centred = np.ones(1, np.float32), block - mean
    width = min(width, *centred.shape)
    draw = np.random.default_rng(0).standard_normal((centred.shape[1], min(width + MORE_AXES, *centred.shape)))
    basis = draw.astype(np.float32)
    for _ in range(POWER_STEPS):
        basis, _ = np.linalg.qr(centred.T @ (centred @ basis))
    _, _, right = np.linalg.svd(centred @ basis, full_matrices=False)
    axes = (basis @ right.T)[:, :width].astype(np.float16)
    step, train = rounded(centred @ axes.astype(np.float32))
    return Part(mean, scale, axes, step, train, clip)


def rounded(codes: Floats) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Each column's unit, and the columns in 8 bits."""
    step = (np.abs(codes).max(0) / LARGEST_CODE + 1e-9).astype(np.float32)
    return step, np.clip(np.rint(codes / step), -LARGEST_CODE, LARGEST_CODE).astype(np.int8)


def compress_all(table: Table) -> dict[str, Part]:
    """The four blocks of the rows of `table`, by the names of their kernels.

    Both looks share one projection of their Fisher vectors: half the storage, and the same measuring stick.
    """
    both = np.concatenate([_patch(table.view), _patch(table.crop)])
    shared = compress(both[:: max(1, len(both) // PROJECTED_ROWS)], PATCH_WIDTH, 0.0)
    parts = {}
    for name, block in (("view", table.view), ("crop", table.crop)):
        parts[f"{name}_hand"] = compress(_hand(block), HAND_WIDTH, HAND_CLIP)
        step, train = rounded((_patch(block) - shared.mean) @ shared.projection.astype(np.float32))
        parts[f"{name}_patch"] = replace(shared, step=step, train=train)
    return parts


def gaussian(part: Part, block: Floats | None, gamma: float) -> Floats:
    """Kernel between rows of `block` and the stored training codes; `None`: of these codes with themselves.

    Only the latter is symmetric and positive definite, as the stored codes are rounded.
    """
    train = part.train.astype(np.float32) * part.step
    code = train
    if block is not None:
        scaled = (block - part.mean) / part.scale
        if part.clip:
            scaled = np.clip(scaled, -part.clip, part.clip)
        code = scaled @ part.projection.astype(np.float32)
    distance = (train**2).sum(1) - 2 * code @ train.T + (code**2).sum(1)[:, None]
    return np.asarray(np.exp(-gamma * np.maximum(distance, 0)))


def kernels(parts: Mapping[str, Part], table: Table | None) -> Kernels:
    """The four kernels between the rows of `table` (`None`: the training rows) and the training rows."""
    found = {}
    for name in ("view", "crop"):
        block = None if table is None else getattr(table, name)
        hand, patch = (None, None) if block is None else (_hand(block), _patch(block))
        found[f"{name}_hand"] = gaussian(parts[f"{name}_hand"], hand, HAND_GAMMA)
        found[f"{name}_patch"] = gaussian(parts[f"{name}_patch"], patch, PATCH_GAMMA)
    return found


def first_kernels(found: Kernels) -> Iterator[Floats]:
    """Kernels of the first look: of the rating, of the hand-made features alone, of the Fisher vectors alone."""
    yield found["view_hand"] + PATCH_WEIGHT * found["view_patch"]
    yield found["view_hand"]
    yield found["view_patch"]


def second_kernels(found: Kernels) -> Iterator[Floats]:
    """Kernels of the second look: as of the first, averaged over view and crop, and of the crop alone."""
    hand = 0.5 * (found["view_hand"] + found["crop_hand"])
    patch = 0.5 * (found["view_patch"] + found["crop_patch"])
    yield hand + PATCH_WEIGHT * patch
    yield hand
    yield patch
    yield found["crop_hand"] + PATCH_WEIGHT * found["crop_patch"]


def ridge(kernel: Floats, score: Floats, weight: Floats, bias: float) -> Floats:
    """Weighted kernel ridge regression: lightly weighted rows get a larger ridge."""
    system = kernel.copy()
    system[np.diag_indices_from(system)] += (RIDGE / weight).astype(np.float32)
    factor = scipy.linalg.cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
    return np.asarray(scipy.linalg.cho_solve(factor, (score - bias).astype(np.float32)))


def fit_members(table: Table, seed: int) -> Fitted:
    """Fit the kernel and tree members of both looks on the rows of `table`."""
    parts = compress_all(table)
    found = kernels(parts, None)
    bias = float(np.average(table.score, weights=table.weight))
    first, second = (
        np.stack([ridge(kernel, table.score, table.weight, bias) for kernel in looked], 1)
        for looked in (first_kernels(found), second_kernels(found))
    )
    trees = []
    for number, block in enumerate(_tree_blocks(table)):
        settings: dict[str, Any] = {**TREES, "random_state": seed + number}
        trees.append(LGBMRegressor(**settings).fit(block, table.score, sample_weight=table.weight))
    return Fitted(parts, bias, first, second, (trees[0], trees[1]))


def predict(fitted: Fitted, table: Table) -> dict[str, Floats]:
    """Ratings of both looks (`first`, `second`), of their members, and the inputs of their spreads."""
    found, bias = kernels(fitted.parts, table), fitted.bias
    looked = list(first_kernels(found)), list(second_kernels(found))
    first, second = (
        np.stack([kernel @ alpha[:, column] + bias for column, kernel in enumerate(of_look)])
        for of_look, alpha in zip(looked, (fitted.alpha_first, fitted.alpha_second), strict=True)
    )
    trees = [np.asarray(model.predict(block)) for model, block in zip(fitted.trees, _tree_blocks(table), strict=True)]
    one, two = (
        KERNEL_SHARE * kernel[0] + (1 - KERNEL_SHARE) * tree
        for kernel, tree in zip((first, second), trees, strict=True)
    )
    near = [_nearest(of_look[1]) for of_look in looked]
    of_first = one, first[0], trees[0], first[1], first[2], near[0]
    of_second = two, second[0], trees[1], second[1], second[2], near[1], one, first[0], second[3]
    return {
        "first": one,
        "second": two,
        "first_kernel": first[0],
        "second_kernel": second[0],
        "first_trees": trees[0],
        "second_trees": trees[1],
        "crop_kernel": second[3],
        "inputs_first": np.stack([spread_inputs(*row) for row in zip(*of_first, strict=True)]),
        "inputs_second": np.stack([spread_inputs(*row) for row in zip(*of_second, strict=True)]),
    }


def fit_spread(inputs: Floats, error: Floats) -> Floats:
    """Non-negative least squares for |error| (N); the two inputs that know the rating may have either sign.

    Args:
        inputs: N x the inputs of one look, as `predict` gives them for pictures that were not fitted on.
        error: N absolute errors of their ratings.
    """
    signed = np.concatenate([inputs, -inputs[:, 1:3]], 1)
    width = signed.shape[1]
    found, _ = nnls(np.concatenate([signed, SPREAD_RIDGE * np.eye(width)]), np.concatenate([error, np.zeros(width)]))
    weights = np.array(found[: inputs.shape[1]])
    weights[1:3] -= found[inputs.shape[1] :]
    return weights


def _hand(block: Floats) -> Floats:
    return block[:, :HANDMADE_COUNT]


def _patch(block: Floats) -> Floats:
    return np.asarray(block[:, HANDMADE_COUNT:] / PATCH_SCALE)


def _tree_blocks(table: Table) -> tuple[Floats, Floats]:
    """What the trees of the first look see, and those of the second."""
    return _hand(table.view), np.concatenate([_hand(table.view), _hand(table.crop)], 1)


def _nearest(kernel: Floats) -> Floats:
    """Mean kernel value of each row's nearest training pictures."""
    count = min(NEAREST, kernel.shape[1])
    return np.asarray(np.partition(kernel, kernel.shape[1] - count, axis=1)[:, -count:].mean(1))
