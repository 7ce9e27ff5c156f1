"""The command: photos in; pictures, masks, tasks and trajectories out. It must not know how any of them is made.

`samples.jsonl` is the journal: a line is written when its pictures are on the disk, and holds the sample's truth, tasks
and trajectory. The other files are made of it at the end, as one step each, so that a run may be killed at any moment.
"""

from __future__ import annotations

import argparse
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoomiqa import __version__
from zoomiqa.assessors.compact import CompactBackend
from zoomiqa.batch import OpenOptions, file_digest
from zoomiqa.cli import common
from zoomiqa.errors import ImageNotFound, OptionInvalid, OutputFailed, ZoomIQAError
from zoomiqa.files import atomic_write_bytes, atomic_write_text
from zoomiqa.imaging import encode_picture, find_pictures
from zoomiqa.imaging.distortions import DISTORTIONS
from zoomiqa.limits import Limits
from zoomiqa.protocol import default_prompts
from zoomiqa.records import RecordFile, fingerprint, to_line
from zoomiqa.types import AssessorInfo, ImageInfo

from ..curation.trajectories import replay, trajectory_record  # noqa: TID252 - in a wheel it is zoomiqa.training
from .card import card_of, page_of
from .masks import FloatArray
from .perception import perception_rows
from .samples import Mix, Photo, Sample, draw_sample
from .teacher import MeasuredTeacher

PROG = "synthesis"
SCHEMA_VERSION = "synthesis-1.0"
SUFFIXES = {"png": ".png", "jpeg": ".jpg"}
JPEG_QUALITY = 98
"""High, as compression is one of the distortions."""

_SAMPLES, _PERCEPTION, _TRAJECTORIES = "samples.jsonl", "perception.jsonl", "trajectories.jsonl"


def build_parser() -> common.Parser:
    """The command's grammar."""
    parser = common.Parser(
        prog=f"python -m {__package__}",
        description="Make distorted photos with masks, perception tasks and trajectories, all with known truth.",
    )
    parser.add_argument("photos", nargs="+", metavar="PHOTOS", help="clean photographs: files, folders, patterns")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for everything made")
    parser.add_argument("--count", type=int, required=True, metavar="N", help="samples in all")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of every draw (default: 0)")
    mix = Mix()
    parser.add_argument(
        "--side",
        type=int,
        default=mix.side,
        metavar="PX",
        help=f"longest side; larger photos shrink (default: {mix.side})",
    )
    parser.add_argument(
        "--local-share",
        type=float,
        default=mix.local_share,
        metavar="SHARE",
        help=f"samples distorted in one place (default: {mix.local_share:g})",
    )
    parser.add_argument(
        "--clean-share",
        type=float,
        default=mix.clean_share,
        metavar="SHARE",
        help=f"samples without distortion; the rest are distorted everywhere (default: {mix.clean_share:g})",
    )
    parser.add_argument(
        "--distortions", nargs="+", default=list(DISTORTIONS), metavar="NAME", help=f"of {', '.join(DISTORTIONS)}"
    )
    parser.add_argument(
        "--format", choices=tuple(SUFFIXES), default="png", help=f"of pictures; jpeg has quality {JPEG_QUALITY}"
    )
    parser.add_argument("--resume", action="store_true", help="go on with DIR, also to a greater N")
    parser.add_argument("--overwrite", action="store_true", help="replace what was made in DIR")
    common.add_progress_option(parser)
    common.add_limit_options(parser)
    parser.set_defaults(command=synthesize)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = build_parser().parse_args(argv)
    return common.run(arguments.command, arguments, PROG)


def synthesize(arguments: argparse.Namespace) -> int:
    """Make what is missing and write the files that are made of the journal."""
    common.at_least_one("--count", arguments.count)
    if arguments.seed < 0:
        raise OptionInvalid("--seed must be 0 or more", arguments.seed, "choose another seed")
    limits = common.limits_from(arguments)
    mix = Mix(arguments.side, arguments.local_share, arguments.clean_share, tuple(arguments.distortions))
    options = OpenOptions(limits=limits, allow_truncated=arguments.allow_truncated)
    photos = gather_photos(arguments.photos, limits)
    _make_folders(arguments.out)
    settings = {
        "schema_version": SCHEMA_VERSION,
        "seed": arguments.seed,
        "mix": mix.to_dict(),
        "format": arguments.format,
        "allow_truncated": arguments.allow_truncated,
        "photos": fingerprint({"photos": [[photo.name, photo.sha256] for photo in photos]}),
        "ratings": f"compact {CompactBackend.capabilities.version}",
        "prompts": {"name": default_prompts().name, "hash": default_prompts().digest},
    }
    maker = _Maker(arguments.out, arguments.seed, photos, mix, arguments.format, options, MeasuredTeacher())
    with (
        RecordFile(
            arguments.out / _SAMPLES,
            settings,
            resume=arguments.resume,
            overwrite=arguments.overwrite,
            protected=[photo.path for photo in photos],
            key=lambda record: record["index"],
        ) as journal,
        common.Progress(
            arguments.progress, sum(index not in journal.done for index in range(arguments.count)), "samples"
        ) as progress,
    ):
        for index in range(arguments.count):
            if index in journal.done:
                progress.add_earlier(journal.done[index]["error"])
                continue
            record = maker.make(index)
            journal.write(record)
            progress.step(record["id"], record["error"])
        records = [journal.done[index] for index in range(arguments.count)]
    write_sets(arguments.out, records, settings)
    common.complain(PROG, f"{progress.summary()}; see {arguments.out / 'README.md'}")
    return common.EXIT_SOME_FAILED if progress.failures else common.EXIT_OK


def gather_photos(words: Sequence[str], limits: Limits) -> list[Photo]:
    """The photographs that `words` name, with names that do not depend on where their folder is.

    Raises:
        ImageNotFound: there is none, or one cannot be read.
    """
    photos = []
    for word in words:
        base = Path(word) if Path(word).is_dir() else None
        for path in find_pictures([word]):
            name = path.relative_to(base).as_posix() if base else path.name
            digest = file_digest(path, limit_bytes=limits.file_bytes)
            if digest is None:
                raise ImageNotFound("a photo cannot be read", path, "leave it out")
            photos.append(Photo(path, name, digest))
    # One picture under two names would come twice as often.
    return list({photo.sha256: photo for photo in reversed(photos)}.values())[::-1]


def _make_folders(out: Path) -> None:
    try:
        for folder in ("pictures", "masks"):
            (out / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputFailed("the output folder cannot be made", out, error.strerror or "check its name") from error


@dataclass(frozen=True)
class _Maker:
    """Makes one sample after the other and writes their pictures."""

    out: Path
    seed: int
    photos: Sequence[Photo]
    mix: Mix
    format: str
    options: OpenOptions
    teacher: MeasuredTeacher

    def make(self, index: int) -> dict[str, Any]:
        """The journal's record of a sample; its pictures are on the disk when this returns."""
        sample_id = f"s{index:06d}"
        try:
            sample = draw_sample(index, self.seed, self.photos, self.mix, self.options)
        except ZoomIQAError as error:
            return {"index": index, "id": sample_id, "error": error.to_dict()}
        image = self._write(sample, sample_id)
        mask = None
        if sample.mask is not None:
            mask = f"masks/{sample_id}.png"
            atomic_write_bytes(self.out / mask, _grey_png(sample.mask))
        words = np.random.default_rng([self.seed, 3, index])
        tasks = perception_rows(sample_id, image["path"], sample.truth, words)
        return {
            "index": index,
            "id": sample_id,
            "error": None,
            "image": image,
            "mask": mask,
            "photo": {"name": sample.photo.name, "sha256": sample.photo.sha256},
            "truth": sample.truth.to_dict(),
            "perception": tasks,
            "trajectory": self._trajectory(sample, sample_id, image, words),
        }

    def _write(self, sample: Sample, sample_id: str) -> dict[str, Any]:
        suffix = SUFFIXES[self.format]
        data = encode_picture(sample.pixels, suffix, quality=JPEG_QUALITY)
        path = f"pictures/{sample_id}{suffix}"
        atomic_write_bytes(self.out / path, data)
        height, width = sample.pixels.shape[:2]
        info = ImageInfo(path, hashlib.sha256(data).hexdigest(), width, height, self.format.upper())
        return info.to_dict()

    def _trajectory(
        self, sample: Sample, sample_id: str, image: Mapping[str, Any], rng: np.random.Generator
    ) -> dict[str, Any]:
        written = self.teacher.write(sample, rng)
        prompts = default_prompts()
        question = prompts.choose_question(int(rng.integers(2**31)))
        # Read back by the one parser, strictly: what it refuses is not written.
        assessment, _ = replay(written.replies, (image["width"], image["height"]), question, prompts=prompts)
        info = AssessorInfo(
            "measured-teacher", SCHEMA_VERSION,
            "Known distortions in prepared phrases; ratings by the compact assessor.", prompts.name, prompts.digest,
        )  # fmt: skip
        named = replace(assessment, image=ImageInfo(**image), assessor=info)
        return {**trajectory_record(named, sample_id, dataset="synthesis"), "case": written.case}


def _grey_png(mask: FloatArray) -> bytes:
    """Weights of 0..1 as an 8-bit grey PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.round(mask * 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_sets(out: Path, records: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
    """The two data sets and their card, made of the journal."""
    made = [record for record in records if record["error"] is None]
    rows = [task for record in made for task in record["perception"]]
    trajectories = [record["trajectory"] for record in made]
    _write_rows(out / _PERCEPTION, rows)
    _write_rows(out / _TRAJECTORIES, trajectories)
    card = card_of(records, settings, version=__version__)
    atomic_write_bytes(out / "card.json", to_line(card))
    atomic_write_text(out / "README.md", page_of(card))


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    atomic_write_bytes(path, lambda file: [file.write(to_line(row)) for row in rows])
