"""Samples for people to read: what the policy writes, what it earned, beside the truth. It must not know trainers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoomiqa.records import read_records, to_line

from .rollout import Sample
from .scoring import Scored

ROLLOUTS = "rollouts.jsonl"


def show_samples(path: Path, rollout: int, samples: Sequence[Sample], scored: Scored) -> None:
    """Append the first group's samples to a file, one JSON object per line.

    Args:
        path: Of the file; made if it is not there.
        rollout: Its number.
        samples: Of the first process, in order.
        scored: Of all processes, those of `samples` first.
    """
    shown = [place for place, sample in enumerate(samples) if sample.draw.group == samples[0].draw.group]
    with open(path, "ab") as file:
        for place in shown:
            rewards = {name: values[place] for name, values in scored.parts.items()}
            file.write(to_line(_line(rollout, samples[place], rewards, scored.totals[place], scored.advantages[place])))


def _line(
    rollout: int, sample: Sample, rewards: Mapping[str, float | None], total: float | None, advantage: float
) -> dict[str, Any]:
    item, answer = sample.draw.item, sample.assessment
    return {
        "rollout": rollout,
        "id": item.id,
        "dataset": item.dataset,
        "sample": sample.draw.number,
        "question": item.question if answer is None else answer.question,
        "truth": {"rating": item.truth.rating, "task": item.truth.task},
        "rating": None if sample.trajectory is None else sample.trajectory.rating,
        "rewards": dict(rewards),
        "total": total,
        "advantage": advantage,
        "looks": [
            {"text": look.text, "tokens": len(look.tokens), "finish_reason": look.finish_reason}
            for look in sample.looks
        ],
        "crops": [] if answer is None else [look.box.to_list() for look in answer.rounds if look.box],
        "error": None if sample.error is None else dict(sample.error),
    }


def forget_from(path: Path, rollout: int) -> None:
    """Take out what was written of this rollout and later ones: a run that goes on writes them again."""
    if path.is_file():
        kept = [to_line(record) for record in read_records(path) if record["rollout"] < rollout]
        path.write_bytes(b"".join(kept))
