"""The compact rating: kernel regression and boosted trees over the features of one or two looks, in plain numpy.

The model was fitted by ``training/compact/signals/`` on human scores (see ``data/compact_rating.json``).  Each
look's rating is the weighted mean of two members:

* kernel ridge regression (Saunders, Gammerman, Vovk, ICML 1998) with a Gaussian kernel on the PCA-compressed
  hand-made features plus one on the PCA-compressed Fisher vectors; the second look averages the kernels of the
  viewing copy and of the crop;
* gradient-boosted trees on the hand-made features (Friedman 2001), stored as flat arrays.

Ratings and spreads are on the human scale, 1 (bad) .. 5 (excellent).  The spread is the expected absolute error in
rating points: a linear model, fitted to out-of-fold errors, of how much the members disagree, how far the picture
lies from the training photos and where on the scale the rating is.

Errors: ``ValueError`` for a damaged or foreign weights file and for feature vectors of the wrong length.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

import numpy as np

from zoomiqa.assessors.compact.features import FEATURE_COUNT, HANDMADE_COUNT
from zoomiqa.assessors.compact.fisher import COMPONENTS, PATCH, VECTOR, WORDS, Codebook

FORMAT_VERSION = 1
WEIGHTS = "compact_rating.npz"
LOWEST, HIGHEST = 1.0, 5.0
_SMALLEST_SPREAD = 0.05
_LARGEST_SPREAD = 1.5
_HAND = HANDMADE_COUNT
_CLIP = 3.0
#: Inputs of the spread model, in order (the first look leaves the last two out).
SPREAD_INPUTS = (
    "one",
    "rating",
    "middle",
    "trees_vs_kernel",
    "hand_vs_patch",
    "distance",
    "second_vs_first",
    "crop_vs_view",
)


@dataclass(frozen=True)
class Rating:
    """``value`` in 1..5 and ``spread``, the expected absolute error of the value in the same unit."""

    value: float
    spread: float


class Trees:
    """An ensemble of binary regression trees in flat arrays; all trees are walked together, level by level."""

    def __init__(
        self,
        feature: np.ndarray,
        threshold: np.ndarray,
        child: np.ndarray,
        value: np.ndarray,
        root: np.ndarray,
        depth: int,
    ) -> None:
        self.feature, self.threshold, self.child = feature.astype(np.intp), threshold, child.astype(np.intp)
        self.value, self.root, self.depth = value, root.astype(np.intp), int(depth)

    def __call__(self, vector: np.ndarray) -> float:
        """Sum of the leaves that ``vector`` (float32) falls into.  Leaves are their own children."""
        node = self.root
        for _ in range(self.depth):
            node = self.child[node, (vector[self.feature[node]] > self.threshold[node]).astype(np.intp)]
        return float(self.value[node].sum(dtype=np.float64))


class Encoder:
    """Standardise, clip and project one feature block, and compare it with the stored training pictures."""

    def __init__(
        self,
        mean: np.ndarray,
        scale: np.ndarray,
        projection: np.ndarray,
        step: np.ndarray,
        train: np.ndarray,
        gamma: float,
        clip: float,
    ) -> None:
        self.mean, self.scale, self.clip, self.gamma = mean.astype(np.float32), scale.astype(np.float32), clip, gamma
        self.projection = projection.astype(np.float32)
        self.train = train.astype(np.float32) * step.astype(np.float32)
        self._norms = np.einsum("ij,ij->i", self.train, self.train)

    def encode(self, block: np.ndarray) -> np.ndarray:
        """Compressed features of one picture, or of rows of pictures."""
        scaled = (block - self.mean) / self.scale
        if self.clip:
            scaled = np.clip(scaled, -self.clip, self.clip)
        code: np.ndarray = scaled @ self.projection
        return code

    def kernel(self, block: np.ndarray) -> np.ndarray:
        """Gaussian kernel values between one picture and every training picture."""
        code = self.encode(block)
        distance = self._norms - 2 * (self.train @ code) + float(code @ code)
        values: np.ndarray = np.exp(-self.gamma * np.maximum(distance, 0))
        return values


def spread_inputs(
    rating: float,
    kernel: float,
    trees: float,
    hand: float,
    patch: float,
    nearest: float,
    first: float | None = None,
    view: float | None = None,
    crop: float | None = None,
) -> np.ndarray:
    """The inputs of the spread model, in the order of :data:`SPREAD_INPUTS`."""
    row = [1.0, rating, (rating - 3.0) ** 2, abs(trees - kernel), abs(hand - patch), 1.0 - nearest]
    if first is not None and view is not None and crop is not None:
        row += [abs(rating - first), abs(crop - view)]
    return np.array(row)


def _nearest(kernel: np.ndarray) -> float:
    count = min(10, kernel.size)
    return float(np.partition(kernel, kernel.size - count)[-count:].mean())


class RatingModel:
    """The fitted rating.  Build it with :meth:`load`; it is read-only and safe to share between threads."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        _validate(arrays)
        get = arrays.__getitem__
        hand_gamma, patch_gamma, self._patch_weight, self._kernel_share = (float(v) for v in get("settings"))
        self._encoders = {
            part: (
                Encoder(
                    get(f"{part}_hand_mean"),
                    get(f"{part}_hand_scale"),
                    get(f"{part}_hand_projection"),
                    get(f"{part}_hand_step"),
                    get(f"{part}_hand_train"),
                    hand_gamma,
                    _CLIP,
                ),
                Encoder(
                    get("patch_mean"),
                    np.ones(1, np.float32),
                    get("patch_projection"),
                    get(f"{part}_patch_step"),
                    get(f"{part}_patch_train"),
                    patch_gamma,
                    0.0,
                ),
            )
            for part in ("view", "crop")
        }
        self._alpha_first, self._alpha_second = get("alpha_first"), get("alpha_second")
        self._bias = float(get("bias")[0])
        self._trees = [
            Trees(
                get(f"trees_{look}_feature"),
                get(f"trees_{look}_threshold"),
                get(f"trees_{look}_child"),
                get(f"trees_{look}_value"),
                get(f"trees_{look}_root"),
                int(get(f"trees_{look}_depth")[0]),
            )
            for look in (1, 2)
        ]
        self._spread = get("spread_first"), get("spread_second")

    @classmethod
    def load(cls, path: str | Path | None = None) -> RatingModel:
        """Load the shipped weights, or those at ``path``; ``ValueError`` when they are not this model's."""
        return cls(load_arrays(path))

    def _kernels(self, part: str, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        vector = np.asarray(features, np.float32)
        if vector.shape != (FEATURE_COUNT,):
            raise ValueError(f"expected {FEATURE_COUNT} features, got an array of shape {vector.shape}")
        hand, patch = self._encoders[part]
        return hand.kernel(vector[:_HAND]), patch.kernel(vector[_HAND:])

    def _first(self, view: np.ndarray) -> tuple[Rating, float, tuple[np.ndarray, np.ndarray]]:
        hand, patch = self._kernels("view", view)
        alpha = self._alpha_first
        kernel = float((hand + self._patch_weight * patch) @ alpha[:, 0]) + self._bias
        trees = self._trees[0](np.asarray(view[:_HAND], np.float32))
        value = self._kernel_share * kernel + (1 - self._kernel_share) * trees
        inputs = spread_inputs(
            value,
            kernel,
            trees,
            float(hand @ alpha[:, 1]) + self._bias,
            float(patch @ alpha[:, 2]) + self._bias,
            _nearest(hand),
        )
        return self._rating(value, inputs, self._spread[0]), value, (hand, patch)

    def first(self, view_features: np.ndarray) -> Rating:
        """Rating of the viewing copy alone.  ``view_features``: float32, as long as ``FEATURE_NAMES``."""
        return self._first(view_features)[0]

    def second(self, view_features: np.ndarray, crop_features: np.ndarray, box_fraction: Sequence[float]) -> Rating:
        """Rating of the viewing copy and the crop together.

        ``box_fraction`` must be a valid box; its place does not change the rating (tried: it carries nothing).
        """
        x1, y1, x2, y2 = (float(v) for v in box_fraction)
        if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
            raise ValueError(f"not a box of fractions: {tuple(box_fraction)}")
        _, first, (view_hand, view_patch) = self._first(view_features)
        crop_hand, crop_patch = self._kernels("crop", crop_features)
        hand, patch = 0.5 * (view_hand + crop_hand), 0.5 * (view_patch + crop_patch)
        alpha = self._alpha_second
        kernel = float((hand + self._patch_weight * patch) @ alpha[:, 0]) + self._bias
        both = np.concatenate([view_features[:_HAND], crop_features[:_HAND]]).astype(np.float32)
        trees = self._trees[1](both)
        value = self._kernel_share * kernel + (1 - self._kernel_share) * trees
        view = float((view_hand + self._patch_weight * view_patch) @ self._alpha_first[:, 0]) + self._bias
        crop = float((crop_hand + self._patch_weight * crop_patch) @ alpha[:, 3]) + self._bias
        inputs = spread_inputs(
            value,
            kernel,
            trees,
            float(hand @ alpha[:, 1]) + self._bias,
            float(patch @ alpha[:, 2]) + self._bias,
            _nearest(hand),
            first,
            view,
            crop,
        )
        return self._rating(value, inputs, self._spread[1])

    @staticmethod
    def _rating(value: float, inputs: np.ndarray, weights: np.ndarray) -> Rating:
        spread = float(np.clip(inputs @ weights, _SMALLEST_SPREAD, _LARGEST_SPREAD))
        return Rating(float(np.clip(value, LOWEST, HIGHEST)), spread)


def load_arrays(path: str | Path | None = None) -> dict[str, np.ndarray]:
    """The arrays of a weights file (never pickled objects); ``ValueError`` when it cannot be read."""
    try:
        if path is None:
            data = resources.files(__package__).joinpath("data", WEIGHTS).read_bytes()
        else:
            data = Path(path).read_bytes()
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ValueError(f"cannot read the rating weights {path or WEIGHTS}: {error}") from error
    except Exception as error:  # zipfile and zlib raise their own kinds for damaged files
        raise ValueError(f"the rating weights {path or WEIGHTS} are damaged: {error}") from error


def codebooks_of(arrays: Mapping[str, np.ndarray]) -> tuple[Codebook, Codebook]:
    """The two codebooks stored in a weights file."""
    return tuple(  # type: ignore[return-value]
        Codebook(
            *(
                arrays[f"book{b}_{name}"].astype(np.float32)
                for name in ("mean", "projection", "weights", "centres", "variances")
            )
        )
        for b in (0, 1)
    )


@lru_cache(maxsize=1)
def shipped_codebooks() -> tuple[Codebook, Codebook]:
    """The shipped codebooks, read once."""
    arrays = load_arrays()
    _validate(arrays)
    return codebooks_of(arrays)


def _validate(arrays: Mapping[str, np.ndarray]) -> None:
    """Check version, presence, shapes and kinds, so that a foreign file fails here and not in a matrix product."""

    def need(name: str, shape: tuple[int | None, ...], kind: str) -> np.ndarray:
        if name not in arrays:
            raise ValueError(f"the rating weights lack {name!r}")
        array = arrays[name]
        fits = array.ndim == len(shape) and all(s is None or s == a for s, a in zip(shape, array.shape, strict=True))
        if not fits or array.dtype.kind not in kind:
            raise ValueError(
                f"rating weights: {name!r} has shape {array.shape} and type {array.dtype}, "
                f"expected {shape} of kind {kind!r}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"rating weights: {name!r} holds values that are not finite")
        return array

    version = int(need("version", (1,), "i")[0])
    if version != FORMAT_VERSION:
        raise ValueError(f"rating weights of version {version}; this code reads version {FORMAT_VERSION}")
    need("settings", (4,), "f")
    need("bias", (1,), "f")
    count = need("alpha_first", (None, 3), "f").shape[0]
    need("alpha_second", (count, 4), "f")
    small = need("patch_projection", (2 * VECTOR, None), "f").shape[1]
    need("patch_mean", (2 * VECTOR,), "f")
    for part in ("view", "crop"):
        need(f"{part}_hand_mean", (_HAND,), "f")
        need(f"{part}_hand_scale", (_HAND,), "f")
        width = need(f"{part}_hand_projection", (_HAND, None), "f").shape[1]
        need(f"{part}_hand_step", (width,), "f")
        need(f"{part}_hand_train", (count, width), "i")
        need(f"{part}_patch_step", (small,), "f")
        need(f"{part}_patch_train", (count, small), "i")
    for look in (1, 2):
        nodes = need(f"trees_{look}_feature", (None,), "i").shape[0]
        features = arrays[f"trees_{look}_feature"]
        child, root = need(f"trees_{look}_child", (nodes, 2), "i"), need(f"trees_{look}_root", (None,), "i")
        need(f"trees_{look}_threshold", (nodes,), "f")
        need(f"trees_{look}_value", (nodes,), "f")
        need(f"trees_{look}_depth", (1,), "i")
        inside = [(features, look * _HAND), (child, nodes), (root, nodes)]
        if any(a.size and (a.min() < 0 or a.max() >= limit) for a, limit in inside):
            raise ValueError(f"rating weights: the trees of look {look} point outside their arrays")
    need("spread_first", (len(SPREAD_INPUTS) - 2,), "f")
    need("spread_second", (len(SPREAD_INPUTS),), "f")
    for b in (0, 1):
        need(f"book{b}_mean", (PATCH * PATCH,), "f")
        need(f"book{b}_projection", (PATCH * PATCH, COMPONENTS), "f")
        need(f"book{b}_weights", (WORDS,), "f")
        need(f"book{b}_centres", (WORDS, COMPONENTS), "f")
        need(f"book{b}_variances", (WORDS, COMPONENTS), "f")
