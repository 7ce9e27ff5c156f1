"""How a rollout is divided: groups of samples, micro-batches, optimizer steps. Arithmetic only.

A *trajectory* is one sampled conversation, whatever its number of looks; it is the unit of every size here. A
micro-batch holds whole trajectories with all their training rows, so that every process runs the vision tower in every
forward pass (a rank without a closer look must not stand still while others gather weights), and no row is padding.

Choices: the paper gives a batch of 1, two accumulation steps and N = 8 samples, and neither the number of pictures per
rollout nor that of optimizer steps. Pictures: by default the fewest that fill whole optimizer steps and hold two rated
ones, which are compared with each other, and a perception task where such are drawn. Steps: at least two, going through
the rollout again where it makes only one, since KL-Coverage is zero in the first. It must not know models or data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from zoomiqa.errors import OptionInvalid

LEAST_UPDATES = 2


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """Sizes, as they are asked for."""

    batch_size: int = 1
    """Trajectories per process in one forward and backward pass. Zoom-IQA Sec. 10: 1."""

    gradient_accumulation_steps: int = 2
    """Micro-batches per optimizer step. Zoom-IQA Sec. 10: 2."""

    group_size: int = 8
    """N, trajectories per picture. Zoom-IQA Sec. 10.2."""

    pictures: int | None = None
    """Pictures per rollout, over all processes; `None`: the fewest that fit."""

    iterations: int | None = None
    """How often a rollout is gone through; `None`: as often as at least two optimizer steps take."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "gradient_accumulation_steps", "pictures", "iterations"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionInvalid(f"{name} must be at least 1", value, "give a positive number")
        if self.group_size < 2:
            raise OptionInvalid("advantages need at least 2 samples per picture", self.group_size, "8 is the paper's")


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes, as they follow for a number of processes."""

    processes: int
    batch_size: int
    gradient_accumulation_steps: int
    group_size: int
    pictures: int
    """Per rollout, over all processes."""

    iterations: int
    tasks: int = 0
    """Of the pictures, perception tasks."""

    @property
    def trajectories(self) -> int:
        """Per rollout, over all processes."""
        return self.pictures * self.group_size

    @property
    def local_trajectories(self) -> int:
        """Per rollout, in one process: a run of the global ones, in order of rank."""
        return self.trajectories // self.processes

    @property
    def micro_batches(self) -> int:
        """Per rollout, in one process."""
        return self.local_trajectories // self.batch_size

    @property
    def updates(self) -> int:
        """Optimizer steps between two rollouts."""
        return self.iterations * self.micro_batches // self.gradient_accumulation_steps

    @property
    def steps(self) -> int:
        """Forward and backward passes between two rollouts, in one process."""
        return self.iterations * self.micro_batches


def make_plan(settings: BatchSettings, processes: int, task_share: float = 0.0) -> Plan:
    """What the sizes come to.

    Args:
        settings: As they are asked for.
        processes: How many.
        task_share: Of a rollout's pictures, those that are perception tasks, 0..1.

    Raises:
        OptionInvalid: the pictures' trajectories do not fill whole optimizer steps, or there is no place for a task or
            for a rated picture among them.
    """
    update = settings.batch_size * settings.gradient_accumulation_steps * processes
    unit = math.lcm(update, settings.group_size) // settings.group_size
    pictures = settings.pictures
    if pictures is None:
        pictures = _fewest_pictures(task_share, unit)
    elif pictures % unit:
        raise OptionInvalid(
            f"{settings.group_size} samples of each picture must fill whole optimizer steps of {update} trajectories"
            f" ({processes} processes x {settings.gradient_accumulation_steps} micro-batches of {settings.batch_size})",
            f"{pictures} pictures",
            f"use a multiple of {unit} pictures per rollout",
        )
    in_one_pass = pictures * settings.group_size // update
    iterations = settings.iterations or math.ceil(LEAST_UPDATES / in_one_pass)
    return Plan(
        processes, settings.batch_size, settings.gradient_accumulation_steps, settings.group_size, pictures,
        iterations, task_count(task_share, pictures, unit),
    )  # fmt: skip


def task_count(share: float, pictures: int, unit: int = 1) -> int:
    """How many pictures of a rollout are perception tasks.

    Args:
        share: Of the pictures, 0..1. Both kinds are drawn where it lies between.
        pictures: Per rollout.
        unit: What the number of pictures must be a multiple of.

    Raises:
        OptionInvalid: the share leaves one kind without a picture.
    """
    tasks = round(share * pictures)
    if 0 < share < 1 and not 0 < tasks < pictures:
        raise OptionInvalid(
            f"a rollout has no place for {'a rated picture' if tasks else 'a perception task'}",
            f"a share of {share:g} of {pictures} pictures",
            f"use {_fewest_pictures(share, unit)} pictures per rollout or more, or another share",
        )
    return tasks


def _fewest_pictures(share: float, unit: int) -> int:
    """The least multiple of `unit` with two rated pictures, and a task where `share` asks for any."""
    if not 0 < share < 1:
        return unit * math.ceil(2 / unit)
    # Below this, rounding gives no task, or leaves one rated picture.
    pictures = unit * math.ceil(max(0.5 / share, 1.5 / (1 - share)) / unit)
    while not 0 < round(share * pictures) <= pictures - 2:
        pictures += unit
    return pictures
