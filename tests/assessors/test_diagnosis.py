"""The diagnosis: true to the signals, silent on clean pictures, and careful before the second look."""

import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from zoomiqa.assessors.compact.diagnosis import (
    DOUBT,
    DOUBTFUL,
    RULES,
    STRENGTHS,
    diagnose,
    overlap,
    region_of,
    severity_of,
)
from zoomiqa.imaging.distortions import distort, soft_mask
from zoomiqa.imaging.signals import SIGNALS, measure
from zoomiqa.imaging.signals.registry import Signals
from zoomiqa.vocabulary import REGIONS, Flaw, Severity

SHARED = Path(os.environ.get("ZOOMIQA_SHARED") or Path(__file__).resolve().parents[2].parent / "shared")
KODAK = SHARED / "data/photos/Kodak24"
needs_kodak = pytest.mark.skipif(not KODAK.is_dir(), reason=f"no photographs at {KODAK}")
BOX = (0.165, 0.165, 0.835, 0.835)


def view(rgb, side=352):
    scale = min(1.0, side / max(rgb.shape[:2]))
    size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
    return measure(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), scale=scale)


def crop(rgb, box):
    height, width = rgb.shape[:2]
    return measure(rgb[int(box[1] * height) : int(box[3] * height), int(box[0] * width) : int(box[2] * width)])


def both(rgb, box=BOX):
    return diagnose(view(rgb), crop(rgb, box), box)


ASTRONAUT = data.astronaut()[:384, :384]


def first_flaw(findings):
    return findings[0].flaw if findings else None


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_rules_are_ordered_and_name_real_signals(rule):
    assert rule.signal in SIGNALS
    levels = [rule.limit, rule.moderate, rule.severe, rule.extreme]
    assert levels in (sorted(levels), sorted(levels, reverse=True))
    assert [rule.strength(level) for level in levels] == pytest.approx(STRENGTHS)
    assert rule.chosen_from
    step = 1e-6 if rule.extreme > rule.limit else -1e-6
    assert rule.strength(rule.limit - step) == 0


def test_severity_words():
    words = [severity_of(strength) for strength in (0.15, 0.39, 0.40, 0.69, 0.70, 1.0)]
    assert words == [Severity.SLIGHT] * 2 + [Severity.MODERATE] * 2 + [Severity.SEVERE] * 2


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_signals_give_true_findings(draw):
    values = {
        name: draw.draw(st.none() | st.floats(info.low, min(info.high, 300.0)), label=name)
        for name, info in SIGNALS.items()
    }
    native = Signals((400, 300), 1.0, values)
    first = Signals((352, 264), 0.5, {n: None if SIGNALS[n].is_native else v for n, v in values.items()})
    for findings in (diagnose(first, native, BOX), diagnose(first), diagnose(native)):
        worths = [finding.strength - DOUBT * (finding.flaw in DOUBTFUL) for finding in findings]
        assert worths == sorted(worths, reverse=True)
        for finding in findings:
            assert 0 < finding.strength <= 1
            assert finding.severity == severity_of(finding.strength)
            assert finding.value == values[finding.signal]
            assert any(rule.limit == finding.limit and rule.signal == finding.signal for rule in RULES.values())
            assert finding.region in REGIONS
            assert math.isfinite(finding.value)


def test_nothing_to_measure_nothing_to_say():
    for shape in ((1, 1), (1, 50), (9, 9)):
        rgb = np.full((*shape, 3), 127, np.uint8)
        assert isinstance(diagnose(measure(rgb)), tuple)


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_clean_photographs_are_not_accused_of_what_only_native_pixels_show(name):
    native = {Flaw.NOISE, Flaw.BLOCKING, Flaw.BANDING, Flaw.RINGING, Flaw.OVERSHARPENING}
    assert not native & {finding.flaw for finding in both(getattr(data, name)())}


@pytest.mark.parametrize(
    ("distortion", "flaw"),
    [
        ("gaussian_blur", Flaw.BLUR),
        ("gaussian_noise", Flaw.NOISE),
        ("camera_noise", Flaw.NOISE),
        ("jpeg", Flaw.BLOCKING),
        ("low_light", Flaw.UNDEREXPOSURE),
        ("haze", Flaw.HAZE),
    ],
)
@pytest.mark.parametrize("severity", [3, 5])
def test_known_distortions_are_named_first(distortion, flaw, severity):
    findings = both(distort(data.astronaut(), distortion, severity, seed=2).pixels)
    assert first_flaw(findings) == flaw
    assert findings[0].region == "whole frame"


@pytest.mark.parametrize("distortion", ["gaussian_blur", "gaussian_noise", "jpeg", "low_light", "haze"])
def test_strength_rises_with_severity(distortion):
    strengths = []
    for severity in (1, 3, 5):
        result = distort(ASTRONAUT, distortion, severity, seed=2)
        strengths.append(max((f.strength for f in both(result.pixels) if f.flaw == result.flaw), default=0.0))
    assert strengths == sorted(strengths)
    assert strengths[-1] > strengths[0]


def test_the_first_look_says_only_what_it_can_support():
    native = {name for name, info in SIGNALS.items() if info.is_native}
    for distortion in ("gaussian_noise", "jpeg", "gaussian_blur", "low_light"):
        result = distort(data.astronaut(), distortion, 4, seed=1)
        assert not native & {finding.signal for finding in diagnose(view(result.pixels))}
    assert first_flaw(diagnose(view(distort(data.astronaut(), "gaussian_blur", 5).pixels))) == Flaw.BLUR


def test_cast_names_its_hue():
    rgb = cv2.resize(data.astronaut(), (256, 256), interpolation=cv2.INTER_AREA)
    assert Flaw.COLOR_CAST not in {finding.flaw for finding in diagnose(measure(rgb))}
    for seed in (0, 1, 5, 7):  # blue, green, cyan, magenta
        result = distort(rgb, "color_cast", 5, seed=seed)
        found = [finding for finding in diagnose(measure(result.pixels)) if finding.flaw == Flaw.COLOR_CAST]
        assert [finding.detail for finding in found] == [result.detail]


def test_a_black_and_white_picture_is_a_choice():
    grey = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY)
    flaws = {finding.flaw for finding in diagnose(view(np.repeat(grey[..., None], 3, 2)))}
    assert not flaws & {Flaw.DULL_COLOR, Flaw.COLOR_CAST}


@pytest.mark.parametrize("distortion", ["gaussian_noise", "jpeg"])
def test_a_local_flaw_is_found_in_its_place(distortion):
    box = (0.25, 0.25, 0.6, 0.6)
    result = distort(data.astronaut(), distortion, 4, seed=1, box_fraction=box)
    found = [finding for finding in both(result.pixels) if finding.flaw == result.flaw]
    assert found
    assert overlap(found[0].box_fraction, box) > 0.45
    assert found[0].region != "whole frame"


@pytest.mark.parametrize("severity", [3, 5])
def test_an_unsharp_background_is_not_blur(severity):
    rgb = data.astronaut()
    mask = soft_mask(rgb.shape[:2], (0.25, 0.1, 0.75, 0.6))[..., None]
    pixels = np.round(rgb * mask + distort(rgb, "gaussian_blur", severity).pixels * (1 - mask)).astype(np.uint8)
    for box in (BOX, (0.0, 0.0, 0.67, 0.67), (0.0, 0.4, 0.75, 1.0)):
        assert Flaw.BLUR not in {finding.flaw for finding in both(pixels, box)}


def test_a_smooth_sky_is_not_blur():
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 300)[:, None, None]
    sky = np.array([90, 140, 220]) * (1 - ramp) + np.array([180, 205, 235]) * ramp
    sky = np.clip(np.round(sky + 0.7 * rng.standard_normal((300, 400, 3))), 0, 255).astype(np.uint8)
    assert Flaw.BLUR not in {finding.flaw for finding in diagnose(measure(sky))}


def test_regions_cover_their_own_boxes():
    for name, box in REGIONS.items():
        assert region_of(box) == name


@pytest.mark.shared
@needs_kodak
def test_kodak_is_clean():
    accused = []
    paths = sorted(KODAK.glob("*.png"))[::4]
    for path in paths:
        with Image.open(path) as opened:
            findings = both(np.asarray(opened.convert("RGB")))
        if findings:
            accused.append((path.name, findings[0].flaw))
    assert len(accused) <= 0.25 * len(paths), accused
