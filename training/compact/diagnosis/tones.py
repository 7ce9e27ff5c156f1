"""The networks that tell exposure and cast by what a picture shows (`zoomiqa/assessors/compact/data/tones.npz`).

Known exposures and casts, alone and together, are put on the odd-numbered Kodak and BSDS photographs and on BIQ2021's
subset ss03, with other flaws before and after, as for the networks that know tones alone (`light`, `exposure`). What a
picture shows is told by the rating network, which is not trained here. Three networks, each without a third of the
photographs: the same thirds that the others were trained without, so that what both together say of a photograph that
none has seen can be measured.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from zoomiqa.assessors import compact
from zoomiqa.assessors.compact.diagnosis import RULES, Rule
from zoomiqa.assessors.compact.network import SHOWN, RatingNetwork, shipped_network
from zoomiqa.assessors.compact.network import WEIGHTS as RATING_WEIGHTS
from zoomiqa.assessors.compact.tones import FEATURES, LIMITED, combined, estimate, features, small_copy
from zoomiqa.files import atomic_write_text
from zoomiqa.imaging import open_picture
from zoomiqa.imaging.distortions import distort
from zoomiqa.imaging.signals import exposure as measured_exposure
from zoomiqa.imaging.signals import light as measured_light
from zoomiqa.imaging.signals.canvas import PixelArray, Plane, reduced
from zoomiqa.imaging.signals.color import cast_of_gains

from . import exposure, light
from .card import LIMITS, described
from .curves import applied, contrast, identity
from .descent import descend, scaled_loss

FOLDS, SIGHT, TONE, JOINT = 3, 48, (64, 48), 64
OPENED_PX = 400
"""Long side of the pictures that are spoiled."""

PER_PHOTO, PER_OTHER = 90, 5
"""Samples of each photograph of `--photos`, and of each of the others."""

PHOTOS_WEIGHT = 2
"""How often a sample of the former is drawn for one of the latter."""

BATCH, STEPS, RATE, DECAY = 256, 2600, 2e-3, 1e-2
HIDDEN_SIGHT = 0.4
"""Share of what is shown that dropout hides: 112 photographs are few."""

MOST = 4.0
"""Deviations from the mean at which a feature is cut."""

EXPOSED, CAST, OTHER, OTHER_AFTER, FLIPPED, SOFT = 0.45, 0.55, 0.25, 0.1, 0.5, 0.1
NOISY, COMPRESSED = 0.12, 0.13
"""Chances: of an exposure, a cast, another flaw before and after, a mirror image, softness, noise, compression."""

CHANGES = {"color_cast": "cast", "overexposure": "overexposure", "low_light": "dark"}
SEVERITIES = (2, 3, 4, 5)
"""What the card reports on, with the rule that states it."""

Vector = NDArray[np.float64]


class Samples(NamedTuple):
    """Spoiled pictures, a row each."""

    photo: NDArray[np.int64]
    """Index of the photograph in its set."""

    read: Plane
    """N x `FEATURES`."""

    truth: Plane
    """N x 3: cast on two axes, stops."""


def spoiled(picture: PixelArray, toned: float, rng: np.random.Generator) -> tuple[PixelArray, Vector]:
    """A random part of a picture with random flaws, and its cast (two axes) and stops."""
    curves, cast, stops = identity(), np.zeros(2), 0.0
    if rng.random() < toned:  # film and its scans bend the channels differently: that is no cast
        curves = curves ** np.exp(rng.normal(0, 0.07, 3))
    if rng.random() < OTHER:
        curves = light.other_flaw(curves, rng)
    if rng.random() < EXPOSED:
        curves, stops = exposure.exposed(curves, rng)
    if rng.random() < CAST:
        curves, cast = light.cast(curves, rng)
    if rng.random() < OTHER_AFTER:
        curves = contrast(curves, 0.65, 1.2, rng)
    height, width = (int(side * rng.uniform(0.65, 1)) for side in picture.shape[:2])
    top, left = (
        int(rng.integers(whole - part + 1)) for whole, part in zip(picture.shape, (height, width), strict=False)
    )
    part = picture[top : top + height, left : left + width]
    part = np.ascontiguousarray(part[:, ::-1] if rng.random() < FLIPPED else part)
    if rng.random() < SOFT:
        part = np.asarray(cv2.GaussianBlur(part, (0, 0), float(rng.uniform(0.5, 1.5))), np.uint8)
    part, kind = applied(part, curves), rng.random()
    if kind < NOISY:
        part = np.clip(part + rng.normal(0, rng.uniform(1, 10), part.shape), 0, 255).astype(np.uint8)
    elif kind < NOISY + COMPRESSED:
        code = cv2.imencode(".jpg", part, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 95))])[1]
        part = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)
    return part, np.append(cast, stops)


def samples(network: RatingNetwork, paths: list[Path], each: int, toned: float, seed: int) -> Samples:
    """`each` randomly spoiled versions of every picture."""
    photo, read, truth = [], [], []
    for index, path in enumerate(paths):
        rng = np.random.default_rng([seed, index])
        picture = opened(path)
        for _ in range(each):
            part, known = spoiled(picture, toned, rng)
            photo.append(index)
            read.append(features(network, part, small_copy(part)))
            truth.append(known)
    return Samples(np.array(photo), np.stack(read), np.array(truth, np.float32))


def opened(path: Path) -> PixelArray:
    """A picture reduced to `OPENED_PX`."""
    return reduced(open_picture(path).pixels, OPENED_PX)


def build(torch: Any) -> Any:
    """The layers by the names that `zoomiqa.assessors.compact.tones` reads."""
    nn = torch.nn
    return nn.ModuleDict({
        "sight": nn.Linear(SHOWN, SIGHT),
        "tone1": nn.Linear(FEATURES - SHOWN, TONE[0]),
        "tone2": nn.Linear(*TONE),
        "joint": nn.Linear(SIGHT + TONE[1], JOINT),
        "out": nn.Linear(JOINT, 5),
    })  # fmt: skip


def forward(torch: Any, layers: Any, scaled: Any) -> Any:
    """Cast (two axes) and stops, and the logarithms of the scales of their errors."""
    relu, drop = torch.relu, torch.nn.functional.dropout
    is_training = layers.training
    sight = relu(layers["sight"](drop(scaled[:, :SHOWN], HIDDEN_SIGHT, is_training)))
    tone = relu(layers["tone1"](drop(scaled[:, SHOWN:], 0.05, is_training)))
    tone = relu(layers["tone2"](drop(tone, 0.1, is_training)))
    joint = drop(torch.cat([drop(sight, 0.3, is_training), tone], 1), 0.1, is_training)
    return layers["out"](relu(layers["joint"](joint)))


def trained(torch: Any, scaled: Plane, truth: Plane, odds: Vector, steps: int, seed: int) -> dict[str, Any]:
    """One network on scaled features (N x `FEATURES`), rows drawn by `odds`; its arrays by their names."""
    torch.manual_seed(seed)
    layers = build(torch)

    def loss_of(rows: NDArray[np.int64]) -> Any:
        found, known = forward(torch, layers, torch.from_numpy(scaled[rows])), torch.from_numpy(truth[rows])
        of_cast = ((found[:, :2] - known[:, :2]) ** 2).sum(1).add(1e-4).sqrt()
        of_stops = (found[:, 2] - known[:, 2]).abs()
        return scaled_loss(of_cast, found[:, 3], 2) + scaled_loss(of_stops, found[:, 4], 1)

    order = np.random.default_rng(seed).choice(len(truth), size=(steps, BATCH), p=odds)
    descend(torch, layers, order, loss_of, steps=steps, rate=RATE, decay=DECAY, title=f"network {seed}")
    return {name: tensor.numpy() for name, tensor in layers.state_dict().items()}


def measured_by(number: int, small: PixelArray) -> Vector:
    """Cast and stops of a `small_copy` by the measuring networks of one third alone."""
    stops = measured_exposure.stops_of(measured_exposure.weights(), measured_exposure.features(small), number)
    return np.append(measured_light.OPPONENTS @ measured_light.log_gains(small, number), stops)


def limits_for(both: Vector, measured: Vector) -> Vector:
    """The limits of `LIMITED` that as many untouched photographs pass as pass the rules' own by measurement alone.

    Args:
        both: N x 3 means of both estimates, of photographs that no network has seen.
        measured: N x 3 measured ones.
    """
    found = []
    for name in LIMITED:
        alone, together = _values(name, measured), _values(name, both)
        sign = np.sign(RULES[name].limit)
        share = float((sign * alone >= abs(RULES[name].limit)).mean())
        found.append(sign * np.quantile(sign * together, 1 - share))
    return np.array(found)


def _values(name: str, rows: Vector) -> Vector:
    """What the rule `name` reads of estimates (N x 3)."""
    return _strength(rows) if name == "cast" else rows[:, 2]


def _strength(rows: Vector) -> Vector:
    return np.array([cast_of_gains(row[:2] @ measured_light.OPPONENTS)[0] for row in rows])


def fit(torch: Any, sets: tuple[list[Path], list[Path]], out: Path, *, is_short: bool) -> None:
    """Train on the clean photographs and the others, print what is found on unseen ones, and write the weights."""
    network = shipped_network()
    counts = (2, 1) if is_short else (PER_PHOTO, PER_OTHER)
    parts = [
        samples(network, paths, each, toned, seed)
        for seed, (paths, each, toned) in enumerate(zip(sets, counts, (light.TONED_SHARE, 0.0), strict=True))
    ]
    print(sum(len(part.photo) for part in parts), "samples", flush=True)
    read = np.concatenate([part.read for part in parts])
    truth = np.concatenate([part.truth for part in parts])
    fold = np.concatenate([part.photo % FOLDS for part in parts])
    weight = np.concatenate([np.full(len(parts[0].photo), float(PHOTOS_WEIGHT)), np.ones(len(parts[1].photo))])
    arrays: dict[str, Any] = {"mean": read.mean(0), "deviation": read.std(0) + np.float32(1e-3), "most": MOST}
    scaled = np.clip((read - arrays["mean"]) / arrays["deviation"], -MOST, MOST).astype(np.float32)
    for number in range(FOLDS):
        kept = np.flatnonzero(fold != number)
        odds = weight[kept] / weight[kept].sum()
        found = trained(torch, scaled[kept], truth[kept], odds, 20 if is_short else STEPS, number)
        arrays |= {f"{number}.{name}": values.astype(np.float16) for name, values in found.items()}
    arrays["limits"] = limits_on_untouched(network, arrays, sets).astype(np.float32)
    print("limits:", dict(zip(LIMITED, arrays["limits"], strict=True)))
    np.savez_compressed(out, allow_pickle=False, **arrays)
    print(out, out.stat().st_size, "bytes")


def limits_on_untouched(
    network: RatingNetwork, arrays: Mapping[str, Any], sets: tuple[list[Path], list[Path]]
) -> Vector:
    """`limits_for` all photographs as they are, each by the networks that have not seen it."""
    told = [_told(network, arrays, opened(path), index % FOLDS) for paths in sets for index, path in enumerate(paths)]
    seen, measured = (np.stack(column) for column in zip(*told, strict=True))
    return limits_for((seen + measured) / 2, measured)


def _told(network: RatingNetwork, arrays: Mapping[str, Any], picture: PixelArray, number: int) -> tuple[Vector, Vector]:
    """Both estimates of a picture by the networks that have not seen it."""
    small = small_copy(picture)
    return estimate(arrays, number, features(network, picture, small)), measured_by(number, small)


def found_beyond(paths: list[Path], arrays: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Shares of known changes beyond the limits, by measurement alone and by both, where no network saw the photograph.

    Args:
        paths: The clean photographs that were fitted on, all of them and in their order.
        arrays: The networks.
    """
    network = shipped_network()
    own = {
        name: replace(RULES[name], limit=float(limit)) for name, limit in zip(LIMITED, arrays["limits"], strict=True)
    }
    alone: dict[str, list[bool]] = defaultdict(list)
    both: dict[str, list[bool]] = defaultdict(list)
    for index, path in enumerate(paths):
        picture = opened(path)
        for operation, rule in CHANGES.items():
            for severity in (0, *SEVERITIES):
                seed = 7 * index + severity
                changed = distort(picture, operation, severity, seed).pixels if severity else picture
                seen, measured = _told(network, arrays, changed, index % FOLDS)
                name = f"{operation} {severity}" if severity else f"untouched, taken for {operation}"
                alone[name].append(_is_beyond(RULES[rule], measured))
                both[name].append(_is_beyond(own[rule], np.append(*combined(seen, measured))))
    return {
        title: {name: round(float(np.mean(hits)), 3) for name, hits in found.items()}
        for title, found in (("measured alone", alone), ("both", both))
    }


def _is_beyond(rule: Rule, found: Vector) -> bool:
    return rule.strength(float(_values(rule.name, found[None])[0])) > 0


def write_card(out: Path, clean: list[Path], others: list[Path], made_by: str) -> None:
    """Measure the networks of `out`, which the command `made_by` wrote, and write their card beside them."""
    with np.load(out, allow_pickle=False) as archive:
        arrays = {name: archive[name].astype(np.float32) for name in archive.files}
    rating = resources.files(compact) / "data" / RATING_WEIGHTS
    card = {
        "file": out.name,
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "bytes": out.stat().st_size,
        "made_by": made_by,
        "reads": {RATING_WEIGHTS: hashlib.sha256(rating.read_bytes()).hexdigest()},
        "data": described(clean, others),
        "settings": {
            "seeds": "samples 0 and 1, networks 0 to 2",
            "samples_of_each": [PER_PHOTO, PER_OTHER],
            "steps": STEPS,
            "folds": FOLDS,
        },
        "limits_of_rules": {
            name: round(float(limit), 4) for name, limit in zip(LIMITED, arrays["limits"], strict=True)
        },
        "beyond_the_limit": found_beyond(clean, arrays),
        "limits": list(LIMITS),
    }
    atomic_write_text(out.with_suffix(".json"), json.dumps(card, indent=1) + "\n")
