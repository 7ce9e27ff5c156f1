"""Fisher vectors of small contrast-normalised luma patches: the learnt, label-free part of the features.

A codebook is a diagonal Gaussian mixture over PCA-whitened 7x7 patches, learnt without any score from the
training photos.  The Fisher vector (Perronnin, Sanchez, Mensink, ECCV 2010) keeps how a picture's patches differ
from that mixture in weight, mean and variance; Ye et al. (CORNIA, CVPR 2012) and Xu et al. (HOSA, TIP 2016) show
that such codebook statistics see distortions which parametric natural-scene statistics miss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PATCH = 7
COMPONENTS = 24
WORDS = 48
#: Length of one codebook's vector: one weight, ``COMPONENTS`` means and as many variances for every word.
VECTOR = WORDS * (1 + 2 * COMPONENTS)


def patches_of(luma: np.ndarray, budget: int) -> np.ndarray:
    """About ``budget`` contrast-normalised patches, ``N x 49`` float32, on a regular grid of ``luma`` (0..1)."""
    height, width = luma.shape
    step = max(1, round(float(np.sqrt(height * width / budget))))
    windows = np.lib.stride_tricks.sliding_window_view(luma, (PATCH, PATCH))[::step, ::step]
    rows = windows.reshape(-1, PATCH * PATCH)
    rows = rows - rows.mean(1, keepdims=True)
    # The floor of 6 grey levels keeps sensor noise in flat places from being blown up to full contrast.
    deviation = np.sqrt(np.einsum("ij,ij->i", rows, rows) / rows.shape[1])
    return np.asarray(rows / (deviation[:, None] + np.float32(6 / 255)))


@dataclass
class Codebook:
    """``mean`` (49), ``projection`` (49 x d), mixture ``weights`` (k), ``centres`` and ``variances`` (k x d)."""

    mean: np.ndarray
    projection: np.ndarray
    weights: np.ndarray
    centres: np.ndarray
    variances: np.ndarray

    def __post_init__(self) -> None:
        inverse = 1.0 / self.variances
        self._linear = np.ascontiguousarray((self.centres * inverse).T)
        self._square = np.ascontiguousarray(-0.5 * inverse.T)
        self._offset = (
            np.log(self.weights) - 0.5 * (self.centres**2 * inverse).sum(1) - 0.5 * np.log(self.variances).sum(1)
        )

    def posteriors(self, rows: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """Share of every word (``N x k``) in every projected patch (``N x d``)."""
        score = rows @ self._linear
        score += squares @ self._square
        score += self._offset
        score -= score.max(1, keepdims=True)
        np.exp(score, out=score)
        score /= score.sum(1, keepdims=True)
        return score

    def encode(self, patches: np.ndarray) -> np.ndarray:
        """Power- and length-normalised Fisher vector (float32, ``VECTOR`` long) of ``N x 49`` patches."""
        rows = (patches - self.mean) @ self.projection
        squares = rows * rows
        share = self.posteriors(rows, squares)
        count = len(rows)
        zero = share.sum(0)[:, None] / count
        one = share.T @ rows / count
        two = share.T @ squares / count
        root = np.sqrt(self.weights)[:, None]
        first = (one - zero * self.centres) / np.sqrt(self.variances) / root
        second = two - 2 * one * self.centres + zero * (self.centres**2 - self.variances)
        second = second / self.variances / (root * np.float32(np.sqrt(2)))
        vector = np.concatenate([((zero - self.weights[:, None]) / root).ravel(), first.ravel(), second.ravel()])
        vector = np.sign(vector) * np.sqrt(np.abs(vector))
        return np.asarray(vector / (np.linalg.norm(vector) + 1e-9), np.float32)

    @classmethod
    def fit(cls, patches: np.ndarray, rng: np.random.Generator, rounds: int = 20) -> Codebook:
        """Learn a codebook by PCA whitening, k-means and expectation-maximisation (used by training only)."""
        mean = patches.mean(0)
        values, vectors = np.linalg.eigh(np.cov((patches - mean).T))
        order = np.argsort(values)[::-1][:COMPONENTS]
        projection = vectors[:, order] / np.sqrt(values[order] + 0.01 * values[order[0]])
        # Rounded to what the file stores, so that training sees exactly the shipped codebook.
        mean, projection = mean.astype(np.float16).astype(np.float32), projection.astype(np.float16).astype(np.float32)
        rows = (patches - mean) @ projection
        squares = rows * rows
        centres = rows[rng.choice(len(rows), WORDS, replace=False)].copy()
        for _ in range(8):
            label = np.argmin((centres**2).sum(1) - 2 * rows @ centres.T, 1)
            for j in range(WORDS):
                member = label == j
                centres[j] = rows[member].mean(0) if member.sum() > 10 else rows[rng.integers(len(rows))]
        floor = 0.02 * rows.var(0)
        book = cls(
            mean,
            projection,
            np.full(WORDS, 1 / WORDS, np.float32),
            centres,
            np.tile(rows.var(0) * 0.5, (WORDS, 1)).astype(np.float32),
        )
        for _ in range(rounds):
            share = book.posteriors(rows, squares)
            mass = share.sum(0)[:, None] + 1e-3
            centres = (share.T @ rows) / mass
            variances = np.maximum((share.T @ squares) / mass - centres**2, floor)
            book = cls(
                mean,
                projection,
                (mass[:, 0] / mass.sum()).astype(np.float32),
                centres.astype(np.float32),
                variances.astype(np.float32),
            )
        return book
