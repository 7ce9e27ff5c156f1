"""Colour profiles and colour modes to sRGB. It must not know files, depth or alpha.

Source: ICC.1 (profile header).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from zoomiqa.types import Note

if TYPE_CHECKING:
    from PIL import Image, ImageCms

Conversion = Callable[["Image.Image"], "Image.Image"]
"""Maps a band to "RGB" in sRGB."""

_PROFILE_TOLERANCE = 2
"""Levels of 255 by which a profile may differ from sRGB and still be taken for it (rounding of tables differs)."""


def conversion_to_srgb(mode: str, profile: object, notes: list[Note]) -> Conversion:
    """How bands of `mode` ("L", "RGB", "CMYK" or "LAB") become sRGB "RGB": by `profile` where it is sound and fits."""
    from PIL import ImageCms

    by_profile = _conversion_by_profile(mode, profile, notes) if isinstance(profile, bytes) and profile else None
    if by_profile is not None:
        return by_profile
    if mode == "LAB":
        notes.append(Note("lab-converted", "CIE L*a*b* samples were converted to sRGB."))
        return _transform(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), mode)
    if mode == "CMYK":
        notes.append(
            Note(
                "cmyk-without-profile", "CMYK without a usable profile was converted by arithmetic; colours are rough."
            )
        )
    return lambda band: band if band.mode == "RGB" else band.convert("RGB")


def _conversion_by_profile(mode: str, profile: bytes, notes: list[Note]) -> Conversion | None:
    """The conversion that `profile` asks for; `None` where it is unusable or changes nothing."""
    from PIL import Image, ImageCms

    # ICC.1 §7.2: size at 0, class at 12, colour space at 16, signature at 36.
    sound = len(profile) >= 132 and profile[36:40] == b"acsp" and int.from_bytes(profile[:4], "big") <= len(profile)
    if not sound or profile[12:16] not in (b"mntr", b"scnr", b"prtr", b"spac"):
        notes.append(Note("profile-broken", "The colour profile is not a usable one; sRGB was assumed."))
        return None
    space = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK", b"Lab ": "LAB"}.get(profile[16:20])
    if space is None or (space != mode and (space, mode) != ("RGB", "L")):
        notes.append(Note("profile-mismatched", "The colour profile is for another kind of picture; sRGB was assumed."))
        return None
    try:
        transform = _transform(ImageCms.ImageCmsProfile(io.BytesIO(profile)), space)
        if _is_identity(transform, space):
            return None
        transform(Image.new(space, (1, 1)))
    except Exception:  # PyCMSError is a plain Exception, and the profile is attacker-made
        notes.append(Note("profile-broken", "The colour profile cannot be applied; sRGB was assumed."))
        return None
    notes.append(Note("profile-converted", "The picture was converted to sRGB by its colour profile."))
    return transform if space == mode else lambda band: transform(band.convert("RGB"))


def _is_identity(transform: Conversion, mode: str) -> bool:
    """Whether `transform` leaves values where they are, tried on a cube of colours: a profile's name proves nothing."""
    from PIL import Image

    if mode not in ("L", "RGB"):
        return False
    steps = np.linspace(0, 255, 7 if mode == "RGB" else 64).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(*[steps] * len(mode), indexing="ij"), axis=-1).reshape(1, -1, len(mode))
    probe = Image.fromarray(cube if mode == "RGB" else cube[:, :, 0])
    mapped = np.asarray(transform(probe)).astype(np.int16)
    return bool(np.abs(mapped - cube).max() <= _PROFILE_TOLERANCE)


def _transform(profile: ImageCms.ImageCmsProfile, mode: str) -> Conversion:
    """From `profile` to sRGB: relative colorimetric with black point compensation, as viewers do."""
    from PIL import ImageCms

    transform = ImageCms.buildTransform(
        profile,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )

    def apply(band: Image.Image) -> Image.Image:
        result = ImageCms.applyTransform(band, transform)
        if result is None:
            raise ValueError("the profile gave no result")
        return result

    return apply
