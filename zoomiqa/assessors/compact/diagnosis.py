"""From measured signals to named flaws, the most important first. It must not measure or word anything.

Every finding is one line of `RULES`: a signal, the limit from which the flaw is stated, and three more values that
give its strength. Strength means the same for all flaws: it is read off the severity of the synthetic distortion
(`zoomiqa.imaging.distortions`) whose median picture has that value, 0.4 at severity 3 and 0.7 at severity 4. A flaw
that another one explains (a flat picture under haze, a jagged edge under noise) is not stated beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from zoomiqa.assessors.compact.places import FloatMap, Place, Search, find_place, is_unsharp_by_fault
from zoomiqa.imaging.signals import Signals, hue_name
from zoomiqa.types import BoxFraction, Finding
from zoomiqa.vocabulary import REGIONS, Flaw, Severity

WHOLE: BoxFraction = (0.0, 0.0, 1.0, 1.0)
STRENGTHS = (0.15, 0.40, 0.70, 1.00)
"""Strength at a rule's limit, and at its moderate, severe and extreme value."""

MODERATE_FROM, SEVERE_FROM = 0.40, 0.70


@dataclass(frozen=True, slots=True)
class Rule:
    """When a flaw is stated and how strong it then is."""

    name: str
    flaw: Flaw
    signal: str
    limit: float
    moderate: float
    severe: float
    extreme: float
    is_log: bool
    """Whether strength goes with the ratio of values (widths, counts) instead of their difference."""

    is_local: bool
    """Whether it is stated of a place when the picture as a whole is within the limit."""

    chosen_from: str
    """Where the limit comes from."""

    def strength(self, value: float) -> float:
        """0 below the limit, else 0.15..1."""
        levels = np.array([self.limit, self.moderate, self.severe, self.extreme], float)
        sign = 1.0 if self.extreme > self.limit else -1.0
        if (value - self.limit) * sign < 0:
            return 0.0
        if self.is_log:
            levels, value = np.log(levels), math.log(max(value, 1e-9))
        return float(np.interp(sign * value, sign * levels, STRENGTHS))


# fmt: off
RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        # name, flaw, signal, limit, moderate, severe, extreme, is_log, is_local, why this limit
        Rule("noise", Flaw.NOISE, "chroma_noise_sigma", 3.6, 15, 24, 36, True, True,
             "clean photographs reach 1.4 and darkened ones 3.3; noise of 5 levels reads 3.6 to 5.2"),
        Rule("grain", Flaw.NOISE, "noise_floor", 7.5, 15, 24, 36, True, False,
             "98 % of clean photographs stay below 6.8"),
        Rule("blur", Flaw.BLUR, "resolution", 0.66, 0.22, 0.157, 0.12, True, True,
             "clean photographs hold at least 0.75; a Gaussian of 1 pixel leaves 0.41 to 0.63"),
        Rule("blur_in_view", Flaw.BLUR, "resolution", 0.64, 0.36, 0.25, 0.18, True, False,
             "98 % of clean views hold 0.84, all hold 0.66"),
        Rule("motion", Flaw.MOTION_BLUR, "motion_sigma", 0.6, 1.57, 1.8, 2.3, True, False,
             "stated only with uneven resolution (next line); 5 pixels of motion read 0.6, 14 read 1.6"),
        Rule("fine_motion", Flaw.MOTION_BLUR, "resolution_least", 0.68, 0.12, 0.08, 0.05, True, False,
             "99 % of clean photographs hold 0.73; a motion of 9 pixels leaves 0.19 to 0.63"),
        Rule("low_resolution", Flaw.LOW_RESOLUTION, "resolution", 0.70, 0.41, 0.32, 0.22, True, False,
             "clean photographs hold at least 0.75; enlarging by 2 leaves 0.47 to 0.66"),
        Rule("ringing", Flaw.RINGING, "resolution", 0.75, 0.40, 0.28, 0.21, True, False,
             "stated only where the spectrum ends in a cliff (`CLIFF_DB`); clean photographs hold at least 0.75"),
        Rule("blocking", Flaw.BLOCKING, "blocking_step", 1.5, 3.5, 4.35, 5.6, True, True,
             "98 % of clean photographs stay below 0.4, and of JPEG files of quality 75 below 1.3; 26 has 2 or more"),
        Rule("banding", Flaw.BANDING, "banding", 0.004, 0.027, 0.06, 0.10, True, False,
             "clean photographs have none; 18 levels per channel have 0.004 to 0.07"),
        Rule("oversharp", Flaw.OVERSHARPENING, "oversharp_share", 0.475, 0.56, 0.62, 0.72, False, False,
             "clean photographs reach 0.465"),
        Rule("dark", Flaw.UNDEREXPOSURE, "exposure", -0.9, -2.1, -2.85, -3.7, False, False,
             "no clean photograph of 150 reads less; a third of the light reads -1.0 to -2.6"),
        Rule("overexposure", Flaw.OVEREXPOSURE, "exposure", 1.5, 1.62, 1.96, 2.3, False, False,
             "1 of 75 clean photographs reads more, and so do half of those with three times the light"),
        Rule("low_contrast", Flaw.LOW_CONTRAST, "contrast_range", 0.37, 0.286, 0.206, 0.133, True, False,
             "98 % of clean photographs have 0.39 or more"),
        Rule("haze", Flaw.HAZE, "haze", 0.33, 0.62, 0.68, 0.75, False, False,
             "clean photographs reach 0.24; a veil of 18 % has 0.37 to 0.43"),
        Rule("cast", Flaw.COLOR_CAST, "cast", 30.0, 42.0, 52.0, 64.0, False, False,
             "96 % of 400 photographs of BIQ2021's ss01 and ss02, and 112 clean ones that the networks learned from"),
        Rule("dull", Flaw.DULL_COLOR, "saturation", 4.6, 3.4, 2.0, 0.9, False, False,
             "98 % of clean photographs have 5.3 or more"),
        Rule("garish", Flaw.OVERSATURATION, "gamut_clipped", 0.16, 0.21, 0.35, 0.60, False, False,
             "clean photographs reach 0.13"),
    )
}
# fmt: on
"""Figures: odd-numbered Kodak and BSDS photographs and their known distortions, crops of 45 % of the area."""

BLACK_AND_WHITE_CHROMA = 1.0
"""A picture whose 95th percentile of chroma is below this is black and white, which is a choice, not a flaw."""

MOTION_UNEVENNESS = 0.73
"""Motion leaves one direction at most this share of the whole resolution (97 %); defocus leaves 0.77 or more (99 %)."""

CLIFF_DB = 14.0
"""Fall of the spectrum that no lens has: clean photographs reach 7.7, blurred ones 14.1, a sinc cut-off 13 to 35."""

PERIODIC_FROM = 6.0
"""Periodicity above which a lack of resolution is an enlargement: clean and blurred photographs stay below 4.7."""

GRID_SILENT_BELOW = 0.6
"""Step at the compression grid above which flat runs are the grid's doing; quality 75 reads 0.6 to 1.3."""

HAZE_FROM_P99 = 0.62
"""A veil is light: below this 99th percentile a narrow range of tones is low contrast, not haze."""

EVERYWHERE_SHARE = 0.60
"""Affected share of the cells from which a flaw is of the whole frame."""

LEAST_FILL, MOST_OUTSIDE = 0.75, 0.30
"""A place is stated where so much of it is affected and no more of the rest; else the flaw is of the whole frame."""

SEARCHES = {
    "noise": Search(4.0, True, 0.6, 1.5, 0.1),
    "blocking": Search(1.0, True, 0.4, 1.0, 0.0),
    "blur": Search(0.35, False, 1.8, 1.5, 0.3),
}
"""How the place of a flaw is looked for; blur last, as the others take detail as well. Limits, costs and growth are
those of the best overlap with known boxes on odd-numbered photographs."""

LEAST_LOCAL: dict[str, tuple[int, float]] = {"noise": (4, 5.0), "blocking": (5, 1.8)}
"""Cells and typical value from which a place is stated when the whole frame is within the limit."""

VIEW_TELLS_BELOW, VIEW_SHARP_FROM = 0.66, 0.8
"""Resolution of the view that the crop's blur would leave everywhere, and that of a sharp place of the view."""

VIEW_SIGMA_OF_BLUR = 0.25
"""Median edge width of the view that blur leaves; noise lowers the view's resolution but leaves edges at 0."""

SHARP_ELSEWHERE_SHARE = 0.20
"""Share of the view's cells outside the crop that must be sharp for a blurred crop to be depth of field."""

DOUBTFUL = frozenset({Flaw.COLOR_CAST, Flaw.LOW_CONTRAST, Flaw.DULL_COLOR, Flaw.OVERSATURATION, Flaw.UNDEREXPOSURE})
"""Flaws that a scene may have by itself: most accusations of clean photographs are of these."""

DOUBT = 0.4
"""The strength that a doubtful flaw must have over another one to be named before it."""

NO_LIMITS: Mapping[str, float] = MappingProxyType({})
_Candidates = dict[str, Finding]


def severity_of(strength: float) -> Severity:
    """The word for a strength."""
    if strength >= SEVERE_FROM:
        return Severity.SEVERE
    return Severity.MODERATE if strength >= MODERATE_FROM else Severity.SLIGHT


def _value(signals: Signals | None, name: str, default: float) -> float:
    value = None if signals is None else signals.value(name)
    return default if value is None else value


def _finding(rule: Rule, value: float, detail: str = "") -> Finding:
    strength = rule.strength(value)
    return Finding(rule.flaw, severity_of(strength), strength, rule.signal, value, rule.limit, detail=detail)


def _state(
    found: _Candidates, name: str, value: float | None, detail: str = "", rules: Mapping[str, Rule] = RULES
) -> bool:
    """Note a finding of the rule `name` when `value` is beyond its limit; say whether it was."""
    if value is None or rules[name].strength(value) <= 0:
        return False
    found[name] = _finding(rules[name], value, detail)
    return True


def _say_tones(found: _Candidates, first: Signals, rules: Mapping[str, Rule]) -> None:
    """Exposure, contrast and veil, from the first look."""
    exposure = first.value("exposure")
    is_dark = _state(found, "dark", exposure, rules=rules)
    is_off = is_dark or _state(found, "overexposure", exposure, rules=rules)
    # Without colour a veil cannot be told from grey.
    has_color = _value(first, "saturation_p95", 0) > BLACK_AND_WHITE_CHROMA
    is_light = not is_dark and _value(first, "luma_p99", 0) >= HAZE_FROM_P99 and _value(first, "luma_p05", 0) > 0.2
    if has_color and is_light:
        _state(found, "haze", first.value("haze"))
    if "haze" not in found and not is_off and _value(first, "luma_p99", 0) > _value(first, "luma_p05", 0) + 0.02:
        _state(found, "low_contrast", first.value("contrast_range"))


def _say_colors(found: _Candidates, first: Signals, rules: Mapping[str, Rule]) -> None:
    """Cast and saturation, from the first look; a veil, a flat tone or darkness takes colour by itself."""
    if _value(first, "saturation_p95", 0) > BLACK_AND_WHITE_CHROMA and "haze" not in found:
        _state(found, "cast", first.value("cast"), hue_name(_value(first, "cast_hue", 0)), rules)
        if not {"dark", "low_contrast"} & set(found):
            _state(found, "dull", first.value("saturation"))
    if "cast" not in found:
        _state(found, "garish", first.value("gamut_clipped"))


def _say_grain(found: _Candidates, native: Signals) -> None:
    """Noise and sharpening, told apart: noise is as strong in plain places as elsewhere, sharpening is not."""
    floor, whole = _value(native, "noise_floor", 0), _value(native, "noise_sigma", 0)
    chroma = _value(native, "chroma_noise_sigma", 0)
    is_even = floor > 0.55 * whole
    if (is_even or chroma > 0.6 * whole) and floor > 2:
        _state(found, "noise", chroma)
        if "noise" not in found or floor > 1.5 * chroma:
            _state(found, "grain", floor)
    if "noise" not in found and "grain" not in found:
        _state(found, "oversharp", native.value("oversharp_share"))


def _say_detail(found: _Candidates, first: Signals, native: Signals, box: BoxFraction) -> None:
    """Lack of detail and its cause: the grid, a sharp cut-off, an enlargement, motion, or defocus."""
    resolution, least = native.value("resolution"), native.value("resolution_least")
    _state(found, "blocking", native.value("blocking_step"))
    if _value(native, "blocking_step", 0) < GRID_SILENT_BELOW:
        _state(found, "banding", native.value("banding"))
    if resolution is None or least is None or "noise" in found or "grain" in found or "banding" in found:
        return
    if _value(native, "cutoff_cliff", 0) >= CLIFF_DB and _state(found, "ringing", resolution):
        return
    if _value(native, "interpolation", 0) >= PERIODIC_FROM and _state(found, "low_resolution", resolution):
        return
    if least < MOTION_UNEVENNESS * resolution:
        angle = _value(native, "resolution_angle", 0)
        if RULES["fine_motion"].strength(least) > 0 and not _state(
            found, "motion", native.value("motion_sigma"), _direction(angle)
        ):
            _state(found, "fine_motion", least, _direction(angle))
    elif (
        "blocking" not in found
        and native.value("edge_sigma") is not None  # a plain sky has no edge that could be sharp
        and not _is_depth_of_field(first, native, box)
    ):
        _state(found, "blur", resolution)


def _direction(angle: float) -> str:
    """The name of a direction, counter-clockwise from horizontal."""
    return ("horizontal", "rising diagonal", "vertical", "falling diagonal")[round(angle / 45) % 4]


def _is_depth_of_field(first: Signals, native: Signals, box: BoxFraction) -> bool:
    """Whether the blurred crop lies beside places that the first look shows sharp."""
    view = first.map("resolution")
    expected = _value(native, "resolution", 1) / first.scale
    if view is None or native is first or expected > VIEW_TELLS_BELOW:
        return False
    if _value(first, "resolution", 0) < max(1.2 * expected, VIEW_TELLS_BELOW):  # unsharp as a whole
        return False
    rows, columns = view.shape
    y, x = (np.arange(rows)[:, None] + 0.5) / rows, (np.arange(columns)[None, :] + 0.5) / columns
    outside = ~((x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])) & np.isfinite(view)
    if not outside.any():
        return False
    return bool((view[outside] > max(1.5 * expected, VIEW_SHARP_FROM)).mean() >= SHARP_ELSEWHERE_SHARE)


def overlap(one: BoxFraction, other: BoxFraction) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    area = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other))
    return shared / max(area - shared, 1e-9)


def region_of(box: BoxFraction) -> str:
    """The name of the region of `REGIONS` that a box overlaps best."""
    return max(REGIONS, key=lambda name: overlap(REGIONS[name], box))


def _locate(found: _Candidates, native: Signals | None, box: BoxFraction) -> None:
    """Add where each finding shows, and the flaws of a place that the whole picture's figures hide.

    `box` is the part of the frame that `native` measured.
    """
    for name, search in SEARCHES.items():
        rule = RULES[name]
        cells = None if native is None else native.map(rule.signal)
        place = None if cells is None else find_place(cells, search)
        if native is None or cells is None or place is None:
            continue
        where = _in_frame(place.box_fraction, box)
        region = region_of(where)
        if region == "whole frame" or not _stands_out(place, cells, rule):
            continue
        if name in found:
            found[name] = replace(found[name], box_fraction=where, region=region)
        elif rule.is_local and rule.strength(place.value) > 0 and _is_local_flaw(name, place, native, found):
            found[name] = replace(_finding(rule, place.value), box_fraction=where, region=region)
            found.pop("oversharp", None)


def _stands_out(place: Place, cells: FloatMap, rule: Rule) -> bool:
    """Whether most of the place is affected and most of the rest is not."""
    known = cells[np.isfinite(cells)]
    is_hit = known >= rule.limit if rule.extreme > rule.limit else known <= rule.limit
    is_everywhere = is_hit.sum() >= EVERYWHERE_SHARE * known.size
    return place.fill >= LEAST_FILL and place.outside <= MOST_OUTSIDE and not is_everywhere


def _is_local_flaw(name: str, place: Place, native: Signals, found: _Candidates) -> bool:
    """Whether a place stands out enough to be stated when the whole frame is within the limit."""
    if place.is_strip:
        return False
    if name == "blur":  # not beside anything that takes detail or feigns it
        is_alone = not found.keys() - {"cast", "dark", "overexposure"}
        return is_alone and is_unsharp_by_fault(place, native.map("edge_sigma"))
    least_count, least_value = LEAST_LOCAL[name]
    return place.count >= least_count and place.value >= least_value


def _in_frame(part: BoxFraction, box: BoxFraction) -> BoxFraction:
    """A box inside `box`, as fractions of the frame."""
    width, height = box[2] - box[0], box[3] - box[1]
    return box[0] + width * part[0], box[1] + height * part[1], box[0] + width * part[2], box[1] + height * part[3]


def diagnose(
    first: Signals,
    second: Signals | None = None,
    second_box_fraction: BoxFraction | None = None,
    limits: Mapping[str, float] = NO_LIMITS,
) -> tuple[Finding, ...]:
    """Name the flaws that the measured signals support.

    Args:
        first: Signals of the whole picture, reduced or native.
        second: Signals of a native crop, or `None` before the second look. Without it only what the first look can
            support is said: tones, colours and strong blur, and the rest only where the first look was native.
        second_box_fraction: The crop's box as fractions of the frame; needed with `second`.
        limits: By the names of rules of tone and colour: limits in place of their own, for signals of the first look
            that were told by other means than measurement.

    Returns:
        Findings, the strongest first (those of `DOUBTFUL` a little later); none for a picture without a measured flaw.
    """
    found: _Candidates = {}
    native = second if second is not None and second.is_native else (first if first.is_native else None)
    box = second_box_fraction if native is second and second_box_fraction is not None else WHOLE
    rules = RULES | {name: replace(RULES[name], limit=limit) for name, limit in limits.items()}
    _say_tones(found, first, rules)
    _say_colors(found, first, rules)
    if native is not None:
        _say_grain(found, native)
        _say_detail(found, first, native, box)
    if native is None and _value(first, "edge_sigma_median", 0) >= VIEW_SIGMA_OF_BLUR:
        _state(found, "blur_in_view", first.value("resolution"))
    _locate(found, native, box)
    return tuple(sorted(found.values(), key=_worth, reverse=True))


def _worth(finding: Finding) -> float:
    return finding.strength - (DOUBT if finding.flaw in DOUBTFUL else 0.0)
