"""`restore-bridge prompts`: what a text-guided restorer would be told, from pictures or from records."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_bridge.cli.assessor import add_assessor_options, assessor_from
from zoomiqa.cli import common

if TYPE_CHECKING:
    from restore_bridge.guidance import Guidance
    from zoomiqa.types import Assessment, Box, Finding, Round

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
        description="Split an assessment into prompts, one JSON object per picture.",
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
        composed = compose(guidance, arguments.encoder, limits=limits)
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
    from zoomiqa.errors import OptionInvalid
    from zoomiqa.records import latest, read_record_lines, read_records

    if source is None:
        return
    try:
        if source != "-":
            yield from latest(read_records(Path(source)))
            return
        if sys.stdin is None or sys.stdin.closed:
            raise OptionInvalid("there is no standard input to read", None, "pipe records in, or name a file")
        # As they come: a later record of the same picture does not take back what was written already.
        yield from read_record_lines(getattr(sys.stdin, "buffer", sys.stdin), "stdin")
    except OSError as error:
        raise OptionInvalid("the records cannot be read", source, error.strerror or "check the path") from error


def assessment_from_record(record: Mapping[str, Any]) -> Assessment:
    """What a record of `zoomiqa assess` says to a restorer, or the `before` of one of `restore-bridge run`.

    Rounds with their sections, shown box, findings and rating, the picture's size, and the error are rebuilt; what
    guidance does not read (reply texts, tokens, notes) is not. A record without rounds needs `positive` and `negative`.

    Raises:
        RecordCorrupt: a part is missing or of the wrong type.
    """
    from zoomiqa.errors import RecordCorrupt, ZoomIQAError
    from zoomiqa.types import Assessment, ImageInfo

    try:
        image, error = record.get("image"), record.get("error")
        info = None
        if image is not None:
            size = (int(image.get("width") or 0), int(image.get("height") or 0))
            info = ImageInfo(_text(image.get("path")), _text(image.get("sha256")), *size)
        if error is not None:
            return Assessment((), None, error={str(key): str(value) for key, value in error.items()}, image=info)
        body = record if record.get("before") is None else record["before"]
        rounds = tuple(_round(look) for look in body.get("rounds") or ())
        if not rounds:
            _text(record["positive"]), _text(record["negative"])
        if any(look.shown_box for look in rounds) and info is not None and not (info.width > 0 < info.height):
            raise ValueError("a region of a picture without a size")
        return Assessment(rounds, rounds[-1].rating if rounds else None, image=info)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError, ZoomIQAError) as error:
        raise RecordCorrupt(
            "a record is not one of `zoomiqa assess`", f"{type(error).__name__}: {error}", "mend or remove it"
        ) from error


def _round(look: Mapping[str, Any]) -> Round:
    from zoomiqa.types import Round, Sections

    sections = look["sections"]
    return Round(
        index=int(look["index"]),
        text="",
        sections=Sections(**{name: _text(sections.get(name)) for name in Sections().to_dict()}),
        rating=None if look["rating"] is None else _number(look["rating"]),
        tool=None,
        shown_box=_box(look["shown_box"]),
        findings=tuple(_finding(finding) for finding in look["findings"]),
    )


def _box(corners: Any) -> Box | None:
    from zoomiqa.types import Box

    return None if corners is None else Box(*(int(corner) for corner in corners))


def _finding(finding: Mapping[str, Any]) -> Finding:
    from zoomiqa.types import Finding
    from zoomiqa.vocabulary import Flaw, Severity

    left, top, right, bottom = (_number(edge) for edge in finding["box_fraction"])
    return Finding(
        flaw=Flaw(finding["flaw"]),
        severity=Severity(finding["severity"]),
        strength=_number(finding["strength"]),
        signal=str(finding["signal"]),
        value=_number(finding["value"]),
        limit=_number(finding["limit"]),
        box_fraction=(left, top, right, bottom),
        region=str(finding["region"]),
        detail=str(finding["detail"]),
    )


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} in place of text")
    return value


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("a number that is not finite")
    return number
