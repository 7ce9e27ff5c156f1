"""`zoomiqa judge`: have a model score how well assessments were reasoned."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoomiqa.cli import common
from zoomiqa.cli.assessor import add_model_options, model_options_from
from zoomiqa.errors import ZoomIQAError

if TYPE_CHECKING:
    from zoomiqa.batch import OpenOptions
    from zoomiqa.evaluation.judge import Case
    from zoomiqa.imaging import Picture

_EXAMPLES = """
RECORDS are those of `zoomiqa assess --out` or of `zoomiqa evaluate` (records.jsonl in its folder). The pictures are
sent to the judge, with the text to be judged, its measured indicators, and what people said where that is known.

examples:
  zoomiqa judge results.jsonl --model gpt-5 --temperature 1 --out judged.jsonl
  zoomiqa judge results.jsonl --image-root photos/ --annotations koniq.json --out judged.jsonl --resume \\
      --model Qwen2.5-VL-72B-Instruct --base-url http://localhost:8000/v1 --json
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "judge",
        help="have a model score how well assessments were reasoned",
        description="Have a vision-language model score the reasoning of assessments: completeness, accuracy,\n"
        "reasonableness and confidence, each from 1 to 9.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("records", type=Path, metavar="RECORDS", help="record file of assessments (JSON Lines)")
    parser.add_argument(
        "--image-root", type=Path, metavar="DIR", help="where the pictures are (default: where the records say)"
    )
    parser.add_argument(
        "--annotations",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="annotation files with people's scores, their paths relative to DIR",
    )
    who = parser.add_argument_group("judge")
    who.add_argument(
        "--judge", default="openai", metavar="NAME", help="what answers; see `zoomiqa plugins` (default: openai)"
    )
    who.add_argument("--temperature", type=float, metavar="T", help="0 is greedy (default: 0)")
    who.add_argument("--max-new-tokens", type=int, metavar="N", help="per reply (default: 1024)")
    who.add_argument("--seed", type=int, metavar="N", help="of the draw, above temperature 0 (default: 42)")
    add_model_options(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--out", type=Path, required=True, metavar="FILE", help="write judgements (JSON Lines) to FILE")
    common.add_resume_options(output, "FILE", "replies")
    output.add_argument("--json", action="store_true", help="print the summary as JSON")
    common.add_progress_option(output)
    common.add_limit_options(parser)
    parser.set_defaults(command=judge)


def judge(arguments: argparse.Namespace) -> int:
    from zoomiqa.assessors.registry import BACKENDS, AssessorSpec
    from zoomiqa.evaluation.judge import (
        JUDGE_SAMPLING,
        case_of,
        default_judge_prompt,
        judge_info,
        record_key,
        summarize,
        table,
    )
    from zoomiqa.evaluation.judge import judge as run_judge
    from zoomiqa.evaluation.subjects import find_picture
    from zoomiqa.records import RecordFile, latest, read_records

    common.check_resume_options(arguments)
    options = common.open_options_from(arguments)
    drawn = {name: getattr(arguments, name) for name in ("temperature", "max_new_tokens", "seed")}
    sampling = replace(JUDGE_SAMPLING, **{name: value for name, value in drawn.items() if value is not None})
    spec = AssessorSpec(arguments.judge, options=model_options_from(arguments))
    backend = BACKENDS.load(spec.name, **spec.options)
    scores = _scores_by_path(arguments.annotations, arguments.image_root)
    cases = []
    for record in latest(read_records(arguments.records)):
        path = find_picture(record, arguments.image_root)
        mos = None if path is None else scores.get(os.path.realpath(path))
        cases.append((case_of(record, mos), path))
    prompt = default_judge_prompt()
    settings = {
        "judge": judge_info(backend, prompt).to_dict(),
        "options": spec.to_dict()["options"],
        "sampling": sampling.to_dict(),
        "annotations": sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in arguments.annotations),
        **options.to_dict(),
    }
    inputs = [arguments.records, *arguments.annotations, *(path for _, path in cases if path is not None)]
    if arguments.replies is not None:
        inputs.append(arguments.replies)
    with RecordFile(
        arguments.out,
        settings,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        protected=inputs,
        key=record_key,
    ) as records:
        earlier = records.finished(retry_failed=arguments.retry_failed)
        todo = [(case, path) for case, path in cases if case.key not in earlier]
        progress = common.Progress(arguments.progress, len(todo), "replies")
        progress.take_over(earlier[case.key].get("error") for case, _ in cases if case.key in earlier)
        with progress:
            answers = run_judge(
                backend, _opened(todo, options), prompt=prompt, sampling=sampling, limits=options.limits
            )
            for judgement in answers:
                records.write(judgement.to_dict())
                progress.step(str(judgement.case.image.get("path")), judgement.error)
        summary: dict[str, Any] = {
            **summarize(records.done[case.key] for case, _ in cases),
            "judge": settings["judge"],
        }
    print(table(summary), end="", file=sys.stderr)
    common.complain("zoomiqa", progress.summary())
    if arguments.json:
        common.print_json(summary)
    return common.EXIT_SOME_FAILED if progress.failures else common.EXIT_OK


def _scores_by_path(files: Sequence[Path], image_root: Path | None) -> Mapping[str, float]:
    from zoomiqa.evaluation import load_annotations

    return {
        os.path.realpath(annotation.path): annotation.gt_score
        for file in files
        for annotation in load_annotations(file, image_root or Path())
    }


def _opened(
    cases: Sequence[tuple[Case, Path | None]], options: OpenOptions
) -> Iterator[tuple[Case, Picture | ZoomIQAError]]:
    """The cases with their pictures, opened when their turn comes."""
    from zoomiqa.evaluation.subjects import open_subject

    for case, path in cases:
        try:
            yield case, open_subject(case.image, path, options)
        except ZoomIQAError as error:
            yield case, error
