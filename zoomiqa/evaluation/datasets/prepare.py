"""A downloaded data set into annotation files and a card. It must not know the columns of any label file.

Everything is read and checked before the first file is written; the card, which holds the digests of the annotation
files, is written last. No file holds a time or an absolute path: the same download gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoomiqa.errors import OptionInvalid, OutputFailed, OutputWouldOverwrite
from zoomiqa.evaluation.datasets.card import make_card
from zoomiqa.evaluation.datasets.completeness import Located, check_labels, has_splits, locate
from zoomiqa.evaluation.datasets.labels import find_labels, read_labels, recognise_labels
from zoomiqa.evaluation.datasets.pictures import PictureFolders
from zoomiqa.evaluation.datasets.specs import DatasetSpec, LabelForm
from zoomiqa.files import atomic_write_text, printable

_UNPACK = {".zip": "unzip {} -d FOLDER", ".rar": "unrar x {} FOLDER/", ".7z": "7z x {} -oFOLDER"}

_DECIMALS = 6
"""Of ratings and deviations in the files: far below what raters can tell apart."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `prepare_dataset` wrote."""

    files: tuple[Path, ...]
    """The whole set first, then its splits, the card last."""

    card: Mapping[str, Any]


def prepare_dataset(
    spec: DatasetSpec,
    source: str | Path,
    out: str | Path,
    *,
    labels: Sequence[str | Path] = (),
    allow_partial: bool = False,
    overwrite: bool = False,
) -> Prepared:
    """Write annotation files for a downloaded data set: `NAME.json`, `NAME.SPLIT.json`, `NAME.card.json`.

    Args:
        spec: Which set; see `DATASETS`.
        source: The folder that the authors' archive unpacks to. It is the image root of the annotation files.
        out: The folder to write to; it is made where it is missing.
        labels: Label files in place of those in `source`.
        allow_partial: Take a set that lacks labels or pictures, with a note. Ratings keep the constants of the whole
            set: a picture has the same `gt_score` in the part.
        overwrite: Replace files of an earlier run.

    Raises:
        OptionInvalid: the source is no folder or not this set; a label file is damaged; labels or pictures are missing
            (and `allow_partial` is off), are more than were published, or belong to another version of the set.
        ExtraMissing: the labels are a workbook and openpyxl is not installed.
        OutputWouldOverwrite: a file is there and `overwrite` is off.
        OutputFailed: the folder cannot be written to.
    """
    root, out = Path(source), Path(out)
    _check_source(root)
    found = recognise_labels(spec, [Path(path) for path in labels]) if labels else find_labels(spec, root)
    everything = read_labels(found)
    pictures = PictureFolders(root, spec.pictures, "pictures")
    pristine = PictureFolders(root, spec.references, "pristine pictures") if spec.references else None
    notes = check_labels(spec, found, everything, pictures)
    located, absent = locate(spec, everything, pictures, pristine)
    notes += absent
    if notes and not allow_partial:
        raise OptionInvalid(
            f"{spec.title} is not complete: {'; '.join(notes)}", None, "complete it, or pass --allow-partial"
        )
    entries = [_entry(spec, found.form, each) for each in located]
    parts = {spec.name: entries}
    if has_splits(spec, everything):
        for split in spec.splits:
            parts[f"{spec.name}.{split}"] = [entry for entry in entries if entry["split"] == split]
    parts = {stem: part for stem, part in parts.items() if part}
    texts = {f"{stem}.json": _to_text(part) for stem, part in parts.items()}
    card = make_card(spec, found, everything, located, root)
    card["files"] = [
        {"file": f"{stem}.json", "count": len(part), "sha256": _digest(texts[f"{stem}.json"])}
        for stem, part in parts.items()
    ]
    card["notes"] = [*notes, *_leftovers(spec, out, texts)]
    texts[f"{spec.name}.card.json"] = json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return Prepared(_write(out, texts, overwrite), card)


def _check_source(source: Path) -> None:
    if os.path.isdir(source):
        return
    shown = printable(str(source))
    if not os.path.exists(source):
        raise OptionInvalid("there is no source folder", shown, "give the folder that the authors' archive unpacks to")
    command = _UNPACK.get(source.suffix.lower(), "tar -xf {} -C FOLDER").format(printable(source.name))
    raise OptionInvalid("the source is a file, not a folder", shown, f"unpack it first ({command}) and give FOLDER")


def _entry(spec: DatasetSpec, form: LabelForm, each: Located) -> dict[str, Any]:
    """One row of an annotation file; what the set does not publish is left out."""
    label = each.label
    attributes = {
        attribute.name: round(attribute.scale.rating(label.attributes[attribute.name]), _DECIMALS)
        for attribute in form.columns.attributes
    }
    entry = {
        "id": f"{spec.name}:{label.name}",
        "image": each.path,
        "gt_score": round(form.scale.rating(label.mos), _DECIMALS),
        "mos": label.mos,
        "std": None if label.std is None else round(form.scale.spread(label.std * form.std_unit), _DECIMALS),
        "dataset": spec.name,
        "split": label.split,
        "subset": spec.subset_of(label.name),
        "reference": each.reference,
        "attributes": attributes or None,
    }
    return {key: value for key, value in entry.items() if value is not None}


def _to_text(entries: Sequence[Mapping[str, Any]]) -> str:
    """A JSON list with an entry on each line."""
    lines = (json.dumps(entry, ensure_ascii=False, allow_nan=False) for entry in entries)
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _leftovers(spec: DatasetSpec, out: Path, texts: Mapping[str, str]) -> list[str]:
    """Notes on split files of an earlier run that this one does not replace."""
    names = (f"{spec.name}.{split}.json" for split in spec.splits)
    return [f"{name} is of an earlier run" for name in names if name not in texts and os.path.lexists(out / name)]


def _write(out: Path, texts: Mapping[str, str], overwrite: bool) -> tuple[Path, ...]:
    targets = {out / name: text for name, text in texts.items()}
    for target in targets:
        if not overwrite and os.path.lexists(target):
            raise OutputWouldOverwrite(
                "the target exists", printable(str(target)), "choose another folder or pass --overwrite"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL inside the name
        reason = error.strerror if isinstance(error, OSError) else None
        raise OutputFailed(
            "the target folder cannot be made", printable(str(out)), reason or "choose another name"
        ) from error
    return tuple(atomic_write_text(target, text, overwrite=overwrite) for target, text in targets.items())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
