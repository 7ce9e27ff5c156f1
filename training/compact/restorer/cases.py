"""Training cases: a spoiled photo, what the guidance says of it, and what should come out. No networks, no files.

Flaws come in the order in which a camera makes them: light, optics, sensor, file. Each is made by
`zoomiqa.imaging.distortions`. What is said of them is text, read by the parser that reads users' words. What should
come out is the photo with the flaws that were **not** named: the network learns to do what it is told, and no more.
Whole photos are spoiled, not patches, as the first guess measures the blur on the whole picture when it is used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from restore_bridge.actions import Action, plan_actions
from restore_bridge.guidance import split_text
from restore_bridge.restorers.compact.condition import Floats, condition_maps, first_guess
from restore_bridge.restorers.operations.light import to_coded, to_linear
from zoomiqa.imaging.distortions import DISTORTIONS, soft_mask
from zoomiqa.vocabulary import REGIONS

from .photos import LEAST_SIDE

Pixels = NDArray[np.uint8]

LARGEST = 384
"""Pixels of a case's longer side at most; what is beyond is cut off."""

DEEPEN = 1.1
"""Exponent of `low_light`, which a lift has to undo."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One way of spoiling, with the range of its parameter."""

    distortion: str
    family: str
    weak: float
    strong: float
    share: float
    """Among the kinds of its family."""

    names: tuple[str, ...]
    """What users call it."""

    def parameter(self, level: float) -> float:
        """The parameter at `level` 0 (weak) to 1 (strong), on a logarithmic scale."""
        return float(self.weak * (self.strong / self.weak) ** level)


_SOFT = ("blur", "out-of-focus blur", "soft detail", "defocus")
KINDS: tuple[Kind, ...] = (
    Kind("low_light", "light", 0.6, 0.055, 1.0, ("underexposure", "low light", "a dark exposure")),
    Kind("gaussian_blur", "blur", 0.55, 3.4, 0.85, _SOFT),
    Kind("low_resolution", "blur", 1.4, 3.2, 0.15, _SOFT),
    Kind("motion_blur", "motion", 3.0, 23.0, 1.0, ("motion blur", "camera shake")),
    Kind("gaussian_noise", "noise", 3.0, 58.0, 0.8, ("noise", "grain", "noise and grain")),
    Kind("camera_noise", "noise", 0.001, 0.05, 0.2, ("noise", "grain", "speckles")),
    Kind("jpeg", "blocking", 62.0, 7.0, 1.0, ("compression blocking", "JPEG artifacts", "compression artifacts")),
)
"""In the order in which a camera makes them."""

FAMILIES = ("light", "blur", "motion", "noise", "blocking")
CHANCES: Mapping[str, float] = MappingProxyType(
    {"light": 0.1, "blur": 0.25, "motion": 0.16, "noise": 0.24, "blocking": 0.25}
)
COUNTS = (0.03, 0.6, 0.32, 0.05)
"""Shares of patches with none, one, two and three flaws."""

NAMED, WRONG, LOCAL, WORDLESS = 0.92, 0.1, 0.12, 0.4
"""Chances that a flaw is named, that one is named which is not there, that a flaw is local, that no word of strength is said."""  # noqa: E501

MISSED = 0.1
"""Chance that no flaw of a photo is named, but one that is not there: without such cases *blur* calms noise as well."""

WORDS = ("slight", "moderate", "severe")
DOUBT = 0.15
"""Standard deviation of the level by which a word of strength is chosen."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One flaw of a case."""

    kind: Kind
    parameter: float
    seed: int
    place: str | None
    """A key of `zoomiqa.vocabulary.REGIONS`; `None` is everywhere."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One training case, H×W pixels."""

    given: Floats
    """3×H×W RGB 0..1: what the network sees."""

    guess: Floats
    """The same shape: what it starts from, see `first_guess`."""

    condition: Floats
    """len(CHANNELS)×H×W, see `condition_maps`."""

    wanted: Floats
    """3×H×W RGB 0..1: what should come out where something is named."""

    text: str


def statement(name: str, word: str | None = None, place: str | None = None) -> str:
    """What is said of one flaw: "severe noise in the upper left"."""
    said = f"{word} {name}" if word else name
    return f"{said} {where_of(place)}" if place else said


def where_of(place: str) -> str:
    """A place in words, as the parser knows them."""
    return f"{'on' if 'side' in place else 'in' if place != 'top' and place != 'bottom' else 'at'} the {place}"


def word_for(level: float) -> str:
    """The word of strength for a level of 0..1."""
    return WORDS[min(2, max(0, int(level * 3)))]


@lru_cache(maxsize=4096)
def plan_of(text: str) -> tuple[Action, ...]:
    """The steps that `text`, as *Issues to Avoid*, asks for."""
    return plan_actions(split_text(None, text))


def spoil(clean: Pixels, damages: Sequence[Damage]) -> Pixels:
    """`clean` with `damages`, in their order; rounded to bytes after each, as files and sensors do."""
    pixels = clean
    for damage in damages:
        operation = DISTORTIONS[damage.kind.distortion].operation
        rng = np.random.default_rng(damage.seed)
        changed, _ = operation(np.ascontiguousarray(pixels), damage.parameter, rng)
        if damage.place is not None:
            mask = soft_mask((clean.shape[0], clean.shape[1]), REGIONS[damage.place])
            changed = pixels + (changed - pixels) * mask[..., None]
        pixels = np.clip(np.rint(changed), 0, 255).astype(np.uint8)
    return pixels


def draw_damages(rng: np.random.Generator) -> list[tuple[Damage, float]]:
    """Flaws of different families and their levels, in the camera's order."""
    count = int(rng.choice(len(COUNTS), p=COUNTS))
    families = rng.choice(FAMILIES, size=count, replace=False, p=[CHANCES[name] for name in FAMILIES])
    drawn = []
    place = str(rng.choice(sorted(REGIONS))) if rng.random() < LOCAL else None
    for family in FAMILIES:
        if family in families:
            kinds = [kind for kind in KINDS if kind.family == family]
            kind = kinds[int(rng.choice(len(kinds), p=[kind.share for kind in kinds]))]
            level = float(rng.random())
            where = None if family == "light" else place
            drawn.append((Damage(kind, kind.parameter(level), int(rng.integers(2**31)), where), level))
    return drawn


def draw_case(clean: Pixels, rng: np.random.Generator) -> Case:
    """One case from clean pixels."""
    drawn = draw_damages(rng)
    named_share = 0.0 if rng.random() < MISSED else NAMED
    named = [damage.kind.family == "light" or rng.random() < named_share for damage, _ in drawn]
    said = []
    for (damage, level), is_named in zip(drawn, named, strict=True):
        if is_named:
            word = None if rng.random() < WORDLESS else word_for(level + DOUBT * float(rng.standard_normal()))
            said.append(statement(str(rng.choice(damage.kind.names)), word, damage.place))
    present = {damage.kind.family for damage, _ in drawn}
    if rng.random() < WRONG or not said:
        absent = [kind for kind in KINDS if kind.family not in present and kind.family != "light"]
        kind = absent[int(rng.integers(len(absent)))]
        said.append(statement(str(rng.choice(kind.names)), str(rng.choice(WORDS))))
    text = ". ".join(said)
    given = _float(spoil(clean, [damage for damage, _ in drawn]))
    left = [damage for (damage, _), is_named in zip(drawn, named, strict=True) if not is_named]
    wanted = _float(spoil(clean, left) if left else clean)
    light = next((damage for damage, _ in drawn if damage.kind.family == "light"), None)
    if light is not None:
        given, wanted = _lifted(given, wanted, light.parameter, rng)
    plan = plan_of(text)
    guess, _ = first_guess(given, plan)
    condition = condition_maps(plan, (clean.shape[1], clean.shape[0]))
    return Case(
        *(np.ascontiguousarray(part.transpose(2, 0, 1)) for part in (given, guess)),
        condition,
        np.ascontiguousarray(wanted.transpose(2, 0, 1)),
        text,
    )


def _float(pixels: Pixels) -> Floats:
    return np.asarray(pixels, np.float32) / np.float32(255)


def _lifted(given: Floats, wanted: Floats, gain: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Both as a lift that is nearly right leaves them: given is dark, wanted is not."""
    amiss = math.exp(0.15 * float(rng.standard_normal()))
    light = (to_linear(given) / np.float32(gain)) ** np.float32(1 / DEEPEN)
    return to_coded(light * np.float32(amiss)), to_coded(to_linear(wanted) * np.float32(amiss))


def view_from(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """A random part, at most `LARGEST` pixels a side, at full size or reduced by up to a half, turned and mirrored."""
    import cv2

    if rng.random() < 0.5:
        shrink = 1 / float(rng.uniform(1.0, min(2.0, max(1.0, min(pixels.shape[:2]) / LEAST_SIDE))))
        pixels = np.asarray(cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA), np.uint8)
    y, x = (int(rng.integers(max(0, length - LARGEST) + 1)) for length in pixels.shape[:2])
    part = np.rot90(pixels[y : y + LARGEST, x : x + LARGEST], int(rng.integers(4)))
    return np.ascontiguousarray(part[:, ::-1] if rng.random() < 0.5 else part)
