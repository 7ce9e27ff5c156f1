"""Perception tasks with known answers: what the distortion is, how strong, and where (Refine-IQA, perception stage).

Every row holds the question, the answer in the reply format (`<think>…</think><answer>{json}</answer>`), and `truth`
for rewards by rule: the family's name, the severity, and the box for an intersection over union. It must not know
files, masks or how a sample was made.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from zoomiqa.vocabulary import TERMS, Flaw, name_region, where

from .phrases import DEGREES, choose
from .samples import Truth

NOTHING = "none"
"""The answer where there is no distortion."""

_FORM = "Reply with <think>your reasons</think><answer>JSON</answer> and nothing else."

_NAME = (
    "Which kind of distortion was put into this photograph, wholly or in one place?",
    "This photograph may have been damaged. What kind of distortion do you see?",
    "Name the distortion that this photograph shows most clearly.",
)
_SEVERITY = (
    "This photograph shows {phrase} {place}. How strong is it there?",
    "There is {phrase} {place} in this photograph. Grade its strength.",
    "How severe is the {phrase} {place} of this photograph?",
)
_WHERE = (
    "One part of this photograph shows {phrase}. Where is it?",
    "Locate the {phrase} in this photograph.",
    "Find the region of this photograph that was damaged by {phrase}.",
)
_NAME_REASONS = (
    "Compared with the rest, the rendering {place} is marked by {phrase}.",
    "What stands out {place} is {phrase}.",
    "I look for what does not belong to the scene: {place} there is {phrase}.",
)
_CLEAN_REASONS = (
    "Edges, surfaces, tones and colours agree everywhere; nothing was put in.",
    "I find no place that differs from its surroundings without a cause in the scene.",
    "The rendering is even and plausible across the whole frame.",
)
_SEVERITY_REASONS = (
    "The {phrase} {place} is {degree}.",
    "I compare {place} with how the scene should look: the {phrase} is {degree}.",
    "Judged by how much it hides of the scene, the {phrase} {place} is {degree}.",
)
_WHERE_REASONS = (
    "The {phrase} sets in {place} and fades out around it.",
    "Only {place} does the rendering show {phrase}.",
    "The surroundings are untouched; the {phrase} lies {place}.",
)


def perception_rows(sample_id: str, image: str, truth: Truth, rng: np.random.Generator) -> list[dict[str, Any]]:
    """The tasks of one sample: three for a local distortion, two for a global one, one for none."""

    def row(task: str, question: str, reasons: str, answer: dict[str, Any]) -> dict[str, Any]:
        text = f"<think>{reasons}</think><answer>{json.dumps(answer)}</answer>"
        known = {"task": task, **answer, "scope": truth.scope, "distortion_name": truth.distortion}
        return {
            "id": f"{sample_id}-{task}", "image": image, "task": task, "question": question, "answer": text,
            "truth": known,
        }  # fmt: skip

    kinds = ", ".join([*(f'"{flaw}" ({TERMS[flaw].phrase})' for flaw in Flaw), f'"{NOTHING}"'])
    ask_name = f'{choose(_NAME, rng)}\n{_FORM} The JSON is {{"distortion": NAME}}, with one of these names: {kinds}.'
    if truth.flaw is None or truth.box_fraction is None or truth.severity is None:
        return [row("name", ask_name, choose(_CLEAN_REASONS, rng), {"distortion": NOTHING})]

    words = {
        "phrase": TERMS[truth.flaw].phrase,
        "place": where(name_region(truth.box_fraction)),
        "degree": DEGREES[truth.severity - 1],
    }
    degrees = ", ".join(f"{number} {word}" for number, word in enumerate(DEGREES, start=1))
    ask_severity = (
        f"{choose(_SEVERITY, rng).format(**words)}\n{_FORM} The JSON is"
        f' {{"severity": N}}, a whole number of 1 to 5: {degrees}.'
    )
    rows = [
        row("name", ask_name, choose(_NAME_REASONS, rng).format(**words), {"distortion": str(truth.flaw)}),
        row("severity", ask_severity, choose(_SEVERITY_REASONS, rng).format(**words), {"severity": truth.severity}),
    ]
    if truth.scope == "local":
        ask_where = (
            f"{choose(_WHERE, rng).format(**words)}\n{_FORM} The JSON is"
            f' {{"bbox_2d": [x1, y1, x2, y2]}}, left, top, right and bottom edge as fractions of width and height.'
        )
        box = [round(edge, 3) for edge in truth.box_fraction]
        rows.append(row("where", ask_where, choose(_WHERE_REASONS, rng).format(**words), {"bbox_2d": box}))
    return rows
