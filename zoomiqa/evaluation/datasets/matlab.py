"""Numbers and cells of text out of MATLAB files of version 5 to 7.2. It must not know what they mean.

SciPy reads all that such a file can hold, and ends the whole process on some damaged ones (measured with SciPy 1.17: a
segmentation fault within some hundred files of one to four changed bytes). This one reads what label files hold, and
checks each length. Source of the layout: MathWorks, "MAT-File Format".
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

HEADER_BYTES = 128

_NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
"""Types of data elements that hold numbers, with their letters of the `struct` module."""

_ORDERS = {b"\0\1IM": "<", b"\1\0MI": ">"}
"""Version (7.3 is HDF5 and has 2) and byte order at the end of the header, with the letter of the `struct` module."""

_MATRIX, _COMPRESSED, _UTF8, _UTF16, _UTF32 = 14, 15, 16, 17, 18
_ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", _UTF8: "utf-8", _UTF16: "utf-16", _UTF32: "utf-32"}
_CELL, _CHAR = 1, 4
_NUMERIC = range(6, 16)
"""Classes of arrays: double and single precision, and whole numbers of 8 to 64 bits."""

_COMPLEX = 0x0800


class MatlabError(ValueError):
    """The bytes are no such file, or one that holds more than numbers and cells of text."""


@dataclass(frozen=True, slots=True)
class _Array:
    kind: int
    """Class of the array."""

    count: int
    """Of its elements, the product of its dimensions."""

    rows: int
    name: str
    parts: Iterator[tuple[int, bytes]]
    """The data elements after the name."""


class _Format:
    """The byte order that a file is written in, and how its elements follow each other."""

    def __init__(self, data: bytes) -> None:
        try:
            self.order = _ORDERS[data[HEADER_BYTES - 4 : HEADER_BYTES]]
        except KeyError:
            raise MatlabError("no MATLAB file of version 5 to 7.2") from None

    def elements(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Type and content of each data element in `data`."""
        place = 0
        while place < len(data):
            if place + 8 > len(data):
                raise MatlabError("an element is cut short")
            kind, size = self._numbers(data[place : place + 8], "I")
            if kind >> 16:  # a small element: type and size share four bytes, the content has the other four
                kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
                end = place + 8
                if size > 4:
                    raise MatlabError("a small element is too long")
            else:
                start = place + 8
                end = start + size + (0 if kind == _COMPRESSED else -size % 8)
            if start + size > len(data):
                raise MatlabError("an element is cut short")
            yield kind, data[start : start + size]
            place = end

    def matrices(self, data: bytes, limit_bytes: int) -> Iterator[bytes]:
        """The arrays in `data`, unpacked where they are packed."""
        for kind, content in self.elements(data):
            if kind == _COMPRESSED:
                kind, content = _next(self.elements(_unpack(content, limit_bytes)))
            if kind == _MATRIX:
                yield content

    def array(self, content: bytes) -> _Array:
        """The head of an array, and its parts."""
        parts = self.elements(content)
        flags = self._numbers(_next(parts)[1], "I")[0]
        if flags & _COMPLEX:
            raise MatlabError("complex numbers")
        dimensions = self._numbers(_next(parts)[1], "i")
        if len(dimensions) < 2 or min(dimensions) < 0:
            raise MatlabError("an array without dimensions")
        name = _next(parts)[1].decode("ascii")
        return _Array(flags & 0xFF, math.prod(dimensions), dimensions[0], name, parts)

    def values(self, array: _Array) -> list[float] | list[str]:
        """The values of an array in column order."""
        if array.kind in _NUMERIC:
            return self._floats(array)
        if array.kind == _CELL:
            return self._texts(array)
        raise MatlabError("neither numbers nor cells of text")

    def _floats(self, array: _Array) -> list[float]:
        kind, content = _next(array.parts)
        if kind not in _NUMBERS:
            raise MatlabError("numbers of an unknown type")
        numbers = [float(number) for number in self._numbers(content, _NUMBERS[kind])]
        return _counted(numbers, array.count)

    def _texts(self, array: _Array) -> list[str]:
        texts = []
        for kind, content in array.parts:
            cell = self.array(content) if kind == _MATRIX else None
            if cell is None or cell.kind != _CHAR or cell.rows != 1:
                raise MatlabError("a cell without a line of text")
            kind, letters = _next(cell.parts)
            if kind not in _ENCODINGS:
                raise MatlabError("text of an unknown type")
            encoding = _ENCODINGS[kind]
            if encoding in ("utf-16", "utf-32"):
                encoding += "-le" if self.order == "<" else "-be"
            texts.append(letters.decode(encoding))
        return _counted(texts, array.count)

    def _numbers(self, content: bytes, letter: str) -> tuple[int, ...]:
        count, rest = divmod(len(content), struct.calcsize(f"={letter}"))
        if rest or not count:
            raise MatlabError("an element is cut short")
        return struct.unpack(f"{self.order}{count}{letter}", content)


def read_variable(data: bytes, variable: str, limit_bytes: int) -> list[float] | list[str] | None:
    """The values of one variable, in column order.

    Args:
        data: The file's content.
        variable: Its name.
        limit_bytes: Most bytes that a packed part may unpack to.

    Returns:
        Numbers for a numeric array, texts for an array of cells; `None` where the file has no such variable.

    Raises:
        MatlabError: it is no such file, or the variable is something else.
    """
    layout = _Format(data)
    try:
        for content in layout.matrices(data[HEADER_BYTES:], limit_bytes):
            array = layout.array(content)
            if array.name == variable:
                return layout.values(array)
    except UnicodeDecodeError as error:
        raise MatlabError("text that cannot be decoded") from error
    return None


def _unpack(content: bytes, limit_bytes: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(content, limit_bytes)
    except zlib.error as error:
        raise MatlabError("a packed part is damaged") from error
    if not unpacker.eof:
        raise MatlabError("a packed part is cut short or too large")
    return unpacked


def _next(parts: Iterator[tuple[int, bytes]]) -> tuple[int, bytes]:
    part = next(parts, None)
    if part is None:
        raise MatlabError("an array is cut short")
    return part


def _counted(values: list[T], count: int) -> list[T]:
    if len(values) != count:
        raise MatlabError("an array has not as many values as it says")
    return values
