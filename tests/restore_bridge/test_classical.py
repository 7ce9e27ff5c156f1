"""The embedded restorer gains on real photographs for the flaw that the guidance names, and only there."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from restore_bridge.guidance import split_text
from restore_bridge.restorers import load_restorer
from restore_bridge.scoring import psnr, ssim
from zoomiqa.imaging.picture import picture_from_array

PHOTOS = [np.ascontiguousarray(photo[:256, 60:380]) for photo in (data.astronaut(), data.coffee(), data.chelsea())]


def _coded(values):
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)


def _noise(photo, sigma):
    return _coded(photo / 255 + np.random.default_rng(1).normal(0, sigma / 255, photo.shape))


def _blur(photo, sigma):
    return _coded(cv2.GaussianBlur(photo / 255, (0, 0), sigma, borderType=cv2.BORDER_REFLECT))


def _jpeg(photo, quality):
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _gains(photo, gains):
    """Scale linear light."""
    return _coded(np.clip((photo / 255) ** 2.2 * np.array(gains), 0, 1) ** (1 / 2.2))


def _restore(pixels, issues):
    return load_restorer("classical").restore(picture_from_array(pixels), split_text(None, issues)).picture.pixels


@pytest.mark.parametrize(
    ("issues", "damage"),
    [
        ("Slight noise.", lambda photo: _noise(photo, 10)),
        ("Severe noise.", lambda photo: _noise(photo, 30)),
        ("Slight blur.", lambda photo: _blur(photo, 1)),
        ("Severe blur.", lambda photo: _blur(photo, 2.5)),
        ("Slight JPEG blocking.", lambda photo: _jpeg(photo, 35)),
        ("Severe JPEG blocking.", lambda photo: _jpeg(photo, 10)),
        ("Slight underexposure.", lambda photo: _gains(photo, 0.5)),
        ("Severe underexposure.", lambda photo: _gains(photo, 0.12)),
        ("A strong green cast.", lambda photo: _gains(photo, (0.65, 1.5, 0.65))),
        ("A strong red cast.", lambda photo: _gains(photo, (1.5, 0.65, 0.65))),
        ("Severe lack of contrast.", lambda photo: _coded(0.5 + (photo / 255 - 0.5) * 0.4)),
        ("Severe haze.", lambda photo: _coded(photo / 255 * 0.45 + 0.9 * 0.55)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_named_flaw_is_repaired(issues, damage):
    damaged = [damage(photo) for photo in PHOTOS]
    restored = [_restore(picture, issues) for picture in damaged]
    for metric in (psnr, ssim):
        before = np.mean([metric(picture, photo) for picture, photo in zip(damaged, PHOTOS, strict=True)])
        after = np.mean([metric(picture, photo) for picture, photo in zip(restored, PHOTOS, strict=True)])
        assert after > before


def test_acts_only_where_the_guidance_points():
    damaged = _noise(PHOTOS[0], 25)
    restored = _restore(damaged, "Severe noise in the upper left.")
    height, width = damaged.shape[:2]
    outside = np.ones((height, width), bool)
    outside[: int(height * 0.4) + 1, : int(width * 0.4) + 1] = False
    assert np.array_equal(restored[outside], damaged[outside])
    inside = (slice(0, int(height * 0.35)), slice(0, int(width * 0.35)))
    assert psnr(restored[inside], PHOTOS[0][inside]) > psnr(damaged[inside], PHOTOS[0][inside]) + 4


def test_stronger_words_do_more():
    damaged = _gains(PHOTOS[1], 0.12)
    means = [_restore(damaged, f"{word} underexposure.").mean() for word in ("Slight", "Moderate", "Severe")]
    assert damaged.mean() < means[0] < means[1] < means[2]


def test_a_flaw_that_is_named_but_absent_is_left_alone_and_reported():
    calm = np.full((64, 64, 3), 120, np.uint8)
    result = load_restorer("classical").restore(picture_from_array(calm), split_text(None, "Severe noise."))
    assert np.array_equal(result.picture.pixels, calm)
    assert [note.code for note in result.notes] == ["classical-not-measured"]


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (9, 8), (17, 33)])
def test_tiny_pictures(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    issues = (
        "Severe blur. Severe noise. Severe blocking. Haze. Banding. Underexposure. Overexposure. Low contrast. Dull colours. "  # noqa: E501
        "A yellow cast. Low resolution. Ringing. Oversharpening. Severe noise in the lower right. Motion blur."
    )
    assert _restore(pixels, issues).shape == pixels.shape
