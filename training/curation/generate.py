"""Trajectories from a teacher: the project's own conversation, with worked cases in its second prompt.

Zoom-IQA, Sec. 3.1.1 (data generation) and supplement 6.1. It must not know how the rows are filtered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from zoomiqa.assessors import ConversationalAssessor
from zoomiqa.backends.base import Backend
from zoomiqa.batch import OpenOptions, assess_here
from zoomiqa.errors import ReplyUnusable
from zoomiqa.evaluation import Annotation
from zoomiqa.protocol import ConversationSettings, PromptSet
from zoomiqa.types import Assessment, ImageInfo, Sampling

from .trajectories import Decision, failure, replay, trajectory_record
from .words import Words, teacher_prompts

STEP = "generate"
TEACHER_SAMPLING = Sampling(top_p=1.0, top_k=0, max_new_tokens=2048)
"""All tokens may be drawn, at temperature 1: servers that take no limit then need none."""


def generate(
    backend: Backend,
    annotations: Sequence[Annotation],
    image_root: Path,
    *,
    prompts: PromptSet,
    words: Words,
    sampling: Sampling = TEACHER_SAMPLING,
    tell_mos: bool = False,
    options: OpenOptions | None = None,
) -> Iterator[dict[str, object]]:
    """One trajectory record per annotation, in order, many under way at once.

    Args:
        backend: The teacher.
        annotations: Labelled pictures below `image_root`.
        image_root: What the records' paths are relative to.
        prompts: Those of the assessment; the teacher gets the worked cases on top.
        words: The teacher's own (`teacher-1`).
        sampling: How the teacher's tokens are drawn.
        tell_mos: Tell the teacher what people said; the record's question does not hold it.
        options: How pictures are opened.
    """
    settings = ConversationSettings(rounds=2, sampling=sampling)
    assessor = ConversationalAssessor(backend, settings, prompts=teacher_prompts(prompts, words))
    questions = [
        annotation.question or prompts.choose_question(_own_seed(sampling.seed, annotation.id))
        for annotation in annotations
    ]
    files = []
    for annotation, question in zip(annotations, questions, strict=True):
        told = "\n" + words.fill("mos", mos=f"{annotation.gt_score:.2f}") if tell_mos else ""
        files.append((annotation.path, question + told))
    answers = assess_here(files, assessor, options or OpenOptions())
    for annotation, question, answer in zip(annotations, questions, answers, strict=True):
        relative = annotation.path.relative_to(image_root).as_posix()
        image = answer.image or ImageInfo(relative, None, 0, 0)
        named = replace(answer, question=question, image=replace(image, path=relative))
        yield trajectory_record(
            named,
            annotation.id,
            ground_truth=annotation.gt_score,
            dataset=annotation.dataset,
            subset=annotation.subset,
            split=annotation.split,
            attributes=annotation.attributes,
            decisions=[judge_form(named)],
        )


def _own_seed(seed: int, annotation_id: str) -> int:
    """A picture's own seed, whatever else the run holds."""
    digest = hashlib.sha256(f"{seed}/{annotation_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


def judge_form(assessment: Assessment) -> Decision:
    """Keep a trajectory whose every reply has the exact format and whose last one decides."""
    if assessment.error is not None:
        # An unusable reply is the teacher's failure to keep the form; anything else is no judgement on it.
        if assessment.error["code"] == ReplyUnusable.code:
            return Decision(STEP, "drop", ("format",), {"error": dict(assessment.error)})
        return failure(STEP, assessment.error)
    if assessment.image is None or assessment.question is None:
        raise ValueError("the assessment does not say what it is of")
    size = (assessment.image.width, assessment.image.height)
    try:
        again, _ = replay([look.text for look in assessment.rounds], size, assessment.question)
    except ReplyUnusable as unusable:
        return Decision(STEP, "drop", ("format",), {"error": unusable.to_dict()})
    codes = [note.code for note in again.notes]
    if "rounds-exhausted" in codes:
        return Decision(STEP, "drop", ("undecided",), {"notes": codes})
    return Decision(STEP, "keep", (), {"looks": len(assessment.rounds)})
