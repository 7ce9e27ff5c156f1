"""Motion blur: what the spectrum tells of it, what undoing it gives back, and what is no motion."""

import numpy as np
import pytest
from skimage import data

from restore_bridge.guidance import split_text
from restore_bridge.restorers import load_restorer
from restore_bridge.restorers.operations import motion
from restore_bridge.restorers.operations.noise import noise_level, to_planes
from restore_bridge.restorers.operations.sharpness import luminance
from restore_bridge.scoring import psnr
from zoomiqa import picture_from_array
from zoomiqa.imaging.distortions import DISTORTIONS

PHOTOS = {"astronaut": data.astronaut()[:, :480], "coffee": data.coffee()[:384, :512]}


def spoiled(pixels, *steps, seed=1):
    """`pixels` under some distortions by name and parameter, and the angle of the last motion in degrees."""
    rng, angle = np.random.default_rng(seed), None
    for name, parameter in steps:
        changed, detail = DISTORTIONS[name].operation(np.ascontiguousarray(pixels), parameter, rng)
        pixels = np.clip(np.rint(changed), 0, 255).astype(np.uint8)
        angle = float(detail.removesuffix("°")) if name == "motion_blur" else angle
    return pixels, angle


def found_in(pixels):
    scaled = pixels.astype(np.float32) / 255
    return motion.find(luminance(scaled), float(noise_level(to_planes(scaled))[0]))


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize("length", [4, 7, 12, 20, 30])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_motion_is_found_and_undone(photo, length, seed):
    pixels, angle = spoiled(PHOTOS[photo], ("motion_blur", length), seed=seed)
    found = found_in(pixels)
    assert found is not None
    assert abs((found.angle - angle + 90) % 180 - 90) <= 3
    assert found.length == pytest.approx(length, rel=0.1)
    restored = motion.undo(pixels.astype(np.float32) / 255, found)
    restored = np.clip(np.rint(restored * 255), 0, 255).astype(np.uint8)
    assert psnr(restored, PHOTOS[photo]) > psnr(pixels, PHOTOS[photo]) + 1.5


@pytest.mark.parametrize(
    "steps",
    [
        (),
        (("gaussian_blur", 0.8),),
        (("gaussian_blur", 1.5),),
        (("gaussian_blur", 3),),
        (("low_resolution", 2.5),),
        (("gaussian_noise", 10),),
        (("gaussian_noise", 40),),
        (("jpeg", 50),),
        (("jpeg", 10),),
        (("gaussian_blur", 2), ("jpeg", 30)),
        (("gaussian_blur", 1), ("gaussian_noise", 15)),
    ],
)
@pytest.mark.parametrize("photo", PHOTOS)
def test_other_damage_is_no_motion(photo, steps):
    assert found_in(spoiled(PHOTOS[photo], *steps)[0]) is None


@pytest.mark.parametrize("size", [(1, 1), (40, 300), (64, 64), (65, 200)])
def test_small_and_flat_pictures_have_none(size):
    assert found_in(np.full((*size, 3), 90, np.uint8)) is None
    noise = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert found_in(noise) is None


def test_after_a_camera_saved_it():
    """As it is met in use: at a high quality the stripes stay."""
    pixels, angle = spoiled(PHOTOS["astronaut"], ("motion_blur", 10), ("jpeg", 90))
    found = found_in(pixels)
    assert found is not None
    assert abs((found.angle - angle + 90) % 180 - 90) <= 3


@pytest.mark.parametrize("name", ["classical", "compact"])
def test_restorers_undo_it_where_it_is_named(name):
    clean = PHOTOS["coffee"]
    pixels, angle = spoiled(clean, ("motion_blur", 9))
    picture, restorer = picture_from_array(pixels), load_restorer(name)
    restored = restorer.restore(picture, split_text(None, "Severe motion blur."))
    assert psnr(restored.picture.pixels, clean) > psnr(pixels, clean) + 3
    amount = restored.steps[0]["amount"]
    assert abs((amount["angle"] - angle + 90) % 180 - 90) <= 3
    assert amount["length_px"] == pytest.approx(9, rel=0.1)
    part = restorer.restore(picture, split_text(None, "Severe motion blur on the left side.")).picture.pixels
    right = slice(3 * pixels.shape[1] // 4, None)
    assert np.array_equal(part[:, right], pixels[:, right])
    left = slice(20, pixels.shape[1] // 4)
    assert psnr(part[20:-20, left], clean[20:-20, left]) > psnr(pixels[20:-20, left], clean[20:-20, left]) + 1.5


def test_noise_that_nobody_named_is_not_calmed_beside():
    clean = PHOTOS["coffee"]
    pixels, _ = spoiled(clean, ("motion_blur", 9), ("gaussian_noise", 12))
    picture, restorer = picture_from_array(pixels), load_restorer("classical")
    alone = restorer.restore(picture, split_text(None, "Severe motion blur."))
    assert np.array_equal(alone.picture.pixels, pixels)
    assert [note.code for note in alone.notes] == ["classical-not-measured"]
