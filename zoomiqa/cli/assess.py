"""`zoomiqa assess`: rate files, folders and patterns."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoomiqa.cli import common
from zoomiqa.errors import OutputFailed
from zoomiqa.types import Assessment, Choice

if TYPE_CHECKING:
    from zoomiqa.batch import OpenOptions

_EXAMPLES = """
examples:
  zoomiqa assess photo.jpg
  zoomiqa assess photos/ --out results.jsonl --resume
  zoomiqa assess 'photos/*.png' --format json | jq .rating
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
    how = parser.add_argument_group("assessment")
    how.add_argument("--assessor", default="compact", help="who rates; see `zoomiqa plugins` (default: compact)")
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
    how.add_argument("--seed", type=int, default=42, help="seed of every draw (default: 42, the released protocol's)")
    how.add_argument(
        "--prompts", type=Path, metavar="FILE", help="prompt set: .toml, .json, or the official .py module"
    )
    how.add_argument("--replies", type=Path, metavar="FILE", help="prepared replies for `--assessor scripted`")
    how.add_argument(
        "--strict", action="store_true", help="refuse replies that break the format instead of repairing them"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--out", type=Path, metavar="FILE", help="write JSON Lines to FILE instead of stdout")
    output.add_argument("--resume", action="store_true", help="go on with FILE, skipping pictures already in it")
    output.add_argument("--overwrite", action="store_true", help="replace FILE")
    output.add_argument(
        "--format",
        choices=("auto", "json", "text"),
        default="auto",
        help="auto: readable on a terminal, JSON Lines elsewhere (default: auto)",
    )
    output.add_argument("--jobs", type=int, metavar="N", help="worker processes (default: chosen, with the reason)")
    output.add_argument("--max-failures", type=int, metavar="N", help="stop after N failed pictures (default: never)")
    common.add_progress_option(output)
    common.add_limit_options(parser)
    parser.set_defaults(command=assess)


def assess(arguments: argparse.Namespace) -> int:
    from zoomiqa.assessors import AssessorSpec, create_assessor
    from zoomiqa.batch import OpenOptions, assess_files, choose_jobs, file_digest
    from zoomiqa.protocol import ConversationSettings
    from zoomiqa.records import RecordFile
    from zoomiqa.types import Sampling

    common.at_least_one("--jobs", arguments.jobs)
    common.at_least_one("--max-failures", arguments.max_failures)
    if arguments.out is None and not common.has_stdout():
        raise OutputFailed("the records have nowhere to go, standard output is closed", None, "pass --out FILE")
    limits = common.limits_from(arguments)
    spec = AssessorSpec(
        name=arguments.assessor,
        conversation=ConversationSettings(
            rounds=arguments.rounds,
            context=arguments.context,
            question=arguments.question,
            sampling=Sampling(seed=arguments.seed),
            strict=arguments.strict,
        ),
        prompts_file=arguments.prompts,
        replies_file=arguments.replies,
        limits=limits,
    )
    options = OpenOptions(limits=limits, allow_truncated=arguments.allow_truncated)
    assessor = create_assessor(spec)
    paths = common.find_inputs(arguments.paths)

    with ExitStack() as stack:
        records = None
        earlier: list[dict[str, Any]] = []
        if arguments.out is not None:
            settings = {
                "assessor": assessor.info.to_dict(),
                **spec.to_dict(),
                "limits": asdict(limits),
                "allow_truncated": arguments.allow_truncated,
            }
            records = stack.enter_context(
                RecordFile(
                    arguments.out,
                    settings,
                    resume=arguments.resume,
                    overwrite=arguments.overwrite,
                    protected=[*paths, *filter(None, (arguments.prompts, arguments.replies))],
                )
            )
            if records.done:
                keys = [(str(path), file_digest(path, limit_bytes=limits.file_bytes)) for path in paths]
                earlier = [records.done[key] for key in keys if key in records.done]
                todo = [path for path, key in zip(paths, keys, strict=True) if key not in records.done]
                if earlier:
                    common.complain("zoomiqa", f"resuming: {len(earlier)} of {len(paths)} pictures are done")
                paths = todo
        jobs = choose_jobs(arguments.jobs, len(paths), assessor)
        _say_jobs(jobs, arguments.jobs, len(paths))
        progress = stack.enter_context(common.Progress(arguments.progress, len(paths)))
        for record in earlier:
            progress.add_earlier(record.get("error"))
        failures = 0
        show = _chooser(arguments, options)
        for path, assessment in zip(
            paths, assess_files(paths, spec, options=options, jobs=int(jobs.value), assessor=assessor), strict=False
        ):
            if records is not None:
                records.write(assessment.to_dict())
            show(assessment, path)
            progress.step(str(path), assessment.error)
            failures += assessment.error is not None
            if arguments.max_failures is not None and failures >= arguments.max_failures:
                common.complain("zoomiqa", f"stopped after {arguments.max_failures} failures (--max-failures)")
                break
    if len(paths) + len(earlier) > 1 or progress.failures:
        common.complain("zoomiqa", progress.summary())
    return common.EXIT_SOME_FAILED if progress.failures else common.EXIT_OK


def _say_jobs(jobs: Choice, requested: int | None, files: int) -> None:
    """Say how many processes work and why, where there are several or were to be."""
    if files > 1 and (int(jobs.value) > 1 or (requested or 1) > 1):
        noun = "process" if jobs.value == "1" else "processes"
        common.complain("zoomiqa", f"{jobs.value} worker {noun}: {jobs.reason}")


def _chooser(arguments: argparse.Namespace, options: OpenOptions) -> Any:
    """How a finished assessment is shown on stdout."""
    as_text = arguments.format == "text" or (arguments.format == "auto" and sys.stdout.isatty())

    def show(assessment: Assessment, path: Path) -> None:
        if as_text:
            from rich.console import Console

            from zoomiqa.batch import open_one
            from zoomiqa.cli.show import show_assessment

            picture = None if assessment.error else open_one(path, options)
            show_assessment(Console(), assessment, picture)
        elif arguments.out is None:
            common.write_line(assessment.to_dict())

    return show
