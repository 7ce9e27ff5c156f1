"""Known distortions: documented, seeded, stronger with severity, and kept inside their box."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from zoomiqa.errors import ImageValuesInvalid, OptionInvalid
from zoomiqa.imaging.distortions import DISTORTIONS, HUES, SEVERITIES, box_of_mask, distort, soft_mask
from zoomiqa.imaging.signals import measure
from zoomiqa.vocabulary import Flaw

COFFEE = np.ascontiguousarray(data.coffee()[:200, :300])


def test_every_distortion_names_a_flaw_and_five_parameters():
    for name, entry in DISTORTIONS.items():
        assert entry.name == name
        assert isinstance(entry.flaw, Flaw)
        assert len(entry.parameters) == len(SEVERITIES)
        ordered = list(entry.parameters)
        assert ordered in (sorted(ordered), sorted(ordered, reverse=True)), name
        assert len(set(ordered)) == 5
        assert entry.operation.__doc__


def test_every_flaw_has_a_distortion():
    assert {entry.flaw for entry in DISTORTIONS.values()} == set(Flaw)


@pytest.mark.parametrize("name", DISTORTIONS)
def test_error_grows_with_severity(name):
    errors = [
        np.abs(distort(COFFEE, name, severity, seed=3).pixels.astype(float) - COFFEE).mean() for severity in SEVERITIES
    ]
    # The angle and the hue are the seed's, so that only the severity differs.
    assert errors == sorted(errors), errors
    assert errors[0] > 0


@pytest.mark.parametrize("name", DISTORTIONS)
def test_same_seed_same_bytes(name):
    one, two = distort(COFFEE, name, 3, seed=11), distort(COFFEE, name, 3, seed=11)
    assert np.array_equal(one.pixels, two.pixels)
    assert one.detail == two.detail


@pytest.mark.parametrize("name", DISTORTIONS)
def test_outside_the_box_nothing_changes(name):
    box = (0.25, 0.25, 0.75, 0.75)
    result = distort(COFFEE, name, 5, seed=1, box_fraction=box)
    outside = result.mask == 0
    assert outside.mean() > 0.6
    assert np.array_equal(result.pixels[outside], COFFEE[outside])
    assert result.box_fraction == box
    assert (result.pixels != COFFEE).any()


def test_whole_frame_mask_is_one_everywhere():
    assert (distort(COFFEE, "gaussian_blur", 1).mask == 1).all()


def test_mask_is_soft_and_monotone():
    mask = soft_mask((100, 100), (0.2, 0.2, 0.8, 0.8))
    middle = mask[50]
    assert middle[50] == 1
    assert middle[5] == 0
    assert ((middle > 0) & (middle < 1)).any()
    assert (np.diff(middle[:50]) >= 0).all()


def test_color_cast_moves_towards_its_hue():
    grey = np.full((64, 64, 3), 128, np.uint8)
    seen = set()
    for seed in range(40):
        result = distort(grey, "color_cast", 4, seed=seed)
        red, green, blue = (int(v) for v in result.pixels[0, 0])
        seen.add(result.detail)
        if result.detail == "red":
            assert red > green
            assert red > blue
        elif result.detail == "yellow":
            assert min(red, green) > blue
        elif result.detail == "cyan":
            assert min(green, blue) > red
    assert seen == set(HUES)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(DISTORTIONS)),
    st.integers(1, 5),
    st.integers(1, 24),
    st.integers(1, 24),
    st.integers(0, 2**31),
)
def test_any_size_works(name, severity, height, width, seed):
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    result = distort(rgb, name, severity, seed)
    assert result.pixels.shape == rgb.shape
    assert result.pixels.dtype == np.uint8
    assert result.mask.shape == rgb.shape[:2]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"name": "rust", "severity": 1}, OptionInvalid),
        ({"name": "jpeg", "severity": 0}, OptionInvalid),
        ({"name": "jpeg", "severity": 6}, OptionInvalid),
        ({"name": "jpeg", "severity": 1, "box_fraction": (0.5, 0, 0.5, 1)}, OptionInvalid),
        ({"name": "jpeg", "severity": 1, "box_fraction": (0, 0, 1.5, 1)}, OptionInvalid),
    ],
)
def test_wrong_options_are_refused(arguments, error):
    with pytest.raises(error):
        distort(COFFEE, **arguments)


def test_wrong_arrays_are_refused():
    for bad in (COFFEE.astype(np.float32), COFFEE[..., 0], np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ImageValuesInvalid):
            distort(bad, "jpeg", 1)


@pytest.mark.parametrize("name", DISTORTIONS)
def test_a_mask_of_any_shape_holds_the_distortion(name):
    rows, columns = np.mgrid[:200, :300]
    distance = np.hypot((columns - 150) / 90, (rows - 90) / 50)
    mask = np.clip((1.2 - distance) / 0.4, 0, 1).astype(np.float32)
    result = distort(COFFEE, name, 4, seed=2, mask=mask)
    everywhere = distort(COFFEE, name, 4, seed=2).pixels
    assert np.array_equal(result.pixels[mask == 0], COFFEE[mask == 0])
    assert np.array_equal(result.pixels[mask == 1], everywhere[mask == 1])
    assert result.box_fraction == box_of_mask(mask)
    assert result.box_fraction == pytest.approx((60 / 300, 40 / 200, 241 / 300, 141 / 200), abs=0.01)


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((200, 300), np.float32),
        np.full((200, 300), 0.4, np.float32),
        np.full((200, 300), 1.5, np.float32),
        np.full((200, 300), np.nan, np.float32),
        np.ones((200, 300)),
        np.ones((300, 200), np.float32),
    ],
)
def test_wrong_masks_are_refused(mask):
    with pytest.raises(OptionInvalid):
        distort(COFFEE, "jpeg", 3, mask=mask)


def test_a_place_is_given_once():
    with pytest.raises(OptionInvalid):
        distort(COFFEE, "jpeg", 3, box_fraction=(0, 0, 1, 1), mask=np.ones((200, 300), np.float32))


SHARP = np.ascontiguousarray(data.astronaut()[:384])


@pytest.mark.parametrize("name", DISTORTIONS)
def test_fidelity_falls_with_severity(name):
    """PSNR at every step; SSIM from end to end, as it hardly sees smooth changes of tone and colour."""
    changed = [distort(SHARP, name, severity, seed=6).pixels for severity in SEVERITIES]
    psnr = [peak_signal_noise_ratio(SHARP, pixels) for pixels in changed]
    ssim = [structural_similarity(SHARP, pixels, channel_axis=2) for pixels in changed]
    assert psnr == sorted(psnr, reverse=True), psnr
    assert ssim[0] > ssim[2] > ssim[4], ssim


SIGNAL_OF = {
    "gaussian_blur": ("resolution", -1),
    "motion_blur": ("motion_sigma", 1),
    "gaussian_noise": ("noise_sigma", 1),
    "camera_noise": ("noise_sigma", 1),
    "jpeg": ("blocking", 1),
    "ringing": ("resolution", -1),
    "banding": ("banding", 1),
    "low_light": ("luma_p50", -1),
    "overexposure": ("highlights_clipped", 1),
    "low_contrast": ("contrast_rms", -1),
    "haze": ("haze", 1),
    "color_cast": ("cast", 1),
    "desaturation": ("saturation", -1),
    "oversaturation": ("saturation", 1),
    "low_resolution": ("resolution", -1),
    "oversharpen": ("oversharp_share", 1),
}
"""Each distortion's own signal, and which way it goes."""


@pytest.mark.parametrize("name", DISTORTIONS)
def test_its_own_signal_follows_the_severity(name):
    signal, sign = SIGNAL_OF[name]
    part = np.ascontiguousarray(SHARP[:288, 128:448])
    values = [measure(distort(part, name, severity, seed=6).pixels).value(signal) for severity in (1, 3, 5)]
    assert sign * (values[1] - values[0]) > 0, values
    assert sign * (values[2] - values[1]) > 0, values


def test_operations_agree_with_other_implementations():
    values = SHARP.astype(float)
    blurred = np.stack([ndimage.gaussian_filter(values[..., c], 2.5, mode="reflect") for c in range(3)], axis=2)
    assert np.abs(distort(SHARP, "gaussian_blur", 3).pixels - blurred).max() <= 1.5
    grey = np.full((256, 256, 3), 128, np.uint8)
    assert distort(grey, "gaussian_noise", 3).pixels.std() == pytest.approx(17, rel=0.02)
    luma = np.array([0.299, 0.587, 0.114])
    faded = distort(SHARP, "desaturation", 2).pixels @ luma
    assert np.abs(faded - values @ luma).max() <= 1, "luma stays"
    flat = distort(SHARP, "low_contrast", 3).pixels
    assert (flat @ luma).std() == pytest.approx(0.4 * (values @ luma).std(), rel=0.02)
