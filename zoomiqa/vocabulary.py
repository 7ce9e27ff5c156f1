"""The flaws of a photograph, by their standard names. It must not know how a flaw is measured, worded or repaired.

Everything that speaks about flaws meets here: the signals that measure them, the text that states them, the guidance
that reads them back, the restorers that act on them, and the synthetic distortions that cause them.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from enum import StrEnum


class Flaw(StrEnum):
    """Families of technical flaws (the distortion families of KADID-10k and SPAQ's annotations, merged)."""

    BLUR = "blur"
    MOTION_BLUR = "motion_blur"
    NOISE = "noise"
    BLOCKING = "blocking"
    RINGING = "ringing"
    BANDING = "banding"
    UNDEREXPOSURE = "underexposure"
    OVEREXPOSURE = "overexposure"
    LOW_CONTRAST = "low_contrast"
    HAZE = "haze"
    COLOR_CAST = "color_cast"
    DULL_COLOR = "dull_color"
    OVERSATURATION = "oversaturation"
    LOW_RESOLUTION = "low_resolution"
    OVERSHARPENING = "oversharpening"


class Severity(StrEnum):
    """How strongly a flaw shows, in the words the text uses."""

    SLIGHT = "slight"
    MODERATE = "moderate"
    SEVERE = "severe"


ATTRIBUTES = ("sharpness", "color_fidelity", "noise", "composition")
"""What can be rated beside the whole, each 1..5 with 5 best (noise: 5 is clean). MG-IQA paper, Sec. 3."""


@dataclass(frozen=True, slots=True)
class FlawTerms:
    """How people write about one flaw."""

    phrase: str
    """The flaw as a singular noun phrase; serves negative prompts and statements alike."""

    wanted: str
    """The wanted state as a noun phrase; serves positive prompts and statements alike."""

    pattern: str
    """Regular expression (case-insensitive) that recognises a mention. Linear: no nested repetition."""


TERMS: dict[Flaw, FlawTerms] = {
    Flaw.MOTION_BLUR: FlawTerms(
        "motion blur",
        "steady, crisply frozen detail",
        r"\bmotion[- ]blur\w*|\bcamera[- ]shake\b|\bmotion (?:smear\w*|streak\w*)"
        r"|\bsmear(?:ed|ing) (?:motion|movement)|\bblurred by (?:motion|movement)\b",
    ),
    Flaw.BLUR: FlawTerms(
        "blur",
        "sharp focus and crisp fine detail",
        r"\b(?:blur\w*|unsharp\w*|out[- ]of[- ]focus|defocus\w*|missed focus|soft(?:ness| focus| edges| detail\w*)?\b(?![- ](?:light|lit|tone|tonal|shadow|bokeh|background|pastel|gradient|glow|transition|colou?r|diffus))"  # noqa: E501
        r"|lack(?:s|ing)? (?:of )?(?:sharpness|crispness|definition|fine detail)"
        r"|(?:poor|low|reduced|insufficient) sharpness"
        r"|(?:not|(?:is|are|was|were)n['’]t) (?:\w+ly |very |quite )?(?:sharp|crisp|in focus)\b"
        r"|no (?:\w+ )?(?:sharpness|sharp (?:detail|edge|focus)\w*|crisp (?:detail|edge)\w*|fine detail))",
    ),
    Flaw.NOISE: FlawTerms(
        "noise",
        "clean, smooth surfaces with natural texture",
        r"\b(?:nois(?:e|y|ier|iness)\b|(?<!wood )grain(?:y|iness)?\b|speckl\w*)",
    ),
    Flaw.BLOCKING: FlawTerms(
        "compression blocking",
        "continuous tones with intact texture",
        r"\b(?:block(?:ing|iness|y)\b|(?:jpe?g|compression|digital) art[ei]facts?"
        r"|macroblock\w*|pixelat\w*|mosquito)",
    ),
    Flaw.RINGING: FlawTerms("ringing", "clean, single edges", r"\b(?:ringing|halo(?:s|es|ing)?\b|overshoot\w*)"),
    Flaw.BANDING: FlawTerms("banding", "smooth tonal gradients", r"\b(?:banding|posteri[sz]\w*|colou?r steps)"),
    Flaw.UNDEREXPOSURE: FlawTerms(
        "underexposure",
        "bright, balanced exposure",
        r"\b(?:under[- ]?expos\w*|too dark|low[- ]light|dim(?:ly)?\b|crushed (?:shadow|black)\w*|darkness\b|dark (?:image|photo|picture|exposure|frame|scene|overall)\b|(?:very|so|overly|excessively|extremely|quite|rather|is|are|looks?|appears?) dark\b|darkened"  # noqa: E501
        r"|insufficient light\w*|(?:deep|heavy) shadows?)",
    ),
    Flaw.OVEREXPOSURE: FlawTerms(
        "overexposure",
        "highlights with full gradation",
        r"\b(?:over[- ]?expos\w*|blown(?:[- ]out)?\b|clipped highlight\w*|burnt[- ]out"
        r"|washed[- ]out highlight\w*|glare\b|too bright)",
    ),
    Flaw.LOW_CONTRAST: FlawTerms(
        "low contrast",
        "full tonal contrast from deep blacks to clear whites",
        r"\b(?:(?:low|flat|weak|poor|lack of|lacks|lacking|reduced|insufficient|limited|little|no) (?:tonal )?contrast"
        r"|flat (?:tones?|lighting|appearance|rendition))",
    ),
    Flaw.HAZE: FlawTerms(
        "haze",
        "clear air with depth and definition",
        r"\b(?:haz(?:e|y|iness)\b|fog(?:gy|ged)?\b|veil(?:ed|ing)?\b|mist(?:y)?\b)",
    ),
    Flaw.COLOR_CAST: FlawTerms(
        "colour cast",
        "neutral white balance and natural colour",
        r"\b(?:colou?r cast|(?:red|green|blue|yellow|cyan|magenta|orange|warm|cool)(?:dish|ish)? (?:cast|tint)"
        r"|white[- ]balance (?:error|shift)|tint(?:ed)?\b)",
    ),
    Flaw.DULL_COLOR: FlawTerms(
        "dull colour",
        "rich, natural colour",
        r"\b(?:dull (?:colou?rs?|tones?)|desaturat\w*|faded colou?rs?|muted colou?rs?|washed[- ]out colou?rs?|drab\b)",
    ),
    Flaw.OVERSATURATION: FlawTerms(
        "oversaturated colour", "natural colour saturation", r"\b(?:over[- ]?saturat\w*|garish)"
    ),
    Flaw.LOW_RESOLUTION: FlawTerms(
        "low resolution",
        "high resolution with fine texture",
        r"\b(?:low[- ]res(?:olution)?\b|resolution is (?:very )?(?:low|poor)|upscal\w*|upsampl\w*)",
    ),
    Flaw.OVERSHARPENING: FlawTerms("oversharpening", "natural edge rendition", r"\b(?:over[- ]?sharpen\w*)"),
}
"""Terms of every flaw, most specific first: a span claimed by an earlier entry is not claimed again by a later one."""

_COMPILED = {flaw: re.compile(terms.pattern, re.IGNORECASE) for flaw, terms in TERMS.items()}


def find_flaws(text: str) -> list[tuple[Flaw, tuple[int, int]]]:
    """The flaws that `text` mentions, in reading order, each with its character span.

    It reads words, not meaning: a negated mention ("no noise") is found as well; `restore_bridge.guidance` decides
    what a mention in its section means.
    """
    claimed: list[tuple[tuple[int, int], Flaw]] = []  # kept in reading order, so that a span meets only its neighbours
    for flaw, pattern in _COMPILED.items():
        for match in pattern.finditer(text):
            span = match.span()
            place = bisect_left(claimed, (span,))
            after_previous = place == 0 or claimed[place - 1][0][1] <= span[0]
            if after_previous and (place == len(claimed) or span[1] <= claimed[place][0][0]):
                claimed.insert(place, (span, flaw))
    return [(flaw, span) for span, flaw in claimed]


REGIONS: dict[str, tuple[float, float, float, float]] = {
    "whole frame": (0.0, 0.0, 1.0, 1.0),
    "centre": (0.25, 0.25, 0.75, 0.75),
    "upper left": (0.0, 0.0, 0.4, 0.4),
    "top": (0.25, 0.0, 0.75, 0.4),
    "upper right": (0.6, 0.0, 1.0, 0.4),
    "left side": (0.0, 0.25, 0.4, 0.75),
    "right side": (0.6, 0.25, 1.0, 0.75),
    "lower left": (0.0, 0.6, 0.4, 1.0),
    "bottom": (0.25, 0.6, 0.75, 1.0),
    "lower right": (0.6, 0.6, 1.0, 1.0),
}
"""Names of places in a frame and the box each stands for, as fractions of width and height (x1, y1, x2, y2)."""

_WHERE = {
    "whole frame": "across the whole frame",
    "centre": "in the centre",
    "top": "at the top",
    "left side": "on the left side",
    "right side": "on the right side",
    "bottom": "at the bottom",
}


def where(region: str) -> str:
    """A place of `REGIONS` in words that follow a noun."""
    return _WHERE.get(region, f"in the {region}")


def name_region(box_fraction: tuple[float, float, float, float]) -> str:
    """The name in `REGIONS` of the place that a box (fractions x1, y1, x2, y2) lies in, judged by its centre.

    A box that covers four fifths of the picture is the whole frame.
    """
    x1, y1, x2, y2 = box_fraction
    if (x2 - x1) * (y2 - y1) >= 0.8:
        return "whole frame"
    columns, rows = ("left", "", "right"), ("upper", "", "lower")
    column = columns[_third((x1 + x2) / 2, (x2 - x1) / 2)]
    row = rows[_third((y1 + y2) / 2, (y2 - y1) / 2)]
    if column and row:
        return f"{row} {column}"
    if column:
        return f"{column} side"
    return {"upper": "top", "lower": "bottom", "": "centre"}[row]


def _third(centre: float, half: float) -> int:
    """0, 1 or 2: where a span lies among the places it could take; a wide span moves less and counts as much."""
    room = max(0.5 - half, 1e-6)
    offset = (centre - 0.5) / room if room > 0.02 else 0.0
    return 0 if offset < -0.34 else 2 if offset > 0.34 else 1
