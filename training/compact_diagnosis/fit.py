"""Fit the weights of the light's colour (`zoomiqa.imaging.signals.color.LIGHT_WEIGHTS`).

    python -m training.compact_diagnosis.fit --photos /work/shared/data/photos

Known casts (von Kries gains in linear light, and in three of ten cases an offset of the encoded values) are put on the
odd-numbered Kodak and BSDS photographs; ridge regression learns each axis of the cast from the estimates of that axis.
A third of the samples are left as they are: what is usual in a scene is no cast. The printed tables go into `color.py`
by hand, where a reader can see them. The limits in `zoomiqa.assessors.compact.diagnosis.RULES` are quantiles of the
signals over the same photographs, named beside each limit; they are not fitted.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoomiqa.imaging.signals.canvas import PixelArray, reduced
from zoomiqa.imaging.signals.color import COLOR_LONG_SIDE_PX, LIGHT_NAMES, light_estimates, to_linear

PER_PHOTO, CLEAN_PER_PHOTO, OFFSET_SHARE = 15, 5, 0.3
GAIN_RANGE = (0.1, 0.9)
RIDGE = 30.0
ODD = 1


def photos(folder: Path, half: int) -> list[Path]:
    """The Kodak and BSDS photographs whose number in their folder is odd (1) or even (0)."""
    sets = (sorted(folder.glob("Kodak24/*.png")), sorted(folder.glob("BSDS500/**/*.jpg")))
    return [path for paths in sets for index, path in enumerate(paths, 1) if index % 2 == half]


def encode(linear: NDArray[np.floating]) -> NDArray[np.float64]:
    """Linear light 0..1 to sRGB 0..255."""
    clipped = np.clip(np.asarray(linear, np.float64), 0, 1)
    return np.where(clipped <= 0.0031308, clipped * 12.92, 1.055 * clipped ** (1 / 2.4) - 0.055) * 255


def with_cast(rgb: PixelArray, rng: np.random.Generator) -> tuple[PixelArray, NDArray[np.float64], float]:
    """(picture with a random cast, its (a, b), its log gain)."""
    strength, angle = float(rng.uniform(*GAIN_RANGE)), float(rng.uniform(0, 2 * np.pi))
    direction = np.cos(angle - np.array([0, 2, 4]) * np.pi / 3)
    gains = np.exp(strength * direction)
    gains /= gains @ np.array([0.2126, 0.7152, 0.0722])
    tint = encode(gains * 0.25)[None, None].astype(np.float32) / 255
    target = np.asarray(cv2.cvtColor(tint, cv2.COLOR_RGB2LAB)[0, 0, 1:], np.float64)
    if rng.random() < OFFSET_SHARE:
        offset = direction * strength * 45
        changed = rgb + offset - offset @ np.array([0.299, 0.587, 0.114])
    else:
        changed = encode(to_linear(rgb) * gains)
    return np.clip(np.round(changed), 0, 255).astype(np.uint8), target, strength


def samples(paths: list[Path], seed: int) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64], float]]:
    """(estimates 2x15, (a, b) of the cast, log gain) of clean and cast pictures."""
    rng = np.random.default_rng(seed)
    for path in paths:
        with Image.open(path) as opened:
            view = reduced(np.asarray(opened.convert("RGB")), 352)
        small = reduced(view, COLOR_LONG_SIDE_PX)
        for index in range(PER_PHOTO):
            picture, target, strength = (small, np.zeros(2), 0.0) if index < CLEAN_PER_PHOTO else with_cast(small, rng)
            lab = np.asarray(cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)
            estimates = light_estimates(picture, lab)
            if estimates is not None:
                yield estimates, target, strength


def main() -> None:
    """Fit on the odd half, print the tables, and report on the even half."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    folder = parser.parse_args().photos
    parts = [list(samples(photos(folder, half), half)) for half in (ODD, 0)]
    features, targets, _ = (np.array(column) for column in zip(*parts[0], strict=True))
    others, truth, strengths = (np.array(column) for column in zip(*parts[1], strict=True))
    predicted = []
    print("LIGHT_WEIGHTS = (  #", ", ".join(LIGHT_NAMES))
    offsets = []
    for axis in (0, 1):
        model = make_pipeline(StandardScaler(), Ridge(RIDGE)).fit(features[:, axis], targets[:, axis])
        weights = np.round(model[-1].coef_ / model[0].scale_, 3)
        offset = round(float(model[-1].intercept_ - (weights * model[0].mean_).sum()), 2)
        print("    (" + ", ".join(f"{weight:g}" for weight in weights) + "),")
        offsets.append(offset)
        predicted.append(others[:, axis] @ weights + offset)
    print(f")\nLIGHT_OFFSET = ({offsets[0]}, {offsets[1]})")
    length = np.hypot(*predicted)
    print("error (mean, Lab chroma):", np.hypot(*(np.array(predicted).T - truth).T).mean().round(2))
    for quantile in (0.9, 0.95, 0.98):
        limit = float(np.quantile(length[strengths == 0], quantile))
        shares = [
            f"{low}-{high}: {(length[(strengths >= low) & (strengths < high)] > limit).mean():.2f}"
            for low, high in ((0.1, 0.25), (0.25, 0.4), (0.4, 0.6), (0.6, 0.9))
        ]
        print(f"even half, limit at {quantile:.0%} of clean = {limit:.1f}; found by log gain:", *shares)


if __name__ == "__main__":
    main()
