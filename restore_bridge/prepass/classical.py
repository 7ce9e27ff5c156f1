"""A gentle pre-pass without weights or guidance: only what can be measured with certainty, and less than all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoomiqa.imaging.picture import Picture

WORST_QUALITY = 70
"""JPEG quality up to which blocks are smoothed; better files show none."""

LEAST_SIGMA = 4.0 / 255
"""Noise from which the picture is denoised."""

SHARE = 0.85
"""Share of the measured noise that is taken out, so that texture stays for the restorer."""


class ClassicalPrepass:
    """Smooths a JPEG grid that is found, and noise that is plain to see; else hands the picture on."""

    name = "classical"

    def clean(self, picture: Picture) -> Picture:
        import numpy as np

        from restore_bridge.restorers.operations import compression, noise, sharpness

        original = np.asarray(picture.pixels, np.float32) / np.float32(255)
        pixels = original
        quality, _ = compression.find_quality(sharpness.luminance(pixels) * 255)
        if quality is not None and quality <= WORST_QUALITY:
            pixels = compression.deblock(pixels, quality, amount=0.8)
        level = noise.noise_level(noise.to_planes(pixels))
        if float(level.mean()) >= LEAST_SIGMA:
            pixels = noise.denoise(pixels, level * SHARE)
        if pixels is original:
            return picture
        return picture.with_pixels(np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8))
