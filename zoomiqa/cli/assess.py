"""`zoomiqa assess`: rate files, folders and patterns."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zoomiqa.cli import common
from zoomiqa.cli.assessor import add_assessor_options, input_files, spec_from
from zoomiqa.cli.engine import add_engine_options, engine_from, say_jobs
from zoomiqa.errors import OutputFailed, ZoomIQAError
from zoomiqa.types import Assessment

if TYPE_CHECKING:
    from zoomiqa.assessors import Assessor, ConversationalAssessor
    from zoomiqa.batch import OpenOptions

_EXAMPLES = """
examples:
  zoomiqa assess photo.jpg
  zoomiqa assess photos/ --out results.jsonl --resume
  zoomiqa assess 'photos/*.png' --format json | jq .rating
  zoomiqa assess photo.jpg --model Ethanliang99/Zoom-IQA-7B
  zoomiqa assess photos/ --model Zoom-IQA-7B --base-url http://localhost:8000/v1 --out results.jsonl
  zoomiqa assess photos/ --engine ray --ray-address head:6379 --out results.jsonl
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "assess",
        help="rate pictures and say what is wrong with them",
        description="Rate pictures in rounds: look, zoom into what is uncertain, look again, decide.",
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="picture files, folders (searched through), or patterns"
    )
    add_assessor_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--out", type=Path, metavar="FILE", help="write JSON Lines to FILE instead of stdout")
    common.add_resume_options(output, "FILE", "pictures")
    output.add_argument(
        "--format",
        choices=("auto", "json", "text"),
        default="auto",
        help="auto: readable on a terminal, JSON Lines elsewhere (default: auto)",
    )
    output.add_argument("--jobs", type=int, metavar="N", help="worker processes (default: chosen, with the reason)")
    output.add_argument("--max-failures", type=int, metavar="N", help="stop after N failed pictures (default: never)")
    output.add_argument(
        "--xmp", action="store_true", help="write the assessment into an XMP sidecar beside each picture (PHOTO.xmp)"
    )
    output.add_argument(
        "--xmp-rating", action="store_true", help="like --xmp, and set the stars (xmp:Rating) to the rating"
    )
    common.add_progress_option(output)
    add_engine_options(parser)
    common.add_limit_options(parser)
    parser.set_defaults(command=assess)


def assess(arguments: argparse.Namespace) -> int:
    from zoomiqa.assessors import create_assessor
    from zoomiqa.batch import assess_files, choose_jobs, file_digest, run_settings
    from zoomiqa.records import RecordFile

    common.at_least_one("--jobs", arguments.jobs)
    common.at_least_one("--max-failures", arguments.max_failures)
    common.check_resume_options(arguments)
    if arguments.out is None and not common.has_stdout():
        raise OutputFailed("the records have nowhere to go, standard output is closed", None, "pass --out FILE")
    engine = engine_from(arguments)
    options = common.open_options_from(arguments)
    spec = spec_from(arguments, options.limits)
    paths = common.find_inputs(arguments.paths)
    assessor = create_assessor(spec)

    with ExitStack() as stack:
        records = None
        earlier: list[tuple[Path, dict[str, Any]]] = []
        if arguments.out is not None:
            records = stack.enter_context(
                RecordFile(
                    arguments.out,
                    run_settings(assessor, spec, options),
                    resume=arguments.resume,
                    overwrite=arguments.overwrite,
                    protected=[*paths, *input_files(arguments)],
                )
            )
            if done := records.finished(retry_failed=arguments.retry_failed):
                keys = {path: (str(path), file_digest(path, limit_bytes=options.limits.file_bytes)) for path in paths}
                earlier = [(path, done[key]) for path, key in keys.items() if key in done]
                paths = [path for path, key in keys.items() if key not in done]
        jobs = choose_jobs(arguments.jobs, len(paths), assessor)
        say_jobs(engine, jobs, arguments.jobs, len(paths))
        is_watched = len(paths) == 1 and engine.name == "local" and _can_be_watched(arguments, assessor)
        # A bar would be drawn into the text that is being written.
        mode = "none" if is_watched and arguments.progress == "auto" else arguments.progress
        progress = common.Progress(mode, len(paths))
        progress.take_over(record.get("error") for _, record in earlier)
        stack.enter_context(progress)
        failures = lost_sidecars = 0
        if arguments.xmp or arguments.xmp_rating:
            lost_sidecars += sum(not _catch_up(record, path, stars=arguments.xmp_rating) for path, record in earlier)
        show = _chooser(arguments, options)
        assessments: Iterable[Assessment]
        if is_watched:
            assessments = [_assess_before_eyes(paths[0], cast("ConversationalAssessor", assessor), options)]
            show = _show_nothing
        else:
            assessments = assess_files(
                paths, spec, options=options, jobs=int(jobs.value), assessor=assessor, engine=engine
            )
        for path, assessment in zip(paths, assessments, strict=True):
            if records is not None:
                records.write(assessment.to_dict())
            show(assessment, path)
            if (arguments.xmp or arguments.xmp_rating) and assessment.rating is not None:
                lost_sidecars += not _write_sidecar(assessment, path, stars=arguments.xmp_rating)
            progress.step(str(path), assessment.error)
            failures += assessment.error is not None
            if arguments.max_failures is not None and failures >= arguments.max_failures:
                common.complain("zoomiqa", f"stopped after {arguments.max_failures} failures (--max-failures)")
                break
    if len(paths) + len(earlier) > 1 or progress.failures:
        common.complain("zoomiqa", progress.summary())
    return common.EXIT_SOME_FAILED if progress.failures or lost_sidecars else common.EXIT_OK


def _write_sidecar(assessment: Assessment, path: Path, *, stars: bool) -> bool:
    """Whether the sidecar was written; another program's damaged one stops neither the run nor the record."""
    from zoomiqa.sidecars import write_sidecar

    try:
        write_sidecar(assessment, path, stars=stars)
    except ZoomIQAError as error:
        common.complain_of("zoomiqa", error.to_dict(), f"no sidecar for {path}: ")
        return False
    return True


def _catch_up(record: Mapping[str, Any], path: Path, *, stars: bool) -> bool:
    """Write the sidecar of a picture that an earlier run rated, unless it is there; whether there is one now."""
    from zoomiqa.sidecars import read_sidecar
    from zoomiqa.types import Assessment

    if record.get("rating") is None:
        return True
    with suppress(ZoomIQAError):  # one that cannot be read: writing says why
        if ({"Rating", "stars"} if stars else {"Rating"}) <= (read_sidecar(path) or {}).keys():
            return True
    return _write_sidecar(Assessment.from_dict(record), path, stars=stars)


def _can_be_watched(arguments: argparse.Namespace, assessor: Assessor) -> bool:
    """Whether a person sits at the terminal and the text comes piece by piece."""
    from zoomiqa.assessors import ConversationalAssessor
    from zoomiqa.backends import StreamingBackend

    return (
        arguments.format != "json"
        and sys.stdout.isatty()
        and isinstance(assessor, ConversationalAssessor)
        and assessor.samples == 1
        and isinstance(assessor.backend, StreamingBackend)
    )


def _assess_before_eyes(path: Path, assessor: ConversationalAssessor, options: OpenOptions) -> Assessment:
    """Assess one picture and print its text while it is written."""
    from rich.console import Console

    from zoomiqa.batch import failed_file, open_one
    from zoomiqa.cli.show import show_assessment, show_stream

    try:
        picture = open_one(path, options)
    except ZoomIQAError as error:
        assessment = failed_file(path, error, options.limits)
        show_assessment(Console(), assessment)
        return assessment
    return show_stream(Console(), str(path), assessor.assess_stream(picture))


def _show_nothing(*_: Any) -> None:
    """What was printed while it was written is not shown again."""


def _chooser(arguments: argparse.Namespace, options: OpenOptions) -> Any:
    """How a finished assessment is shown on stdout."""
    as_text = arguments.format == "text" or (arguments.format == "auto" and sys.stdout.isatty())

    def show(assessment: Assessment, path: Path) -> None:
        if as_text:
            from rich.console import Console

            from zoomiqa.batch import open_one
            from zoomiqa.cli.show import show_assessment

            show_assessment(Console(), assessment, lambda: open_one(path, options))
        elif arguments.out is None:
            common.write_line(assessment.to_dict())

    return show
