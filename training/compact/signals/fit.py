"""Fit, cross-validate and export the compact rating.

``python -m training.compact.signals.fit ANNOTATIONS.json --image-root DIR --out FILE.npz [--seed 0] [--limit N]
[--clean-photos DIR ...] [--jobs 2] [--cache FILE] [--copies SHARE] [--copy-weight W]``

Prints out-of-fold figures of both looks for the whole and for every subset, fits on everything, writes the weights
and a ``.json`` beside them, and verifies that the exported numpy predictor gives the ratings of the fitted members
(LightGBM's own prediction and the training kernel).  LightGBM is needed here and nowhere else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import lightgbm
import numpy as np
import scipy
import scipy.linalg
from scipy.optimize import nnls
from scipy.stats import spearmanr

from zoomiqa.assessors.compact import features as look
from zoomiqa.assessors.compact.fisher import Codebook
from zoomiqa.assessors.compact.rating import FORMAT_VERSION, RatingModel, spread_inputs
from zoomiqa.imaging import open_picture

from ..rating.corpus import folds_of  # noqa: TID252 - in a wheel it is zoomiqa.training
from . import degrade

HAND = look.HANDMADE_COUNT
#: Chosen by cross-validation on the 3,600 photos (seed 0); see the report in compact_rating.json.
HAND_WIDTH, PATCH_WIDTH = 300, 160
HAND_GAMMA, PATCH_GAMMA = 0.3 / HAND, 3.0
PATCH_WEIGHT, RIDGE, KERNEL_SHARE = 0.4, 0.1, 0.6
FLOOR = 1.4  # the worst score in the data is about 1.5; degraded copies approach this
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


@dataclass
class Table:
    """Features and scores of photos and of changed copies; ``source`` is the index of the photo of each row."""

    view: np.ndarray
    crop: np.ndarray
    box: np.ndarray
    score: np.ndarray
    weight: np.ndarray
    source: np.ndarray
    subset: np.ndarray

    def __len__(self) -> int:
        return len(self.score)

    def rows(self, index: np.ndarray) -> Table:
        return Table(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


# --- features ---------------------------------------------------------------------------------------------------

_BOOKS: tuple[Codebook, ...] = ()


def both_looks(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Features of the view, features of the crop, and the box."""
    view = look.viewing_copy(rgb)
    box = look.choose_region(view).box_fraction
    crop = look.crop_copy(rgb, box)
    return look.extract_features(view, _BOOKS), look.extract_features(crop, _BOOKS), box


def _start(books: tuple[Codebook, ...]) -> None:
    global _BOOKS
    _BOOKS = books
    cv2.setNumThreads(1)


def _patches(job: tuple[Path, int]) -> tuple[np.ndarray, ...]:
    path, seed = job
    rng = np.random.default_rng(seed)
    rgb = open_picture(path).pixels
    view = look.viewing_copy(rgb)
    pictures = view, look.crop_copy(rgb, look.choose_region(view).box_fraction)
    sampled = [look.sample_patches(p) for p in pictures]
    return tuple(
        np.concatenate([s[b][rng.choice(len(s[b]), min(120, len(s[b])), replace=False)] for s in sampled])
        for b in (0, 1)
    )


def _features(job: tuple[Path, str, float, int]) -> tuple[np.ndarray, np.ndarray, tuple[float, ...], float]:
    path, name, strength, seed = job
    rgb, share = open_picture(path).pixels, 1.0
    if name:
        rgb, share = degrade.apply(rgb, name, strength, np.random.default_rng(seed))
    return (*both_looks(rgb), share)


def gather(records: list[dict], root: Path, seed: int, copies: float, jobs: int) -> tuple[Table, tuple[Codebook, ...]]:
    """Learn the codebooks (without scores), then extract the features of all photos and of the changed copies."""
    rng = np.random.default_rng(seed)
    paths = [root / r["image"] for r in records]
    scores = np.array([float(r["gt_score"]) for r in records])
    sample = rng.permutation(len(paths))[:450]
    with multiprocessing.Pool(jobs, _start, ((),)) as pool:
        parts = pool.map(_patches, [(paths[i], int(i)) for i in sample], chunksize=8)
    books = tuple(Codebook.fit(np.concatenate([p[b] for p in parts]), rng) for b in (0, 1))
    books = tuple(Codebook(*(getattr(b, n).astype(np.float32) for n in b.__dataclass_fields__)) for b in books)
    chosen = rng.permutation(len(paths))[: int(copies * len(paths))]
    work = [(p, "", 0.0, 0) for p in paths]
    work += [(paths[i], *degrade.draw(rng), int(i)) for i in chosen]
    with multiprocessing.Pool(jobs, _start, (books,)) as pool:
        rows = list(pool.imap(_features, work, chunksize=8))
    source = np.concatenate([np.arange(len(paths)), chosen])
    share = np.array([r[3] for r in rows])
    table = Table(
        view=np.stack([r[0] for r in rows]),
        crop=np.stack([r[1] for r in rows]),
        box=np.array([r[2] for r in rows]),
        score=FLOOR + (scores[source] - FLOOR) * share,
        weight=np.where(np.arange(len(rows)) < len(paths), 1.0, -1.0),
        source=source,
        subset=np.array([str(r.get("subset", "all")) for r in records])[source],
    )
    return table, books


# --- the members ------------------------------------------------------------------------------------------------


def compress(block: np.ndarray, width: int, clip: float) -> dict[str, np.ndarray]:
    """Standardisation (only with a clip), PCA and 8-bit codes; all rounded to what the file stores."""
    mean = block.mean(0).astype(np.float32)
    if clip:
        scale = (block.std(0) + 1e-5).astype(np.float32)
        centred = np.clip((block - mean) / scale, -clip, clip)
    else:
        scale, centred = np.ones(1, np.float32), block - mean
    width = min(width, *centred.shape)
    # Randomised subspace iteration (Halko, Martinsson, Tropp, SIAM Review 2011): a full eigendecomposition of the
    # Fisher vectors would take most of the fit's time.
    draw = np.random.default_rng(0).standard_normal((centred.shape[1], min(width + 40, *centred.shape)))
    basis = draw.astype(np.float32)
    for _ in range(5):
        basis, _ = np.linalg.qr(centred.T @ (centred @ basis))
    _, _, right = np.linalg.svd(centred @ basis, full_matrices=False)
    axes = (basis @ right.T)[:, :width].astype(np.float16)
    codes = centred @ axes.astype(np.float32)
    step = (np.abs(codes).max(0) / 127 + 1e-9).astype(np.float32)
    return {
        "mean": mean,
        "scale": scale,
        "projection": axes,
        "step": step,
        "clip": np.float32(clip),
        "train": np.clip(np.rint(codes / step), -127, 127).astype(np.int8),
    }


def gaussian(part: dict[str, np.ndarray], block: np.ndarray | None, gamma: float) -> np.ndarray:
    """Kernel between rows of ``block`` and the stored training codes; ``None``: of these codes with themselves.

    Only the latter is symmetric and positive definite, as the stored codes are rounded.
    """
    train = part["train"].astype(np.float32) * part["step"]
    if block is None:
        code = train
    else:
        scaled = (block - part["mean"]) / part["scale"]
        if part["clip"]:
            scaled = np.clip(scaled, -part["clip"], part["clip"])
        code = scaled @ part["projection"].astype(np.float32)
    distance = (train**2).sum(1) - 2 * code @ train.T + (code**2).sum(1)[:, None]
    return np.exp(-gamma * np.maximum(distance, 0))


def ridge(kernel: np.ndarray, score: np.ndarray, weight: np.ndarray, bias: float) -> np.ndarray:
    """Weighted kernel ridge regression: lightly weighted rows get a larger ridge."""
    system = kernel.copy()
    system[np.diag_indices_from(system)] += (RIDGE / weight).astype(np.float32)
    factor = scipy.linalg.cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
    solution: np.ndarray = scipy.linalg.cho_solve(factor, (score - bias).astype(np.float32))
    return solution


@dataclass
class Fitted:
    """Everything that the fit makes, before the spread model."""

    parts: dict[str, dict[str, np.ndarray]]
    bias: float
    alpha_first: np.ndarray
    alpha_second: np.ndarray
    trees: tuple[lightgbm.LGBMRegressor, lightgbm.LGBMRegressor]


def fit_members(table: Table, seed: int) -> Fitted:
    """Fit the kernel and tree members of both looks on the rows of ``table``."""
    both_patch = np.concatenate([table.view[:, HAND:], table.crop[:, HAND:]]) / np.float32(np.sqrt(2))
    # One patch projection for both looks: half the storage, and the same measuring stick.
    shared = compress(both_patch[:: max(1, len(both_patch) // 4000)], PATCH_WIDTH, 0.0)
    parts = {}
    for name in ("view", "crop"):
        block = getattr(table, name)
        parts[f"{name}_hand"] = compress(block[:, :HAND], HAND_WIDTH, 3.0)
        codes = (block[:, HAND:] / np.float32(np.sqrt(2)) - shared["mean"]) @ shared["projection"].astype(np.float32)
        step = (np.abs(codes).max(0) / 127 + 1e-9).astype(np.float32)
        train = np.clip(np.rint(codes / step), -127, 127).astype(np.int8)
        parts[f"{name}_patch"] = {**shared, "step": step, "train": train}
    k = kernels(parts, None)
    bias = float(np.average(table.score, weights=table.weight))

    def solve(kernel: np.ndarray) -> np.ndarray:
        return ridge(kernel, table.score, table.weight, bias)

    hand, patch = 0.5 * (k["view_hand"] + k["crop_hand"]), 0.5 * (k["view_patch"] + k["crop_patch"])
    first = [solve(k["view_hand"] + PATCH_WEIGHT * k["view_patch"]), solve(k["view_hand"]), solve(k["view_patch"])]
    second = [
        solve(hand + PATCH_WEIGHT * patch),
        solve(hand),
        solve(patch),
        solve(k["crop_hand"] + PATCH_WEIGHT * k["crop_patch"]),
    ]
    trees = []
    both = np.concatenate([table.view[:, :HAND], table.crop[:, :HAND]], 1)
    for number, block in enumerate((table.view[:, :HAND], both)):
        model = lightgbm.LGBMRegressor(**TREES, random_state=seed + number)
        trees.append(model.fit(block, table.score, sample_weight=table.weight))
    return Fitted(parts, bias, np.stack(first, 1), np.stack(second, 1), (trees[0], trees[1]))


def kernels(parts: dict[str, dict[str, np.ndarray]], table: Table | None) -> dict[str, np.ndarray]:
    """The four kernels between the rows of ``table`` (``None``: the training rows) and the training rows."""
    out = {}
    for name in ("view", "crop"):
        block = None if table is None else getattr(table, name)
        hand, patch = (None, None) if block is None else (block[:, :HAND], block[:, HAND:] / np.float32(np.sqrt(2)))
        out[f"{name}_hand"] = gaussian(parts[f"{name}_hand"], hand, HAND_GAMMA)
        out[f"{name}_patch"] = gaussian(parts[f"{name}_patch"], patch, PATCH_GAMMA)
    return out


def predict(fitted: Fitted, table: Table) -> dict[str, np.ndarray]:
    """Ratings of both looks, of their members, and the spread inputs."""
    k, bias = kernels(fitted.parts, table), fitted.bias
    hand, patch = 0.5 * (k["view_hand"] + k["crop_hand"]), 0.5 * (k["view_patch"] + k["crop_patch"])
    one = np.stack([k["view_hand"] + PATCH_WEIGHT * k["view_patch"], k["view_hand"], k["view_patch"]])
    two = np.stack([hand + PATCH_WEIGHT * patch, hand, patch, k["crop_hand"] + PATCH_WEIGHT * k["crop_patch"]])
    first = np.stack([one[i] @ fitted.alpha_first[:, i] + bias for i in range(3)])
    second = np.stack([two[i] @ fitted.alpha_second[:, i] + bias for i in range(4)])
    t1 = fitted.trees[0].predict(table.view[:, :HAND])
    t2 = fitted.trees[1].predict(np.concatenate([table.view[:, :HAND], table.crop[:, :HAND]], 1))
    r1 = KERNEL_SHARE * first[0] + (1 - KERNEL_SHARE) * t1
    r2 = KERNEL_SHARE * second[0] + (1 - KERNEL_SHARE) * t2

    def near(kernel: np.ndarray) -> np.ndarray:
        count = min(10, kernel.shape[1])
        return np.partition(kernel, kernel.shape[1] - count, axis=1)[:, -count:].mean(1)

    n1, n2 = near(k["view_hand"]), near(hand)
    u1 = np.stack([spread_inputs(*row) for row in zip(r1, first[0], t1, first[1], first[2], n1, strict=True)])
    u2 = np.stack(
        [
            spread_inputs(*row)
            for row in zip(r2, second[0], t2, second[1], second[2], n2, r1, first[0], second[3], strict=True)
        ]
    )
    return {
        "first": r1,
        "second": r2,
        "first_kernel": first[0],
        "second_kernel": second[0],
        "first_trees": t1,
        "second_trees": t2,
        "crop_kernel": second[3],
        "inputs_first": u1,
        "inputs_second": u2,
    }


def fit_spread(inputs: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Non-negative least squares for |error|; the two rating inputs may have either sign."""
    signed = np.concatenate([inputs, -inputs[:, 1:3]], 1)
    found, _ = nnls(
        np.concatenate([signed, 1e-2 * np.eye(signed.shape[1])]), np.concatenate([error, np.zeros(signed.shape[1])])
    )
    weights = found[: inputs.shape[1]].copy()
    weights[1:3] -= found[inputs.shape[1] :]
    return weights


# --- measuring --------------------------------------------------------------------------------------------------


def correlation(rating: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Spearman and Pearson correlation, to four places."""
    return {
        "srcc": round(float(spearmanr(rating, score).statistic), 4),
        "plcc": round(float(np.corrcoef(rating, score)[0, 1]), 4),
    }


def by_subset(rating: np.ndarray, table: Table) -> dict[str, dict[str, float]]:
    """Correlations over the whole and within every subset."""
    out = {"all": correlation(rating, table.score)}
    for name in np.unique(table.subset):
        mine = table.subset == name
        if mine.sum() > 5 and len(np.unique(table.subset)) > 1:
            out[str(name)] = correlation(rating[mine], table.score[mine])
    return out


def cross_validate(table: Table, seeds: Iterable[int], count: int = 5) -> tuple[dict, dict[str, np.ndarray]]:
    """Repeated, stratified folds.  A copy of a photo is only ever trained on when that photo is."""
    photos = np.flatnonzero(table.source == np.arange(len(table)))
    clean = table.rows(photos)
    sums: dict[str, np.ndarray] = {}
    runs = []
    for seed in seeds:
        fold = folds_of(list(clean.subset), seed, count)
        got: dict[str, np.ndarray] = {}
        for f in range(count):
            held = np.flatnonzero(fold == f)
            fitted = fit_members(table.rows(np.flatnonzero(fold[table.source] != f)), seed)
            for name, value in predict(fitted, clean.rows(held)).items():
                got.setdefault(name, np.zeros((len(clean), *value.shape[1:])))[held] = value
        spreads = {}
        for name in ("first", "second"):
            error, inputs = np.abs(got[name] - clean.score), got[f"inputs_{name}"]
            spread = np.zeros(len(clean))
            for f in range(count):
                spread[fold == f] = inputs[fold == f] @ fit_spread(inputs[fold != f], error[fold != f])
            spreads[name] = {
                "srcc": round(float(spearmanr(spread, error).statistic), 4),
                "plcc": round(float(np.corrcoef(spread, error)[0, 1]), 4),
            }
        run = {
            "seed": seed,
            "spread_vs_error": spreads,
            "mean_second_minus_first": round(float((got["second"] - got["first"]).mean()), 4),
        }
        for name in ("first", "second", "first_kernel", "second_kernel", "first_trees", "second_trees", "crop_kernel"):
            run[name] = by_subset(got[name], clean)
            line = "  ".join(f"{s} {v['srcc']:.4f}/{v['plcc']:.4f}" for s, v in run[name].items())
            print(f"seed {seed} {name:14s} {line}", flush=True)
        run["mean_absolute_error"] = {
            n: round(float(np.abs(got[n] - clean.score).mean()), 4) for n in ("first", "second")
        }
        print(f"seed {seed} second-first {run['mean_second_minus_first']:+.4f}  spread {spreads}", flush=True)
        runs.append(run)
        for name, value in got.items():
            sums[name] = sums.get(name, 0) + value
    return {"folds": count, "runs": runs}, {name: value / len(runs) for name, value in sums.items()}


# --- export -----------------------------------------------------------------------------------------------------


def flatten(model: lightgbm.LGBMRegressor) -> dict[str, np.ndarray]:
    """LightGBM's trees as flat arrays; a leaf is its own child, so that walking too deep is harmless."""
    feature, threshold, child, value, root, deepest = [], [], [], [], [], 0

    def add(node: dict, level: int) -> int:
        nonlocal deepest
        deepest = max(deepest, level)
        here = len(feature)
        feature.append(0), threshold.append(0.0), child.append([here, here]), value.append(0.0)
        if "leaf_value" in node:
            value[here] = node["leaf_value"]
            return here
        # Rounded towards minus infinity: for float32 inputs "x <= t" is then unchanged.
        small = np.float32(node["threshold"])
        if float(small) > node["threshold"]:
            small = np.nextafter(small, np.float32(-np.inf))
        feature[here], threshold[here] = node["split_feature"], small
        child[here] = [add(node["left_child"], level + 1), add(node["right_child"], level + 1)]
        return here

    root.extend(add(tree["tree_structure"], 0) for tree in model.booster_.dump_model()["tree_info"])
    return {
        "feature": np.array(feature, np.int16),
        "threshold": np.array(threshold, np.float32),
        "child": np.array(child, np.int32),
        "value": np.array(value, np.float32),
        "root": np.array(root, np.int32),
        "depth": np.array([deepest], np.int32),
    }


def arrays_of(
    fitted: Fitted, spread: tuple[np.ndarray, np.ndarray], books: tuple[Codebook, ...]
) -> dict[str, np.ndarray]:
    """Everything that :class:`zoomiqa.assessors.compact.rating.RatingModel` reads."""
    half = np.float32(np.sqrt(0.5))
    shared = fitted.parts["view_patch"]
    out = {
        "version": np.array([FORMAT_VERSION], np.int32),
        "bias": np.array([fitted.bias]),
        "settings": np.array([HAND_GAMMA, PATCH_GAMMA, PATCH_WEIGHT, KERNEL_SHARE]),
        "alpha_first": fitted.alpha_first.astype(np.float32),
        "alpha_second": fitted.alpha_second.astype(np.float32),
        # The 1/sqrt(2) that joins the two unit vectors moves into the projection and the mean.
        "patch_mean": (shared["mean"] / half).astype(np.float32),
        "patch_projection": (shared["projection"].astype(np.float32) * half).astype(np.float16),
        "spread_first": spread[0],
        "spread_second": spread[1],
    }
    for name in ("view", "crop"):
        for key in ("mean", "scale", "projection", "step", "train"):
            out[f"{name}_hand_{key}"] = fitted.parts[f"{name}_hand"][key]
        for key in ("step", "train"):
            out[f"{name}_patch_{key}"] = fitted.parts[f"{name}_patch"][key]
    for number, model in enumerate(fitted.trees, 1):
        out.update({f"trees_{number}_{key}": value for key, value in flatten(model).items()})
    for number, book in enumerate(books):
        kinds = {key: np.float16 if key in ("mean", "projection") else np.float32 for key in book.__dataclass_fields__}
        out.update({f"book{number}_{key}": getattr(book, key).astype(kind) for key, kind in kinds.items()})
    return out


def verify(path: Path, fitted: Fitted, table: Table) -> float:
    """Largest difference between the exported predictor and the fitted members, in rating points."""
    model, expected, worst = RatingModel.load(path), predict(fitted, table), 0.0
    for i in range(len(table)):
        first, second = model.first(table.view[i]), model.second(table.view[i], table.crop[i], table.box[i])
        for name, got in (("first", first), ("second", second)):
            worst = max(worst, abs(got.value - float(np.clip(expected[name][i], 1, 5))))
    return worst


# --- known changes ----------------------------------------------------------------------------------------------


def _ordering(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng, rgb = np.random.default_rng(0), open_picture(path).pixels
    out = {"clean": both_looks(rgb)[:2]}
    for name, strengths in degrade.STRENGTHS.items():
        for strength in strengths:
            bad = degrade.degrade(rgb, name, strength, rng)
            out[f"{name} {strength:g}"] = both_looks(bad)[:2]
            undoing = next((u for u, cause in degrade.UNDOINGS.items() if cause == name), "")
            if undoing and strength in strengths[1:3]:
                out[f"{undoing} {strength:g}"] = both_looks(degrade.undo(bad, rgb, undoing, strength))[:2]
    return out


def orderings(path: Path, photos: list[Path], books: tuple[Codebook, ...], jobs: int, cache: Path | None) -> dict:
    """Share of (clean, degraded) pairs, and of (degraded, undone) pairs, that the second look orders rightly."""
    names: list[str]
    if cache and cache.exists():
        with np.load(cache) as held:
            names, view, crop = list(held["names"]), held["view"], held["crop"]
    else:
        with multiprocessing.Pool(jobs, _start, (books,)) as pool:
            rows = pool.map(_ordering, photos, chunksize=1)
        names = list(rows[0])
        view, crop = (np.stack([[r[n][k] for n in names] for r in rows]) for k in (0, 1))
        if cache:
            np.savez(cache, names=names, view=view, crop=crop)
    model = RatingModel.load(path)
    rating = np.array(
        [
            [model.second(v, c, (0, 0, 1, 1)).value for v, c in zip(vs, cs, strict=True)]
            for vs, cs in zip(view, crop, strict=True)
        ]
    )
    of = {n: rating[:, i] for i, n in enumerate(names)}
    out: dict = {"photos": len(rating), "clean_mean": round(float(of["clean"].mean()), 3)}
    for name, strengths in degrade.STRENGTHS.items():
        series = np.stack([of["clean"]] + [of[f"{name} {s:g}"] for s in strengths])
        out[name] = {
            f"{s:g}": {
                "right": round(float((series[i + 1] < series[0]).mean()), 3),
                "drop": round(float((series[0] - series[i + 1]).mean()), 3),
            }
            for i, s in enumerate(strengths)
        }
        out[name]["steps_right"] = round(float((series[1:] < series[:-1]).mean()), 3)
    for undoing, cause in degrade.UNDOINGS.items():
        out[undoing] = {
            f"{s:g}": {
                "right": round(float((of[f"{undoing} {s:g}"] > of[f"{cause} {s:g}"]).mean()), 3),
                "gain": round(float((of[f"{undoing} {s:g}"] - of[f"{cause} {s:g}"]).mean()), 3),
            }
            for s in degrade.STRENGTHS[cause][1:3]
        }
    return out


# --- the command ------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--image-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=0, help="use only this many photos, spread over the list")
    parser.add_argument("--clean-photos", type=Path, nargs="*", default=[], help="folders for the ordering report")
    parser.add_argument("--clean-limit", type=int, default=40, help="photos taken from each such folder")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1, help="repeats of the five folds")
    parser.add_argument("--copies", type=float, default=0.4, help="changed copies, as a share of the photos")
    parser.add_argument("--copy-weight", type=float, default=0.5)
    parser.add_argument("--cache", type=Path, help="keep the features here between runs (same data and code only)")
    args = parser.parse_args(argv)
    cv2.setNumThreads(1)
    started = time.time()
    records = json.loads(args.annotations.read_text(encoding="utf-8"))
    if args.limit and args.limit < len(records):
        records = [records[i] for i in np.linspace(0, len(records) - 1, args.limit).astype(int)]
    if len(records) < 20:
        raise SystemExit("at least 20 scored photos are needed")
    cache = args.cache.with_suffix(".npz") if args.cache else None
    if cache and cache.exists():
        with np.load(cache) as held:
            table = Table(*(held[n] for n in Table.__dataclass_fields__))
            books = tuple(Codebook(*(held[f"b{b}{n}"] for n in Codebook.__dataclass_fields__)) for b in (0, 1))
    else:
        table, books = gather(records, args.image_root, args.seed, args.copies, args.jobs)
        if cache:
            np.savez(
                cache,
                **{n: getattr(table, n) for n in Table.__dataclass_fields__},
                **{f"b{b}{n}": getattr(books[b], n) for b in (0, 1) for n in Codebook.__dataclass_fields__},
            )
    copied = len(table) - len(records)
    print(f"features of {len(records)} photos and {copied} copies after {time.time() - started:.0f} s", flush=True)
    if args.copy_weight > 0:
        table.weight = np.where(table.weight < 0, args.copy_weight, 1.0)
    else:
        table = table.rows(np.flatnonzero(table.weight > 0))
    report, held_out = cross_validate(table, range(args.seed, args.seed + args.repeats))
    clean_scores = table.score[: len(records)]
    spread = tuple(fit_spread(held_out[f"inputs_{n}"], np.abs(held_out[n] - clean_scores)) for n in ("first", "second"))
    fitted = fit_members(table, args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out, **arrays_of(fitted, spread, books))
    difference = verify(args.out, fitted, table.rows(np.linspace(0, len(table) - 1, min(100, len(table))).astype(int)))
    print(f"exported predictor differs from the fitted members by at most {difference:.2e}", flush=True)
    if difference > 2e-3:
        raise SystemExit("the exported predictor is not the fitted one")
    photos = [
        p
        for folder in args.clean_photos
        for p in sorted(q for q in folder.rglob("*") if q.suffix.lower() in (".png", ".jpg"))[: args.clean_limit]
    ]
    order = {}
    if photos:
        order_cache = cache.with_name(cache.stem + "_order.npz") if cache else None
        order = orderings(args.out, photos, books, args.jobs, order_cache)
        print(json.dumps(order, indent=1), flush=True)
    data = args.out.read_bytes()
    facts = {
        "format_version": FORMAT_VERSION,
        "origin": "human scores of BIQ2021 (Ahmed & Asif 2022), 3,600 photos of its official training part; "
        "degraded copies of some of them with scores lowered after KADID-10k's mean scores per level",
        "photos": len(records),
        "copies": len(table) - len(records),
        "copy_weight": args.copy_weight,
        "seed": args.seed,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "versions": {
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            "scipy": scipy.__version__,
            "lightgbm": lightgbm.__version__,
        },
        "view_side": look.VIEW_SIDE,
        "crop_side": look.CROP_SIDE,
        "region_area": look.REGION_AREA,
        "cross_validation": report,
        "export_difference": difference,
        "known_changes": order,
    }
    args.out.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {args.out} ({len(data) / 1e6:.2f} MB) after {time.time() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
