"""Label files into labels: one small reader per form. It must not know where the pictures are.

A label is refused rather than guessed: a cell that is no number, a name that is a path, a picture named twice, a value
outside the published range.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from zoomiqa.errors import OptionInvalid
from zoomiqa.evaluation.datasets.specs import DatasetSpec, LabelForm, Reader, Scale
from zoomiqa.evaluation.datasets.tables import Row, matlab_values, sheet_rows, text_rows
from zoomiqa.files import printable

_HEADER_WITHIN = 20
"""Lines of a workbook in which its header is looked for; CSIQ's stands in the fourth."""

_CSIQ_TOKENS = {
    "noise": "AWGN",
    "blur": "BLUR",
    "contrast": "contrast",
    "fnoise": "fnoise",
    "jpeg": "JPEG",
    "jpeg 2000": "jpeg2000",
}
"""Words for distortions in CSIQ's workbook, and in its file names."""


@dataclass(frozen=True, slots=True)
class Label:
    """What people said of one picture, in the units of the label file."""

    name: str
    """The picture's bare file name."""

    mos: float
    where: str
    """File and line, for messages."""

    std: float | None = None
    split: str | None = None
    attributes: Mapping[str, float] = field(default_factory=dict)
    """By our names for them."""


@dataclass(frozen=True, slots=True)
class LabelSource:
    """The label files that were chosen."""

    form: LabelForm
    files: tuple[tuple[Path, str | None], ...]
    """Each with the split that all its rows belong to."""

    missing: tuple[str, ...] = ()
    """Files that the form has and the source lacks."""

    @property
    def all_files(self) -> list[Path]:
        """The label files and what is read along with them."""
        beside = [path.with_name(name) for path, _ in self.files for name in self.form.beside]
        return [*(path for path, _ in self.files), *(path for path in beside if os.path.isfile(path))]


def find_labels(spec: DatasetSpec, root: Path) -> LabelSource:
    """The labels in a download: the best form of which a file is there.

    Raises:
        OptionInvalid: there are none.
    """
    for form in spec.forms:
        files: list[tuple[Path, str | None]] = []
        missing = []
        for wanted in form.files:
            found = next((matches for pattern in wanted.patterns if (matches := sorted(root.glob(pattern)))), [])
            files += [(path, wanted.split) for path in found]
            missing += [] if found else [wanted.patterns[0]]
        if files:
            return LabelSource(form, tuple(files), tuple(missing))
    looked_for = "; ".join(wanted.patterns[0] for form in spec.forms for wanted in form.files)
    raise OptionInvalid(
        f"there is no label file of {spec.title} in the source folder (looked for {looked_for})",
        printable(str(root)),
        "give the folder that the authors' archive unpacks to, or pass --labels FILE",
    )


def recognise_labels(spec: DatasetSpec, paths: Sequence[Path]) -> LabelSource:
    """The form of label files that the caller names, by their columns or else their names.

    Raises:
        OptionInvalid: a file has no known form, or the files have different ones.
    """
    recognised = [_recognise(spec, path) for path in paths]
    form = recognised[0][0]
    for other, _ in recognised:
        if other is not form:
            raise OptionInvalid("the label files have different forms", f"{form.title}; {other.title}", "give one form")
    return LabelSource(form, tuple((path, split) for path, (_, split) in zip(paths, recognised, strict=True)))


def read_labels(source: LabelSource) -> list[Label]:
    """Every label of the chosen files, in their order.

    Raises:
        OptionInvalid: a file is damaged or of another form, a cell holds no number or one outside the published range,
            a name is a path, or a picture is named twice.
        ExtraMissing: a workbook without openpyxl.
    """
    form = source.form
    read = _READERS[form.reader]
    labels: list[Label] = []
    seen: dict[str, str] = {}
    for path, split in source.files:
        for label in read(path, form, split):
            if label.name in form.left_out:
                continue
            if label.name in seen:
                raise OptionInvalid(
                    f"{label.where} names a picture again", printable(label.name), f"first in {seen[label.name]}"
                )
            seen[label.name] = label.where
            _check_range(label.mos, form.scale, form.columns.mos, label.where)
            labels.append(label)
    return labels


def _recognise(spec: DatasetSpec, path: Path) -> tuple[LabelForm, str | None]:
    basename = path.name.removesuffix(".gz")
    by_name = [
        (form, wanted.split)
        for form in spec.forms
        for wanted in form.files
        if any(fnmatchcase(basename, PurePosixPath(pattern).name) for pattern in wanted.patterns)
    ]
    if path.suffix != ".mat" and not any(form.reader == "csiq_workbook" for form, _ in by_name):
        first = next(iter(_rows(path, ",")), None)
        columns = set(first.cells) if first else set()
        # Forms may share their columns: of those, the one whose file has this name comes first.
        for form, split in [*by_name, *((form, None) for form in spec.forms)]:
            if form.reader == "table" and not form.header and columns.issuperset(form.columns.needed):
                return form, split
    for form, split in by_name:
        if form.reader != "table" or form.header:
            return form, split
    known = "; ".join(form.title for form in spec.forms)
    raise OptionInvalid(f"the label file has no form that {spec.title} is known in", printable(path.name), known)


def _rows(path: Path, delimiter: str | None) -> Iterator[Row]:
    return sheet_rows(path) if path.suffix.lower() == ".xlsx" else text_rows(path, delimiter)


def _read_table(path: Path, form: LabelForm, split: str | None) -> Iterator[Label]:
    rows = _rows(path, form.delimiter)
    header = form.header
    if not header:
        first = next(rows, None)
        if first is None:
            raise OptionInvalid("the label file is empty", printable(path.name), "download it again")
        header = first.cells
    places = {column: _place(header, column, path) for column in form.columns.needed}
    for row in rows:
        yield _label(row, form, split, {column: _get(row, place) for column, place in places.items()})


def _read_tid_text(path: Path, form: LabelForm, split: str | None) -> Iterator[Label]:
    """MOS and name on a line; the standard deviations, in the same order, are a file of their own."""
    labels = list(_read_table(path, form, split))
    beside = path.with_name(form.beside[0])
    if not os.path.isfile(beside):
        yield from labels
        return
    deviations = [_number(row.cells[0], "standard deviation", row.where) for row in text_rows(beside, None)]
    _check_lengths({path.name: len(labels), beside.name: len(deviations)})
    for label, std in zip(labels, deviations, strict=True):
        yield Label(label.name, label.mos, label.where, std, label.split)


def _read_csiq_workbook(path: Path, form: LabelForm, split: str | None) -> Iterator[Label]:
    """A row has the reference's name, the distortion's and its level, which make up the picture's name."""
    rows = sheet_rows(path, "all_by_image")
    needed = ("image", "dst_type", "dst_lev", "dmos", "dmos_std")
    header = next((row.cells for row in rows if row.number > _HEADER_WITHIN or {"image", "dmos"} <= set(row.cells)), ())
    places = {column: _place(header, column, path) for column in needed}
    for row in rows:
        cells = {column: _get(row, place) for column, place in places.items()}
        if not any(cells.values()):
            continue  # remarks beside the table
        token = _CSIQ_TOKENS.get(cells["dst_type"])
        if token is None:
            raise OptionInvalid(f"{row.where} has an unknown distortion", cells["dst_type"], "mend the label file")
        name = f"{cells['image']}.{token}.{cells['dst_lev']}.png"
        yield _label(row, form, split, {**cells, form.columns.name: name})


def _read_live_matlab(path: Path, form: LabelForm, split: str | None) -> Iterator[Label]:
    """Names, MOS and standard deviations are files of their own, of one order."""
    columns = form.columns
    variables = (columns.name, columns.mos, columns.std or "")
    names, scores, deviations = (matlab_values(path.with_name(f"{name}.mat"), name) for name in variables)
    _check_lengths({columns.name: len(names), columns.mos: len(scores), str(columns.std): len(deviations)})
    for number, (name, mos, std) in enumerate(zip(names, scores, deviations, strict=True), start=1):
        where = f"{printable(path.name)}, value {number}"
        yield Label(
            _bare_name(str(name), where, is_path=False),
            _number(str(mos), columns.mos, where),
            where,
            _deviation(str(std), str(columns.std), where),
            split,
        )


_READERS: dict[Reader, Callable[[Path, LabelForm, str | None], Iterator[Label]]] = {
    "table": _read_table,
    "tid_text": _read_tid_text,
    "csiq_workbook": _read_csiq_workbook,
    "live_matlab": _read_live_matlab,
}


def _label(row: Row, form: LabelForm, split: str | None, cells: Mapping[str, str]) -> Label:
    columns = form.columns
    attributes = {}
    for attribute in columns.attributes:
        value = _number(cells[attribute.column], attribute.column, row.where)
        _check_range(value, attribute.scale, attribute.column, row.where)
        attributes[attribute.name] = value
    return Label(
        name=_bare_name(cells[columns.name], row.where, is_path=form.names_are_paths),
        mos=_number(cells[columns.mos], columns.mos, row.where),
        where=row.where,
        std=None if columns.std is None else _deviation(cells[columns.std], columns.std, row.where),
        split=split if columns.split is None else _split(cells[columns.split], form, row.where),
        attributes=attributes,
    )


def _place(header: Sequence[str], column: str, path: Path) -> int:
    count = list(header).count(column)
    if count != 1:
        what = "lacks the column" if count == 0 else "has more than one column"
        seen = ", ".join(filter(None, header)) or "none"
        raise OptionInvalid(f"{printable(path.name)} {what} {column!r}", printable(seen), "is it the right file?")
    return list(header).index(column)


def _get(row: Row, place: int) -> str:
    if place >= len(row.cells):
        raise OptionInvalid(f"{row.where} is too short", f"{len(row.cells)} cells", "mend the label file")
    return row.cells[place]


def _number(text: str, column: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    # Python takes "1_0" and "nan" for numbers; in a label file they are damage.
    if not math.isfinite(value) or "_" in text:
        raise OptionInvalid(f"{where}: {column} is no number", printable(text) or "nothing", "mend the label file")
    return value


def _deviation(text: str, column: str, where: str) -> float:
    value = _number(text, column, where)
    if value < 0:
        raise OptionInvalid(f"{where}: {column} is below zero", text, "mend the label file")
    return value


def _split(word: str, form: LabelForm, where: str) -> str:
    try:
        return form.split_names[word]
    except KeyError:
        raise OptionInvalid(
            f"{where} has an unknown split", printable(word) or "nothing", f"known: {', '.join(form.split_names)}"
        ) from None


def _bare_name(text: str, where: str, *, is_path: bool) -> str:
    """A picture's file name, with no way out of the folder that it will be looked for in."""
    parts = text.split("/") if is_path else [text]
    if any(part in ("", ".", "..") or re.search(r"[/\\:\0]", part) for part in parts):
        raise OptionInvalid(f"{where} names no plain picture file", printable(text) or "nothing", "mend the label file")
    return parts[-1]


def _check_range(value: float, scale: Scale, column: str, where: str) -> None:
    if not scale.covers(value):
        raise OptionInvalid(
            f"{where}: {column} is outside the published {scale.low:g}..{scale.high:g}",
            value,
            "is it another version of the set?",
        )


def _check_lengths(lengths: Mapping[str, int]) -> None:
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in lengths.items())
        raise OptionInvalid("label files of one set have different lengths", counts, "download them again")
