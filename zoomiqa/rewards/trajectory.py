"""What the rewards look at: the replies of one sampled conversation, its rating, and what is true of the picture.

It must not know how the replies were drawn, nor what any reward makes of them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from zoomiqa.errors import OptionInvalid
from zoomiqa.protocol.geometry import as_numbers
from zoomiqa.protocol.reply import ParsedReply, parse_reply
from zoomiqa.types import RATING_MAX, RATING_MIN, Assessment, BoxFraction

Task = Literal["name", "severity", "where"]
"""Perception tasks (Refine-IQA, first stage): name the distortion, grade it, find it."""

_TASK_LABELS: Mapping[Task, str] = {"name": "distortion", "severity": "severity", "where": "box_fraction"}


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of a picture. Whatever is absent makes the rewards that need it not apply."""

    rating: float | None = None
    """Mean opinion score on the rating's scale, 1..5."""

    attributes: Mapping[str, float] = field(default_factory=dict)
    """Mean opinion scores of single qualities, 1..5, by name."""

    task: Task | None = None
    """The perception task that was set; `None` where a rating was asked for."""

    distortion: str | None = None
    """For "name": the distortion's name, or the word for none."""

    severity: int | None = None
    """For "severity": 1 (about just noticeable) to 5 (strong)."""

    box_fraction: BoxFraction | None = None
    """For "where": left, top, right, bottom as fractions of width and height."""

    def __post_init__(self) -> None:
        for name, value in (("rating", self.rating), *self.attributes.items()):
            if value is not None and not RATING_MIN <= value <= RATING_MAX:  # NaN is refused as well
                raise OptionInvalid(f"the true {name} must lie in 1..5", value, "bring the labels to that scale")
        if self.task is None:
            return
        if self.task not in get_args(Task):
            raise OptionInvalid("unknown perception task", self.task, f"use one of {', '.join(get_args(Task))}")
        label = _TASK_LABELS[self.task]
        if getattr(self, label) is None:
            raise OptionInvalid(f"the task {self.task!r} needs its answer", None, f"give {label}")

    @classmethod
    def of_task(cls, known: Mapping[str, Any]) -> Truth:
        """From the `truth` of a perception row as `training.synthesis` writes it.

        Raises:
            OptionInvalid: the task is unknown, or its answer is missing or no box.
        """
        return cls(
            task=known.get("task"),
            distortion=known.get("distortion"),
            severity=known.get("severity"),
            box_fraction=as_numbers(known.get("bbox_2d")),
        )


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One sampled conversation about one picture."""

    texts: tuple[str, ...]
    """The reply of every look, as written."""

    replies: tuple[ParsedReply, ...]
    """The same, read."""

    rating: float | None
    """The final rating, 1..5; `None` if the conversation failed or ended without one. Never a stand-in."""

    group: Hashable
    """What its samples have in common: the picture (and question). Unique within its data set."""

    truth: Truth = field(default_factory=Truth)
    dataset: str = ""
    """The scale on which people rated; pictures of different data sets are never ranked against each other."""

    def __post_init__(self) -> None:
        if not self.texts or len(self.texts) != len(self.replies):
            raise OptionInvalid(
                "a trajectory has one read reply per text, and at least one", (len(self.texts), len(self.replies)),
                "use Trajectory.from_texts",
            )  # fmt: skip
        if self.rating is not None and not math.isfinite(self.rating):
            raise OptionInvalid("a rating is a finite number or None", self.rating, "pass None for a failure")

    @property
    def attributes(self) -> Mapping[str, float]:
        """Ratings by attribute of the final reply; none if the conversation failed."""
        return {} if self.rating is None else self.replies[-1].attributes

    @classmethod
    def from_texts(
        cls,
        texts: Collection[str],
        *,
        group: Hashable,
        truth: Truth | None = None,
        dataset: str = "",
        attributes: Collection[str] = (),
    ) -> Trajectory:
        """Read the replies; the rating is the last one's.

        Args:
            texts: One per look; one for a perception task.
            group: The picture.
            truth: Its labels.
            dataset: Where it is from.
            attributes: Names of the attribute ratings that were asked for.
        """
        replies = tuple(parse_reply(text, attributes=attributes) for text in texts)
        rating = replies[-1].rating if replies else None
        return cls(tuple(texts), replies, rating, group, truth or Truth(), dataset)

    @classmethod
    def from_assessment(
        cls,
        assessment: Assessment,
        *,
        group: Hashable,
        truth: Truth | None = None,
        dataset: str = "",
        attributes: Collection[str] = (),
    ) -> Trajectory:
        """From what `zoomiqa.protocol.converse` returned. A failed assessment has no rating, whatever its looks say.

        Raises:
            OptionInvalid: the assessment has no look (its backend failed at once); leave it out of the batch.
        """
        texts = tuple(look.text for look in assessment.rounds)
        replies = tuple(parse_reply(text, attributes=attributes) for text in texts)
        return cls(texts, replies, assessment.rating, group, truth or Truth(), dataset)
