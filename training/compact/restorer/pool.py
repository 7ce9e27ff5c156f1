"""Spoiled photos that patches are drawn from, some at a time, each for a while. It must not know networks.

To spoil a whole photo costs half as much as a step of training and gives many patches. So a pool of cases stands in
memory, of which the oldest gives way to a new one every `renewal` steps. What stands in it at a step, and what is drawn
from it, follows from (seed, step) alone: a run that was cut off goes on as if nothing had happened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .cases import draw_case, view_from
from .photos import Photo

GRID = 8
FREE_GRID = 0.25
"""Share of patches whose JPEG grid does not start at the patch's corner."""

NEW, DRAWN = 0, 1
"""What a draw from the seed is for: a new case, or a batch."""


class Batch(NamedTuple):
    """Patches, channels last in memory."""

    given: Tensor
    guess: Tensor
    condition: Tensor
    wanted: Tensor


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What decides which patches a step sees."""

    cases: int = 512
    renewal: int = 3
    """Steps from one new case to the next."""

    patch: int = 96
    """Pixels of a patch's side."""

    batch: int = 8


class Pool:
    """The cases of the steps from `step` on.

    Args:
        photos: What they are made of.
        settings: How many, and how they are drawn from.
        seed: Of every draw.
        step: The first step that is asked for.
    """

    def __init__(self, photos: Sequence[Photo], settings: PoolSettings, seed: int, step: int = 0) -> None:
        self._photos, self._settings, self._seed = photos, settings, seed
        self._next = step // settings.renewal
        self._cases: deque[tuple[NDArray[np.float16], ...]] = deque(maxlen=settings.cases)
        self._fill(step)

    def draw(self, step: int) -> Batch:
        """The patches of `step`, which must not be before an earlier one."""
        self._fill(step)
        rng = np.random.default_rng([self._seed, DRAWN, step])
        patches = [self._patch(rng) for _ in range(self._settings.batch)]
        return Batch(
            *(
                torch.from_numpy(np.stack(parts).astype(np.float32)).to(memory_format=torch.channels_last)
                for parts in zip(*patches, strict=True)
            )
        )

    def _fill(self, step: int) -> None:
        last = step // self._settings.renewal + self._settings.cases
        for number in range(self._next, last):
            self._cases.append(self._new(number))
        self._next = max(self._next, last)

    def _new(self, number: int) -> tuple[NDArray[np.float16], ...]:
        rng = np.random.default_rng([self._seed, NEW, number])
        photo = self._photos[int(rng.integers(len(self._photos)))]
        case = draw_case(view_from(photo.pixels, rng), rng)
        return tuple(part.astype(np.float16) for part in (case.given, case.guess, case.condition, case.wanted))

    def _patch(self, rng: np.random.Generator) -> tuple[NDArray[np.float16], ...]:
        case = self._cases[int(rng.integers(len(self._cases)))]
        step = 1 if rng.random() < FREE_GRID else GRID
        side = self._settings.patch
        y, x = (int(rng.integers((length - side) // step + 1)) * step for length in case[0].shape[1:])
        return tuple(part[:, y : y + side, x : x + side] for part in case)
