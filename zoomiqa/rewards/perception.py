"""Perception rewards (Refine-IQA, first stage): name the distortion, grade its severity, find its place; all by rule.

Choices, as the papers give the tasks but not the rules' details:

- Name: 1 for the right one, else 0; case and surrounding white space do not matter.
- Severity: 1 for the right degree, less 1/2 per degree of error, at least 0. A degree is a whole number.
- Place: intersection over union of the two boxes, as fractions of width and height. A box that is not ordered or leaves
  the picture earns 0; nothing is repaired.
- The answer is read strictly: one JSON object between the last pair of answer tags.

It must not know how the distortion was made, nor ratings.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from zoomiqa.errors import OptionInvalid
from zoomiqa.protocol.geometry import as_numbers
from zoomiqa.rewards.trajectory import Task, Trajectory, Truth
from zoomiqa.types import BoxFraction

SEVERITY_REACH = 2
"""Degrees of error from which a severity earns nothing."""

_MAX_ANSWER_CHARACTERS = 4_000


def perception_reward(trajectories: Sequence[Trajectory]) -> list[float | None]:
    """0..1 for each trajectory; `None` where no perception task was set."""
    return [
        None if trajectory.truth.task is None else _earned(trajectory.texts[-1], trajectory.truth)
        for trajectory in trajectories
    ]


def is_in_form(text: str, task: Task) -> bool:
    """Whether a reply gives an answer of the kind that `task` asks for, right or wrong."""
    answer = _answer(text)
    if task == "name":
        return isinstance(answer.get("distortion"), str)
    if task == "severity":
        return _degree(answer) is not None
    return _place(answer) is not None


def _earned(text: str, truth: Truth) -> float:
    answer = _answer(text)
    if truth.task == "name":
        named = answer.get("distortion")
        right = isinstance(named, str) and named.strip().lower() == str(truth.distortion).lower()
        return float(right)
    if truth.task == "severity":
        degree = _degree(answer)
        return 0.0 if degree is None or truth.severity is None else _nearness(degree, truth.severity)
    place = _place(answer)
    return 0.0 if place is None or truth.box_fraction is None else intersection_over_union(place, truth.box_fraction)


def _nearness(degree: int, truth: int) -> float:
    return max(0.0, 1 - abs(degree - truth) / SEVERITY_REACH)


def _degree(answer: dict[str, Any]) -> int | None:
    degree = answer.get("severity")
    if isinstance(degree, bool) or not isinstance(degree, int) or not 1 <= degree <= 5:
        return None
    return degree


def _place(answer: dict[str, Any]) -> BoxFraction | None:
    """The answer's box, if it is an ordered one inside the picture."""
    box = as_numbers(answer.get("bbox_2d"))
    if box is None or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
        return None
    return box


def _answer(text: str) -> dict[str, Any]:
    """The JSON object of the answer; empty where there is none."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    inner = text[start + len("<answer>") : end] if 0 <= start < end else ""
    if len(inner) > _MAX_ANSWER_CHARACTERS:
        return {}
    try:
        value = json.loads(inner)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def intersection_over_union(first: BoxFraction, second: BoxFraction) -> float:
    """Shared area over joint area of two boxes (x1, y1, x2, y2), 0..1.

    Raises:
        OptionInvalid: neither box has an area.
    """
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0.0) * max(height, 0.0)
    joint = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)) - shared
    if not joint > 0:
        raise OptionInvalid("one of the boxes must have an area", (first, second), "order their corners")
    return min(shared / joint, 1.0)
