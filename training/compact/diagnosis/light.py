"""The networks that tell the colour of the light (`zoomiqa/imaging/signals/data/color_light.npz`).

Known casts (gains in linear light, gains and offsets of the encoded values) are put on the odd-numbered Kodak and BSDS
photographs and on subset ss03 of BIQ2021's training part; a third of the samples have none. Other flaws (exposure,
contrast, veil, noise, compression, blur) come before or after, so that they do not read as casts. Many photographs were
toned or scanned with a cast of their own: the loss is the length of the error, not its square, with a scale that is
estimated beside it.

Three networks, each without a third of the photographs; the printed tables are of photographs by the network that has
not seen them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from zoomiqa.imaging.distortions import distort
from zoomiqa.imaging.signals.canvas import PixelArray, Plane
from zoomiqa.imaging.signals.color import cast_of_gains
from zoomiqa.imaging.signals.light import (
    HISTOGRAMS,
    KERNEL,
    LEVELS,
    OPPONENTS,
    STRIDE,
    histograms,
    level_features,
)

from .curves import LINEAR_LUMA, LUMA, Curves, applied, contrast, decode, encode, identity, part_of, veil
from .descent import descend, scaled_loss

FOLDS, WIDTH, CONV = 3, 28, (12, 24)
SIDE_PX = 136
FROM_PHOTOS, FROM_MORE = 22_000, 40_000
BATCH, STEPS, RATE, DECAY, DROPOUT = 128, 2600, 2e-3, 2e-3, 0.25
CAST_SHARE, TONED_SHARE = 0.65, 0.3
GAIN_RANGE = (0.05, 0.95)
PHOTOS_WEIGHT = 2
"""How often an epoch passes the samples of `--photos` for one pass of the others."""

Samples = tuple[NDArray[np.int64], NDArray[np.float16], Plane, Plane]
"""Photograph, histograms, level features, cast."""


def other_flaw(curves: Curves, rng: np.random.Generator) -> Curves:
    """Exposure, contrast, gamma or veil on three curves (256 x 3)."""
    kind = int(rng.integers(4))
    if kind == 0:
        return encode(decode(curves) * np.exp(rng.normal(0, 0.35)))
    if kind == 1:
        return contrast(curves, 0.65, 1.2, rng)
    if kind == 2:
        return np.asarray(curves ** np.exp(rng.normal(0, 0.25)))
    return veil(curves, 0.7, rng)


def cast(curves: Curves, rng: np.random.Generator) -> tuple[Curves, NDArray[np.float64]]:
    """A random cast on three curves, and its log gains on the `OPPONENTS` axes."""
    strength, angle = float(rng.uniform(*GAIN_RANGE)), float(rng.uniform(0, 2 * np.pi))
    direction = np.cos(angle - np.array([0, 2, 4]) * np.pi / 3)
    if rng.random() < 0.3:
        direction += rng.normal(0, 0.3, 3)
        direction -= direction.mean()
        direction /= np.abs(direction).max()
    kind = rng.random()
    if kind < 0.6:
        gains = np.exp(strength * direction)
        curves = encode(decode(curves) * (gains / (gains @ LINEAR_LUMA)))
    elif kind < 0.85:
        gains = np.exp(strength * direction / 2.2)
        curves = np.clip(curves * (gains / (gains @ LUMA) if rng.random() < 0.5 else gains), 0, 1)
    else:
        offset = strength * direction * 0.18
        curves = np.clip(curves + offset - offset @ LUMA, 0, 1)
    return curves, OPPONENTS @ (strength * direction)


def spoiled(picture: PixelArray, toned: float, rng: np.random.Generator) -> tuple[PixelArray, NDArray[np.float64]]:
    """A random part of a picture with random flaws, and its cast."""
    curves, truth = identity(), np.zeros(2)
    if rng.random() < toned:  # film and its scans bend the channels differently: that is no cast
        curves = curves ** np.exp(rng.normal(0, 0.07, 3))
    if rng.random() < 0.35:
        curves = other_flaw(curves, rng)
    if rng.random() < CAST_SHARE:
        curves, truth = cast(curves, rng)
    if rng.random() < 0.15:
        curves = other_flaw(curves, rng)
    part = part_of(picture, 0.6, rng)
    if rng.random() < 0.15:
        part = np.asarray(cv2.GaussianBlur(part, (0, 0), float(rng.uniform(0.5, 1.5))), np.uint8)
    part = applied(part, curves)
    kind = rng.random()
    if kind < 0.15:
        part = np.clip(part + rng.normal(0, rng.uniform(1, 8), part.shape), 0, 255).astype(np.uint8)
    elif kind < 0.3:
        code = cv2.imencode(".jpg", part, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 95))])[1]
        part = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)
    return part, truth


def samples(pictures: list[PixelArray], count: int, toned: float, rng: np.random.Generator) -> Samples:
    """Features and casts of randomly spoiled pictures."""
    chosen = rng.integers(len(pictures), size=count)
    rows = []
    for index in chosen:
        part, truth = spoiled(pictures[index], toned, rng)
        rows.append((histograms(part).astype(np.float16), level_features(part), truth.astype(np.float32)))
    planes, levels, truths = (np.stack(column) for column in zip(*rows, strict=True))
    return chosen, planes, levels, truths


def build(torch: Any) -> Any:
    """The layers by the names that `zoomiqa.imaging.signals.light` reads."""
    nn = torch.nn
    return nn.ModuleDict({
        "conv1": nn.Conv2d(HISTOGRAMS, CONV[0], KERNEL, STRIDE, KERNEL // 2),
        "conv2": nn.Conv2d(CONV[0], CONV[1], KERNEL, STRIDE, KERNEL // 2),
        "shape": nn.Linear(CONV[1] * 64, WIDTH),
        "levels1": nn.Linear(LEVELS, 64),
        "levels2": nn.Linear(64, WIDTH),
        "joint": nn.Linear(2 * WIDTH, 64),
        "out": nn.Linear(64, 3),
    })  # fmt: skip


def forward(torch: Any, layers: Any, planes: Any, levels: Any) -> Any:
    """Cast (two axes) and logarithm of the error's scale."""
    relu = torch.relu
    planes = relu(layers["conv2"](relu(layers["conv1"](planes))))
    shape = relu(layers["shape"](planes.flatten(1)))
    tones = relu(layers["levels2"](relu(layers["levels1"](2 * levels - 1))))
    joint = torch.nn.functional.dropout(torch.cat([shape, tones], 1), DROPOUT, layers.training)
    return layers["out"](relu(layers["joint"](joint)))


def trained(torch: Any, parts: list[Samples], steps: int, seed: int) -> Any:
    """One network on the samples of all parts, the first part `PHOTOS_WEIGHT` times as often."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    layers = build(torch)
    rows_of_parts = [
        (part, row) for part in (0, 1) for row in range(len(parts[part][0])) for _ in range((PHOTOS_WEIGHT, 1)[part])
    ]

    def loss_of(rows: NDArray[np.int64]) -> Any:
        chosen = [rows_of_parts[row] for row in rows]
        planes, levels, truth = (
            torch.from_numpy(np.stack([parts[part][column][row] for part, row in chosen]).astype(np.float32))
            for column in (1, 2, 3)
        )
        found = forward(torch, layers, planes, levels)
        return scaled_loss(((found[:, :2] - truth) ** 2).sum(1).add(1e-4).sqrt(), found[:, 2], 2)

    batches = _passes(len(rows_of_parts), rng)
    descend(torch, layers, batches, loss_of, steps=steps, rate=RATE, decay=DECAY, title=f"network {seed}")
    return layers.eval()


def _passes(count: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Batches that pass over all rows in a new order each time; the rest of a pass is left out."""
    order: list[int] = []
    while True:
        if len(order) < BATCH:
            order = rng.permutation(count).tolist()
        yield np.array([order.pop() for _ in range(BATCH)])


def strengths(torch: Any, layers: Any, pictures: list[PixelArray]) -> NDArray[np.float64]:
    """`cast` of each picture by one network."""
    planes, levels = (
        torch.from_numpy(np.stack([measure(picture) for picture in pictures]))
        for measure in (histograms, level_features)
    )
    with torch.no_grad():
        found = forward(torch, layers, planes, levels)[:, :2].numpy()
    return np.array([cast_of_gains(one @ OPPONENTS)[0] for one in found])


def report(name: str, by_severity: dict[str, NDArray[np.float64]]) -> None:
    """Shares found at limits that clean photographs pass."""
    clean = by_severity["clean"]
    for quantile in (0.94, 0.96, 0.97, 0.98):
        limit = float(np.quantile(clean, quantile))
        shares = ", ".join(f"{key} {(values > limit).mean():.2f}" for key, values in by_severity.items())
        print(f"{name}, limit {limit:.1f}: {shares}")
    print(f"{name}, medians:", ", ".join(f"{key} {np.median(values):.1f}" for key, values in by_severity.items()))


def fit(torch: Any, sets: tuple[list[PixelArray], list[PixelArray]], out: Path, *, is_short: bool) -> None:
    """Train on the clean photographs and the others, report on what each network has not seen, write the weights."""
    rng = np.random.default_rng(1)
    counts = (300, 300) if is_short else (FROM_PHOTOS, FROM_MORE)
    parts = [
        samples(pictures, count, toned, rng)
        for pictures, count, toned in zip(sets, counts, (TONED_SHARE, 0.0), strict=True)
    ]
    arrays: dict[str, NDArray[np.float16]] = {}
    unseen: list[list[dict[str, NDArray[np.float64]]]] = [[], []]
    for fold in range(FOLDS):
        kept = [tuple(column[part[0] % FOLDS != fold] for column in part) for part in parts]
        layers = trained(torch, kept, 20 if is_short else STEPS, fold)
        for name, tensor in layers.state_dict().items():
            arrays[f"{fold}.{name}"] = tensor.numpy().astype(np.float16)
        for part, pictures in enumerate(sets):
            left = [picture for index, picture in enumerate(pictures) if index % FOLDS == fold][:: (1, 4)[part]]
            found = {"clean": strengths(torch, layers, left)}
            for severity in range(1, 6):
                changed = [
                    distort(picture, "color_cast", severity, seed=7 * index + severity).pixels
                    for index, picture in enumerate(left)
                ]
                found[str(severity)] = strengths(torch, layers, changed)
            unseen[part].append(found)
    for part, name in enumerate(("odd Kodak and BSDS", "BIQ2021 ss03")):
        report(name, {key: np.concatenate([found[key] for found in unseen[part]]) for key in unseen[part][0]})
    np.savez_compressed(out, allow_pickle=False, **arrays)
    print(out, out.stat().st_size, "bytes")
