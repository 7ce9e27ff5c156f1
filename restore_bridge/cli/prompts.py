"""`restore-bridge prompts`: what a text-guided restorer would be told, from pictures or from records."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zoomiqa.cli import common

_EXAMPLES = """
examples:
  restore-bridge prompts photo.jpg
  restore-bridge prompts --directions "Crisp leaves." --issues "Severe noise in the sky." --encoder t5-300
  zoomiqa assess photos/ | restore-bridge prompts --from-jsonl -
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "prompts",
        help="split reasoning into positive and negative prompts",
        epilog=_EXAMPLES,
        description="Split an assessment into prompts, one JSON object per picture.",
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="pictures to assess first")
    parser.add_argument("--from-jsonl", metavar="FILE", help="records of `zoomiqa assess`; - reads stdin")
    parser.add_argument("--directions", help="text of a Directions for Improvement section")
    parser.add_argument("--issues", help="text of an Issues to Avoid section")
    parser.add_argument("--encoder", default="clip", help="token budget of the target: see the README (default: clip)")
    parser.add_argument("--prompt", help="your own words on the wanted picture; they come first and are never dropped")
    parser.add_argument("--negative", help="your own words on what to avoid; likewise")
    parser.add_argument("--assessor", default="compact", help="who assesses pictures (default: compact)")
    common.add_limit_options(parser)
    parser.set_defaults(command=prompts)


def prompts(arguments: argparse.Namespace) -> int:
    from restore_bridge.prompts import compose

    if not (arguments.paths or arguments.from_jsonl or arguments.directions or arguments.issues):
        from zoomiqa.errors import OptionInvalid

        raise OptionInvalid(
            "there is nothing to split", None, "give pictures, --from-jsonl, or --directions and --issues"
        )
    for name, guidance in _guidances(arguments):
        composed = compose(guidance, arguments.encoder, limits=common.limits_from(arguments))
        line = {"image": name, "guidance": guidance.to_dict(), "prompts": composed.to_dict()}
        sys.stdout.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
    return common.EXIT_OK


def _guidances(arguments: argparse.Namespace) -> Iterator[tuple[str | None, Any]]:
    from restore_bridge.guidance import split_guidance, split_text

    own = {"prompt": arguments.prompt, "negative": arguments.negative}
    if arguments.directions or arguments.issues:
        yield None, split_text(arguments.directions, arguments.issues, **own)
    for record in _records(arguments.from_jsonl):
        text = (record.get("positive"), record.get("negative"))
        yield (record.get("image") or {}).get("path"), split_text(*text, **own)
    if arguments.paths:
        from zoomiqa import assess_many, create_assessor

        assessor = create_assessor(arguments.assessor)
        found = common.find_inputs(arguments.paths)
        limits = common.limits_from(arguments)
        for path, assessment in zip(found, assess_many(found, assessor, limits=limits), strict=True):
            yield str(path), split_guidance(assessment, **own)


def _records(source: str | None) -> Iterator[Mapping[str, Any]]:
    if source is None:
        return
    if source != "-":
        from zoomiqa.records import read_records

        yield from read_records(Path(source))
        return
    for line in sys.stdin:
        if line.strip():
            yield json.loads(line)
