"""The one door for untrusted picture files. It must not know prompts, models or records.

Everything that enters the project as a file, as bytes or as a binary stream comes through `open_picture`, which either
gives a `Picture` (uint8 sRGB, upright, on white) with a `Note` for each correction, or raises an `ImageError`.
Pillow is imported inside the functions: importing this package is cheap.

Source: Pillow 13 source and documentation; the modules name what else they rely on.
"""

from zoomiqa.imaging.opening.door import open_picture
from zoomiqa.imaging.opening.finding import find_pictures
from zoomiqa.imaging.opening.formats import SUFFIXES
from zoomiqa.imaging.opening.gate import PILLOW_GATE
from zoomiqa.imaging.opening.source import Source

__all__ = ["PILLOW_GATE", "SUFFIXES", "Source", "find_pictures", "open_picture"]
