"""From guidance to what the compact network is told: a strength map for each detail family. It must not know networks.

Training and use meet here: both read words with `restore_bridge.guidance`, plan with `restore_bridge.actions`, draw the
plan with `condition_maps` and take the first guess from `first_guess`, so that a word means to the network what it
meant when it was trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from restore_bridge.actions import STRENGTHS, Action, Operation
from restore_bridge.restorers.classical import carry_out, feathered_mask
from zoomiqa.types import Box

Floats = NDArray[np.float32]

CHANNELS = ("noise", "blur", "motion", "blocking", "dark")
"""Planes of a condition. "dark" is the noise and the coarse steps that come up where a dark picture was brightened."""

DETAIL: dict[Operation, int] = {
    Operation.DENOISE: 0,
    Operation.DEBLUR: 1,
    Operation.SHARPEN: 1,
    Operation.DEBLUR_MOTION: 2,
    Operation.DEBLOCK: 3,
    Operation.DERING: 3,
    Operation.LIFT: 4,
}
"""The plane of each operation that the detail network does."""

GUESSED = frozenset({Operation.DEBLUR, Operation.SHARPEN, Operation.DEBLUR_MOTION})
"""Operations that `classical` tries first, as a blur's width or path shows in a whole picture and not in a patch."""

OWN = frozenset(DETAIL)
"""Operations that the two networks do; all others go on to `classical`. Casts are among those: a network that saw
thumbnails took them out less well (29.0 dB) than `classical` does by reading edges (34.9 dB; 12 photos, 24 casts)."""

FULL = min(STRENGTHS.values())
"""Strength from which the network's change counts fully: that of the weakest word."""


def condition_maps(actions: Sequence[Action], size: tuple[int, int]) -> Floats:
    """Where and how strongly each detail family is named.

    Args:
        actions: A plan; operations that are not of detail are passed over.
        size: (width, height) in pixels.

    Returns:
        len(CHANNELS)×H×W, 0..1: the strength of the words in their place, 0 elsewhere, soft at the borders of boxes.
    """
    maps = np.zeros((len(CHANNELS), size[1], size[0]), np.float32)
    for action in actions:
        if action.operation in DETAIL:
            plane = maps[DETAIL[action.operation]]
            where: Floats | float = 1.0
            if action.box_fraction is not None:
                where = feathered_mask(Box.from_fraction(action.box_fraction, size), size)
            np.maximum(plane, np.float32(action.strength) * where, out=plane)
    return maps


def first_guess(pixels: Floats, actions: Sequence[Action]) -> tuple[Floats, dict[Action, dict[str, float | str]]]:
    """What the network starts from: `pixels` with the named blur or motion undone, as far as measurement finds it.

    Args:
        pixels: H×W×3 RGB 0..1.
        actions: A plan. All of it is looked at: no round blur is undone where motion is named, and noise is calmed only
            where noise is.

    Returns:
        H×W×3 RGB 0..1, equal to `pixels` wherever neither is named; and what was measured for each action that was
        tried, empty where nothing was found.
    """
    tried = [action for action in actions if action.operation in GUESSED]
    if not tried:
        return pixels, {}
    guess, steps = carry_out(pixels, tried, beside=actions)
    return np.clip(guess, 0, 1), {action: step["amount"] for action, step in zip(tried, steps, strict=True)}
