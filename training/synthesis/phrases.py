"""Ways of saying things, for the measured teacher and the perception tasks. It must not know pictures or ratings.

Places in braces are filled by name; `{Flaw}` and `{Place}` are the same with a capital. What a flaw is called and what
is wanted in its stead comes from `zoomiqa.vocabulary`, so that a reply reads back as the flaw it states. Sentences of
the directions name no flaw, sentences of the issues no strength (Zoom-IQA, supplement, table 4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zoomiqa.vocabulary import Flaw

DEGREES = ("just noticeable", "slight", "moderate", "strong", "very strong")
"""Words for the severities 1 to 5."""


def choose(options: Sequence[str], rng: np.random.Generator) -> str:
    """One of `options`."""
    return options[int(rng.integers(len(options)))]


def fill(template: str, **words: str) -> str:
    """`template` with its places filled; a name with a capital takes the word with a capital."""
    capitals = {name[0].upper() + name[1:]: word[:1].upper() + word[1:] for name, word in words.items()}
    return template.format(**words, **capitals)


# ---- first look: summary
FINE = {
    "detail": (
        "Edges and textures look well defined at this size.",
        "Fine structure is rendered cleanly as far as this size shows.",
        "The subject is in focus.",
    ),
    "tone": (
        "Exposure and contrast are balanced.",
        "Light is well distributed, from the deep tones to the bright ones.",
        "Tones are well spread.",
    ),
    "color": ("Colours look natural.", "Colour is believable and even.", "Hues are true to the scene."),
}
"""Strengths by what they are about."""

CERTAIN = (
    "{Flaw} is visible {place}.",
    "The picture shows {flaw} {place}.",
    "{Place}, there is {flaw}.",
    "What strikes first is {flaw} {place}.",
    "{Flaw} marks the rendering {place}.",
)
DOUBTFUL = (
    "{Place}, the rendering hints at {flaw}, too faint at this size to be sure.",
    "Something looks off {place}; it could be {flaw}.",
    "Seen whole, there may be {flaw} {place}.",
    "{Place}, I suspect {flaw}, but this size does not show it plainly.",
)
STRENGTH_OPEN = (
    "{Place}, there seems to be {flaw}; how strong it is cannot be judged at this size.",
    "{Flaw} shows {place}, though its extent is hard to tell from here.",
    "I notice {flaw} {place}, but not how much detail it costs.",
)
BESIDES = ("Besides, {flaw} is visible {place}.", "{Flaw} shows {place} as well.", "There is also {flaw} {place}.")
VERDICT = (
    "Overall quality looks {verdict}.",
    "On the whole the quality is {verdict}.",
    "The overall verdict is {verdict}.",
    "Taken together, this is of {verdict} quality.",
)

# ---- both looks: directions and issues
WANTED = (
    "The picture would show {wanted} {place}.",
    "{Place}, there would be {wanted}.",
    "At its best, this picture has {wanted} {place}.",
    "An ideal version offers {wanted} {place}.",
)
KEPT = (
    "Detail {elsewhere} stays crisp and natural.",
    "Tones and colours {elsewhere} stay as true as they are.",
    "{Elsewhere}, texture and light keep their natural balance.",
)
PRESENT = (
    "{Flaw} is visible {place}.",
    "{Flaw} spoils the rendering {place}.",
    "{Place}, {flaw} gets in the way of the scene.",
    "{Flaw} {place} draws the eye.",
)
POSSIBLE = (
    "Possible {flaw} {place}.",
    "Traces of what may be {flaw} {place}.",
    "What looks like {flaw} {place}.",
)
NOTHING_WRONG = (
    "No flaw is visible in any region.",
    "There is nothing of weight to avoid in any part of the frame.",
    "None that shows in any region.",
)

# ---- first look: decision
DOUBT_REASONS = (
    "Seen whole, I cannot tell how far it goes {place}.",
    "How far this costs detail shows at full size only, and the rating hangs on it.",
)
DOUBT_REASONS_OF_PIXELS = (
    "What I suspect {place} lives in single pixels and cannot be told at this size.",
    "A reduced view hides such things, so what shows {place} may be more or less than it seems.",
)
DOUBT_REASONS_OF_A_PLACE = (
    "My doubt is about one region: what shows {place} is small at this size.",
    "The impression {place} may come from the scene or from the camera, and the rating hangs on it.",
)
CROP = (
    "My rating so far is {rating}. {reason} A closer view of the {region} is needed before I decide.",
    "I would give {rating} for now. {reason} Looking closely at the {region} will settle it.",
    "{reason} I hold {rating} as a first rating and ask to see the {region} at full size.",
)
PLAIN_REASONS = {
    "global": (
        "The flaw covers the whole frame and is plain to see.",
        "It is alike everywhere and strong enough to be judged at this size.",
        "Every region tells the same, so a part would show nothing new.",
    ),
    "local": (
        "The damage {place} is plain at this size.",
        "What is wrong {place} is strong enough to be judged from here.",
        "The place and the kind of the flaw are beyond doubt.",
    ),
    "none": (
        "Nothing in the frame leaves a doubt.",
        "All regions agree, and none holds a hint of damage.",
        "I see no place whose rendering is open to question.",
    ),
}
FINAL = (
    "{reason} No closer view is needed; the rating is {rating}.",
    "The rating is {rating}. {reason} A closer view would not change it.",
    "{reason} I decide on the whole picture and give {rating}.",
)

# ---- second look
EVIDENCE = {
    Flaw.BLUR: ("edges run out over several pixels", "contours melt into their surroundings"),
    Flaw.MOTION_BLUR: ("contours are drawn out along one direction", "points have become short lines, all one way"),
    Flaw.NOISE: ("plain surfaces flicker from pixel to pixel", "single pixels stray in brightness and colour"),
    Flaw.BLOCKING: ("texture breaks off at a regular grid", "small squares with hard borders replace the texture"),
    Flaw.RINGING: ("edges are followed by fading echoes", "faint parallel lines accompany every contour"),
    Flaw.BANDING: ("gradients fall into flat steps", "smooth surfaces have turned into terraces"),
    Flaw.UNDEREXPOSURE: ("shadows hold hardly any gradation", "most tones lie close to black"),
    Flaw.OVEREXPOSURE: ("bright surfaces have lost their gradation", "light areas run together into white"),
    Flaw.LOW_CONTRAST: ("all tones lie close together", "deep and bright tones both tend to grey"),
    Flaw.HAZE: ("a pale layer lies over the detail", "deep tones are lifted as through milky air"),
    Flaw.COLOR_CAST: ("surfaces that should be neutral carry a hue", "all hues lean the same way"),
    Flaw.DULL_COLOR: ("hues have almost gone", "colours are close to grey"),
    Flaw.OVERSATURATION: ("hues run together at full strength", "colours glow beyond what light allows"),
    Flaw.LOW_RESOLUTION: ("detail ends at coarse patches", "structures finer than a few pixels are missing"),
    Flaw.OVERSHARPENING: ("bright and dark rims line every edge", "texture is carved out harder than it can be"),
}
"""How a flaw looks from close by; two ways each."""

CONFUSED = {
    Flaw.BLUR: (Flaw.LOW_RESOLUTION, Flaw.MOTION_BLUR),
    Flaw.MOTION_BLUR: (Flaw.BLUR,),
    Flaw.NOISE: (Flaw.BLOCKING, Flaw.OVERSHARPENING),
    Flaw.BLOCKING: (Flaw.LOW_RESOLUTION, Flaw.NOISE),
    Flaw.RINGING: (Flaw.OVERSHARPENING, Flaw.BLUR),
    Flaw.BANDING: (Flaw.BLOCKING,),
    Flaw.LOW_RESOLUTION: (Flaw.BLUR, Flaw.BLOCKING),
    Flaw.OVERSHARPENING: (Flaw.NOISE, Flaw.RINGING),
    Flaw.UNDEREXPOSURE: (Flaw.LOW_CONTRAST,),
    Flaw.OVEREXPOSURE: (Flaw.HAZE,),
    Flaw.LOW_CONTRAST: (Flaw.HAZE, Flaw.DULL_COLOR),
    Flaw.HAZE: (Flaw.LOW_CONTRAST, Flaw.OVEREXPOSURE),
    Flaw.COLOR_CAST: (Flaw.OVERSATURATION,),
    Flaw.DULL_COLOR: (Flaw.LOW_CONTRAST, Flaw.HAZE),
    Flaw.OVERSATURATION: (Flaw.COLOR_CAST,),
}
"""What a flaw is easily taken for at viewing size."""

CLEAN_EVIDENCE = {
    Flaw.BLUR: ("edges are crisp to the last pixel", "fine contours are drawn exactly"),
    Flaw.NOISE: ("plain surfaces are even", "what looked restless is the texture of the scene"),
    Flaw.BLOCKING: ("texture runs on without a break", "surfaces are continuous in every direction"),
}
"""What a closer look finds in place of a flaw that was suspected in a clean picture."""

CONFIRMED = (
    "At full size, the view {place} confirms {flaw}: {evidence}.",
    "The closer view settles it. {Evidence} {place}, which is {flaw}.",
    "{Place}, {evidence}; this is {flaw}.",
    "Seen at full size {place}, {evidence}: the suspicion of {flaw} holds.",
)
NOT_THE_OTHER = ("It is not {other}.", "{Other} can be ruled out.", "The thought of {other} is refuted.")
REFUTED = (
    "At full size, the view {place} refutes the suspicion of {flaw}: {evidence}.",
    "The closer view {place} shows clean detail. {Evidence}, so there is no {flaw}.",
    "{Place}, {evidence}; what I took for {flaw} is part of the scene.",
)
MOVES = {
    "lowered": (
        "I first gave {first}, with a doubt about the {region}. The closer view shows that it is worse than it looked,"
        " so I lower the rating to {final}.",
        "My first rating of {first} was too kind: what was only a suspicion in the {region} is now certain. The final"
        " rating is {final}.",
        "Starting from {first}, what the {region} shows at full size costs the picture some of its worth; the rating"
        " goes down to {final}.",
    ),
    "kept": (
        "I first gave {first} and looked closely at the {region}. It shows what I expected, so the rating stays at"
        " {final}.",
        "The closer view of the {region} agrees with my first rating of {first}. I confirm it with {final}.",
        "What the {region} shows was already counted in {first}; the final rating is {final}.",
    ),
    "raised": (
        "I first gave {first}, with a doubt about the {region}. It is better than it looked, so I raise the rating to"
        " {final}.",
        "My first rating of {first} was too strict: the {region} holds up at full size. The final rating is {final}.",
        "Starting from {first}, the clean detail of the {region} speaks for the picture, and the rating goes up to"
        " {final}.",
    ),
}
