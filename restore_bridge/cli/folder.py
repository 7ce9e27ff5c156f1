"""An output folder of `run` and `watch`.

It holds `pictures/` (the kept picture of each input, under its own name), a sidecar beside each, `records.jsonl`, and
`report.html`. What is in it is done and is skipped; so it can be filled in several goes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_bridge.cli.names import (
    PICTURES,
    check_references,
    find_references,
    make_folder,
    open_reference,
    output_names,
    taken_names,
)
from restore_bridge.cli.report import report_from_records
from restore_bridge.cli.restoration import bridge_from
from zoomiqa.cli import common
from zoomiqa.cli.engine import engine_from

if TYPE_CHECKING:
    from restore_bridge.bridge import RestoreBridge
    from restore_bridge.results import BridgeResult
    from zoomiqa.imaging import Picture
    from zoomiqa.limits import Limits

FORMATS = ("same", "png", "jpg", "webp", "tif")

_CHUNK = 4
"""Pictures given at once to a worker of a cluster."""


def add_output_options(parser: argparse.ArgumentParser) -> Any:
    """Options on what is written; returns their group."""
    output: Any = parser.add_argument_group("output")
    output.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for pictures, records and report"
    )
    output.add_argument("--format", choices=FORMATS, default="same", help="format of restored pictures (default: same)")
    output.add_argument("--quality", type=int, default=95, help="quality of JPEG and WebP, 1 to 100 (default: 95)")
    output.add_argument(
        "--reference",
        type=Path,
        metavar="DIR",
        help="pristine pictures of the same names; full-reference scores against them are added",
    )
    output.add_argument("--xmp", action="store_true", help="an XMP sidecar beside each kept picture, for photo editors")
    output.add_argument(
        "--xmp-rating", action="store_true", help="like --xmp, and set the stars (xmp:Rating) to the rating"
    )
    output.add_argument(
        "--strip",
        choices=("none", "place", "private"),
        default="none",
        help="leave out of every written picture: nothing, where it was taken (GPS, names of places), or all that is"
        " private, such as names, serial numbers and descriptions (default: none)",
    )
    add_retry_option(output)
    output.add_argument("--no-report", action="store_true", help="do not write report.html")
    common.add_progress_option(output)
    return output


def add_retry_option(parser: Any) -> None:
    """Whether what failed before is done again."""
    parser.add_argument(
        "--retry-failed", action="store_true", help="do again what failed earlier; without it, failures are skipped"
    )


def limits_from(arguments: argparse.Namespace) -> Limits:
    """The limits that the options describe, with what they strip."""
    limits = common.limits_from(arguments)
    if arguments.strip == "place":
        return replace(limits, strip_position=True)
    return replace(limits, strip_private_metadata=True) if arguments.strip == "private" else limits


class OutputFolder:
    """Restores picture files into a folder.

    Args:
        arguments: The parsed options of `run` or `watch`.
        words: The files, folders and patterns that are restored.

    Raises:
        ZoomIQAError: an option cannot be used; nothing is written then.
    """

    def __init__(self, arguments: argparse.Namespace, words: Sequence[str]) -> None:
        from restore_bridge.prepass import describe_prepass
        from zoomiqa.errors import OptionInvalid

        self._arguments, self._words = arguments, words
        self._engine = engine_from(arguments)
        limits = limits_from(arguments)
        self._bridge = bridge_from(arguments, limits)
        self._bridge.check_ready()
        if not 1 <= arguments.quality <= 100:
            raise OptionInvalid("--quality must lie in 1..100", arguments.quality, "95 is the default")
        check_references(arguments.reference)
        # Unusable weights stop here, before anything is written.
        self._model = describe_prepass(self._bridge.prepass).get("weights")
        self.path = make_folder(arguments.out / PICTURES).parent
        self._settings = {
            **self._bridge.settings.to_dict(),
            "prepass_model": self._model,
            "assessor": self._bridge.assessor.info.to_dict(),
            "format": arguments.format,
            "quality": arguments.quality,
            "limits": {"pixels": limits.pixels, "strip": arguments.strip, "profile": arguments.profile},
            "allow_truncated": arguments.allow_truncated,
        }

    def add(self, paths: Sequence[Path], *, overwrite: bool = False) -> common.Progress:
        """Restore these files, but for those that are done.

        Returns:
            How it went.
        """
        from zoomiqa.batch import file_digest
        from zoomiqa.errors import BackendFailed
        from zoomiqa.records import RecordFile
        from zoomiqa.scale import on_ray

        arguments, bridge = self._arguments, self._bridge
        references = find_references(paths, self._words, arguments.reference)
        inputs = [*paths, *references.values()]
        with (
            RecordFile(
                self.path / "records.jsonl", self._settings, resume=not overwrite, overwrite=overwrite
            ) as records,
            common.Progress(arguments.progress, len(paths)) as progress,
        ):
            names = output_names(paths, arguments.format, taken_names(records.done.values()))

            def to_do() -> Iterator[_Item]:
                for path in paths:
                    digest = file_digest(path)
                    done = records.done.get((str(path), digest))
                    if done is not None and not (arguments.retry_failed and done["error"]):
                        progress.step(str(path), done["error"])
                    else:
                        yield _Item(path, digest, self.path / PICTURES / names[path], references.get(path))

            def lost(item: _Item) -> dict[str, Any]:
                dead = BackendFailed(
                    "every worker that had this picture died", None, "see Ray's log, or restore it alone"
                )
                return _failure(item.path, item.digest, dead)

            if self._engine.name == "ray":
                done_there = on_ray(
                    list(to_do()),
                    partial(_cluster_worker, arguments, inputs),
                    self._engine,
                    lost=lost,
                    parallel=_is_for_processors(bridge, self._model),
                    largest_chunk=_CHUNK,
                )
            else:
                done_there = map(partial(_restore_one, bridge, inputs, arguments), to_do())
            for record in done_there:
                records.write(record)
                progress.step(record["image"]["path"], record["error"])
        return progress

    def write_report(self) -> Path:
        """The page on all that the folder holds."""
        return report_from_records(self.path / "records.jsonl", self.path / "report.html")


@dataclass(frozen=True, slots=True)
class _Item:
    """A picture to restore."""

    path: Path
    digest: str | None
    """SHA-256 of its file."""

    target: Path
    """Where the kept picture goes; it may get another ending."""

    reference: Path | None
    """The pristine picture."""


def _restore_one(
    bridge: RestoreBridge, inputs: Sequence[Path], arguments: argparse.Namespace, item: _Item
) -> dict[str, Any]:
    """Restore and save one picture; returns its record."""
    from zoomiqa.errors import ZoomIQAError
    from zoomiqa.imaging import open_picture

    try:
        picture = open_picture(item.path, limits=bridge.limits, allow_truncated=arguments.allow_truncated)
        return _save(bridge.run(picture), picture, item, inputs, arguments)
    except ZoomIQAError as error:
        return _failure(item.path, item.digest, error)


def _cluster_worker(
    arguments: argparse.Namespace, inputs: Sequence[Path]
) -> Callable[[Sequence[_Item]], Iterable[dict[str, Any]]]:
    """What a worker of a cluster does with pictures; it saves them itself, into a folder shared as the inputs are."""
    from restore_bridge.prepass import describe_prepass
    from zoomiqa.batch import use_one_thread

    bridge = bridge_from(arguments, limits_from(arguments))
    if _is_for_processors(bridge, describe_prepass(bridge.prepass).get("weights")):
        use_one_thread()
    return lambda items: [_restore_one(bridge, inputs, arguments, item) for item in items]


def _is_for_processors(bridge: RestoreBridge, prepass_weights: object) -> bool:
    """Whether one worker per core is right: no part of it is a network that wants a GPU of its own."""
    return bridge.assessor.parallel and not bridge.restorer.capabilities.generative and prepass_weights is None


def _save(
    result: BridgeResult, picture: Picture, item: _Item, inputs: Sequence[Path], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Write the kept picture and its sidecar; returns the record. No target may be one of `inputs`."""
    from restore_bridge.comparison import compare
    from zoomiqa.batch import file_digest
    from zoomiqa.files import atomic_write_bytes, atomic_write_text, refuse_inputs
    from zoomiqa.imaging import open_picture, save_picture
    from zoomiqa.sidecars import write_sidecar

    limits, target = limits_from(arguments), item.target
    # What is kept is kept to the byte, but its bytes may hold what the limits forbid to pass on.
    is_copy = result.kept != "restored" and not limits.strips
    if is_copy:
        target = target.with_suffix(item.path.suffix)
        refuse_inputs([target], inputs)
        atomic_write_bytes(target, _bytes_of(item.path))
    else:
        save_picture(
            result.picture,
            target,
            overwrite=True,
            quality=arguments.quality,
            protected=inputs,
            limits=limits,
        )
    reference, notes = open_reference(item.reference, partial(open_picture, limits=limits))
    after = result.picture if result.kept == "restored" else picture
    rated = result.after if result.kept == "restored" and result.after else result.before
    scores = compare(picture, after, reference=reference, assessments=(result.before, rated))
    if (arguments.xmp or arguments.xmp_rating) and rated.rating is not None:
        write_sidecar(rated, target, stars=arguments.xmp_rating)
    told = result.to_dict()
    record = {
        **told,
        "notes": [*told["notes"], *(note.to_dict() for note in notes)],
        "output": {"path": f"{PICTURES}/{target.name}", "sha256": file_digest(target), "size": list(after.size)},
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


def _failure(path: Path, digest: str | None, error: Any) -> dict[str, Any]:
    from restore_bridge.results import SCHEMA_VERSION

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
