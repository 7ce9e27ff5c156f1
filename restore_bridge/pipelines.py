"""Prompts from a photograph for any diffusers pipeline. It must not know any pipeline's class, nor import diffusers.

    pipe(**prompts_for(image, pipe).arguments, image=image)

The budget follows from what the pipeline carries: its tokenizers, and how long a sequence its call takes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from restore_bridge.guidance import split_guidance
from restore_bridge.prompts import BUDGETS, Prompts, compose
from zoomiqa.api import Source, as_picture
from zoomiqa.assessors import Assessor, create_assessor
from zoomiqa.errors import BackendFailed
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.types import Assessment

_CLIP, _SENTENCES = "clip", ("T5", "UMT5", "Gemma", "Qwen", "Llama", "Mistral")
"""Parts of the names of tokenizers. Those of language models read whole sentences and take long prompts."""

_DEFAULT_TOKENS = 256
"""For a long-text encoder whose pipeline does not say how long a sequence it takes."""


@dataclass(frozen=True, slots=True)
class PipelinePrompts:
    """Prompts for a pipeline, and the assessment that they say."""

    prompts: Prompts
    assessment: Assessment

    @property
    def arguments(self) -> dict[str, str]:
        """For a pipeline's call: `prompt` and `negative_prompt`."""
        return {"prompt": self.prompts.positive, "negative_prompt": self.prompts.negative}


def prompts_for(
    source: Source,
    pipeline: Any | None = None,
    *,
    assessor: Assessor | str | None = None,
    encoder: str | None = None,
    prompt: str | None = None,
    negative: str | None = None,
    limits: Limits = LOCAL,
) -> PipelinePrompts:
    """Assess a photograph and put what it wants into the words that a pipeline's text encoders can take.

    Args:
        source: Path, encoded bytes, array, PIL image or `Picture`.
        pipeline: A diffusers pipeline (or anything with `tokenizer` attributes); its tokenizers count.
        assessor: Who judges, or its name; the embedded default without it.
        encoder: Name of a budget in `restore_bridge.prompts.BUDGETS`; that of the pipeline without it, else "clip".
        prompt: Your own words on the wanted picture; they come first and are never dropped.
        negative: Your own words on what to avoid; likewise.
        limits: Resource limits.

    Raises:
        ImageError: the picture cannot be opened.
        BackendFailed: it cannot be assessed.
        OptionInvalid: no such budget.
    """
    judge = create_assessor(assessor) if assessor is None or isinstance(assessor, str) else assessor
    assessment = next(iter(judge.assess([as_picture(source, limits=limits)])))
    if assessment.error:
        raise BackendFailed("the picture could not be assessed", assessment.error["message"], assessment.error["code"])
    guidance = split_guidance(assessment, prompt=prompt, negative=negative, limits=limits)
    name = encoder or encoder_of(pipeline)
    prompts = compose(guidance, name, count=_counter(pipeline), regions="folded", limits=limits)
    return PipelinePrompts(prompts, assessment)


def encoder_of(pipeline: Any | None) -> str:
    """The budget that suits a pipeline; "clip" where nothing is known of it."""
    if not any(_is_one_of(each, _SENTENCES) for each in _tokenizers(pipeline)):
        return _CLIP
    parameters = inspect.signature(type(pipeline).__call__).parameters
    said = parameters["max_sequence_length"].default if "max_sequence_length" in parameters else None
    room = said if isinstance(said, int) and said > 0 else _DEFAULT_TOKENS
    long = sorted((each.tokens, each.name) for each in BUDGETS.values() if each.tokens and each.name.startswith("t5"))
    return next((name for tokens, name in reversed(long) if tokens < room), long[0][1])


def _tokenizers(pipeline: Any | None) -> Iterator[Any]:
    for name in ("tokenizer", "tokenizer_2", "tokenizer_3", "tokenizer_4"):
        tokenizer = getattr(pipeline, name, None)
        if tokenizer is not None:
            yield tokenizer


def _is_one_of(tokenizer: object, words: tuple[str, ...]) -> bool:
    return any(word.lower() in type(tokenizer).__name__.lower() for word in words)


def _counter(pipeline: Any | None) -> Callable[[str], int] | None:
    """Counts with the tokenizer that takes the whole prompt; `None` leaves it to the estimate."""
    tokenizers = list(_tokenizers(pipeline))
    if not tokenizers:
        return None
    # Beside an encoder of sentences, CLIP gives only a summary and may be cut.
    chosen = [each for each in tokenizers if _is_one_of(each, _SENTENCES)] or tokenizers
    return lambda text: max(len(each(text, add_special_tokens=False).input_ids) for each in chosen)
