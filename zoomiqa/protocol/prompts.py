"""Prompt sets: the words of each round, as versioned data. It must not know models, pictures or replies.

A set comes from the package, from a user's TOML or JSON file, or from the official Python module, whose string and
list constants are read with `ast` and never executed. Every record names the set and its hash.
"""

from __future__ import annotations

import ast
import hashlib
import json
import random
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from zoomiqa.errors import PromptSetInvalid
from zoomiqa.vocabulary import ATTRIBUTES

DEFAULT_PROMPT_SET = "zoomiqa-1"

_MAX_PROMPT_FILE_BYTES = 2**20

_OFFICIAL_NAMES = {"STAGE1_PROMPT": "first", "STAGE2_PROMPT": "later", "RANDOM_QUESTIONS": "questions"}
"""Names of the constants in the released evaluator's protocol module (EthanLiang99/Zoom-IQA)."""


@dataclass(frozen=True, slots=True)
class PromptSet:
    """The texts of an assessment."""

    name: str
    first: str
    """Round 1, before the picture; `{question}` is replaced."""

    later: str
    """Later rounds, before the original and the crop."""

    questions: tuple[str, ...]
    """Stock questions; one is drawn when the user gives none."""

    later_open: str | None = None
    """As `later`, while yet another crop may be asked for; `None` uses `later`."""

    again: str = "Look at the region you asked for."
    """The user turn that stands for an earlier closer look in a rewritten context."""

    attributes_text: str | None = None
    """What `with_attributes` adds; names the attributes and where the answer holds them."""

    attributes: tuple[str, ...] = ()
    """Attribute ratings that the texts ask for, of `zoomiqa.vocabulary.ATTRIBUTES`."""

    fill_later: bool = True
    """Whether `{question}` is replaced in later rounds. The official second prompt is sent untouched, braces and all,
    because the released checkpoint was trained on it that way."""

    def __post_init__(self) -> None:
        if not self.questions or not all(question.strip() for question in self.questions):
            raise PromptSetInvalid(
                f"prompt set {self.name!r} has no question", self.questions, "give at least one in `questions`"
            )
        for part in ("first", "later"):
            if not getattr(self, part).strip():
                raise PromptSetInvalid(f"prompt set {self.name!r} has an empty {part!r}", None, "fill it in")

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of everything that reaches a model."""
        parts = [self.first, self.later, self.later_open, self.again, list(self.questions), self.fill_later]
        content = json.dumps(parts, ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def with_attributes(self) -> PromptSet:
        """The same set, asking in the same pass for a rating of each attribute (MG-IQA paper, Sec. 3).

        Raises:
            PromptSetInvalid: the set has no text for it.
        """
        if self.attributes_text is None:
            raise PromptSetInvalid(
                f"prompt set {self.name!r} cannot ask for attributes", None, "give it the text `attributes`"
            )
        addition = f"{self.attributes_text.strip()}\n\n"

        def add(text: str) -> str:
            before, mark, after = text.rpartition("{question}")
            return before + addition + mark + after if mark else f"{text}\n{addition}"

        return replace(
            self,
            name=f"{self.name}+attributes",
            first=add(self.first),
            later=add(self.later),
            later_open=add(self.later_open) if self.later_open else None,
            attributes_text=None,
            attributes=ATTRIBUTES,
        )

    def choose_question(self, seed: int) -> str:
        """The stock question that `seed` draws."""
        return random.Random(seed).choice(self.questions)  # noqa: S311 - a reproducible draw, not a secret

    def first_text(self, question: str) -> str:
        """The round-1 prompt for `question`, without the place mark of a picture that some annotation files hold."""
        return self.first.replace("{question}", question.replace("<|image|>", ""))

    def later_text(self, question: str, *, more_looks: bool) -> str:
        """The prompt of a later round; `more_looks` says whether another crop may follow."""
        text = self.later_open if more_looks and self.later_open else self.later
        return text.replace("{question}", question) if self.fill_later else text


@cache
def default_prompts() -> PromptSet:
    """The project's own set, from the package."""
    content = (resources.files("zoomiqa") / "protocol" / "data" / f"{DEFAULT_PROMPT_SET}.toml").read_text("utf-8")
    return _from_mapping(tomllib.loads(content), name=DEFAULT_PROMPT_SET)


def load_prompts(path: str | Path) -> PromptSet:
    """Read a prompt set from a file.

    Args:
        path: `.toml` or `.json` with the keys of `zoomiqa/protocol/data/zoomiqa-1.toml`, or the official `.py` module,
            read as data.

    Raises:
        PromptSetInvalid: no such file, another suffix, over 1 MiB, malformed, or a part missing.
    """
    file = Path(path)
    try:
        raw = file.read_bytes()
        if len(raw) > _MAX_PROMPT_FILE_BYTES:
            raise PromptSetInvalid(
                "a prompt file must not exceed 1 MiB", f"{len(raw)} bytes", "remove what is not text"
            )
        content = raw.decode("utf-8")
        match file.suffix.lower():
            case ".toml":
                return _from_mapping(tomllib.loads(content), name=file.stem)
            case ".json":
                return _from_mapping(json.loads(content), name=file.stem)
            case ".py":
                return _from_module(content, name=file.stem)
            case suffix:
                raise PromptSetInvalid(
                    "a prompt file must end in .toml, .json or .py", suffix or file.name, "rename it"
                )
    except OSError as error:
        raise PromptSetInvalid("the prompt file cannot be read", file, error.strerror or "check the path") from error
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise PromptSetInvalid(f"the prompt file {file.name!r} is malformed", error, "check its syntax") from error


def _from_mapping(data: Mapping[str, Any], *, name: str) -> PromptSet:
    known = {"name", "version", "questions", "again", "first", "later", "later_open", "attributes"}
    if not isinstance(data, Mapping) or (unknown := set(data) - known):
        raise PromptSetInvalid(
            f"prompt file {name!r} holds unknown keys",
            sorted(unknown) if isinstance(data, Mapping) else type(data).__name__,
            f"use only {sorted(known)}",
        )
    for key in ("first", "later"):
        if not isinstance(data.get(key), str):
            raise PromptSetInvalid(f"prompt file {name!r} lacks the text {key!r}", data.get(key), "add it")
    for key in ("name", "again", "later_open", "attributes"):
        if not isinstance(data.get(key, ""), str):
            raise PromptSetInvalid(f"{key!r} of prompt file {name!r} must be text", data[key], "quote it")
    return PromptSet(
        name=data.get("name", name),
        first=data["first"].strip() + "\n",
        later=data["later"].strip() + "\n",
        questions=_questions(data.get("questions"), name),
        later_open=data["later_open"].strip() + "\n" if "later_open" in data else None,
        again=data.get("again", PromptSet.__dataclass_fields__["again"].default),
        attributes_text=data.get("attributes"),
    )


def _from_module(source: str, *, name: str) -> PromptSet:
    """Read the constants of a Python module as data. Only literal values are taken; nothing is run."""
    found: dict[str, Any] = {}
    for statement in ast.parse(source).body:
        targets = (
            statement.targets
            if isinstance(statement, ast.Assign)
            else ([statement.target] if isinstance(statement, ast.AnnAssign) else [])
        )
        for target in targets:
            if isinstance(target, ast.Name) and target.id in _OFFICIAL_NAMES and statement.value is not None:  # type: ignore[attr-defined]
                found[_OFFICIAL_NAMES[target.id]] = ast.literal_eval(statement.value)  # type: ignore[attr-defined]
    for key in ("first", "later"):
        if not isinstance(found.get(key), str):
            constant = next(official for official, ours in _OFFICIAL_NAMES.items() if ours == key)
            raise PromptSetInvalid(f"module {name!r} has no text constant {constant}", None, "pass the protocol module")
    # The first prompt is a format string (its braces are doubled); the second is sent as it stands.
    first = found["first"].replace("{{", "{").replace("}}", "}")
    return PromptSet(
        name=f"module:{name}",
        first=first,
        later=found["later"],
        questions=_questions(found.get("questions"), name),
        fill_later=False,
    )


def _questions(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(question, str) for question in value):
        raise PromptSetInvalid(f"prompt file {name!r} needs `questions`, a list of texts", value, "add it")
    return tuple(value)
