"""The command with its steps. Records go to files, words for people to stderr. It must not know how a step decides."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from zoomiqa.assessors.registry import BACKENDS, AssessorSpec
from zoomiqa.backends.base import Backend
from zoomiqa.batch import OpenOptions
from zoomiqa.cli import common
from zoomiqa.cli.assessor import add_model_options, model_options_from
from zoomiqa.errors import OptionInvalid, OutputFailed, OutputWouldOverwrite
from zoomiqa.evaluation import Annotation, load_annotations
from zoomiqa.files import atomic_write_text
from zoomiqa.protocol import PromptSet, default_prompts, load_prompts
from zoomiqa.records import RecordFile
from zoomiqa.types import Sampling

from . import consistency, reliance
from .filtering import carried_over, decide_all
from .generate import STEP as GENERATE
from .generate import TEACHER_SAMPLING, generate
from .pace import PacedBackend
from .trajectories import PictureFolder, decision_of, ids_digest, read_trajectories, record_id
from .words import load_words

PROG = "curation"


def build_parser() -> common.Parser:
    """The command's grammar."""
    parser = common.Parser(
        prog=f"python -m {__package__}",
        description="From labelled photos to data for supervised training: generate, filter, report, build.",
    )
    commands = parser.add_subparsers(metavar="STEP", required=True, parser_class=common.Parser)
    _add_generate(commands)
    _add_reliance(commands)
    _add_consistency(commands)
    _add_report(commands)
    _add_build(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a step; returns its exit code."""
    arguments = build_parser().parse_args(argv)
    return common.run(arguments.command, arguments, PROG)


def _add_generate(commands: Any) -> None:
    parser = commands.add_parser(
        "generate",
        help="have a teacher write trajectories",
        description="Have a teacher write one trajectory per picture.",
    )
    parser.add_argument("annotations", nargs="+", type=Path, metavar="ANNOTATIONS", help="annotation files (JSON)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures of each file")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="prompt set of the assessment (default: our own)")
    parser.add_argument("--tell-mos", action="store_true", help="tell the teacher what people said (default: not told)")
    _add_asking(parser, who="teacher", sampling=TEACHER_SAMPLING)
    _add_records(parser)
    parser.set_defaults(command=run_generate)


def _add_reliance(commands: Any) -> None:
    parser = commands.add_parser(
        "visual-reliance",
        help="drop what can be answered without looking",
        description="Compare answers to a rationale with and without the picture; drop where they are too much alike.",
    )
    _add_input(parser)
    parser.add_argument(
        "--method",
        choices=("auto", reliance.LogProbabilities.name, reliance.SampledAgreement.name),
        default="auto",
        help="how answers are compared (default: log-probabilities on a local transformers model, else sampled)",
    )
    parser.add_argument("--samples", type=int, default=5, metavar="K", help="per condition, where sampled (default: 5)")
    known = reliance.Thresholds()
    for name, unit in (("rating", "points"), ("box", "intersection over union"), ("entropy", "nats")):
        value = getattr(known, name)
        parser.add_argument(
            f"--{name}",
            type=float,
            default=value,
            metavar="X",
            help=f"threshold in {unit} (default: {value:g}, the paper's)",
        )
    parser.add_argument(
        "--combine", choices=("any", "all"), default=known.combine, help="which likenesses drop (default: any one)"
    )
    parser.add_argument(
        "--rationale",
        choices=("partial", "full"),
        default="partial",
        help="what is read: without the decision, which states the answer, or with it (default: partial)",
    )
    _add_asking(parser, who="model", sampling=None)
    _add_records(parser)
    parser.set_defaults(command=run_reliance)


def _add_consistency(commands: Any) -> None:
    parser = commands.add_parser(
        "hint-consistency",
        help="drop what a rater finds untrue",
        description="Have a rater read the rationales beside measured hints; drop what it fails.",
    )
    _add_input(parser)
    parser.add_argument("--no-image", action="store_true", help="for raters that read text only")
    _add_asking(parser, who="rater", sampling=consistency.RATER_SAMPLING)
    _add_records(parser)
    parser.set_defaults(command=run_consistency)


def _add_report(commands: Any) -> None:
    parser = commands.add_parser(
        "report", help="count, and show examples on one page", description="What was dropped and why, with examples."
    )
    _add_input(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page (HTML) to FILE")
    parser.add_argument("--examples", type=int, default=6, metavar="N", help="of each reason (default: 6)")
    parser.add_argument("--title", default="What was kept, and what was not", help="heading of the page")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    common.add_limit_options(parser)
    parser.set_defaults(command=run_report)


def _add_build(commands: Any) -> None:
    parser = commands.add_parser(
        "build", help="make the training set", description="Make rows for supervised training of what was kept."
    )
    _add_input(parser)
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="prompt set of the rows (default: our own)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the data set")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set in DIR")
    parser.set_defaults(command=run_build)


def _add_input(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "trajectories", type=Path, metavar="TRAJECTORIES", help="what the step before wrote (JSON Lines)"
    )
    parser.add_argument(
        "--image-root", type=Path, metavar="DIR", help="what paths are relative to (default: TRAJECTORIES' folder)"
    )


def _add_asking(parser: argparse.ArgumentParser, *, who: str, sampling: Sampling | None) -> None:
    group = parser.add_argument_group(who)
    group.add_argument("--backend", default="openai", metavar="NAME", help=f"the {who}'s backend (default: openai)")
    group.add_argument("--rate", type=float, metavar="N", help="requests that may begin per minute (default: no limit)")
    default = f" (default: {sampling.temperature:g})" if sampling else " (default: by method)"
    group.add_argument("--temperature", type=float, metavar="T", help=f"0 is greedy{default}")
    group.add_argument("--max-new-tokens", type=int, metavar="N", help="per reply")
    group.add_argument("--seed", type=int, metavar="N", help="of the draw, above temperature 0 (default: 42)")
    add_model_options(parser)


def _add_records(parser: argparse.ArgumentParser) -> None:
    if not any(action.dest == "image_root" for action in parser._actions):
        parser.add_argument(
            "--image-root", type=Path, required=True, metavar="DIR", help="what the annotations' paths are relative to"
        )
    group = parser.add_argument_group("output")
    group.add_argument("--out", type=Path, required=True, metavar="FILE", help="write all rows to FILE (JSON Lines)")
    group.add_argument("--resume", action="store_true", help="go on with FILE, skipping rows already in it")
    group.add_argument("--retry-failed", action="store_true", help="with --resume, try again what failed")
    group.add_argument("--overwrite", action="store_true", help="replace FILE")
    common.add_progress_option(parser)
    common.add_limit_options(parser)


def run_generate(arguments: argparse.Namespace) -> int:
    """Ask the teacher about every picture that has no record yet."""
    common.at_least_one("--limit", arguments.limit)
    annotations = _annotations(arguments.annotations, arguments.image_root, arguments.limit)
    prompts = _prompts(arguments.prompts)
    words = load_words("teacher-1")
    sampling = _sampling(arguments, TEACHER_SAMPLING)
    settings = {
        "step": GENERATE,
        "prompts": {"name": prompts.name, "hash": prompts.digest},
        "words": words.to_dict(),
        "tell_mos": arguments.tell_mos,
        "sampling": sampling.to_dict(),
        "annotations": sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in arguments.annotations),
    }

    def make(backend: Backend, todo: Sequence[Annotation]) -> Iterator[Mapping[str, Any]]:
        return generate(
            backend,
            todo,
            arguments.image_root,
            prompts=prompts,
            words=words,
            sampling=sampling,
            tell_mos=arguments.tell_mos,
            options=_open_options(arguments),
        )

    inputs = [*arguments.annotations, *(annotation.path for annotation in annotations)]
    return _carry_out(arguments, GENERATE, settings, inputs, annotations, lambda annotation: annotation.id, make)


def run_reliance(arguments: argparse.Namespace) -> int:
    """Compare answers with and without the picture."""
    records, folder = _read(arguments)
    words = load_words("reliance-1")
    thresholds = reliance.Thresholds(arguments.rating, arguments.box, arguments.entropy, arguments.combine)
    backend = _backend(arguments)
    method = reliance.choose_reading(arguments.method, backend, arguments.samples)
    reading = reliance.choose_reading(method.name, backend, arguments.samples, _sampling(arguments, method.sampling))
    settings = {
        "step": reliance.STEP,
        "reading": reading.to_dict(),
        "thresholds": thresholds.to_dict(),
        "rationale": arguments.rationale,
        "words": words.to_dict(),
        "trajectories": ids_digest(records),
    }
    decide = partial(
        reliance.compare,
        reading=reading,
        words=words,
        thresholds=thresholds,
        full_rationale=arguments.rationale == "full",
    )

    def make(asked: Backend, todo: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        return decide_all(asked, todo, folder, reliance.STEP, decide)

    return _carry_out(
        arguments, reliance.STEP, settings, [arguments.trajectories], records, record_id, make,
        carry_over=carried_over, backend=backend,
    )  # fmt: skip


def run_consistency(arguments: argparse.Namespace) -> int:
    """Have the rater read what was kept so far."""
    records, folder = _read(arguments)
    words = load_words("rater-1")
    sampling = _sampling(arguments, consistency.RATER_SAMPLING)
    settings = {
        "step": consistency.STEP,
        "sampling": sampling.to_dict(),
        "image": not arguments.no_image,
        "words": words.to_dict(),
        "trajectories": ids_digest(records),
    }
    decide = partial(
        consistency.rate,
        words=words,
        sampling=sampling,
        show_picture=not arguments.no_image,
        limits=folder.options.limits,
    )

    def make(asked: Backend, todo: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        return decide_all(asked, todo, folder, consistency.STEP, decide)

    return _carry_out(
        arguments, consistency.STEP, settings, [arguments.trajectories], records, record_id, make,
        carry_over=carried_over,
    )  # fmt: skip


def run_report(arguments: argparse.Namespace) -> int:
    """Count, and write the page."""
    from .report import render, summarize

    common.at_least_one("--examples", arguments.examples)
    if arguments.out is None and not arguments.json:
        raise OptionInvalid("there is nothing to report to", None, "give --out FILE, or --json")
    records, folder = _read(arguments)
    if arguments.out is not None:
        page = render(records, folder, title=arguments.title, per_reason=arguments.examples)
        if arguments.out.exists() and arguments.out.samefile(arguments.trajectories):
            raise OutputWouldOverwrite("the page would replace its input", arguments.out, "choose another name")
        atomic_write_text(arguments.out, page, overwrite=arguments.overwrite)
    summary = summarize(records)
    for step in summary["steps"]:
        reasons = ", ".join(f"{reason} x{count}" for reason, count in step["reasons"].items())
        told = f"{step['step']}: {step['keep']} kept, {step['drop']} dropped, {step['failed']} failed"
        common.complain(PROG, f"{told} ({reasons})" if reasons else told)
    common.complain(PROG, f"{summary['kept']} of {summary['trajectories']} trajectories are kept")
    if arguments.json:
        common.print_json(summary)
    return common.EXIT_OK


def run_build(arguments: argparse.Namespace) -> int:
    """Write the training rows of what was kept."""
    from .build import ROWS, build

    records = read_trajectories(arguments.trajectories)
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputFailed("the folder cannot be made", arguments.out, error.strerror or "check its name") from error
    if (arguments.out / ROWS).exists() and not arguments.overwrite:
        raise OutputWouldOverwrite("the folder holds a data set", arguments.out, "pass --overwrite, or another folder")
    card = build(records, arguments.out, _prompts(arguments.prompts), _image_root(arguments))
    common.complain(
        PROG,
        f"{card['trajectories']} trajectories in {card['rows']} rows, {card['left_out']} left out; see {arguments.out}",
    )
    return common.EXIT_OK


def _annotations(files: Sequence[Path], image_root: Path, limit: int | None) -> list[Annotation]:
    if not image_root.is_dir():
        raise OptionInvalid("the image root is no folder", image_root, "check the path")
    found = [annotation for file in files for annotation in load_annotations(file, image_root)[:limit]]
    if not found:
        raise OptionInvalid("the annotation files hold no rows", None, "check them")
    if len({annotation.id for annotation in found}) < len(found):
        raise OptionInvalid("two annotations have one id", None, "give each `id` once over all files")
    return found


def _prompts(file: Path | None) -> PromptSet:
    return load_prompts(file) if file else default_prompts()


def _read(arguments: argparse.Namespace) -> tuple[list[dict[str, Any]], PictureFolder]:
    return read_trajectories(arguments.trajectories), PictureFolder(_image_root(arguments), _open_options(arguments))


def _image_root(arguments: argparse.Namespace) -> Path:
    root: Path = arguments.image_root or arguments.trajectories.parent
    if not root.is_dir():
        raise OptionInvalid("the image root is no folder", root, "check the path")
    return root


def _open_options(arguments: argparse.Namespace) -> OpenOptions:
    return OpenOptions(limits=common.limits_from(arguments), allow_truncated=arguments.allow_truncated)


def _backend(arguments: argparse.Namespace) -> Backend:
    return BACKENDS.load(arguments.backend, **model_options_from(arguments))


def _sampling(arguments: argparse.Namespace, default: Sampling) -> Sampling:
    given = {name: getattr(arguments, name) for name in ("temperature", "max_new_tokens", "seed")}
    return replace(default, **{name: value for name, value in given.items() if value is not None})


def _carry_out(
    arguments: argparse.Namespace,
    step: str,
    settings: Mapping[str, Any],
    inputs: Sequence[Path],
    items: Sequence[Any],
    key: Callable[[Any], Any],
    make: Callable[[Backend, Sequence[Any]], Iterable[Mapping[str, Any]]],
    *,
    carry_over: Callable[[Any, Mapping[str, Any], str], Mapping[str, Any] | None] = lambda _item, record, _step: record,
    backend: Backend | None = None,
) -> int:
    """Write the records of all items that are not there yet; says how it went and returns the exit code.

    `carry_over` makes of an item, its earlier record and the step's name the record as it should be now, or `None`.
    """
    if arguments.retry_failed and not arguments.resume:
        raise OptionInvalid("--retry-failed goes with --resume", None, "add --resume")
    backend = backend or _backend(arguments)
    able = backend.capabilities
    spec = AssessorSpec(arguments.backend, options=model_options_from(arguments))
    settings = {
        **settings,
        "asked": {"name": able.name, "version": able.version, "options": spec.to_dict()["options"]},
        "limits": asdict(common.limits_from(arguments)),
        "allow_truncated": arguments.allow_truncated,
    }
    if arguments.replies is not None:
        inputs = [*inputs, arguments.replies]
    asked = PacedBackend(backend, arguments.rate) if arguments.rate is not None else backend
    with RecordFile(
        arguments.out,
        settings,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        protected=inputs,
        key=record_id,
    ) as file:
        done: dict[Any, Mapping[str, Any]] = {}
        for item in items:
            earlier = file.done.get(key(item))
            if earlier is None or (arguments.retry_failed and _error_of(earlier, step) is not None):
                continue
            record = carry_over(item, earlier, step)
            if record is None:
                continue
            done[key(item)] = record
            if record != earlier:
                file.write(record)
        todo = [item for item in items if key(item) not in done]
        with common.Progress(arguments.progress, len(todo), "trajectories") as progress:
            for item in items:
                if key(item) in done:
                    progress.add_earlier(_error_of(done[key(item)], step))
            for record in make(asked, todo):
                file.write(record)
                progress.step(str(record["id"]), _error_of(record, step))
        verdicts = [_verdict_of(file.done[key(item)], step) for item in items]
    told = ", ".join(f"{verdicts.count(name)} {word}" for name, word in _TOLD.items())
    common.complain(PROG, f"{step}: {told}; {progress.summary()}")
    return common.EXIT_SOME_FAILED if progress.failures else common.EXIT_OK


_TOLD = {"keep": "kept", "drop": "dropped", "failed": "failed", None: "dropped before"}


def _verdict_of(record: Mapping[str, Any], step: str) -> str | None:
    decision = decision_of(record, step)
    return None if decision is None else decision.verdict


def _error_of(record: Mapping[str, Any], step: str) -> Mapping[str, str] | None:
    """The error that kept the step from deciding, if one did."""
    decision = decision_of(record, step)
    return decision.details["error"] if decision is not None and decision.verdict == "failed" else None
