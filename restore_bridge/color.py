"""Colour fix: give a restored picture the colours of a reference. It must not know who restored it.

Generative restorers drift in colour. Two cures: `adain` matches each channel's mean and spread (Huang & Belongie, ICCV
2017); `wavelet` keeps the result's detail and takes the reference's low frequencies (the à trous pyramid that StableSR
made common). Either keeps each channel's mean within 1/255 of the reference's, as far as clipping to 0..255 allows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoomiqa.errors import OptionInvalid

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COLOR_FIXES: tuple[str, ...] = ("none", "adain", "wavelet")
COLOR_FIX_CHOICES = ("auto", *COLOR_FIXES)
"""What can be asked for; `auto` is decided by the bridge, see `BridgeSettings.color_fix`."""

LEVELS = 5
"""Wavelet levels; detail up to 2^5 pixels is the result's own."""


def fix_color(pixels: NDArray[np.uint8], reference: NDArray[np.uint8], method: str = "wavelet") -> NDArray[np.uint8]:
    """Give `pixels` (H×W×3 uint8) the colours of `reference`, which is resized to the same size where it differs.

    Raises:
        OptionInvalid: `method` is none of `COLOR_FIXES`.
    """
    if method not in COLOR_FIXES:
        raise OptionInvalid("there is no colour fix of that name", method, f"choose one of {', '.join(COLOR_FIXES)}")
    if method == "none":
        return pixels
    import cv2
    import numpy as np

    if reference.shape != pixels.shape:
        smaller = reference.shape[0] > pixels.shape[0]
        size = (pixels.shape[1], pixels.shape[0])
        reference = cv2.resize(reference, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC).astype(
            np.uint8
        )
    source, aim = pixels.astype(np.float32), reference.astype(np.float32)
    if method == "adain":
        mean, spread = source.mean(axis=(0, 1)), source.std(axis=(0, 1)) + 1e-3
        fixed = (source - mean) * (aim.std(axis=(0, 1)) / spread) + aim.mean(axis=(0, 1))
    else:
        fixed = source - _low(source) + _low(aim)
    wanted = aim.mean(axis=(0, 1))
    for _ in range(4):  # clipping moves the mean; a few shifts bring it back
        fixed = fixed + (wanted - np.clip(fixed, 0, 255).mean(axis=(0, 1)))
    return np.asarray(np.clip(np.rint(fixed), 0, 255), np.uint8)


def _low(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is left after `LEVELS` steps of the B-spline à trous pyramid."""
    import cv2
    import numpy as np

    for level in range(LEVELS):
        gap = 2**level
        kernel = np.zeros(4 * gap + 1, np.float32)
        kernel[::gap] = np.array([1, 4, 6, 4, 1], np.float32) / 16
        values = np.asarray(cv2.sepFilter2D(values, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE), np.float32)
    return values
