"""Where the shared photographs and papers are, for tests that use them and must run without them."""

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("ZOOMIQA_SHARED") or Path(__file__).resolve().parents[1].parent / "shared")


def need(relative: str) -> Path:
    """The shared file or folder, or a skip that says what is missing."""
    path = ROOT / relative
    if not path.exists():
        pytest.skip(f"needs {relative} of the shared data; set ZOOMIQA_SHARED to its folder")
    return path
