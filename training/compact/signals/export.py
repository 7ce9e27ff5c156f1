"""From the fitted members to the arrays that are shipped, and the check that both say the same. It must not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lightgbm import LGBMRegressor
from numpy.typing import NDArray

from zoomiqa.assessors.compact.rating import FORMAT_VERSION, HIGHEST, LOWEST, RatingModel

from .looks import Books, Floats
from .members import HAND_GAMMA, KERNEL_SHARE, PATCH_GAMMA, PATCH_WEIGHT, Fitted, predict
from .table import BOOK_FIELDS, Table

ALLOWED = 2e-3
"""Largest difference in rating points between the file and the fitted members."""

HALF_PRECISION = ("mean", "projection")
"""Arrays of a codebook that are stored in 16 bits; it was learnt with them rounded."""


@dataclass(slots=True)
class _Nodes:
    """Nodes of all trees in flat lists. A leaf is its own child, so that walking too deep is harmless."""

    feature: list[int] = field(default_factory=list)
    threshold: list[np.float32] = field(default_factory=list)
    child: list[list[int]] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    depth: int = 0

    def add(self, node: Mapping[str, Any], level: int = 0) -> int:
        """Append a node and what hangs below it; its index."""
        self.depth = max(self.depth, level)
        here = len(self.feature)
        self.feature.append(node.get("split_feature", 0))
        self.threshold.append(_rounded_down(node.get("threshold", 0.0)))
        self.child.append([here, here])
        self.value.append(node.get("leaf_value", 0.0))
        if "leaf_value" not in node:
            self.child[here] = [self.add(node[side], level + 1) for side in ("left_child", "right_child")]
        return here


def _rounded_down(threshold: float) -> np.float32:
    """In 32 bits, towards minus infinity: `x <= threshold` then stays as it is for every `x` in 32 bits."""
    small = np.float32(threshold)
    return np.nextafter(small, np.float32(-np.inf)) if float(small) > threshold else small


def flatten(model: LGBMRegressor) -> dict[str, NDArray[Any]]:
    """LightGBM's trees as flat arrays, as `zoomiqa.assessors.compact.rating.Trees` walks them."""
    nodes = _Nodes()
    root = [nodes.add(tree["tree_structure"]) for tree in model.booster_.dump_model()["tree_info"]]
    return {
        "feature": np.array(nodes.feature, np.int16),
        "threshold": np.array(nodes.threshold, np.float32),
        "child": np.array(nodes.child, np.int32),
        "value": np.array(nodes.value, np.float32),
        "root": np.array(root, np.int32),
        "depth": np.array([nodes.depth], np.int32),
    }


def arrays_of(fitted: Fitted, spread: tuple[Floats, Floats], books: Books) -> dict[str, NDArray[Any]]:
    """Everything that `zoomiqa.assessors.compact.rating.RatingModel` reads.

    Args:
        fitted: The members.
        spread: Weights of the inputs of the spread, of the first look and of the second.
        books: The codebooks of the features.
    """
    half = np.float32(np.sqrt(0.5))
    shared = fitted.parts["view_patch"]
    found: dict[str, NDArray[Any]] = {
        "version": np.array([FORMAT_VERSION], np.int32),
        "bias": np.array([fitted.bias]),
        "settings": np.array([HAND_GAMMA, PATCH_GAMMA, PATCH_WEIGHT, KERNEL_SHARE]),
        "alpha_first": fitted.alpha_first.astype(np.float32),
        "alpha_second": fitted.alpha_second.astype(np.float32),
        # What joins two unit vectors into one moves into the projection and the mean.
        "patch_mean": (shared.mean / half).astype(np.float32),
        "patch_projection": (shared.projection.astype(np.float32) * half).astype(np.float16),
        "spread_first": spread[0],
        "spread_second": spread[1],
    }
    for name in ("view", "crop"):
        hand, patch = fitted.parts[f"{name}_hand"], fitted.parts[f"{name}_patch"]
        found |= {f"{name}_hand_{key}": getattr(hand, key) for key in ("mean", "scale", "projection", "step", "train")}
        found |= {f"{name}_patch_{key}": getattr(patch, key) for key in ("step", "train")}
    for number, model in enumerate(fitted.trees, 1):
        found |= {f"trees_{number}_{key}": values for key, values in flatten(model).items()}
    for number, book in enumerate(books):
        for key in BOOK_FIELDS:
            kind = np.float16 if key in HALF_PRECISION else np.float32
            found[f"book{number}_{key}"] = getattr(book, key).astype(kind)
    return found


def export(path: Path, fitted: Fitted, spread: tuple[Floats, Floats], books: Books) -> None:
    """Write the weights file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, allow_pickle=False, **arrays_of(fitted, spread, books))


def difference(path: Path, fitted: Fitted, table: Table) -> float:
    """Largest difference of a rating of `table` between the file and the fitted members, in rating points."""
    model, expected, worst = RatingModel.load(path), predict(fitted, table), 0.0
    for row, (view, crop, box) in enumerate(zip(table.view, table.crop, table.box, strict=True)):
        for name, found in (("first", model.first(view)), ("second", model.second(view, crop, box))):
            worst = max(worst, abs(found.value - float(np.clip(expected[name][row], LOWEST, HIGHEST))))
    return worst
