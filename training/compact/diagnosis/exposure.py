"""The networks that tell how far the light is off (`zoomiqa/imaging/signals/data/exposure.npz`).

Known exposures, in stops of linear light, are put on odd-numbered Kodak and BSDS photographs and on BIQ2021's subset
ss03; four tenths of the samples keep theirs. A flat or veiled picture and a coloured light come before or after, and
are to read 0. The loss is the absolute error with a scale that is estimated beside it: many photographs have an
exposure of their own, which must not count as much as its square. Three networks, each without a third of the
photographs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from zoomiqa.imaging.distortions import distort
from zoomiqa.imaging.signals.canvas import PixelArray, Plane
from zoomiqa.imaging.signals.color import COLOR_LONG_SIDE_PX
from zoomiqa.imaging.signals.exposure import FEATURES, features

from .curves import LINEAR_LUMA, Curves, applied, contrast, decode, encode, identity, part_of, veil
from .descent import descend, scaled_loss

FOLDS, HIDDEN, SECOND = 3, 48, 24
SIDE_PX = 216
FROM_PHOTOS, FROM_MORE = 12_000, 22_000
BATCH, STEPS, RATE, DECAY, DROPOUT = 256, 2500, 3e-3, 1e-2, 0.1
PHOTOS_WEIGHT = 2
"""How often a sample of the clean photographs is drawn for one of the others."""

DARK_SHARE, LIGHT_SHARE = 0.3, 0.3
DARK_STOPS, LIGHT_STOPS = (0.4, 4.2), (0.4, 2.9)
GAMMA = (1.0, 1.15)
"""Short exposures are deepened by this, as sensors and their processing do."""

Samples = tuple[NDArray[np.int64], Plane, Plane]
"""Photograph, features, stops."""


def other_flaw(curves: Curves, rng: np.random.Generator) -> Curves:
    """Contrast, veil, a coloured light or a shifted grey: no fault of the exposure."""
    kind = int(rng.integers(4))
    if kind == 0:
        return contrast(curves, 0.5, 1.15, rng)
    if kind == 1:
        return veil(curves, 0.5, rng)
    if kind == 2:
        gains = np.exp(rng.uniform(-0.7, 0.7, 3))
        return encode(decode(curves) * (gains / (gains @ LINEAR_LUMA)))
    return np.clip(contrast(curves, 0.6, 1.1, rng) + rng.uniform(-0.05, 0.05), 0, 1)


def exposed(curves: Curves, rng: np.random.Generator) -> tuple[Curves, float]:
    """A random exposure on three curves, and its stops."""
    kind = rng.random()
    if kind < DARK_SHARE:
        stops = -float(rng.uniform(*DARK_STOPS))
        return encode(2**stops * decode(curves) ** rng.uniform(*GAMMA)), stops
    if kind < DARK_SHARE + LIGHT_SHARE:
        stops = float(rng.uniform(*LIGHT_STOPS))
        return encode(2**stops * decode(curves)), stops
    return curves, 0.0


def spoiled(picture: PixelArray, rng: np.random.Generator) -> tuple[PixelArray, float]:
    """A random part of a picture as the signal sees it, with random flaws, and its stops."""
    curves = identity()
    if rng.random() < 0.25:
        curves = other_flaw(curves, rng)
    curves, stops = exposed(curves, rng)
    if rng.random() < 0.1:
        curves = other_flaw(curves, rng)
    part = part_of(picture, 0.65, rng)
    if rng.random() < 0.5:
        part = np.ascontiguousarray(part[:, ::-1])
    part = applied(part, curves)
    if rng.random() < 0.2:
        part = np.clip(part + rng.normal(0, rng.uniform(1, 12), part.shape), 0, 255).astype(np.uint8)
    size = [COLOR_LONG_SIDE_PX, int(rng.integers(90, COLOR_LONG_SIDE_PX + 1))]
    width, height = size if rng.random() < 0.7 else size[::-1]
    return np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA), np.uint8), stops


def samples(pictures: list[PixelArray], count: int, rng: np.random.Generator) -> Samples:
    """Features and stops of randomly spoiled pictures."""
    chosen = rng.integers(len(pictures), size=count)
    rows = [spoiled(pictures[index], rng) for index in chosen]
    read = np.stack([features(part) for part, _ in rows])
    return chosen, read, np.array([stops for _, stops in rows], np.float32)


def trained(torch: Any, read: Plane, stops: Plane, odds: NDArray[np.float64], steps: int, seed: int) -> dict[str, Any]:
    """One network on scaled features (N x `FEATURES`), rows drawn by `odds`; its arrays by their names."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    nn = torch.nn
    layers = nn.ModuleDict(
        {"one": nn.Linear(FEATURES, HIDDEN), "two": nn.Linear(HIDDEN, SECOND), "out": nn.Linear(SECOND, 2)}
    )

    def loss_of(rows: NDArray[np.int64]) -> Any:
        values = torch.relu(layers["one"](torch.from_numpy(read[rows])))
        values = nn.functional.dropout(values, DROPOUT)
        found = layers["out"](torch.relu(layers["two"](values)))
        return scaled_loss((found[:, 0] - torch.from_numpy(stops[rows])).abs(), found[:, 1], 1)

    order = rng.choice(len(stops), size=(steps, BATCH), p=odds)
    descend(torch, layers, order, loss_of, steps=steps, rate=RATE, decay=DECAY, title=f"network {seed}")
    return {name: tensor.numpy() for name, tensor in layers.state_dict().items()}


def fit(torch: Any, sets: tuple[list[PixelArray], list[PixelArray]], out: Path, *, is_short: bool) -> None:
    """Train the networks on the clean photographs and the others, and write their weights."""
    rng = np.random.default_rng(1)
    counts = (300, 300) if is_short else (FROM_PHOTOS, FROM_MORE)
    parts = [samples(pictures, count, rng) for pictures, count in zip(sets, counts, strict=True)]
    read = np.concatenate([part[1] for part in parts])
    stops = np.concatenate([part[2] for part in parts])
    fold = np.concatenate([part[0] % FOLDS for part in parts])
    weight = np.concatenate([np.full(len(parts[0][2]), float(PHOTOS_WEIGHT)), np.ones(len(parts[1][2]))])
    mean, deviation = read.mean(0), read.std(0) + np.float32(1e-3)
    arrays: dict[str, NDArray[np.float16] | Plane] = {"mean": mean, "deviation": deviation}
    scaled = ((read - mean) / deviation).astype(np.float32)
    for number in range(FOLDS):
        kept = np.flatnonzero(fold != number)
        odds = weight[kept] / weight[kept].sum()
        network = trained(torch, scaled[kept], stops[kept], odds, 20 if is_short else STEPS, number)
        arrays |= {f"{number}.{name}": values.astype(np.float16) for name, values in network.items()}
    np.savez_compressed(out, allow_pickle=False, **arrays)
    print(out, out.stat().st_size, "bytes")


def shares(stops: dict[str, list[float]], limits: tuple[float, float]) -> dict[str, float]:
    """Share of each kind beyond its limit: stops below the first for what is dark, above the second for the rest."""
    low, high = limits
    found = {"accused": float(np.mean([value <= low or value >= high for value in stops["clean"]]))}
    for name, values in stops.items():
        if name != "clean":
            hits = [value <= low if name.startswith("low_light") else value >= high for value in values]
            found[name] = float(np.mean(hits))
    return found


def known(pictures: list[PixelArray]) -> dict[str, list[PixelArray]]:
    """Each picture as it is, and with the light of `low_light` and `overexposure` at severities 2 to 5."""
    made = {"clean": pictures}
    for name in ("low_light", "overexposure"):
        for severity in (2, 3, 4, 5):
            made[f"{name} {severity}"] = [
                distort(picture, name, severity, seed=index).pixels for index, picture in enumerate(pictures)
            ]
    return made
