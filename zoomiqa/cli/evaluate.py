"""`zoomiqa evaluate`: rate labelled data sets and say how far the ratings agree with people."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from zoomiqa.cli import common
from zoomiqa.cli.assessor import add_assessor_options, input_files, spec_from
from zoomiqa.cli.engine import add_engine_options, engine_from, say_jobs

_EXAMPLES = """
An annotation file is a JSON list of {"image": "a.jpg", "gt_score": 3.2}, optionally with id, subset and conversations.
FOLDER gets records.jsonl, timing.json, summary.json, summary.md and plots. With --resume, a finished FOLDER reports
again without rating anything.

examples:
  zoomiqa evaluate koniq.json spaq.json --image-root data/ --out results
  zoomiqa evaluate koniq.json --image-root data/ --out results --resume --json
  zoomiqa evaluate koniq.json --image-root data/ --out results --model Ethanliang99/Zoom-IQA-7B --limit 200
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="rate labelled pictures and compare with people",
        description="Rate labelled data sets and say how far the ratings agree with people.",
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "annotations", nargs="+", type=Path, metavar="ANNOTATION", help="annotation files; each is a data set"
    )
    parser.add_argument(
        "--image-root", type=Path, required=True, metavar="DIR", help="what the pictures' paths are relative to"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="take the first N rows of each annotation file")
    add_assessor_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="write records and figures to FOLDER")
    common.add_resume_options(output, "the run in FOLDER", "rows")
    output.add_argument("--json", action="store_true", help="print the figures as JSON instead of a table")
    output.add_argument(
        "--released-format",
        action="store_true",
        help="also write FOLDER/predictions.jsonl, the records as the released evaluator writes them",
    )
    output.add_argument("--jobs", type=int, metavar="N", help="worker processes (default: chosen, with the reason)")
    common.add_progress_option(output)
    add_engine_options(parser)
    common.add_limit_options(parser)
    parser.set_defaults(command=evaluate)


def evaluate(arguments: argparse.Namespace) -> int:
    from zoomiqa.assessors import create_assessor
    from zoomiqa.batch import choose_jobs
    from zoomiqa.evaluation.released import PREDICTIONS, write_released
    from zoomiqa.evaluation.report import result_names, summarize, table, write_report
    from zoomiqa.evaluation.runner import Evaluation, load_sets, plan, read_timing

    common.at_least_one("--jobs", arguments.jobs)
    common.at_least_one("--limit", arguments.limit)
    common.check_resume_options(arguments)
    engine = engine_from(arguments)
    options = common.open_options_from(arguments)
    spec = spec_from(arguments, options.limits)
    sets = load_sets(arguments.annotations, arguments.image_root, limit=arguments.limit)
    items = plan(sets, spec, arguments.image_root)
    assessor = create_assessor(spec)
    evaluation = Evaluation(
        arguments.out,
        sets,
        items,
        spec,
        assessor,
        options=options,
        resume=arguments.resume,
        retry_failed=arguments.retry_failed,
        overwrite=arguments.overwrite,
        results=[*result_names(item.name for item in sets), *([PREDICTIONS] if arguments.released_format else [])],
        inputs=[*arguments.annotations, *input_files(arguments)],
    )
    with evaluation:
        progress = common.Progress(arguments.progress, len(evaluation.todo))
        progress.take_over(record["error"] for record in evaluation.earlier)
        jobs = choose_jobs(arguments.jobs, len(evaluation.todo), assessor)
        say_jobs(engine, jobs, arguments.jobs, len(evaluation.todo))
        with progress:
            for item, record in evaluation.run(int(jobs.value), engine):
                progress.step(f"{item.dataset}: {item.image}", record["error"])
        records = evaluation.records
        summary = summarize(records, timing=read_timing(arguments.out))
        write_report(arguments.out, records, summary)
        if arguments.released_format:
            write_released(arguments.out, records)
    if arguments.json:
        common.print_json(summary)
    else:
        print(table(summary), end="")
    common.complain("zoomiqa", progress.summary())
    common.complain("zoomiqa", f"records, figures and plots are in {arguments.out}")
    return common.EXIT_SOME_FAILED if progress.failures else common.EXIT_OK
