"""`restore-bridge run` and `plan`: restore files, folders and patterns, or say what would be done.

An output folder holds `pictures/` (the kept picture of each input, under its own name), a sidecar beside each,
`records.jsonl`, and `report.html`.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_bridge.cli.assessor import add_assessor_options, assessor_from
from restore_bridge.cli.numbers import decimals, integers
from restore_bridge.cli.report import report_from_records
from restore_bridge.cli.restorer import add_restorer_options, restorer_options
from zoomiqa.cli import common
from zoomiqa.cli.engine import add_engine_options, engine_from

if TYPE_CHECKING:
    from restore_bridge.bridge import BridgeResult, BridgeSettings, RestoreBridge
    from zoomiqa.imaging import Picture
    from zoomiqa.limits import Limits

_EXAMPLES = """
examples:
  restore-bridge run photo.jpg --out restored
  restore-bridge run photos/ --out restored --candidates 4
  restore-bridge run photo.jpg --out restored --seeds 0,1,2 --strengths 0.5,1 --loop 3
  restore-bridge run old/*.jpg --out restored --restorer realesrgan --scale 2 --prompt "family portrait"
  restore-bridge run photo.jpg --out restored --restorer sdxl-tile --preset fidelity --color-fix wavelet
"""
FORMATS = ("same", "png", "jpg", "webp", "tif")

_CHUNK = 4
"""Pictures given at once to a worker of a cluster."""


def add_parsers(commands: Any) -> None:
    run_parser = commands.add_parser(
        "run",
        help="assess, restore, assess again, keep the better picture",
        epilog=_EXAMPLES,
        description="Restore pictures under the guidance of their assessment and keep the better of input and result.",
    )
    _add_common(run_parser)
    output = run_parser.add_argument_group("output")
    output.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for pictures, records and report"
    )
    output.add_argument("--format", choices=FORMATS, default="same", help="format of restored pictures (default: same)")
    output.add_argument("--quality", type=int, default=95, help="quality of JPEG and WebP, 1 to 100 (default: 95)")
    output.add_argument(
        "--overwrite", action="store_true", help="do everything anew; without it, finished pictures are skipped"
    )
    output.add_argument(
        "--reference",
        type=Path,
        metavar="DIR",
        help="pristine pictures of the same names; full-reference scores against them are added",
    )
    output.add_argument("--no-report", action="store_true", help="do not write report.html")
    common.add_progress_option(output)
    add_engine_options(run_parser)
    common.add_limit_options(run_parser)
    run_parser.set_defaults(command=run)

    plan_parser = commands.add_parser(
        "plan",
        help="say what `run` would do, without restoring",
        description="Assess pictures and show prompts, actions and sizes; nothing is restored or written.",
    )
    _add_common(plan_parser)
    common.add_limit_options(plan_parser)
    plan_parser.set_defaults(command=plan)


def _bridge(arguments: argparse.Namespace, limits: Limits) -> RestoreBridge:
    from restore_bridge.bridge import RestoreBridge
    from zoomiqa.assessors import create_assessor

    return RestoreBridge(create_assessor(assessor_from(arguments, limits)), _settings(arguments), limits=limits)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="picture files, folders (searched through), or patterns"
    )
    add_assessor_options(parser)
    how = parser.add_argument_group("restoration")
    how.add_argument(
        "--prepass", default="none", help="what runs before the restorer: none, classical or swinir (default: none)"
    )
    how.add_argument(
        "--prepass-weights",
        metavar="FILE|HUB_ID",
        help="model of the pre-pass: a file, or owner/name:file on the hub (swinir has no default)",
    )
    how.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read weights that are a pickle (.pth, .ckpt); better: `restore-bridge weights convert`",
    )
    amount = how.add_mutually_exclusive_group()
    amount.add_argument(
        "--candidates",
        type=int,
        default=2,
        metavar="N",
        help="restorations tried in a round, 1 to 16; with --strengths, the number of seeds (default: 2)",
    )
    amount.add_argument(
        "--seeds", type=integers, metavar="LIST", help="seeds to try, each with every strength, such as 0,1,2"
    )
    how.add_argument(
        "--strengths",
        type=decimals,
        metavar="LIST",
        help="strengths to try, each with every seed, such as 0.5,1 (default: 1 with --seeds, else 1, 0.6, 0.35,"
        " 0.8 in turn)",
    )
    how.add_argument(
        "--strength", type=float, default=1.0, help="multiplies what the guidance asks for, above 0 to 1 (default: 1)"
    )
    how.add_argument(
        "--loop",
        type=int,
        default=1,
        metavar="K",
        help="rounds at most, 1 to 8: each goes on from the best picture so far under guidance from its own assessment,"
        " and ends the loop when nothing is better (default: 1)",
    )
    how.add_argument("--scale", type=int, default=1, help="enlargement, 1 to 4 (default: 1)")
    how.add_argument("--seed", type=int, default=42, help="first seed, where no --seeds are given (default: 42)")
    how.add_argument("--prompt", help="your own words on the wanted picture; they come first and are never dropped")
    how.add_argument("--negative", help="your own words on what to avoid; likewise")
    how.add_argument(
        "--color-fix",
        choices=("auto", "none", "adain", "wavelet"),
        default="auto",
        help="hold the colour to the picture after the pre-pass (default: auto, which is wavelet for restorers that"
        " invent detail, unless a change of tone is asked for)",
    )
    how.add_argument(
        "--keep-loaded",
        action="store_true",
        help="keep the models of assessor and restorer in memory together, where both are on this machine",
    )
    how.add_argument(
        "--min-gain", type=float, default=0.0, help="rating points a candidate must gain to be kept (default: 0)"
    )
    how.add_argument(
        "--min-consistency", type=float, default=0.8, help="least agreement with the input, 0 to 1 (default: 0.8)"
    )
    how.add_argument(
        "--max-change",
        type=float,
        default=40.0,
        metavar="LEVELS",
        help="most that a candidate may leave the input where no change of tone was asked for, 0 to 255 (default: 40)",
    )
    add_restorer_options(parser)


def _settings(arguments: argparse.Namespace) -> BridgeSettings:
    from restore_bridge.bridge import BridgeSettings

    return BridgeSettings(
        restorer=arguments.restorer,
        restorer_options=restorer_options(arguments),
        prepass=arguments.prepass,
        prepass_weights=arguments.prepass_weights,
        allow_pickle=arguments.allow_pickle,
        candidates=arguments.candidates,
        seed=arguments.seed,
        seeds=arguments.seeds,
        strength=arguments.strength,
        strengths=arguments.strengths,
        loop=arguments.loop,
        scale=arguments.scale,
        color_fix=arguments.color_fix,
        keep_loaded=arguments.keep_loaded,
        prompt=arguments.prompt,
        negative=arguments.negative,
        min_gain=arguments.min_gain,
        min_consistency=arguments.min_consistency,
        max_change=arguments.max_change,
    )


def run(arguments: argparse.Namespace) -> int:
    from restore_bridge.prepass import describe_prepass
    from zoomiqa.batch import file_digest
    from zoomiqa.errors import BackendFailed
    from zoomiqa.records import RecordFile
    from zoomiqa.scale import on_ray

    engine = engine_from(arguments)
    limits = common.limits_from(arguments)
    bridge = _bridge(arguments, limits)
    paths = common.find_inputs(arguments.paths)
    inputs = [*paths, *references(paths, arguments.reference)]
    model = describe_prepass(bridge.prepass).get("weights")  # unusable weights stop here, before anything is written
    folder = make_folder(arguments.out / "pictures").parent
    settings = {
        **bridge.settings.to_dict(),
        "prepass_model": model,
        "assessor": bridge.assessor.info.to_dict(),
        "format": arguments.format,
        "quality": arguments.quality,
        "limits": {"pixels": limits.pixels, "strip_private_metadata": limits.strip_private_metadata},
        "allow_truncated": arguments.allow_truncated,
    }
    records_path = folder / "records.jsonl"
    with (
        RecordFile(records_path, settings, resume=not arguments.overwrite, overwrite=arguments.overwrite) as records,
        common.Progress(arguments.progress, len(paths)) as progress,
    ):
        names = output_names(paths, arguments.format, _taken_names(records.done.values()))

        def to_do() -> Iterator[_Item]:
            for path in paths:
                digest = file_digest(path)
                done = records.done.get((str(path), digest))
                if done is not None:
                    progress.step(str(path), done.get("error"))
                else:
                    yield _Item(path, digest, folder / "pictures" / names[path])

        def lost(item: _Item) -> dict[str, Any]:
            dead = BackendFailed("every worker that had this picture died", None, "see Ray's log, or restore it alone")
            return _failure(item.path, item.digest, dead)

        if engine.name == "ray":
            done_there = on_ray(
                list(to_do()),
                partial(_cluster_worker, arguments, inputs),
                engine,
                lost=lost,
                parallel=_is_for_processors(bridge, model),
                largest_chunk=_CHUNK,
            )
        else:
            done_there = map(partial(_restore_one, bridge, inputs, arguments), to_do())
        for record in done_there:
            records.write(record)
            progress.step(record["image"]["path"], record["error"])
    common.complain("restore-bridge", progress.summary())
    if not arguments.no_report:
        common.print_path(report_from_records(records_path, folder / "report.html"))
    return common.EXIT_SOME_FAILED if progress.failures else common.EXIT_OK


@dataclass(frozen=True, slots=True)
class _Item:
    """A picture to restore."""

    path: Path
    digest: str | None
    """SHA-256 of its file."""

    target: Path
    """Where the kept picture goes; it may get another ending."""


def _restore_one(
    bridge: RestoreBridge, inputs: Sequence[Path], arguments: argparse.Namespace, item: _Item
) -> dict[str, Any]:
    """Restore and save one picture; returns its record."""
    from zoomiqa.errors import ZoomIQAError
    from zoomiqa.imaging import open_picture

    try:
        picture = open_picture(item.path, limits=bridge.limits, allow_truncated=arguments.allow_truncated)
        return _save(bridge.run(picture), picture, item.path, item.target, inputs, arguments)
    except ZoomIQAError as error:
        return _failure(item.path, item.digest, error)


def _cluster_worker(
    arguments: argparse.Namespace, inputs: Sequence[Path]
) -> Callable[[Sequence[_Item]], Iterable[dict[str, Any]]]:
    """What a worker of a cluster does with pictures; it saves them itself, into a folder shared as the inputs are."""
    from restore_bridge.prepass import describe_prepass
    from zoomiqa.batch import use_one_thread

    bridge = _bridge(arguments, common.limits_from(arguments))
    if _is_for_processors(bridge, describe_prepass(bridge.prepass).get("weights")):
        use_one_thread()
    return lambda items: [_restore_one(bridge, inputs, arguments, item) for item in items]


def _is_for_processors(bridge: RestoreBridge, prepass_weights: object) -> bool:
    """Whether one worker per core is right: no part of it is a network that wants a GPU of its own."""
    return bridge.assessor.parallel and not bridge.restorer.capabilities.generative and prepass_weights is None


def plan(arguments: argparse.Namespace) -> int:
    from zoomiqa.errors import ZoomIQAError
    from zoomiqa.imaging import open_picture

    limits = common.limits_from(arguments)
    bridge = _bridge(arguments, limits)
    plans: list[dict[str, Any]] = []
    for path in common.find_inputs(arguments.paths):
        try:
            picture = open_picture(path, limits=limits, allow_truncated=arguments.allow_truncated)
            before = next(iter(bridge.assessor.assess([picture])))
            outcome = {"error": dict(before.error)} if before.error else bridge.plan(picture, before).to_dict()
        except ZoomIQAError as error:
            outcome = {"error": error.to_dict()}
        plans.append({"path": str(path), **outcome})
    common.print_json(plans if len(plans) != 1 else plans[0])
    return common.EXIT_SOME_FAILED if any("error" in item for item in plans) else common.EXIT_OK


def output_names(
    paths: Sequence[Path], wanted: str, taken: Mapping[str, Collection[str]] | None = None
) -> dict[Path, str]:
    """A file name for each input: its own, with a few digits of its path where another input has the same.

    Args:
        paths: The inputs.
        wanted: The wanted format, one of `FORMATS`.
        taken: For each name that the folder holds already, in lower case, the inputs that it was made from.
    """
    # A kept original keeps its own ending, so with a format of choice it is the stem that must differ.
    plain = {path: path.name if wanted == "same" else f"{path.stem}.{wanted}" for path in paths}
    owners: dict[str, set[str]] = {}
    for name, of in (taken or {}).items():
        owners.setdefault(_key(name, wanted), set()).update(of)
    for path, name in plain.items():
        owners.setdefault(_key(name, wanted), set()).add(str(path))
    result = {}
    for path, name in plain.items():
        if len(owners[_key(name, wanted)]) > 1:
            mark = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:8]
            name = f"{Path(name).stem}-{mark}{Path(name).suffix}"
        result[path] = name
    return result


def _key(name: str, wanted: str) -> str:
    return (name if wanted == "same" else Path(name).stem).lower()


def _taken_names(records: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    """Names of the pictures that records speak of, each with the paths of its inputs."""
    taken: dict[str, set[str]] = {}
    for record in records:
        output = record.get("output")
        if isinstance(output, Mapping) and isinstance(output.get("path"), str):
            taken.setdefault(Path(output["path"]).name, set()).add(str((record.get("image") or {}).get("path")))
    return taken


def make_folder(path: Path) -> Path:
    """Make a folder for results, with those above it.

    Raises:
        OutputFailed: it cannot be made.
    """
    from zoomiqa.errors import OutputFailed

    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputFailed("the output folder cannot be made", path, error.strerror or "check the path") from error
    return path


def _save(
    result: BridgeResult,
    picture: Picture,
    path: Path,
    target: Path,
    inputs: Sequence[Path],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Write the kept picture and its sidecar; returns the record. No target may be one of `inputs`."""
    from restore_bridge.comparison import compare
    from zoomiqa.files import atomic_write_bytes, atomic_write_text
    from zoomiqa.imaging import open_picture, save_picture
    from zoomiqa.imaging.saving import refuse_inputs

    limits = common.limits_from(arguments)
    # What is kept is kept to the byte, but its bytes may hold what the limits forbid to pass on.
    is_copy = result.kept != "restored" and not limits.strip_private_metadata
    if is_copy:
        target = target.with_suffix(path.suffix)
        refuse_inputs(target, inputs)
        atomic_write_bytes(target, _bytes_of(path))
    else:
        save_picture(
            result.picture,
            target,
            source=picture,
            overwrite=True,
            quality=arguments.quality,
            protected=inputs,
            limits=limits,
        )
    pristine = None if arguments.reference is None else reference_for(path, arguments.reference)
    reference = None if pristine is None else open_picture(pristine, limits=limits)
    after = result.picture if result.kept == "restored" else picture
    rated = result.after if result.kept == "restored" and result.after else result.before
    scores = compare(picture, after, reference=reference, assessments=(result.before, rated))
    record = {
        **result.to_dict(),
        "output": {"path": f"pictures/{target.name}", "sha256": _digest(target), "size": list(after.size)},
        "scores": [row.to_dict() for row in scores],
    }
    sidecar = target.with_name(target.name + ".zoomiqa.json")
    atomic_write_text(sidecar, json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return record


def _bytes_of(path: Path) -> bytes:
    from zoomiqa.errors import ImageUnreadable

    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageUnreadable("the picture cannot be read again", path, error.strerror or "check the file") from error


def references(paths: Sequence[Path], folder: Path | None) -> list[Path]:
    """The pristine pictures that there are of these."""
    return [] if folder is None else [found for path in paths if (found := reference_for(path, folder))]


def reference_for(path: Path, folder: Path) -> Path | None:
    """The pristine picture of the same name, or of the same stem; `None` where there is none."""
    exact = folder / path.name
    return exact if exact.exists() else next(iter(sorted(folder.glob(f"{glob.escape(path.stem)}.*"))), None)


def _digest(path: Path) -> str | None:
    from zoomiqa.batch import file_digest

    return file_digest(path)


def _failure(path: Path, digest: str | None, error: Any) -> dict[str, Any]:
    from restore_bridge.bridge import SCHEMA_VERSION

    failure: Mapping[str, str] = error.to_dict()
    return {
        "schema_version": SCHEMA_VERSION,
        "image": {"path": str(path), "sha256": digest, "width": 0, "height": 0, "format": None},
        "kept": None,
        "chosen": None,
        "standing": {"before": None, "after": None},
        "reason": failure["message"],
        "before": None,
        "after": None,
        "prepass": None,
        "rounds": [],
        "candidates": [],
        "settings": None,
        "notes": [],
        "error": failure,
        "output": None,
        "scores": [],
    }
