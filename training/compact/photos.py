"""Which clean photographs may be fitted on, and which are kept for measurements. It must not open them."""

from __future__ import annotations

from pathlib import Path

ODD, EVEN = 1, 0
FIT = ODD
"""The half that is fitted on; the other is kept for the benchmarks."""


def clean_photos(folder: Path, half: int) -> list[Path]:
    """The Kodak and BSDS photographs whose number in their folder is odd (1) or even (0)."""
    sets = (sorted(folder.glob("Kodak24/*.png")), sorted(folder.glob("BSDS500/**/*.jpg")))
    return [path for paths in sets for index, path in enumerate(paths, 1) if index % 2 == half]
