"""Results on stdout, as bytes: a file name need not be text in any coding. It must not know what is written."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_line(record: Mapping[str, Any]) -> None:
    """One JSON object on one line."""
    from zoomiqa.records import to_line

    _write(to_line(record))


def write_document(value: Any) -> None:
    """One indented JSON document; a lone surrogate (from a name that is not UTF-8) takes its JSON form."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    _write(text.encode("utf-8", "backslashreplace"))


def write_path(path: Path) -> None:
    """A path on a line of its own, in the bytes that the file system has for it."""
    _write(os.fsencode(path) + b"\n")


def _write(data: bytes) -> None:
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:  # stdout was replaced by a text stream
        sys.stdout.write(data.decode("utf-8", "replace"))
    else:
        sys.stdout.flush()
        buffer.write(data)
    sys.stdout.flush()
