"""The zoom itself: a generator that yields a `Request` and is sent a `Reply` until it returns an `Assessment`.

Everything drives this one generator: single pictures, batches, a server's queue, RL rollouts and tests. It must not
know models, files or pixels.

Source: Zoom-IQA paper Sec. 3.2 (two rounds; any number here), released evaluator's protocol (EthanLiang99/Zoom-IQA).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from zoomiqa.errors import OptionInvalid, ReplyUnusable
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.protocol.geometry import CropPlan, as_numbers, is_zero, plan_crop
from zoomiqa.protocol.prompts import PromptSet, default_prompts
from zoomiqa.protocol.reply import ParsedReply, parse_reply
from zoomiqa.types import (
    Assessment,
    ImagePart,
    Message,
    Note,
    Reply,
    Request,
    Round,
    Sampling,
    Sections,
    Sized,
    TextPart,
)

MAX_ROUNDS = 8

Context = Literal["rewritten", "appended"]

SAMPLING_PRESETS: Mapping[str, Sampling] = {
    "released": Sampling(),
    "released-vllm": Sampling(temperature=0.1, stop=("</answer>",)),
    "greedy": Sampling(temperature=0.0),
}
"""Ways to draw tokens by name: those of the released evaluator (with transformers, and with vLLM), and none at all."""


@dataclass(frozen=True, slots=True)
class ConversationSettings:
    """What decides how a picture is looked at. Part of a run's fingerprint."""

    rounds: int = 2
    """Looks at most, 1..8."""

    context: Context = "rewritten"
    """How a later look sees the earlier ones. "rewritten" (the released protocol): the bare question, the whole
    earlier reply, then the later prompt with original and crop. "appended": the conversation as it happened, the crop
    added at its end."""

    question: str | None = None
    """The user's question; `None` draws a stock question with the sampling seed."""

    sampling: Sampling = field(default_factory=Sampling)
    strict: bool = False
    """Refuse a reply that breaks the format instead of repairing it with notes."""

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= MAX_ROUNDS:
            raise OptionInvalid(f"rounds must lie in 1..{MAX_ROUNDS}", self.rounds, "two is the paper's figure")
        if self.context not in ("rewritten", "appended"):
            raise OptionInvalid("context must be 'rewritten' or 'appended'", self.context, "use one of them")

    def to_dict(self) -> dict[str, Any]:
        return {
            "rounds": self.rounds,
            "context": self.context,
            "question": self.question,
            "sampling": self.sampling.to_dict(),
            "strict": self.strict,
        }


def converse(
    picture: Sized,
    settings: ConversationSettings | None = None,
    *,
    prompts: PromptSet | None = None,
    limits: Limits = LOCAL,
) -> Generator[Request, Reply, Assessment]:
    """Look at one picture in rounds.

    Args:
        picture: The subject; only its size is used here, and it is passed on in each request.
        settings: Rounds, context, question, sampling.
        prompts: The words; the project's own by default.
        limits: Caps the length of a reply.

    Yields:
        One `Request` per look.

    Returns:
        The assessment. A look without a usable rating makes it a failure with `error` set: a first look that cannot
        be rated, or a later one (whose rating would have replaced the first); a failure is never a number.
    """
    settings = settings or ConversationSettings()
    prompts = prompts or default_prompts()
    question = settings.question or prompts.choose_question(settings.sampling.seed)
    looks: list[Round] = []
    crops: list[CropPlan] = []

    def result(rating: float | None, **others: Any) -> Assessment:
        return Assessment(rounds=tuple(looks), rating=rating, question=question, **others)

    while True:
        index = len(looks)
        messages = _messages(prompts, question, settings, looks, crops)
        reply = yield Request(picture, messages, settings.sampling, index, tuple(looks))
        if reply.finish_reason == "error" or reply.error:
            error = reply.error or {"code": "ZIQ-401", "type": "BackendFailed", "message": "the backend failed"}
            return result(None, error=dict(error))
        try:
            parsed = parse_reply(reply.text, strict=settings.strict, attributes=prompts.attributes, limits=limits)
        except ReplyUnusable as error:
            looks.append(_round(index, reply, None, None, crops))
            return result(None, error=error.to_dict())
        wants_crop = _wants_crop(parsed)
        plan = plan_crop(parsed.box_model, picture.size) if wants_crop and index + 1 < settings.rounds else None
        looks.append(_round(index, reply, parsed, plan, crops))
        if parsed.rating is None:
            unusable = ReplyUnusable(
                f"the reply of look {index + 1} holds no usable rating", None, "ask again, or look at its text"
            )
            return result(None, error=unusable.to_dict())
        if plan is None:
            notes: tuple[Note, ...] = ()
            if wants_crop and settings.rounds > 1:
                notes = (Note("rounds-exhausted", "A closer look was asked for after the last allowed round."),)
            return result(parsed.rating, spread=reply.spread, notes=notes)
        crops.append(plan)


def _wants_crop(parsed: ParsedReply) -> bool:
    """A crop is asked for unless the box is all zero or the tool is "final"; any other word crops.

    An answer without a box or a tool cannot route (released protocol: it is scored as it stands).
    """
    if parsed.box_model is None or parsed.tool is None:
        return False
    return not (is_zero(parsed.box_model) or parsed.tool == "final")


def _round(index: int, reply: Reply, parsed: ParsedReply | None, plan: CropPlan | None, crops: list[CropPlan]) -> Round:
    shown = crops[-1].box if crops else None
    look = Round(
        index=index,
        text=reply.text,
        sections=parsed.sections if parsed else Sections(),
        rating=parsed.rating if parsed else None,
        tool=parsed.tool if parsed else None,
        shown_box=shown,
        spread=reply.spread,
        findings=reply.findings,
        tokens_in=reply.tokens_in,
        tokens_out=reply.tokens_out,
        finish_reason=reply.finish_reason,
        attributes=parsed.attributes if parsed else {},
        notes=reply.notes,
    )
    if parsed is None:
        return look
    notes = reply.notes + parsed.notes + (plan.notes if plan else ())
    if reply.finish_reason == "length":
        notes += (Note("reply-length", "The reply ended at the token limit."),)
    return replace(look, box=plan.box if plan else None, box_model=as_numbers(parsed.box_model), notes=notes)


def _messages(
    prompts: PromptSet, question: str, settings: ConversationSettings, looks: list[Round], crops: list[CropPlan]
) -> tuple[Message, ...]:
    first = Message("user", (TextPart(prompts.first_text(question)), ImagePart()))
    if not looks:
        return (first,)
    later = TextPart(prompts.later_text(question, more_looks=len(looks) + 1 < settings.rounds))
    if settings.context == "rewritten":
        messages = []
        for look in looks:
            messages.append(Message("user", (TextPart(question if look.index == 0 else prompts.again),)))
            messages.append(Message("assistant", (TextPart(look.text),)))
        shown = (TextPart("Original image: "), ImagePart(), TextPart("Cropped Image: "), _crop_part(crops[-1]))
        return (*messages, Message("user", (later, *shown)))

    messages = [first]
    for position, (look, plan) in enumerate(zip(looks, crops, strict=True)):
        messages.append(Message("assistant", (TextPart(look.text),)))
        more = position + 2 < settings.rounds
        text = TextPart(prompts.later_text(question, more_looks=more))
        messages.append(Message("user", (text, TextPart("Cropped Image: "), _crop_part(plan))))
    return tuple(messages)


def _crop_part(plan: CropPlan) -> ImagePart:
    return ImagePart(box=plan.box, size=plan.size)
