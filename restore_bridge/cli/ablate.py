"""`restore-bridge ablate`: do the assessment's words help a restorer? Four arms on the same pictures and seeds.

The output folder holds `pictures/ARM/`, `ablation.jsonl` (a record of each restoration) and `summary.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_bridge.cli.assessor import add_assessor_options, assessor_from
from restore_bridge.cli.folder import add_retry_option
from restore_bridge.cli.metrics import add_metric_option, load_metrics
from restore_bridge.cli.numbers import decimals, integers
from restore_bridge.cli.restoration import add_method_options
from restore_bridge.cli.restorer import add_restorer_options, restorer_options
from zoomiqa.cli import common

if TYPE_CHECKING:
    from restore_bridge.ablation import Ablation, Arm, Subject
    from restore_bridge.settings import Trial
    from zoomiqa.imaging import Picture
    from zoomiqa.types import Assessment

_EXAMPLES = """
arms: none (no text), generic (the restorer's own quality words), iqa (the assessment's words), both

examples:
  restore-bridge ablate photos/ --restorer sdxl-tile --seeds 0,1,2 --out ablation
  restore-bridge ablate degraded/ --restorer classical --reference pristine/ --metric psnr,ssim --out ablation
"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "ablate",
        help="measure whether the assessment's words help a restorer",
        epilog=_EXAMPLES,
        description="Restore pictures with no text, generic words, the assessment's words, and both, on the same\n"
        "seeds; give means with 95 % intervals and the paired differences between these arms.",
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="picture files, folders (searched through), or patterns"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for pictures, records and summary"
    )
    parser.add_argument("--seeds", type=integers, default=(0,), metavar="LIST", help="such as 0,1,2 (default: 0)")
    parser.add_argument(
        "--strengths", type=decimals, default=(1.0,), metavar="LIST", help="above 0 to 1, such as 0.5,1 (default: 1)"
    )
    add_method_options(parser)
    add_metric_option(parser)
    parser.add_argument(
        "--reference", type=Path, metavar="DIR", help="pristine pictures of the same names, for full-reference metrics"
    )
    parser.add_argument(
        "--format",
        choices=("auto", "json", "text"),
        default="auto",
        help="the summary on stdout: json, text (a table), or auto: a table on a terminal, JSON elsewhere",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="do everything anew; without it, finished restorations are skipped"
    )
    add_retry_option(parser)
    add_restorer_options(parser)
    add_assessor_options(parser)
    common.add_progress_option(parser)
    common.add_limit_options(parser)
    parser.set_defaults(command=ablate)


def ablate(arguments: argparse.Namespace) -> int:
    from restore_bridge.ablation import ARMS, summarise
    from restore_bridge.cli.names import PICTURES, find_inputs, find_references, make_folder, output_names
    from zoomiqa.batch import file_digest
    from zoomiqa.files import atomic_write_text
    from zoomiqa.records import RecordFile

    ablation = _ablation(arguments)
    folder = arguments.out
    paths = find_inputs(arguments.paths, folder)
    references = find_references(paths, arguments.paths, arguments.reference)
    inputs = [*paths, *references.values()]
    for name in ARMS:
        make_folder(folder / PICTURES / name)
    names = output_names(paths, "png")
    digests = {path: file_digest(path) for path in paths}
    settings = {
        **ablation.settings.to_dict(),
        "assessor": ablation.bridge.assessor.info.to_dict(),
        "metrics": None if ablation.metrics is None else list(ablation.metrics),
        "limits": {"pixels": ablation.bridge.limits.pixels},
        "allow_truncated": arguments.allow_truncated,
    }
    for note in ablation.notes:
        common.complain("restore-bridge", note.message)
    units = list(_units(ablation, paths))
    with (
        RecordFile(
            folder / "ablation.jsonl",
            settings,
            resume=not arguments.overwrite,
            overwrite=arguments.overwrite,
            protected=inputs,
            key=_key,
        ) as records,
        common.Progress(arguments.progress, len(units), "restorations") as progress,
    ):
        subjects = _Subjects(ablation, references, allow_truncated=arguments.allow_truncated)
        wanted = []
        for path, arm, trial in units:
            key = (str(path), digests[path], arm.name, trial.seed, trial.strength)
            wanted.append(key)
            done = records.done.get(key)
            if done is None or (arguments.retry_failed and done["error"]):
                target = folder / PICTURES / arm.name / f"{Path(names[path]).stem}-{_mark(trial)}.png"
                done = _restore_one(ablation, subjects, path, digests[path], arm, trial, target, inputs)
                records.write(done)
            progress.step(f"{path} ({arm.name}, {_mark(trial)})", done["error"])
        summary = summarise(records.done[key] for key in wanted)
    summary["notes"] = [note.to_dict() for note in ablation.notes]
    atomic_write_text(folder / "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
    common.complain("restore-bridge", progress.summary())
    if arguments.format == "text" or (arguments.format == "auto" and sys.stdout.isatty()):
        _print_table(summary)
    else:
        common.print_json(summary)
    return common.EXIT_SOME_FAILED if progress.failures else common.EXIT_OK


def _ablation(arguments: argparse.Namespace) -> Ablation:
    from restore_bridge.ablation import Ablation
    from restore_bridge.settings import BridgeSettings
    from zoomiqa.assessors import create_assessor

    settings = BridgeSettings(
        restorer=arguments.restorer,
        restorer_options=restorer_options(arguments),
        prepass=arguments.prepass,
        prepass_weights=arguments.prepass_weights,
        allow_pickle=arguments.allow_pickle,
        seeds=arguments.seeds,
        strengths=arguments.strengths,
        scale=arguments.scale,
        color_fix=arguments.color_fix,
    )
    limits = common.limits_from(arguments)
    assessor = create_assessor(assessor_from(arguments, limits))
    ablation = Ablation(assessor, settings, metrics=load_metrics(arguments), limits=limits)
    ablation.bridge.check_ready()
    return ablation


def _units(ablation: Ablation, paths: Sequence[Path]) -> Iterator[tuple[Path, Arm, Trial]]:
    """What is to be done, in an order in which a restorer's weights are loaded no more often than needed."""
    for arms in ablation.order:
        for path in paths:
            for arm in arms:
                for trial in ablation.trials:
                    yield path, arm, trial


def _key(record: Mapping[str, Any]) -> tuple[Any, ...]:
    image = record["image"]
    return image["path"], image["sha256"], record["arm"], record["seed"], record["strength"]


def _mark(trial: Trial) -> str:
    return f"seed{trial.seed}-strength{trial.strength:g}"


class _Subjects:
    """Opened and assessed pictures: the last one, and the assessments of all, as arms come in groups."""

    def __init__(self, ablation: Ablation, references: Mapping[Path, Path], *, allow_truncated: bool) -> None:
        self._ablation, self._references, self._allow_truncated = ablation, references, allow_truncated
        self._assessments: dict[Path, Assessment] = {}
        self._last: tuple[Path, Subject] | None = None

    def find(self, path: Path) -> Subject:
        """The picture at `path` with what its restorations share.

        Raises:
            ZoomIQAError: it cannot be opened, or its pre-pass failed.
        """
        from restore_bridge.cli.names import open_reference
        from zoomiqa.imaging import open_picture

        if self._last is not None and self._last[0] == path:
            return self._last[1]
        open_one = partial(open_picture, limits=self._ablation.bridge.limits, allow_truncated=self._allow_truncated)
        picture = open_one(path)
        if path not in self._assessments:
            self._assessments[path] = next(iter(self._ablation.bridge.assessor.assess([picture])))
        reference, notes = open_reference(self._references.get(path), open_one)
        subject = self._ablation.subject(picture, self._assessments[path], reference, notes)
        self._last = (path, subject)
        return subject


def _restore_one(
    ablation: Ablation,
    subjects: _Subjects,
    path: Path,
    digest: str | None,
    arm: Arm,
    trial: Trial,
    target: Path,
    inputs: Sequence[Path],
) -> dict[str, Any]:
    """Restore and save one picture; returns its record, which for a failure has an error."""
    from restore_bridge.ablation import failure_record
    from zoomiqa.errors import ZoomIQAError

    image: dict[str, Any] = {"path": str(path), "sha256": digest}
    try:
        subject = subjects.find(path)
        if subject.before.error is not None:
            return {"image": image, **failure_record(arm, trial, subject.before.error), "output": None}
        result, record = ablation.restore(arm, trial, subject)
        output = None if record["error"] else _save(result, subject.picture, target, inputs, ablation)
    except ZoomIQAError as error:
        return {"image": image, **failure_record(arm, trial, error.to_dict()), "output": None}
    return {"image": image, **record, "output": output}


def _save(
    result: Picture, picture: Picture, target: Path, inputs: Sequence[Path], ablation: Ablation
) -> dict[str, Any]:
    from zoomiqa.batch import file_digest
    from zoomiqa.imaging import save_picture

    save_picture(result, target, source=picture, overwrite=True, protected=inputs, limits=ablation.bridge.limits)
    return {
        "path": "/".join(target.parts[-3:]),
        "sha256": file_digest(target),
        "size": list(result.size),
    }


def _print_table(summary: Mapping[str, Any]) -> None:
    """Figure by figure: the mean of each arm, then the differences between arms."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for heading in ("figure", "better", "arm", "mean", "95 % interval", "photos", "restorations"):
        table.add_column(heading)
    for figure in next(iter(summary["arms"].values())):
        label, better = figure, summary["better"][figure]
        for side, sign in (("arms", ""), ("differences", "+")):
            for name, values in summary[side].items():
                value = values[figure]
                ends = [value["low"], value["high"]]
                shown = "-" if ends[0] is None else " to ".join(f"{end:{sign}.3f}" for end in ends)
                mean = f"{value['mean']:{sign}.3f}"
                table.add_row(label, better, name, mean, shown, str(value["photos"]), str(value["pairs"]))
                label = better = ""
        table.add_section()
    Console().print(table)
