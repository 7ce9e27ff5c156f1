"""Tables for spreadsheets: no cell of a stranger's becomes a formula. It must not know what the cells say."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""First characters that make spreadsheets read a cell as a formula (OWASP, "CSV Injection"), also in full width."""


def safe_cell(value: object) -> str:
    """A cell as text. A text that could be a formula gets an apostrophe before it; numbers stay numbers."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    text = "" if value is None else str(value)
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    return "'" + text if text.lstrip(" \n\u00a0\u200b").startswith(_FORMULA) or text.startswith(_FORMULA) else text


def to_csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV (RFC 4180), every cell safe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([safe_cell(name) for name in head])
    writer.writerows([safe_cell(value) for value in row] for row in rows)
    return out.getvalue()
