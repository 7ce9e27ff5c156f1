"""Hand-made feature families of the compact rating.

Every function takes float32 planes in 0..1 (``H x W``, both sides >= 64, made by
:func:`zoomiqa.assessors.compact.features.planes_of`) and fills a ``dict`` from feature name to float.
No function raises on flat pictures: every division has a floor.  Logarithms are natural.

Sources of the families (all re-implemented here from the papers' formulas):

* MSCN, GGD and AGGD moments: Mittal, Moorthy, Bovik, "BRISQUE", TIP 2012; in colour and gradient domains:
  Ghadiyaram, Bovik, "FRIQUEE", JoV 2017.
* joint gradient-magnitude / Laplacian-of-Gaussian statistics: Xue et al., "GM-LOG", TIP 2014.
* tile spectra: Vu, Phan, Chandler, "S3", TIP 2012.
* noise level from patch eigenvalues: Chen, Zhu, Heng, ICCV 2015.
* blockiness: Wang, Sheikh, Bovik, ICIP 2002; re-blur: Crete et al., 2007.
* colourfulness: Hasler, Suesstrunk, 2003; dark channel: He et al., CVPR 2009.
* log-Euclidean region covariance: Tuzel et al., ECCV 2006; Arsigny et al., 2006.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

_EPS = 1e-6
# A table inverting the generalised-Gaussian moment ratio E|x|^2 / E x^2; 0.1..6 covers natural pictures.
_ALPHAS = np.geomspace(0.12, 6.0, 400)


def _gamma_table() -> tuple[np.ndarray, np.ndarray]:
    ratio = np.array([math.exp(2 * math.lgamma(2 / a) - math.lgamma(1 / a) - math.lgamma(3 / a)) for a in _ALPHAS])
    eta = np.array([math.exp(math.lgamma(2 / a) - 0.5 * (math.lgamma(1 / a) + math.lgamma(3 / a))) for a in _ALPHAS])
    return ratio, eta


_RATIO, _ETA = _gamma_table()


def log_floor(value: float) -> float:
    """Natural logarithm of a non-negative value, with a floor of 1e-6."""
    return math.log(max(float(value), 0.0) + _EPS)


def quantiles(plane: np.ndarray, shares: tuple[float, ...], low: float, high: float, bins: int = 256) -> np.ndarray:
    """Quantiles read from a histogram: much faster than sorting, exact to one bin."""
    few = plane[::2, ::2] if plane.size > 30_000 else plane
    clipped = np.clip(few, low, high - 1e-6 * (high - low))
    counts = cv2.calcHist([clipped], [0], None, [bins], [low, high]).ravel()
    cumulative = np.cumsum(counts) / max(float(counts.sum()), 1.0)
    return low + (np.searchsorted(cumulative, shares) + 0.5) / bins * (high - low)


def _shape_of(plane: np.ndarray) -> tuple[float, float]:
    """GGD shape and variance of a zero-mean plane."""
    flat = plane.ravel()
    power = float(flat @ flat) / flat.size
    absolute = float(cv2.norm(plane, cv2.NORM_L1)) / flat.size
    ratio = absolute * absolute / (power + 1e-12)
    return float(np.interp(ratio, _RATIO, _ALPHAS)), power


def _asymmetric(plane: np.ndarray) -> tuple[float, float, float, float]:
    """AGGD fit: shape, mean parameter, left and right root powers."""
    flat = np.ascontiguousarray(plane).ravel()
    negative = np.minimum(flat, 0.0)
    total = float(flat @ flat)
    left_power = float(negative @ negative)
    count_left = max(int(np.count_nonzero(negative)), 1)
    count_right = max(flat.size - count_left, 1)
    left = math.sqrt(left_power / count_left)
    right = math.sqrt(max(total - left_power, 0.0) / count_right)
    skew = (left + _EPS) / (right + _EPS)
    absolute = (float(flat.sum()) - 2.0 * float(negative.sum())) / flat.size
    ratio = absolute * absolute / (total / flat.size + 1e-12)
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = float(np.interp(ratio, _RATIO, _ALPHAS))
    mean = (right - left) * float(np.interp(shape, _ALPHAS, _ETA))
    return shape, mean, left, right


def local_moments(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian-weighted (7x7, sigma 7/6) local mean and standard deviation."""
    mean = cv2.GaussianBlur(plane, (7, 7), 7 / 6, borderType=cv2.BORDER_REFLECT)
    square = cv2.GaussianBlur(plane * plane, (7, 7), 7 / 6, borderType=cv2.BORDER_REFLECT)
    return mean, cv2.sqrt(np.maximum(square - mean * mean, 0.0))


def _tile_summary(out: dict[str, float], name: str, grid: np.ndarray) -> None:
    """Pooling of an 8x8 grid that keeps the sharpest place apart from the mean (bokeh is not blur)."""
    ordered = np.sort(grid.ravel())
    n = ordered.size
    out[f"{name}_t_max"] = float(ordered[-1])
    out[f"{name}_t_p90"] = float(ordered[int(0.9 * (n - 1))])
    out[f"{name}_t_p50"] = float(ordered[n // 2])
    out[f"{name}_t_p10"] = float(ordered[int(0.1 * (n - 1))])
    out[f"{name}_t_min"] = float(ordered[0])
    out[f"{name}_t_std"] = float(ordered.std())
    centre = float(grid[2:6, 2:6].mean())
    out[f"{name}_t_centre"] = centre - float((grid.sum() - 16 * centre) / (n - 16))


def luma_statistics(out: dict[str, float], levels: list[np.ndarray]) -> list[np.ndarray]:
    """BRISQUE-like moments and local-contrast statistics per pyramid level; returns the log-sigma planes."""
    log_sigmas: list[np.ndarray] = []
    for k, plane in enumerate(levels):
        mean, sigma = local_moments(plane)
        mscn = (plane - mean) / (sigma + 1 / 255)
        shape, power = _shape_of(mscn)
        out[f"n{k}_shape"], out[f"n{k}_power"] = shape, power
        flat = mscn.ravel()
        square = flat * flat
        out[f"n{k}_skew"] = float(square @ flat) / flat.size / (power**1.5 + 1e-9)
        out[f"n{k}_kurt"] = log_floor(float(square @ square) / flat.size / (power * power + 1e-9))
        pairs = (
            ("h", mscn[:, :-1], mscn[:, 1:]),
            ("v", mscn[:-1], mscn[1:]),
            ("d", mscn[:-1, :-1], mscn[1:, 1:]),
            ("e", mscn[:-1, 1:], mscn[1:, :-1]),
        )
        for tag, one, two in pairs:
            product = one * two
            for part, value in zip(("a", "m", "l", "r"), _asymmetric(product), strict=True):
                out[f"n{k}_{tag}{part}"] = value
        wide = mscn[:, :-2] * mscn[:, 2:]
        tall = mscn[:-2] * mscn[2:]
        out[f"n{k}_lag2"] = 0.5 * (float(wide.mean()) + float(tall.mean())) / (power + 1e-6)
        log_sigma = cv2.log(sigma + 0.002)
        log_sigmas.append(log_sigma)
        shares = (0.05, 0.25, 0.5, 0.75, 0.9, 0.97, 0.995)
        for share, value in zip(shares, quantiles(log_sigma, shares, -6.3, -0.3), strict=True):
            out[f"s{k}_q{share}"] = float(value)
        centre = float(log_sigma.mean())
        deviation = (log_sigma - centre)[::2, ::2]
        spread = float(deviation.std())
        out[f"s{k}_mean"], out[f"s{k}_std"] = centre, spread
        out[f"s{k}_skew"] = float((deviation**3).mean()) / (spread**3 + 1e-3)
        out[f"s{k}_lin"] = float(sigma.mean())
        _tile_summary(out, f"s{k}", cv2.resize(log_sigma, (8, 8), interpolation=cv2.INTER_AREA))
    for k in range(len(levels) - 1):
        for share in (0.5, 0.9, 0.995):
            out[f"s{k}-{k + 1}_q{share}"] = out[f"s{k}_q{share}"] - out[f"s{k + 1}_q{share}"]
        drop = cv2.resize(log_sigmas[k], (8, 8), interpolation=cv2.INTER_AREA)
        drop = drop - cv2.resize(log_sigmas[k + 1], (8, 8), interpolation=cv2.INTER_AREA)
        _tile_summary(out, f"s{k}-{k + 1}", drop)
    return log_sigmas


def chroma_statistics(out: dict[str, float], name: str, plane: np.ndarray) -> None:
    """MSCN moments, noise-like energy and local contrast of one opponent-colour plane."""
    mean, sigma = local_moments(plane)
    mscn = (plane - mean) / (sigma + 1 / 255)
    out[f"{name}_shape"], power = _shape_of(mscn)
    out[f"{name}_power"] = power
    out[f"{name}_lag1"] = float((mscn[:, :-1] * mscn[:, 1:]).mean()) / (power + 1e-3)
    out[f"{name}_lagv"] = float((mscn[:-1] * mscn[1:]).mean()) / (power + 1e-3)
    log_sigma = cv2.log(sigma + 0.001)
    for share, value in zip((0.1, 0.5, 0.9, 0.99), quantiles(log_sigma, (0.1, 0.5, 0.9, 0.99), -7, -1), strict=True):
        out[f"{name}_q{share}"] = float(value)
    out[f"{name}_mean"] = float(plane.mean())
    out[f"{name}_std"] = log_floor(float(plane.std()))


def gradient_statistics(out: dict[str, float], name: str, plane: np.ndarray) -> None:
    """GM-LOG joint statistics, orientation, Laplacian tail and gradient-domain MSCN shape."""
    smooth = cv2.GaussianBlur(plane, (0, 0), 0.5)
    dx, dy = cv2.Scharr(smooth, cv2.CV_32F, 1, 0, scale=1 / 32), cv2.Scharr(smooth, cv2.CV_32F, 0, 1, scale=1 / 32)
    magnitude = cv2.magnitude(dx, dy)
    laplacian = cv2.Laplacian(smooth, cv2.CV_32F, ksize=1)
    # Joint adaptive normalisation, as in GM-LOG, makes the two responses comparable across contrast.
    local = cv2.sqrt(cv2.GaussianBlur(magnitude * magnitude + 0.25 * laplacian * laplacian, (0, 0), 2.0)) + 0.004
    few = np.s_[::2, ::2] if plane.size > 30_000 else np.s_[:]
    gm, log = magnitude[few] / local[few], np.abs(laplacian[few]) / local[few]
    cells = np.minimum(gm * 4, 7).astype(np.int32) * 8 + np.minimum(log * 2, 7).astype(np.int32)
    joint = np.bincount(cells.ravel(), minlength=64).reshape(8, 8) / cells.size
    rows, cols = joint.sum(1), joint.sum(0)
    q_rows = (joint / (cols + 1e-4)).mean(1)
    q_cols = (joint / (rows[:, None] + 1e-4)).mean(0)
    for tag, vector in (("g", rows), ("l", cols), ("qg", q_rows), ("ql", q_cols)):
        for i, value in enumerate(vector):
            out[f"{name}_{tag}{i}"] = float(value)
    shares = (0.25, 0.5, 0.75, 0.9, 0.97, 0.995)
    for share, value in zip(shares, quantiles(cv2.log(magnitude + 5e-4), shares, -7.7, 0.3), strict=True):
        out[f"{name}_m{share}"] = float(value)
    absolute = np.abs(laplacian)
    for share, value in zip(shares, quantiles(cv2.log(absolute + 5e-4), shares, -7.7, 0.7), strict=True):
        out[f"{name}_a{share}"] = float(value)
    out[f"{name}_var"] = log_floor(float((laplacian * laplacian).mean()))
    out[f"{name}_ratio"] = log_floor(float(absolute.mean())) - log_floor(float(magnitude.mean()))
    _tile_summary(out, f"{name}_lap", cv2.log(cv2.resize(absolute, (8, 8), interpolation=cv2.INTER_AREA) + 5e-4))
    bins = (cv2.phase(dx[few], dy[few]) * np.float32(8 / np.pi)).astype(np.int32) % 8
    histogram = np.bincount(bins.ravel(), weights=magnitude[few].ravel(), minlength=8)
    histogram = histogram / (histogram.sum() + 1e-6)
    for i, value in enumerate(histogram):
        out[f"{name}_o{i}"] = float(value)
    out[f"{name}_oent"] = float(-(histogram * np.log(histogram + 1e-9)).sum())
    mean, sigma = local_moments(magnitude)
    out[f"{name}_mshape"], out[f"{name}_mpower"] = _shape_of((magnitude - mean) / (sigma + 1 / 255))
