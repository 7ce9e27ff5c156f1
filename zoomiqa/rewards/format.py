"""Format reward, Zoom-IQA Eq. 3: 1 if every reply of a trajectory keeps the format, else 0.

A reply keeps it when all of this holds: it is `<think>…</think><answer>…</answer>` and nothing else; it has the
sections of its round under their headings; the answer is one valid JSON object with `bbox_2d`, `rating` and `tool` (and
the attributes, where asked for); the rating lies in 1..5; box and tool belong together: "crop" with an ordered box of
fractions, "final" with the all-zero box. The last reply of several must be "final".

Choices, as the paper gives the rule but no details:

- `sections="all"` (default) asks for all four headings; `"guidance"` for the two that the paper names, Directions for
  Improvement and Issues to Avoid.
- A reply that `zoomiqa.protocol` had to repair in any way breaks the format, though its rating is used elsewhere.
- A perception task is held to the tags and to an answer of the asked kind.

It must not know how good an answer is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from zoomiqa.protocol.geometry import as_numbers
from zoomiqa.protocol.reply import ParsedReply
from zoomiqa.rewards.perception import is_in_form
from zoomiqa.rewards.trajectory import Trajectory

Demand = Literal["all", "guidance"]

_SUMMARY_OF_FIRST, _SUMMARY_OF_LATER = "image quality summary", "crop inspection summary"
"""The heading by which the rounds differ; the parser reads both as the summary."""


def format_reward(trajectories: Sequence[Trajectory], *, sections: Demand = "all") -> list[float | None]:
    """1.0 or 0.0 for each trajectory; it applies to all.

    Args:
        trajectories: Of any pictures, in any order.
        sections: Which headings are asked for.
    """
    return [float(_holds(trajectory, sections)) for trajectory in trajectories]


def _holds(trajectory: Trajectory, sections: Demand) -> bool:
    if trajectory.truth.task is not None:
        text = trajectory.texts[-1]
        return len(trajectory.texts) == 1 and _is_enclosed(text) and is_in_form(text, trajectory.truth.task)
    last = len(trajectory.texts) - 1
    return all(
        keeps_format(text, reply, index=index, is_last=index == last, sections=sections)
        for index, (text, reply) in enumerate(zip(trajectory.texts, trajectory.replies, strict=True))
    )


def keeps_format(
    text: str, reply: ParsedReply, *, index: int = 0, is_last: bool = True, sections: Demand = "all"
) -> bool:
    """Whether one reply keeps the format of its round.

    Args:
        text: The reply as written.
        reply: The same, read by `zoomiqa.protocol.parse_reply`.
        index: 0 for the first look.
        is_last: Whether no look came after it. The only look of a trajectory may ask for a crop that nobody made
            (rounds used up at one); the last of several may not.
        sections: Which headings are asked for.
    """
    return (
        _is_enclosed(text)
        and _is_unrepaired(reply, sections)
        and (sections == "guidance" or (_SUMMARY_OF_LATER if index else _SUMMARY_OF_FIRST) in text.lower())
        and _tool_fits_box(reply, may_crop=index == 0 or not is_last, must_crop=not is_last)
    )


def _is_enclosed(text: str) -> bool:
    """Whether the reply is its two blocks, each tag once and in order, with nothing but white space around them."""
    stripped = text.strip()
    if not (stripped.startswith("<think>") and stripped.endswith("</answer>")):
        return False
    if any(stripped.count(tag) != 1 for tag in ("<think>", "</think>", "<answer>", "</answer>")):
        return False
    close, start = stripped.find("</think>"), stripped.find("<answer>")
    return close < start and not stripped[close + len("</think>") : start].strip()


def _is_unrepaired(reply: ParsedReply, sections: Demand) -> bool:
    if reply.is_strict:
        return True
    has_guidance = reply.sections.directions is not None and reply.sections.issues is not None
    # A clipped rating or attribute carries a note too, so that the ranges are part of this.
    return sections == "guidance" and has_guidance and {note.code for note in reply.notes} == {"section-missing"}


def _tool_fits_box(reply: ParsedReply, *, may_crop: bool, must_crop: bool) -> bool:
    box = as_numbers(reply.box_model)
    if box is None:
        return False
    if reply.tool == "final":
        return not must_crop and not any(box)
    x1, y1, x2, y2 = box
    # The tool is "crop": any other word was a repair.
    return may_crop and 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1
