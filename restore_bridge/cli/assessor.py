"""The options that choose who assesses, alike in every command of the bridge. It must not know what assessors do."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from zoomiqa.cli import common

if TYPE_CHECKING:
    from zoomiqa.assessors import AssessorSpec
    from zoomiqa.limits import Limits


def add_assessor_options(parser: argparse.ArgumentParser) -> None:
    """Who looks, writes and rates; a model here or on a server."""
    group = parser.add_argument_group("assessor")
    group.add_argument(
        "--assessor",
        metavar="NAME",
        help="who assesses; see `zoomiqa plugins` (default: compact; with a model transformers, with a URL openai)",
    )
    group.add_argument("--assessor-model", metavar="ID", help="hub id, folder or served name of a model that assesses")
    group.add_argument("--assessor-url", metavar="URL", help="of an OpenAI-compatible server that assesses")
    group.add_argument(
        "--assessor-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other option of the assessor, such as max_pixels=1003520 (repeatable)",
    )


def assessor_from(arguments: argparse.Namespace, limits: Limits) -> AssessorSpec:
    """What the options describe.

    Raises:
        OptionInvalid: a pair without `=`.
    """
    from zoomiqa.assessors import AssessorSpec
    from zoomiqa.cli.assessor import choose_assessor, default_sampling
    from zoomiqa.protocol import ConversationSettings

    given: dict[str, Any] = {"model": arguments.assessor_model, "base_url": arguments.assessor_url}
    name = choose_assessor(arguments.assessor, **given).value
    options = {key: value for key, value in given.items() if value is not None}
    return AssessorSpec(
        name=name,
        conversation=ConversationSettings(sampling=default_sampling(name)),
        options={**options, **common.read_pairs("--assessor-option", arguments.assessor_option)},
        limits=limits,
    )
