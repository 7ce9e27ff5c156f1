"""The reasoning judge: a vision-language model scores how well a reply was reasoned.

Four criteria from 1 to 9 (completeness, accuracy, reasonableness, confidence; Zoom-IQA paper, evaluation of
reasoning), given the picture, the reply's text, and indicators: what people said of the picture where that is known,
and its measured sharpness, brightness, contrast and colourfulness. The paper's own prompt is not public: this one is
the project's, as data, and every record names it with its hash, so figures compare only within one prompt and judge.

The text under judgement is untrusted: it can close no tag of the prompt. That it cannot sway the judge by what it says
is asked of the judge, and cannot be promised. Any backend judges. It must not open files.
"""

from __future__ import annotations

import hashlib
import math
import re
import tomllib
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from zoomiqa.backends.base import Backend
from zoomiqa.backends.session import open_session
from zoomiqa.backends.talks import HELD_PER_SLOT, hold_talks
from zoomiqa.errors import ReplyUnusable, ZoomIQAError
from zoomiqa.imaging.picture import Picture
from zoomiqa.imaging.signals import hints
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.text import plain
from zoomiqa.types import AssessorInfo, ImagePart, Message, Note, Reply, Request, Sampling, TextPart

SCHEMA_VERSION = "judge-1.0"
CRITERIA = ("completeness", "accuracy", "reasonableness", "confidence")
SCORE_MIN, SCORE_MAX = 1.0, 9.0
JUDGE_SAMPLING = Sampling(temperature=0.0, top_p=1.0, top_k=0, max_new_tokens=1024)
"""Greedy. Where a temperature is set, all tokens may be drawn: servers that take no limit then need none."""

_GAP = r"[ \t]{0,4}"
_TAGGED = {
    name: re.compile(rf"<{_GAP}{name}{_GAP}>([^<>]{{0,200}})(</{_GAP}{name}{_GAP}>)?", re.IGNORECASE)
    for name in CRITERIA
}
_NAMED = {name: re.compile(rf"\b{name}\b[\"'*_ \t]{{0,6}}[:=]([^\n<>]{{0,60}})", re.IGNORECASE) for name in CRITERIA}
_DIGITS = re.compile(r"-?\d[\d.,]*")
_NUMBER = re.compile(r"(\d{1,2}(?:\.\d{1,6})?)[.,]?")
_OF_NINE = re.compile(r"\s{0,3}(?:/|out of|of)\s{0,3}9\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """The words that a judge is asked with."""

    name: str
    text: str
    """With the places `{indicators}` and `{description}`."""

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def fill(self, indicators: str, description: str) -> str:
        """The prompt with its places filled; what is filled in is not searched for places again."""
        values = {"indicators": indicators, "description": description}
        return re.sub(r"\{(indicators|description)\}", lambda place: values[place[1]], self.text)


@cache
def default_judge_prompt() -> JudgePrompt:
    """The project's own prompt, from the package."""
    data = tomllib.loads((resources.files("zoomiqa") / "evaluation" / "data" / "judge-1.toml").read_text("utf-8"))
    return JudgePrompt(data["name"], data["text"].strip() + "\n")


@dataclass(frozen=True, slots=True)
class Case:
    """One reply to judge."""

    image: Mapping[str, Any]
    """What the assessment's record says of the picture: `path`, `sha256` and more."""

    looks: tuple[str, ...]
    """The text of each look."""

    mos: float | None = None
    """What people said of the picture, 1..5."""

    error: Mapping[str, str] | None = None
    """Why there is nothing to judge."""

    @property
    def digest(self) -> str:
        """SHA-256 of the looks' texts."""
        return hashlib.sha256("\0".join(self.looks).encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def key(self) -> tuple[Any, Any, str]:
        """What identifies it: the picture's path and content, and the reply. That of its judgement is `record_key`."""
        return self.image.get("path"), self.image.get("sha256"), self.digest


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge said of one reply. A failed one has `error` set and no scores; a failure is never a number."""

    case: Case
    judge: AssessorInfo
    scores: Mapping[str, float] | None = None
    """By criterion, 1..9."""

    text: str = ""
    """The judge's own reply."""

    indicators: Mapping[str, float] = field(default_factory=dict)
    """What the judge was told of the picture."""

    tokens_in: int | None = None
    tokens_out: int | None = None
    notes: tuple[Note, ...] = ()
    error: Mapping[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record's JSON form."""
        return {
            "schema_version": SCHEMA_VERSION,
            "image": {name: self.case.image.get(name) for name in ("path", "sha256", "width", "height")},
            "reply_sha256": self.case.digest,
            "scores": dict(self.scores) if self.scores is not None else None,
            "text": self.text,
            "indicators": {name: round(value, 5) for name, value in self.indicators.items()},
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "judge": self.judge.to_dict(),
            "notes": [note.to_dict() for note in self.notes],
            "error": dict(self.error) if self.error else None,
        }


def record_key(record: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """What identifies a judgement's record; equal to the `key` of its case."""
    image = record.get("image") or {}
    return image.get("path"), image.get("sha256"), record.get("reply_sha256")


def case_of(record: Mapping[str, Any], mos: float | None = None) -> Case:
    """The case in an assessment's record.

    Args:
        record: As `zoomiqa assess` and `zoomiqa evaluate` write it.
        mos: What people said of the picture; `None` takes what `zoomiqa evaluate` put into the record, if anything.
    """
    given = record.get("image")
    image = dict(given) if isinstance(given, dict) else {}
    for name in ("path", "sha256"):
        if not isinstance(image.get(name), str):  # of a file that somebody edited; it is to be a key
            image[name] = None
    rounds = record.get("rounds")
    texts = [look.get("text") for look in rounds if isinstance(look, dict)] if isinstance(rounds, list) else []
    looks = tuple(text for text in texts if isinstance(text, str) and text.strip())
    if mos is None:
        labels = record.get("evaluation")
        known = labels.get("ground_truth") if isinstance(labels, dict) else None
        if isinstance(known, int | float) and not isinstance(known, bool) and math.isfinite(known):
            mos = float(known)
    error: Mapping[str, str] | None = None
    if record.get("error") or not looks:
        error = ReplyUnusable("the record holds no finished reply to judge", None, "assess the picture again").to_dict()
    return Case(image, looks, mos, error)


def judge_info(backend: Backend, prompt: JudgePrompt) -> AssessorInfo:
    """Who judges; part of every record."""
    able = backend.capabilities
    return AssessorInfo(able.name, able.version, able.description, prompt.name, prompt.digest)


def judge(
    backend: Backend,
    subjects: Iterable[tuple[Case, Picture | ZoomIQAError]],
    *,
    prompt: JudgePrompt | None = None,
    sampling: Sampling = JUDGE_SAMPLING,
    limits: Limits = LOCAL,
) -> Iterator[Judgement]:
    """One judgement per subject, in order, many under way at once.

    Args:
        backend: What judges.
        subjects: Cases with their pictures, or with why there is none; taken only as fast as they are needed.
        prompt: The words; the project's own by default.
        sampling: How the judge's tokens are drawn; greedy by default.
        limits: `reply_characters` caps what is judged and what is read.
    """
    prompt = prompt or default_judge_prompt()
    info = judge_info(backend, prompt)
    talks = (_judge_one(case, picture, prompt, sampling, limits, info) for case, picture in subjects)
    held = HELD_PER_SLOT * backend.capabilities.batch_size
    yield from hold_talks(open_session(backend), talks, held=held)


def _judge_one(
    case: Case,
    picture: Picture | ZoomIQAError,
    prompt: JudgePrompt,
    sampling: Sampling,
    limits: Limits,
    info: AssessorInfo,
) -> Generator[Request, Reply, Judgement]:
    if case.error is not None:
        return Judgement(case, info, error=case.error)
    if isinstance(picture, ZoomIQAError):
        return Judgement(case, info, error=picture.to_dict())
    measured = hints(picture.pixels)
    indicators = {name: getattr(measured, name) for name in ("sharpness", "brightness", "contrast", "colorfulness")}
    if case.mos is not None:
        indicators["mos"] = case.mos
    words = prompt.fill(_tell(indicators), _describe(case.looks, limits))
    reply = yield Request(picture, (Message("user", (TextPart(words), ImagePart())),), sampling)
    scores, notes = None, picture.notes
    error = reply.error
    if reply.finish_reason == "error" or error:
        error = error or {"code": "ZIQ-401", "type": "BackendFailed", "message": "the backend failed"}
    else:
        if reply.finish_reason == "length":
            notes += (Note("reply-length", "The judge's reply ended at the token limit."),)
        try:
            scores, found = parse_scores(reply.text, limits=limits)
            notes += found
        except ReplyUnusable as unusable:
            error = unusable.to_dict()
    return Judgement(case, info, scores, reply.text, indicators, reply.tokens_in, reply.tokens_out, notes, error)


def escape(text: str) -> str:
    """Untrusted text in a form that holds no tag and no control character."""
    return plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _describe(looks: Sequence[str], limits: Limits) -> str:
    return "\n\n".join(
        f'<look number="{number}">\n{escape(text[: limits.reply_characters])}\n</look>'
        for number, text in enumerate(looks, start=1)
    )


def _tell(indicators: Mapping[str, float]) -> str:
    """The indicators as lines, each with what it means."""
    meanings = {
        "mos": "{:.2f}: mean opinion score of people, 1 (bad) to 5 (excellent)",
        "sharpness": "{:.0f}: variance of the Laplacian; detail, edges and also noise raise it",
        "brightness": "{:.3f}: mean luma, 0 (black) to 1 (white)",
        "contrast": "{:.3f}: standard deviation of luma, 0 to 0.5",
        "colorfulness": "{:.1f}: Hasler and Suesstrunk's measure; 0 grey, 33 moderate, 109 extreme",
    }
    return "\n".join(
        f"{name} {meaning.format(indicators[name])}" for name, meaning in meanings.items() if name in indicators
    )


def parse_scores(text: str, *, limits: Limits = LOCAL) -> tuple[dict[str, float], tuple[Note, ...]]:
    """Read a judge's reply: the last tag of each criterion, or where there is none, the last mention with a number.

    The cost is linear in the text's length. A score outside 1..9, or on another scale ("7/10"), is none.

    Raises:
        ReplyUnusable: a criterion has no score.
    """
    notes: list[Note] = []
    if len(text) > limits.reply_characters:
        # The scores stand at the end.
        text = text[-limits.reply_characters :]
        notes.append(Note("reply-cut", f"The judge's reply was cut to its last {limits.reply_characters} characters."))
    thought = text.rfind("</think>")
    if thought >= 0:
        text = text[thought + len("</think>") :]
    scores: dict[str, float] = {}
    for name in CRITERIA:
        score = _read_score(name, text, notes)
        if score is not None:
            scores[name] = score
    missing = [name for name in CRITERIA if name not in scores]
    if missing:
        raise ReplyUnusable(f"the judge's reply has no usable score for {', '.join(missing)}", None, "judge it again")
    return scores, tuple(notes)


def _read_score(name: str, text: str, notes: list[Note]) -> float | None:
    tags = [(match[1], bool(match[2])) for match in _TAGGED[name].finditer(text) if re.search(r"\d", match[1])]
    if tags:
        content, is_closed = tags[-1]
        if not is_closed:
            notes.append(Note("score-unclosed", f"The tag of {name} was not closed."))
        if len({written.strip() for written, _ in tags}) > 1:
            notes.append(Note("score-repeated", f"The score of {name} is given several times; the last counts."))
    else:
        mentions = [match[1] for match in _NAMED[name].finditer(text) if re.search(r"\d", match[1])]
        if not mentions:
            return None
        content = mentions[-1]
        notes.append(Note("score-untagged", f"The score of {name} was not in its tag."))
    # A single number, or "7/9"; between "6 or 7" nobody but the judge can choose.
    numbers = _DIGITS.findall(_OF_NINE.sub(" ", content))
    number = _NUMBER.fullmatch(numbers[0]) if len(numbers) == 1 else None
    if number is None:
        return None
    if tags and content.strip() != number[1]:
        notes.append(Note("score-surrounded", f"The tag of {name} holds more than its score."))
    score = float(number[1])
    if not SCORE_MIN <= score <= SCORE_MAX:
        return None
    if score != int(score):
        notes.append(Note("score-not-whole", f"The score of {name} is not a whole number."))
    return score


def summarize(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and 95 % interval of each criterion over judgements' records; failures are counted by code.

    The interval is Student's, for the mean over pictures such as these; `None` under two judgements.
    """
    from scipy import stats

    entries = list(records)
    judged = [record["scores"] for record in entries if record.get("scores")]
    failures = Counter(record["error"]["code"] for record in entries if record.get("error"))
    criteria: dict[str, dict[str, float | int | None]] = {}
    for name in CRITERIA:
        values = [float(scores[name]) for scores in judged]
        count = len(values)
        mean = math.fsum(values) / count if count else None
        low = high = None
        if mean is not None and count > 1:
            deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
            half = float(stats.t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)
            low, high = round(mean - half, 4), round(mean + half, 4)
        criteria[name] = {"mean": None if mean is None else round(mean, 4), "low": low, "high": high, "count": count}
    return {
        "schema_version": SCHEMA_VERSION,
        "judged": len(judged),
        "failed": sum(failures.values()),
        "failures": dict(sorted(failures.items())),
        "criteria": criteria,
    }


def table(summary: Mapping[str, Any]) -> str:
    """A summary for people."""
    lines = [f"{'criterion (1..9, higher is better)':<36} {'mean':>6}  {'95 % interval':<15} {'count':>6}"]
    for name, entry in summary["criteria"].items():
        mean = "-" if entry["mean"] is None else f"{entry['mean']:.2f}"
        interval = "-" if entry["low"] is None else f"{entry['low']:.2f} to {entry['high']:.2f}"
        lines.append(f"{name:<36} {mean:>6}  {interval:<15} {entry['count']:>6}")
    lost = ", ".join(f"{code} x{count}" for code, count in summary["failures"].items())
    lines.append(f"not judged: {summary['failed']}" + (f" ({lost})" if lost else ""))
    return "\n".join(lines) + "\n"
