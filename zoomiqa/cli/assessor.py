"""Options that say who rates and how, alike in every command that assesses."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoomiqa.cli import common
from zoomiqa.errors import OptionInvalid
from zoomiqa.types import Choice

if TYPE_CHECKING:
    from zoomiqa.assessors import AssessorSpec
    from zoomiqa.limits import Limits
    from zoomiqa.types import Sampling

_MODEL_OPTIONS = (
    "model",
    "revision",
    "base_url",
    "api_key_env",
    "device",
    "dtype",
    "attention",
    "max_pixels",
    "batch_size",
    "gpus",
    "concurrency",
    "timeout",
    "replies",
)
"""Options handed to the backend under the same name, where they are given."""


def add_assessor_options(parser: argparse.ArgumentParser) -> None:
    """Who rates, how it looks, which model and how it draws tokens."""
    how = parser.add_argument_group("assessment")
    how.add_argument(
        "--assessor",
        metavar="NAME",
        help="who rates; see `zoomiqa plugins` (default: compact; with --model transformers, with --base-url openai)",
    )
    how.add_argument(
        "--rounds", type=int, default=2, metavar="N", help="looks at most, 1 to 8 (default: 2, the paper's)"
    )
    how.add_argument(
        "--context",
        choices=("rewritten", "appended"),
        default="rewritten",
        help="how a later look sees the earlier ones (default: rewritten, the released protocol)",
    )
    how.add_argument("--question", help="the question to the model (default: a stock question drawn with the seed)")
    how.add_argument(
        "--prompts", type=Path, metavar="FILE", help="prompt set: .toml, .json, or the official .py module"
    )
    how.add_argument(
        "--attributes", action="store_true", help="ask for sharpness, colour fidelity, noise and composition as well"
    )
    how.add_argument(
        "--strict", action="store_true", help="refuse replies that break the format instead of repairing them"
    )
    add_model_options(parser)
    _add_sampling_options(parser)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which model answers, where it runs, and how much of it at once."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", metavar="ID", help="hub id or folder of a vision-language model, or its served name")
    group.add_argument("--revision", help="of the model on the hub")
    group.add_argument("--base-url", metavar="URL", help="of an OpenAI-compatible server, such as http://host:8000/v1")
    group.add_argument(
        "--api-key-env", metavar="NAME", help="environment variable with the server's key (default: OPENAI_API_KEY)"
    )
    group.add_argument("--device", help="cuda, cuda:1, mps or cpu (default: chosen, with the reason)")
    group.add_argument("--dtype", help="auto, bf16, fp16, fp32, int8 or int4 (default: auto)")
    group.add_argument("--attention", help="auto, sdpa, flash or eager (default: auto)")
    group.add_argument(
        "--max-pixels", type=int, metavar="N", help="shrink what the model sees to N pixels at most (default: its own)"
    )
    group.add_argument("--batch-size", type=int, metavar="N", help="replies under way at once (default: by device)")
    group.add_argument("--gpus", type=int, metavar="N", help="GPUs that share the model (vllm; default: 1)")
    group.add_argument("--concurrency", type=int, metavar="N", help="requests under way at a server (default: 16)")
    group.add_argument("--timeout", type=float, metavar="S", help="seconds for one reply of a server (default: 300)")
    group.add_argument("--replies", type=Path, metavar="FILE", help="prepared replies for the scripted backend")
    group.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of a plug-in assessor (repeatable)",
    )


def _add_sampling_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sampling")
    group.add_argument(
        "--sampling",
        choices=("released", "released-vllm", "greedy"),
        help="how tokens are drawn (default: released; with vllm released-vllm, as the released evaluators do)",
    )
    group.add_argument("--deterministic", action="store_true", help="the same as --sampling greedy")
    group.add_argument("--temperature", type=float, metavar="T")
    group.add_argument("--top-p", type=float, metavar="P")
    group.add_argument("--top-k", type=int, metavar="K", help="0 for all tokens")
    group.add_argument("--max-new-tokens", type=int, metavar="N", help="per look (default: 1024)")
    group.add_argument("--seed", type=int, default=42, help="seed of every draw (default: 42, the released protocol's)")
    group.add_argument(
        "--samples", type=int, default=1, metavar="K", help="sampled ratings per picture: their mean and spread"
    )


def spec_from(arguments: argparse.Namespace, limits: Limits) -> AssessorSpec:
    """What the options describe.

    Raises:
        OptionInvalid: options that contradict each other, or out of range.
    """
    from zoomiqa.assessors import AssessorSpec
    from zoomiqa.protocol import ConversationSettings

    name = choose_assessor(arguments.assessor, model=arguments.model, base_url=arguments.base_url).value
    return AssessorSpec(
        name=name,
        conversation=ConversationSettings(
            rounds=arguments.rounds,
            context=arguments.context,
            question=arguments.question,
            sampling=_sampling_from(arguments, name),
            strict=arguments.strict,
        ),
        prompts_file=arguments.prompts,
        attributes=arguments.attributes,
        samples=arguments.samples,
        options=model_options_from(arguments),
        limits=limits,
    )


def model_options_from(arguments: argparse.Namespace) -> dict[str, Any]:
    """The backend's options, those that are given."""
    given = {option: getattr(arguments, option) for option in _MODEL_OPTIONS}
    options = {option: value for option, value in given.items() if value is not None}
    return {**options, **common.read_pairs("--option", arguments.option)}


def choose_assessor(name: str | None, *, model: str | None, base_url: str | None) -> Choice:
    """The assessor's name, with the reason."""
    from zoomiqa.assessors import DEFAULT_ASSESSOR

    if name:
        return Choice(name, "asked for")
    if base_url:
        return Choice("openai", "a server is given")
    if model:
        return Choice("transformers", "a model is given")
    return Choice(DEFAULT_ASSESSOR, "no model is given, and this one needs none")


def default_sampling(assessor: str) -> Sampling:
    """How the released evaluator draws tokens with that backend."""
    from zoomiqa.protocol import SAMPLING_PRESETS

    return SAMPLING_PRESETS["released-vllm" if assessor == "vllm" else "released"]


def input_files(arguments: argparse.Namespace) -> list[Path]:
    """Files that the options read, and that no output may replace."""
    return [path for path in (arguments.prompts, arguments.replies) if path is not None]


def _sampling_from(arguments: argparse.Namespace, assessor: str) -> Sampling:
    from dataclasses import replace

    from zoomiqa.protocol import SAMPLING_PRESETS

    if arguments.deterministic and arguments.sampling not in (None, "greedy"):
        raise OptionInvalid("--deterministic contradicts --sampling", arguments.sampling, "leave one of them out")
    preset = "greedy" if arguments.deterministic else arguments.sampling
    sampling = SAMPLING_PRESETS[preset] if preset else default_sampling(assessor)
    names = ("temperature", "top_p", "top_k", "max_new_tokens", "seed")
    given: Mapping[str, Any] = {name: getattr(arguments, name) for name in names}
    return replace(sampling, **{name: value for name, value in given.items() if value is not None})
