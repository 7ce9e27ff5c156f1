"""Whether a source holds the whole published set, and what it lacks. It must not read or write a file.

Too little can be allowed, and is then noted. Too much, or other numbers than the published ones, is another version of
the set: that is refused whatever is allowed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zoomiqa.errors import OptionInvalid
from zoomiqa.evaluation.datasets.labels import Label, LabelSource
from zoomiqa.evaluation.datasets.pictures import PictureFolders
from zoomiqa.evaluation.datasets.specs import DatasetSpec, Scale
from zoomiqa.files import printable

_SHOWN = 3
"""Names shown of a longer list."""


@dataclass(frozen=True, slots=True)
class Located:
    """A label whose picture is there."""

    label: Label
    path: str
    """Relative to the source folder, with forward slashes."""

    reference: str | None
    """The pristine picture's, in a full-reference set."""


def has_splits(spec: DatasetSpec, labels: Sequence[Label]) -> bool:
    """Whether the label files say which split each picture belongs to."""
    return bool(spec.splits) and all(label.split is not None for label in labels)


def check_labels(spec: DatasetSpec, found: LabelSource, labels: Sequence[Label], pictures: PictureFolders) -> list[str]:
    """What is missing of the published labels, as sentences; none where they are complete.

    Raises:
        OptionInvalid: there are none, more than were published, or others.
    """
    count = len(labels)
    if count == 0:
        raise OptionInvalid("the label files hold no labels", printable(found.files[0][0].name), "download them again")
    if count > spec.total:
        raise OptionInvalid(
            f"{spec.title} has {spec.total} labelled pictures, the label files more",
            count,
            "is it another version of the set?",
        )
    counts = Counter(label.split for label in labels) if has_splits(spec, labels) else None
    if count == spec.total:
        _check_extremes(spec, found.form.scale, labels)
        if counts is not None and dict(counts) != dict(spec.splits):
            raise OptionInvalid(
                f"the splits of {spec.title} should be {_shares(spec.splits)}",
                _shares(counts),
                "is it another version of the set?",
            )
        return []
    sentence = f"{spec.total} labels expected, {count} found, {spec.total - count} missing"
    if counts is not None:
        sentence += f" ({', '.join(f'{split} {counts[split]} of {total}' for split, total in spec.splits.items())})"
    if found.missing:
        sentence += f" (there is no {' and no '.join(found.missing)})"
    if unlabelled := _without_label(spec, labels, pictures):
        sentence += f"; without a label: {_some(unlabelled)}"
    return [sentence]


def locate(
    spec: DatasetSpec, labels: Sequence[Label], pictures: PictureFolders, pristine: PictureFolders | None
) -> tuple[list[Located], list[str]]:
    """The labels whose pictures are there, and what is missing, as sentences.

    Args:
        spec: The set.
        labels: Its labels.
        pictures: Where its pictures are.
        pristine: Where the pristine ones are, in a full-reference set.

    Raises:
        OptionInvalid: no picture is there, or a name is not one of this set's.
    """
    located: list[Located] = []
    absent: list[str] = []
    absent_pristine: set[str] = set()
    for label in labels:
        path = pictures.find(label.name)
        if path is None:
            absent.append(label.name)
            continue
        reference = None
        if pristine is not None:
            name = spec.pristine_name(label.name)
            if name is None:
                raise OptionInvalid(
                    f"{label.where} has no picture name of {spec.title}", printable(label.name), "mend the label file"
                )
            reference = pristine.find(name)
            absent_pristine |= {name} if reference is None else set()
        located.append(Located(label, path, reference))
    if not located:
        folders = ", ".join(printable(folder.name) for folder in pictures.folders[:_SHOWN])
        raise OptionInvalid(f"none of {spec.title}'s pictures is in its folder", folders, "is it the right set?")
    sentences = []
    if absent:
        sentences.append(
            f"{len(labels)} pictures expected, {len(located)} found, {len(absent)} missing: {_some(absent)}"
        )
    if absent_pristine:
        sentences.append(f"{len(absent_pristine)} pristine pictures missing: {_some(sorted(absent_pristine))}")
    return located, sentences


def _check_extremes(spec: DatasetSpec, scale: Scale, labels: Sequence[Label]) -> None:
    low, high = min(label.mos for label in labels), max(label.mos for label in labels)
    if scale.is_observed and (abs(low - scale.low) > scale.slack or abs(high - scale.high) > scale.slack):
        raise OptionInvalid(
            f"the labels of {spec.title} should run from {scale.low:g} to {scale.high:g}",
            f"{low:g} to {high:g}",
            "is it another version of the set?",
        )


def _without_label(spec: DatasetSpec, labels: Sequence[Label], pictures: PictureFolders) -> list[str]:
    labelled = {path for label in labels if (path := pictures.find(label.name))}
    pristine = {name.casefold() for label in labels if (name := spec.pristine_name(label.name))}
    return [name for name in pictures.others(labelled) if name.casefold() not in pristine]


def _shares(counts: Mapping[str, int] | Counter[str | None]) -> str:
    return ", ".join(f"{split} {count}" for split, count in counts.items())


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
