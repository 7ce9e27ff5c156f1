"""Resource limits for untrusted input. It must not know what the limits are applied to.

Two profiles: `LOCAL` for a person's own files, `SERVER` for strangers' uploads. Figures follow the common defaults of
image servers (imgproxy: 50 Mpx source) and the vision tool-chain (qwen_vl_utils: aspect ratio at most 200).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from zoomiqa.errors import OptionInvalid


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a single request may cost. Every figure is inclusive."""

    pixels: int = 50_000_000
    """Pixels of a source picture (width × height), checked from the header before decoding."""

    result_pixels: int = 100_000_000
    """Pixels of a restored picture (source × scale²), checked before a model is loaded."""

    file_bytes: int = 64 * 2**20
    """Bytes of a picture file."""

    metadata_bytes: int = 2**20
    """Bytes of one metadata block (ICC profile, EXIF, XMP, or a text chunk)."""

    side_px: int = 32_768
    """Longest side of a picture."""

    aspect_ratio: float = 200.0
    """Longer side divided by the shorter one."""

    reply_characters: int = 32_000
    """Length of a model's reply; what comes after it is cut with a note."""

    prompt_characters: int = 2_000
    """Length of one prompt of a restorer."""

    strip_position: bool = False
    """Whether coordinates and names of the place are dropped from every saved picture."""

    strip_private_metadata: bool = False
    """Whether position, serial numbers, owner names and thumbnails are dropped from every saved picture."""

    @property
    def strips(self) -> bool:
        """Whether a picture must be written anew even where its pixels stay."""
        return self.strip_position or self.strip_private_metadata

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not field.name.startswith("strip_") and not value > 0:
                raise OptionInvalid(f"limit {field.name!r} must be positive", value, "give a number above zero")


LOCAL = Limits()
"""A person's own files."""

SERVER = Limits(file_bytes=32 * 2**20, result_pixels=64_000_000, strip_private_metadata=True)
"""Uploads from strangers. A request can tighten it, never loosen it."""

PROFILES = {"local": LOCAL, "server": SERVER}
