"""Which pictures each rollout draws, for the whole run at once (Zoom-IQA Sec. 3.2, progressive re-sampling).

Stages follow each other in equal numbers of rollouts; within a stage the order is `training.resampling`'s, epoch after
epoch. Perception tasks take their share of every rollout and are gone through in shuffled order. The same settings give
the same list on every machine and every process; a resumed run reads on in it. It must not know pictures or models.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np

from zoomiqa.errors import OptionInvalid

from ..resampling import Stages, epoch_indices  # noqa: TID252
from .items import Item


def rollout_count(items: Sequence[Item], pictures: int, epochs: float, tasks: int) -> int:
    """Rollouts in which as many rated pictures are drawn as `epochs` asks for, at least one.

    Args:
        items: All.
        pictures: Per rollout.
        epochs: How often.
        tasks: Of the pictures of a rollout, those that are perception tasks.
    """
    rated = sum(not item.is_task for item in items)
    of_kind, per_rollout = (rated, pictures - tasks) if rated else (len(items), tasks)
    return max(1, math.ceil(epochs * of_kind / per_rollout - 1e-9))


def draw_order(
    items: Sequence[Item], stages: Stages, *, rollouts: int, pictures: int, tasks: int, seed: int
) -> list[list[int]]:
    """Places in `items` of the pictures of each rollout.

    Args:
        items: Rated pictures and perception tasks.
        stages: Of re-sampling.
        rollouts: How many.
        pictures: In each.
        tasks: Of these, perception tasks.
        seed: Of the run.

    Raises:
        OptionInvalid: there are fewer pictures than a rollout shows at once.
    """
    rated = [place for place, item in enumerate(items) if not item.is_task]
    perception = [place for place, item in enumerate(items) if item.is_task]
    for wanted, found, what in (
        (pictures - tasks, len(rated), "rated pictures"),
        (tasks, len(perception), "perception tasks"),
    ):
        if found < wanted:
            raise OptionInvalid(
                f"a rollout shows {wanted} {what}", f"{found} in all", "give more, or make rollouts smaller"
            )
    streams = (
        [_Stream(_rated(items, rated, stages, stage, seed)) for stage in range(len(stages.gammas))] if rated else []
    )
    others = _shuffled(perception, seed)
    order = []
    for rollout in range(rollouts):
        places = list(islice(others, tasks))
        if streams:
            places += streams[stages.stage_at(rollout / rollouts)].take(pictures - tasks)
        order.append(places)
    return order


class _Stream:
    """Draws of different pictures at a time: one that comes twice in a rollout, by re-sampling or where epochs meet,
    waits for the next rollout, as it has nothing to be compared with in its own.
    """

    def __init__(self, places: Iterator[int]) -> None:
        self._places = places
        self._waiting: list[int] = []

    def take(self, count: int) -> list[int]:
        """The next `count` different ones."""
        found: list[int] = []
        waiting, self._waiting = self._waiting, []
        places = chain(waiting, self._places)
        while len(found) < count:
            place = next(places)
            (self._waiting if place in found else found).append(place)
        # What waited and was not asked for keeps its place in the line.
        self._waiting += waiting[len(found) + len(self._waiting) :]
        return found


def _rated(items: Sequence[Item], rated: Sequence[int], stages: Stages, stage: int, seed: int) -> Iterator[int]:
    ratings = [_rating(items[place]) for place in rated]
    datasets = [items[place].dataset for place in rated]
    epoch = 0
    while True:
        for index in epoch_indices(ratings, stages, stage, seed=seed, epoch=epoch, datasets=datasets).tolist():
            yield rated[index]
        epoch += 1


def _shuffled(places: Sequence[int], seed: int) -> Iterator[int]:
    epoch = 0
    while True:
        yield from np.random.default_rng([seed, 1, epoch]).permutation(np.asarray(places, np.int64)).tolist()
        epoch += 1


def _rating(item: Item) -> float:
    if item.truth.rating is None:
        raise OptionInvalid("a picture that is to be rated needs a score", item.id, "give gt_score")
    return item.truth.rating
