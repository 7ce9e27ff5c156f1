"""Replies and trajectories to reward."""

import json

from zoomiqa.rewards import Trajectory, Truth

HEADINGS = {
    0: ("Image Quality Summary", "Directions for Improvement", "Issues to Avoid", "Decision & Rationale"),
    1: ("Crop Inspection Summary", "Directions for Improvement", "Issues to Avoid", "Final Decision & Rationale"),
}


def think(index=0, *, leave_out=()):
    return "\n".join(f"{name}: The wall is clear." for name in HEADINGS[index] if name not in leave_out)


def reply(rating=3.5, *, index=0, box=(0, 0, 0, 0), tool="final", leave_out=(), **more):
    answer = json.dumps({"bbox_2d": list(box), "rating": rating, "tool": tool, **more})
    return f"<think>{think(index, leave_out=leave_out)}</think>\n<answer>{answer}</answer>"


CROP = {"box": (0.1, 0.2, 0.6, 0.9), "tool": "crop"}


def trajectory(rating, truth=3.0, group=0, dataset="", **others):
    """A one-look trajectory; `rating=None` is one that could not be read."""
    text = "no answer" if rating is None else reply(rating, **others.pop("answer", {}))
    return Trajectory.from_texts([text], group=group, truth=Truth(rating=truth, **others), dataset=dataset)
