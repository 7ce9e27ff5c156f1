"""`restore-bridge run` and `plan`: restore files, folders and patterns, or say what would be done.

An output folder holds `pictures/` (the kept picture of each input, under its own name), a sidecar beside each,
`records.jsonl`, and `report.html`.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_bridge.cli.report import report_from_records
from zoomiqa.cli import common

if TYPE_CHECKING:
    from restore_bridge.bridge import BridgeResult, BridgeSettings
    from zoomiqa.imaging import Picture

_EXAMPLES = """
examples:
  restore-bridge run photo.jpg --out restored
  restore-bridge run photos/ --out restored --candidates 4
  restore-bridge run old/*.jpg --out restored --restorer realesrgan --scale 2 --prompt "family portrait"
"""
FORMATS = ("same", "png", "jpg", "webp", "tif")


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


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="picture files, folders (searched through), or patterns"
    )
    how = parser.add_argument_group("restoration")
    how.add_argument("--assessor", default="compact", help="who judges; see `zoomiqa plugins` (default: compact)")
    how.add_argument(
        "--restorer",
        default="classical",
        help="who restores: identity, classical, realesrgan, or a plug-in (default: classical)",
    )
    how.add_argument(
        "--prepass", default="none", help="what runs before the restorer: none or classical (default: none)"
    )
    how.add_argument("--candidates", type=int, default=2, metavar="N", help="restorations tried, 1 to 16 (default: 2)")
    how.add_argument(
        "--strength", type=float, default=1.0, help="multiplies what the guidance asks for, above 0 to 1 (default: 1)"
    )
    how.add_argument("--scale", type=int, default=1, help="enlargement, 1 to 4 (default: 1)")
    how.add_argument("--seed", type=int, default=42, help="seed of every draw (default: 42)")
    how.add_argument("--prompt", help="your own words on the wanted picture; they come first and are never dropped")
    how.add_argument("--negative", help="your own words on what to avoid; likewise")
    how.add_argument(
        "--color-fix",
        choices=("none", "adain", "wavelet"),
        default="none",
        help="hold the colour to the picture after the pre-pass (default: none, as white balance may be what is asked)",
    )
    how.add_argument(
        "--min-gain", type=float, default=0.0, help="rating points a candidate must gain to be kept (default: 0)"
    )
    how.add_argument(
        "--min-consistency", type=float, default=0.8, help="least agreement with the input, 0 to 1 (default: 0.8)"
    )


def _settings(arguments: argparse.Namespace) -> BridgeSettings:
    from restore_bridge.bridge import BridgeSettings

    return BridgeSettings(
        restorer=arguments.restorer,
        prepass=arguments.prepass,
        candidates=arguments.candidates,
        seed=arguments.seed,
        strength=arguments.strength,
        scale=arguments.scale,
        color_fix=arguments.color_fix,
        prompt=arguments.prompt,
        negative=arguments.negative,
        min_gain=arguments.min_gain,
        min_consistency=arguments.min_consistency,
    )


def run(arguments: argparse.Namespace) -> int:
    from restore_bridge.bridge import RestoreBridge
    from zoomiqa.batch import file_digest
    from zoomiqa.errors import ZoomIQAError
    from zoomiqa.imaging import open_picture
    from zoomiqa.records import RecordFile

    limits = common.limits_from(arguments)
    bridge = RestoreBridge(arguments.assessor, _settings(arguments), limits=limits)
    paths = common.find_inputs(arguments.paths)
    inputs = [*paths, *_references(paths, arguments.reference)]
    folder = _make_folder(arguments.out)
    settings = {
        **bridge.settings.to_dict(),
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
        for path in paths:
            digest = file_digest(path)
            done = records.done.get((str(path), digest))
            if done is not None:
                progress.step(str(path), done.get("error"))
                continue
            try:
                picture = open_picture(path, limits=limits, allow_truncated=arguments.allow_truncated)
                result = bridge.run(picture)
                record = _save(result, picture, path, folder / "pictures" / names[path], inputs, arguments)
            except ZoomIQAError as error:
                record = _failure(path, digest, error)
            records.write(record)
            progress.step(str(path), record["error"])
    common.complain("restore-bridge", progress.summary())
    if not arguments.no_report:
        common.print_path(report_from_records(records_path, folder / "report.html"))
    return common.EXIT_SOME_FAILED if progress.failures else common.EXIT_OK


def plan(arguments: argparse.Namespace) -> int:
    from restore_bridge.bridge import RestoreBridge
    from zoomiqa.errors import ZoomIQAError
    from zoomiqa.imaging import open_picture

    limits = common.limits_from(arguments)
    bridge = RestoreBridge(arguments.assessor, _settings(arguments), limits=limits)
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


def _make_folder(path: Path) -> Path:
    from zoomiqa.errors import OutputFailed

    try:
        (path / "pictures").mkdir(parents=True, exist_ok=True)
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
    pristine = None if arguments.reference is None else _reference_for(path, arguments.reference)
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


def _references(paths: Sequence[Path], folder: Path | None) -> list[Path]:
    return [] if folder is None else [found for path in paths if (found := _reference_for(path, folder))]


def _reference_for(path: Path, folder: Path) -> Path | None:
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
        "guidance": None,
        "prompts": None,
        "candidates": [],
        "settings": None,
        "notes": [],
        "error": failure,
        "output": None,
        "scores": [],
    }
