"""Tables of cells out of untrusted label files. It must not know what a column means.

Text is UTF-8 (a byte order mark and either line end are fine), packed with gzip or not. What a file may unpack to is
limited, so that a small damaged or hostile one cannot fill the memory.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoomiqa.errors import ExtraMissing, OptionInvalid
from zoomiqa.evaluation.datasets.matlab import MatlabError, read_variable
from zoomiqa.files import printable

_BYTES = 64 * 1024 * 1024
"""Most bytes of a label file, unpacked; the largest known one has 2 MB."""

_ROWS, _COLUMNS = 100_000, 64
"""What is read of a workbook's sheet; the largest known one has 11,126 rows."""


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of one line, without white space around them."""

    file: str
    number: int
    """Of the line in its file, from 1."""

    cells: tuple[str, ...]

    @property
    def where(self) -> str:
        return f"{self.file}, line {self.number}"


def text_rows(path: Path, delimiter: str | None) -> Iterator[Row]:
    """The rows of a text table that hold anything.

    Args:
        path: A text file, packed with gzip or not.
        delimiter: `None` for any run of white space.

    Raises:
        OptionInvalid: it cannot be read, is too large, or is not UTF-8 text.
    """
    name = printable(path.name)
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OptionInvalid(
            "the label file is not UTF-8 text", f"{name}, byte {error.start}", "save it as UTF-8"
        ) from None
    for number, cells in _plain_lines(text) if delimiter is None else _csv_lines(text, name, delimiter):
        stripped = tuple(cell.strip() for cell in cells)
        if any(stripped):
            yield Row(name, number, stripped)


def sheet_rows(path: Path, sheet: str | None = None) -> Iterator[Row]:
    """The rows of a workbook's sheet that hold anything; whole numbers come without a fraction.

    Args:
        path: An `.xlsx` file.
        sheet: Its name; `None` for the first one.

    Raises:
        ExtraMissing: openpyxl is not installed.
        OptionInvalid: it cannot be read, is too large, or lacks the sheet.
    """
    name = printable(path.name)
    try:
        openpyxl: Any = importlib.import_module("openpyxl")
    except ImportError:
        raise ExtraMissing("a workbook of labels needs openpyxl", name, "pip install openpyxl") from None
    data = io.BytesIO(read_bytes(path))
    try:
        with zipfile.ZipFile(data) as archive:
            unpacked = sum(item.file_size for item in archive.infolist())
        if unpacked > _BYTES:
            raise OptionInvalid("the workbook is too large", f"{name} with {unpacked} bytes", "is it the right file?")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Workbook contains no default style", module="openpyxl")
            book = openpyxl.load_workbook(data, read_only=True, data_only=True)
        page = _sheet(book, sheet, name)
        page.reset_dimensions()  # what the file says of its own size is not to be trusted
        cells = page.iter_rows(max_row=_ROWS, max_col=_COLUMNS, values_only=True)
        rows = [tuple(_cell(value) for value in row) for row in cells]
        book.close()
    except OptionInvalid:
        raise
    except Exception as error:
        # openpyxl passes on whatever zipfile, the XML parser and its own classes raise on a damaged file.
        raise OptionInvalid(
            "the workbook cannot be read", name, f"{type(error).__name__}; download it again"
        ) from error
    for number, cells in enumerate(rows, start=1):
        if any(cells):
            yield Row(name, number, cells)


def matlab_values(path: Path, variable: str) -> list[float] | list[str]:
    """The values of a MATLAB file's variable, numbers or texts, in order.

    Raises:
        OptionInvalid: it cannot be read, or has no such variable.
    """
    name = printable(path.name)
    try:
        values = read_variable(read_bytes(path), variable, _BYTES)
    except MatlabError as error:
        raise OptionInvalid("the MATLAB file cannot be read", name, f"{error}; download it again") from error
    if values is None:
        raise OptionInvalid("the MATLAB file lacks a variable", f"{variable} in {name}", "is it the right file?")
    return values


def read_bytes(path: Path) -> bytes:
    """A label file's content, unpacked where it is packed with gzip.

    Raises:
        OptionInvalid: it cannot be read, is damaged, or is too large.
    """
    name = printable(path.name)
    try:
        with open(path, "rb") as file:
            data = file.read(_BYTES + 1)
        if data[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(data)) as packed:
                data = packed.read(_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise OptionInvalid("the packed label file is damaged", name, "download it again") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL inside the name
        reason = error.strerror if isinstance(error, OSError) else None
        raise OptionInvalid("the label file cannot be read", name, reason or "check its name") from error
    if len(data) > _BYTES:
        raise OptionInvalid("the label file is too large", f"{name} with over {_BYTES} bytes", "is it the right file?")
    return data


def _plain_lines(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        yield number, line.split()


def _csv_lines(text: str, name: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise OptionInvalid("the label file is no CSV", f"{name}, line {reader.line_num}", str(error)) from error


def _sheet(book: Any, sheet: str | None, name: str) -> Any:
    if sheet is None:
        return book.worksheets[0]
    if sheet not in book.sheetnames:
        raise OptionInvalid("the workbook lacks a sheet", f"{sheet} in {name}", "is it the right file?")
    return book[sheet]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
