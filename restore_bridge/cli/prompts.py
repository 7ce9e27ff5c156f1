"""`restore-bridge prompts`: what a text-guided restorer would be told, from pictures or from records."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_bridge.cli.assessor import add_assessor_options, assessor_from
from zoomiqa.cli import common

if TYPE_CHECKING:
    from restore_bridge.guidance import Guidance
    from zoomiqa.types import Assessment

ENCODERS = ("clip", "clip-2", "clip-unlimited", "t5-120", "t5-256", "t5-300", "t5-512", "none")
"""Names of `restore_bridge.prompts.BUDGETS`, repeated so that the grammar is built without importing it."""

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
        description=(
            "Split an assessment into prompts, one JSON object per picture. positive and negative hold all of it, for"
            " a restorer that takes one prompt; regional holds what each box says, for one that takes more."
        ),
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="pictures to assess first")
    parser.add_argument("--from-jsonl", metavar="FILE", help="records of `zoomiqa assess`; - reads stdin")
    parser.add_argument("--directions", help="text of a Directions for Improvement section")
    parser.add_argument("--issues", help="text of an Issues to Avoid section")
    parser.add_argument(
        "--encoder",
        choices=ENCODERS,
        default="clip",
        metavar="NAME",
        help=f"text encoder whose token budget is filled: {', '.join(ENCODERS)} (default: clip)",
    )
    parser.add_argument("--prompt", help="your own words on the wanted picture; they come first and are never dropped")
    parser.add_argument("--negative", help="your own words on what to avoid; likewise")
    add_assessor_options(parser)
    common.add_limit_options(parser)
    parser.set_defaults(command=prompts)


def prompts(arguments: argparse.Namespace) -> int:
    from restore_bridge.prompts import compose

    if not (arguments.paths or arguments.from_jsonl or arguments.directions or arguments.issues):
        from zoomiqa.errors import OptionInvalid

        raise OptionInvalid(
            "there is nothing to split", None, "give pictures, --from-jsonl, or --directions and --issues"
        )
    limits, failures = common.limits_from(arguments), 0
    for name, guidance in _guidances(arguments):
        if isinstance(guidance, Mapping):
            failures += 1
            common.write_line({"image": name, "error": guidance})
            continue
        composed = compose(guidance, arguments.encoder, regions="folded", limits=limits)
        common.write_line({"image": name, "guidance": guidance.to_dict(), "prompts": composed.to_dict()})
    return common.EXIT_SOME_FAILED if failures else common.EXIT_OK


def _guidances(arguments: argparse.Namespace) -> Iterator[tuple[str | None, Guidance | Mapping[str, str]]]:
    """Name and guidance of each subject, or the error of one that failed."""
    from restore_bridge.guidance import split_guidance, split_text

    limits = common.limits_from(arguments)
    own: dict[str, Any] = {"prompt": arguments.prompt, "negative": arguments.negative, "limits": limits}
    if arguments.directions or arguments.issues:
        yield None, split_text(arguments.directions, arguments.issues, **own)
    for record in _records(arguments.from_jsonl):
        assessment = assessment_from_record(record)
        name = assessment.image.path if assessment.image else None
        if assessment.error is not None:
            yield name, assessment.error
        elif assessment.rounds:
            yield name, split_guidance(assessment, **own)
        else:
            yield name, split_text(record.get("positive"), record.get("negative"), **own)
    if arguments.paths:
        from zoomiqa.batch import OpenOptions, assess_files

        found = common.find_inputs(arguments.paths)
        options = OpenOptions(limits=limits, allow_truncated=arguments.allow_truncated)
        assessments = assess_files(found, assessor_from(arguments, limits), options=options)
        for path, fresh in zip(found, assessments, strict=True):
            # By way of its record, so that a picture and its record give the same to the last digit.
            yield str(path), fresh.error or split_guidance(assessment_from_record(fresh.to_dict()), **own)


def _records(source: str | None) -> Iterator[Mapping[str, Any]]:
    """The records of a file, or of standard input for "-".

    Raises:
        OptionInvalid: there is none.
        RecordCorrupt: a line cannot be read.
    """
    from zoomiqa.errors import OptionInvalid
    from zoomiqa.records import latest, read_record_lines, read_records

    if source is None:
        return
    count = 0
    try:
        for record in read_record_lines(_stdin(), "stdin") if source == "-" else latest(read_records(Path(source))):
            count += 1
            yield record
    except OSError as error:
        raise OptionInvalid("the records cannot be read", source, error.strerror or "check the path") from error
    if not count:
        raise OptionInvalid("there is no whole record", source, "give what `zoomiqa assess` writes")


def _stdin() -> Iterable[bytes | str]:
    """Lines as they come: a later record of the same picture does not take back what was written already."""
    from zoomiqa.errors import OptionInvalid

    if sys.stdin is None or sys.stdin.closed:
        raise OptionInvalid("there is no standard input to read", None, "pipe records in, or name a file")
    lines: Iterable[bytes | str] = getattr(sys.stdin, "buffer", sys.stdin)
    return lines


def assessment_from_record(record: Mapping[str, Any]) -> Assessment:
    """What a record of `zoomiqa assess` says to a restorer, or the `before` of one of `restore-bridge run`.

    A record without rounds needs `positive` and `negative`.

    Raises:
        RecordCorrupt: a part is missing or of the wrong type.
    """
    from zoomiqa.errors import RecordCorrupt
    from zoomiqa.types import Assessment

    before = record.get("before")
    rounds = before.get("rounds") if isinstance(before, Mapping) else record.get("rounds")
    assessment = Assessment.from_dict({**record, "rounds": rounds})
    sides = [record.get(side, 0) for side in ("positive", "negative")]
    if not (assessment.rounds or assessment.error or all(side is None or isinstance(side, str) for side in sides)):
        raise RecordCorrupt(
            "a record is not one of `zoomiqa assess`", None, "it needs rounds, or texts called positive and negative"
        )
    return assessment
