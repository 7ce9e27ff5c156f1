"""Prompt sets: the packaged one, a user's own, and the official module read as data."""

import hashlib
import json

import pytest

from zoomiqa.errors import PromptSetInvalid
from zoomiqa.protocol import PromptSet, default_prompts, load_prompts

MODULE = '''
import os
os.environ["RUN"] = "yes"
RANDOM_QUESTIONS: tuple = ("How good?", "Rate it.")
STAGE1_PROMPT = """First {question} and {{"rating": <two-decimal>}}"""
STAGE2_PROMPT = """Second {question} and {{braces}}"""
raise SystemExit("this module must not run")
'''


def test_the_packaged_set_is_fixed():
    """C8 29: a changed prompt must get a new name, as records name the set."""
    prompts = default_prompts()
    assert prompts.name == "zoomiqa-1"
    content = [
        prompts.first,
        prompts.later,
        prompts.later_open,
        prompts.again,
        list(prompts.questions),
        prompts.fill_later,
    ]
    digest = hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()[:16]
    assert digest == prompts.digest == "bfd69952abbd810f"


@pytest.mark.parametrize("part", ["first", "later", "later_open"])
def test_the_packaged_prompts_ask_for_what_the_parser_reads(part):
    text = getattr(default_prompts(), part)
    sections = [
        "Directions for Improvement",
        "Issues to Avoid",
        "Decision & Rationale",
        '"bbox_2d"',
        '"rating"',
        '"tool"',
    ]
    for wanted in [*sections, "<think>", "<answer>", "{question}"]:
        assert wanted in text


def test_a_question_is_drawn_by_the_seed():
    prompts = default_prompts()
    drawn = {prompts.choose_question(seed) for seed in range(60)}
    assert drawn == set(prompts.questions)
    assert prompts.choose_question(42) == prompts.choose_question(42)


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_a_users_file(tmp_path, suffix):
    file = tmp_path / f"mine{suffix}"
    data = {"first": "Look. {question}", "later": "Closer. {question}", "questions": ["Good?"]}
    file.write_text(
        json.dumps(data)
        if suffix == ".json"
        else "\n".join(f"{key} = {json.dumps(value)}" for key, value in data.items())
    )
    prompts = load_prompts(file)
    assert prompts.name == "mine"
    assert prompts.first_text("Good?") == "Look. Good?\n"
    assert prompts.later_text("Good?", more_looks=True) == "Closer. Good?\n"
    assert prompts.digest != default_prompts().digest


def test_the_official_module_is_read_as_data_and_not_run(tmp_path, monkeypatch):
    monkeypatch.delenv("RUN", raising=False)
    file = tmp_path / "protocol.py"
    file.write_text(MODULE)
    prompts = load_prompts(file)
    assert prompts.first_text("Well?") == 'First Well? and {"rating": <two-decimal>}'
    assert prompts.later_text("Well?", more_looks=False) == "Second {question} and {{braces}}", "sent untouched"
    assert prompts.questions == ("How good?", "Rate it.")
    import os

    assert "RUN" not in os.environ


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.toml", "first = "),
        ("a.json", "{"),
        ("a.json", "[1]"),
        ("a.py", "def (:"),
        ("a.txt", "first"),
        ("a.json", '{"first": "x", "later": "y"}'),
        ("a.json", '{"first": "x", "questions": ["q"]}'),
        ("a.json", '{"first": "x", "later": "y", "questions": ["q"], "frist": "z"}'),
        ("a.json", '{"first": 1, "later": "y", "questions": ["q"]}'),
        ("a.json", '{"first": " ", "later": "y", "questions": ["q"]}'),
        ("a.py", "STAGE1_PROMPT = open('x').read()\nSTAGE2_PROMPT = ''"),
        ("a.py", "STAGE1_PROMPT = 'x'"),
        ("a.py", "x = " + "(" * 50_000),
        ("a.json", "[" * 100_000),
        ("a.toml", "x" * (2**20 + 1)),
    ],
)
def test_bad_files_are_refused(tmp_path, name, content):
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(PromptSetInvalid):
        load_prompts(file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(PromptSetInvalid, match="cannot be read"):
        load_prompts(tmp_path / "none.toml")


def test_a_set_needs_a_question():
    with pytest.raises(PromptSetInvalid):
        PromptSet(name="x", first="a", later="b", questions=())
