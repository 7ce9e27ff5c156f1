"""The words that models are asked with, as data of this package. It must not know who is asked.

Texts are filled place by place; what is filled in is not searched for places again, and cannot close a tag.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

from zoomiqa.evaluation.judge import escape
from zoomiqa.limits import LOCAL, Limits
from zoomiqa.protocol import PromptSet


@dataclass(frozen=True, slots=True)
class Words:
    """One file of words."""

    name: str
    content: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the content."""
        canonical = json.dumps(dict(self.content), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def fill(self, key: str, **values: str) -> str:
        """The text `key` with its places filled."""
        names = "|".join(values)
        return re.sub(rf"\{{({names})\}}", lambda place: values[place[1]], self.content[key].strip("\n")) + "\n"

    def to_dict(self) -> dict[str, str]:
        return {"name": self.name, "hash": self.digest}


@cache
def load_words(name: str) -> Words:
    """The words called `name` ("teacher-1")."""
    text = (resources.files(__package__) / "data" / f"{name}.toml").read_text("utf-8")
    content = tomllib.loads(text)
    return Words(content["name"], content)


def teacher_prompts(base: PromptSet, words: Words) -> PromptSet:
    """The prompt set of the assessment with the worked cases in its second prompt, before the question."""
    cases = "\n\n".join(
        f"Case ({case['name']}): {case['situation'].strip()}\nThe reply:\n{case['reply'].strip()}"
        for case in words.content["cases"]
    )
    addition = f"{words.content['lead'].strip()}\n\n{cases}\n\n"
    before, mark, after = base.later.rpartition("{question}")
    later = before + addition + mark + after if mark else f"{base.later}\n{addition}"
    return replace(base, name=f"{base.name}+{words.name}", later=later, later_open=None)


def describe(looks: Sequence[str], limits: Limits = LOCAL) -> str:
    """The texts of all looks, made harmless and numbered."""
    return "\n\n".join(
        f'<look number="{number}">\n{escape(text[: limits.reply_characters])}\n</look>'
        for number, text in enumerate(looks, start=1)
    )
