"""Spectrum, noise, blockiness, colour, layout and covariance families; see :mod:`.families` for units and sources."""

from __future__ import annotations

import math

import cv2
import numpy as np

from zoomiqa.assessors.compact.families import log_floor, quantiles

_TILE = 64
_FREQ = np.hypot(np.fft.fftfreq(_TILE)[:, None], np.fft.rfftfreq(_TILE)[None])
_RING_EDGES = np.geomspace(1 / _TILE, 0.5, 12)
_RING = np.clip(np.searchsorted(_RING_EDGES, _FREQ.ravel(), side="right"), 0, 12)
_WINDOW = np.outer(np.hanning(_TILE), np.hanning(_TILE)).astype(np.float32)
_MEMBER = _RING[:, None] == np.arange(1, 13)
_RING_POOL = (_MEMBER / np.maximum(_MEMBER.sum(0), 1)).astype(np.float32)
_LOG_F = np.log(np.sqrt(_RING_EDGES * np.append(_RING_EDGES[1:], 0.6)))


def spectrum_statistics(out: dict[str, float], luma: np.ndarray) -> None:
    """Ring energies of Hann-windowed 64x64 tiles: mean, spread, the tile richest in fine detail, slope."""
    height, width = luma.shape
    rows = np.linspace(0, height - _TILE, min(5, max(1, round(height / _TILE)))).astype(int)
    cols = np.linspace(0, width - _TILE, min(5, max(1, round(width / _TILE)))).astype(int)
    tiles = np.stack([luma[r : r + _TILE, c : c + _TILE] for r in rows for c in cols])
    tiles = (tiles - tiles.mean((1, 2), keepdims=True)) * _WINDOW
    power = np.abs(np.fft.rfft2(tiles)) ** 2
    power = power.astype(np.float32)
    rings = np.log(power.reshape(len(tiles), -1) @ _RING_POOL + 1e-3)
    mean, sharpest = rings.mean(0), rings[int(np.argmax(rings[:, 8:11].mean(1)))]
    for i in range(12):
        out[f"f_mean{i}"] = float(mean[i])
        out[f"f_std{i}"] = float(rings[:, i].std())
        out[f"f_top{i}"] = float(sharpest[i] - sharpest[2])
    centred = _LOG_F[1:] - _LOG_F[1:].mean()
    slopes = rings[:, 1:] @ centred / float(centred @ centred)
    out["f_slope"], out["f_slope_max"], out["f_slope_min"] = (
        float(slopes.mean()),
        float(slopes.max()),
        float(slopes.min()),
    )
    cross = power.mean(0)
    # Energy along the two axes against the diagonal: motion blur and interlacing are one-sided.
    out["f_axis"] = log_floor(float(cross[12:32, 0:3].mean())) - log_floor(float(cross[0:3, 12:32].mean()))
    out["f_diag"] = log_floor(float(cross[12:24, 12:24].mean())) - log_floor(
        0.5 * float(cross[12:24, 0:3].mean() + cross[0:3, 12:24].mean())
    )


def noise_level(plane: np.ndarray, step: int = 4, size: int = 7) -> float:
    """Chen-Zhu-Heng noise deviation (same unit as the plane) from ``size`` x ``size`` patches."""
    windows = np.lib.stride_tricks.sliding_window_view(plane, (size, size))[::step, ::step]
    patches = windows.reshape(-1, size * size)
    patches = patches - patches.mean(0)
    eigen = np.linalg.eigvalsh((patches.T @ patches) / max(len(patches) - 1, 1))
    for keep in range(len(eigen), 1, -1):
        mean = eigen[:keep].mean()
        if np.count_nonzero(eigen[:keep] > mean) <= np.count_nonzero(eigen[:keep] < mean):
            break
    return math.sqrt(max(float(eigen[:keep].mean()), 0.0))


def _blockiness(plane: np.ndarray) -> tuple[float, float]:
    """Strongest 8-pixel phase of the column second differences, over the mean phase; and the phase contrast."""
    profile = np.abs(plane[:, 1:] - plane[:, :-1]).mean(0)
    profile = np.maximum(profile[1:-1] - 0.5 * (profile[:-2] + profile[2:]), -1.0)
    usable = profile[: len(profile) // 8 * 8].reshape(-1, 8)
    phases = np.median(usable, 0)
    best = float(phases.max())
    return best, best / (float(np.abs(phases).mean()) + 1e-4)


def distortion_meters(out: dict[str, float], luma: np.ndarray, rgb: np.ndarray) -> None:
    """Noise level per plane, blockiness, re-blur differences and clipping."""
    sigma = noise_level(luma)
    out["d_noise"], out["d_lognoise"] = sigma, log_floor(sigma + 1e-3)
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    fine = np.abs(cv2.filter2D(luma, -1, kernel))
    out["d_immerkaer"] = log_floor(float(fine.mean()) * math.sqrt(math.pi / 2) / 6 + 1e-3)
    quiet = cv2.resize(fine, (luma.shape[1] // 8, luma.shape[0] // 8), interpolation=cv2.INTER_AREA)
    for share, value in zip((0.05, 0.2, 0.5, 0.95), np.quantile(quiet, (0.05, 0.2, 0.5, 0.95)), strict=True):
        out[f"d_fine{share}"] = log_floor(float(value) + 1e-4)
    for c, plane in enumerate(cv2.split(rgb)):
        diagonal = np.abs(plane[:-1:2, :-1:2] - plane[1::2, :-1:2] - plane[:-1:2, 1::2] + plane[1::2, 1::2])
        out[f"d_hh{c}"] = log_floor(float(quantiles(diagonal, (0.5,), 0, 0.5, 512)[0]))
    for tag, plane in (("v", luma), ("h", np.ascontiguousarray(luma.T))):
        out[f"d_block_{tag}"], out[f"d_blockr_{tag}"] = _blockiness(plane)
    base = [float(np.abs(luma[:, 1:] - luma[:, :-1]).mean()), float(np.abs(luma[1:] - luma[:-1]).mean())]
    for width in (3, 9):
        soft_x = cv2.blur(luma, (width, 1))
        soft_y = cv2.blur(luma, (1, width))
        kept_x = float(np.abs(soft_x[:, 1:] - soft_x[:, :-1]).mean()) / (base[0] + 1e-5)
        kept_y = float(np.abs(soft_y[1:] - soft_y[:-1]).mean()) / (base[1] + 1e-5)
        out[f"d_reblur{width}_max"], out[f"d_reblur{width}_min"] = max(kept_x, kept_y), min(kept_x, kept_y)
    # cv2 reduces planes many times faster than numpy does along a last axis of three.
    red, green, blue = cv2.split(rgb)
    low, high = cv2.min(cv2.min(red, green), blue), cv2.max(cv2.max(red, green), blue)
    out["d_white"] = np.count_nonzero(low > 0.985) / low.size
    out["d_black"] = np.count_nonzero(high < 0.03) / low.size
    flat = cv2.blur((np.abs(cv2.Laplacian(luma, cv2.CV_32F)) < 1.5 / 255).astype(np.float32), (9, 9))
    out["d_flat"] = float((flat > 0.98).mean())


def colour_statistics(out: dict[str, float], rgb: np.ndarray, luma: np.ndarray) -> None:
    """Exposure, saturation, hue, cast and haze statistics (on a plane reduced to <= 64 px: they are smooth)."""
    factor = 64 / max(luma.shape)
    small = cv2.resize(rgb, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else rgb
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    hsv = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
    shares = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
    light = lab[:, :, 0] / 100
    for share, value in zip(shares, np.quantile(light, shares), strict=True):
        out[f"c_l{share}"] = float(value)
    out["c_lmean"], out["c_lstd"] = float(light.mean()), float(light.std())
    counts = np.histogram(light, 32, (0, 1))[0] / light.size
    out["c_lent"] = float(-(counts * np.log(counts + 1e-9)).sum())
    out["c_range"] = out["c_l0.99"] - out["c_l0.01"]
    sat, value = hsv[:, :, 1], hsv[:, :, 2]
    chroma = np.hypot(lab[:, :, 1], lab[:, :, 2]) / 100
    for tag, plane in (("sat", sat), ("chr", chroma)):
        for share, number in zip((0.1, 0.5, 0.9, 0.99), np.quantile(plane, (0.1, 0.5, 0.9, 0.99)), strict=True):
            out[f"c_{tag}{share}"] = float(number)
        out[f"c_{tag}mean"], out[f"c_{tag}std"] = float(plane.mean()), float(plane.std())
    for i, tag in ((1, "a"), (2, "b")):
        plane = lab[:, :, i] / 100
        out[f"c_{tag}mean"], out[f"c_{tag}std"] = float(plane.mean()), float(plane.std())
        bright = light >= np.quantile(light, 0.9)
        out[f"c_{tag}bright"] = float(plane[bright].mean())
    out["c_cast"] = math.hypot(out["c_amean"], out["c_bmean"])
    hue = np.minimum((hsv[:, :, 0] / 45).astype(int), 7)
    weights = (chroma + 1e-4).ravel()
    histogram = np.bincount(hue.ravel(), weights=weights, minlength=8) / weights.sum()
    for i, number in enumerate(histogram):
        out[f"c_hue{i}"] = float(number)
    out["c_hueent"] = float(-(histogram * np.log(histogram + 1e-9)).sum())
    red, green, blue = (small[:, :, i] for i in range(3))
    rg, yb = red - green, 0.5 * (red + green) - blue
    out["c_colourful"] = math.hypot(float(rg.std()), float(yb.std()))
    out["c_colourful"] += 0.3 * math.hypot(float(rg.mean()), float(yb.mean()))
    dark = cv2.erode(small.min(2), np.ones((3, 3), np.uint8))
    for share, number in zip((0.1, 0.5, 0.9), np.quantile(dark, (0.1, 0.5, 0.9)), strict=True):
        out[f"c_dark{share}"] = float(number)
    out["c_vmax"] = float(np.quantile(value, 0.98))
    # The subject against its surround, in light and colour, as a crude figure-ground cue.
    grid = cv2.resize(lab, (8, 8), interpolation=cv2.INTER_AREA)
    inner, outer = grid[2:6, 2:6].mean((0, 1)), (grid.sum((0, 1)) - grid[2:6, 2:6].sum((0, 1))) / 48
    out["c_fg_l"], out["c_fg_c"] = float(inner[0] - outer[0]) / 100, float(np.hypot(*(inner - outer)[1:])) / 100
    out["c_gridstd"] = float(grid[:, :, 0].std()) / 100


def layout(out: dict[str, float], log_sigma: np.ndarray, planes: list[np.ndarray]) -> None:
    """4x4 thumbnails of light, opponent colours and local contrast: what is where, coarsely."""
    for tag, plane in (("e", log_sigma), ("l", planes[0]), ("p", planes[1]), ("q", planes[2])):
        grid = cv2.resize(plane, (4, 4), interpolation=cv2.INTER_AREA)
        for i, number in enumerate(grid.ravel()):
            out[f"g_{tag}{i:02d}"] = float(number)


def covariance(out: dict[str, float], planes: list[np.ndarray], name: str) -> None:
    """Matrix logarithm of the covariance of per-pixel channels: joint second-order texture statistics."""
    luma, one, two = planes
    dx, dy = cv2.Sobel(luma, cv2.CV_32F, 1, 0, scale=0.25), cv2.Sobel(luma, cv2.CV_32F, 0, 1, scale=0.25)
    dxx, dyy = cv2.Sobel(luma, cv2.CV_32F, 2, 0, scale=0.25), cv2.Sobel(luma, cv2.CV_32F, 0, 2, scale=0.25)
    soft = cv2.GaussianBlur(luma, (0, 0), 2.0)
    softer = cv2.blur(soft, (19, 19))
    channels = [
        softer,
        soft - softer,
        luma - soft,
        one,
        two,
        dx,
        dy,
        np.abs(dx),
        np.abs(dy),
        np.abs(dxx),
        np.abs(dyy),
        np.abs(luma - soft),
    ]
    step = 2 if luma.size > 40_000 else 1
    stack = np.stack([c[::step, ::step].ravel() for c in channels])
    stack -= stack.mean(1, keepdims=True)
    matrix = (stack @ stack.T).astype(np.float64) / stack.shape[1] + 1e-6 * np.eye(len(channels))
    values, vectors = np.linalg.eigh(matrix)
    logarithm = (vectors * np.log(np.maximum(values, 1e-7))) @ vectors.T
    for i in range(len(channels)):
        for j in range(i, len(channels)):
            out[f"{name}_{i:02d}_{j:02d}"] = float(logarithm[i, j]) * (1.0 if i == j else math.sqrt(2))
