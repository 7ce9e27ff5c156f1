"""Whole sections as models write them, in several styles: the plan and the one prompt of each, to the word.

And what holds for any text at all: reading never fails, every phrase points at the words it came from, and one prompt
holds what separate ones hold.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restore_bridge.actions import plan_actions
from restore_bridge.guidance import split_text
from restore_bridge.places import without_places
from restore_bridge.prompts import EncoderBudget, compose
from restore_bridge.textclean import sanitise
from zoomiqa.statements import sentences, stated_flaws


class Section(NamedTuple):
    """One reply and what is made of it."""

    style: str
    directions: str
    issues: str
    positive: str
    negative: str
    plan: list[str]
    """Operation, strength and place of each step, in working order."""


SECTIONS = [
    Section(
        "paragraphs",
        directions=(
            "The image would benefit from sharper focus on the bird's eye and feathers. The background should be "
            "rendered with smooth, natural bokeh, and the exposure could be slightly brighter to reveal detail in "
            "the shadowed wing. Colours should stay true to the scene."
        ),
        issues=(
            "The bird appears slightly out of focus, with noticeable motion blur along the wings. There is "
            "visible noise in the dark areas of the background, particularly in the lower left corner. The "
            "highlights on the head are blown out. There are no compression artifacts."
        ),
        positive=(
            "sharper focus on the bird's eye and feathers, background with smooth, natural bokeh, colours, true "
            "to the scene, exposure, slightly brighter to reveal detail in the shadowed wing"
        ),
        negative=(
            "noticeable motion blur along the wings, noise in the dark areas of the background, blown out "
            "highlights on the head, slightly out of focus"
        ),
        plan=[
            "denoise 0.7 whole frame",
            "deblur 0.7 whole frame",
            "deblur_motion 0.7 whole frame",
            "lift 0.4 whole frame",
            "tame 0.7 whole frame",
        ],
    ),
    Section(
        "numbered, bold labels",
        directions="""\
1. **Sharpness**: Increase the sharpness of the main subject's face.
2. **Noise**: Reduce the grain in the shadows while preserving skin texture.
3. **Exposure**: Brighten the left side of the frame.
4. **Colour**: None.
""",
        issues="""\
1. **Blur** – The face is soft.
2. **Noise** – Heavy grain in the shadows and on the left side.
3. **Exposure**: Underexposed on the left side.
4. **Compression artifacts**: None visible.
""",
        positive=(
            "increased sharpness of the main subject's face, clean, smooth surfaces with natural texture in the "
            "shadows, brightened image, skin texture"
        ),
        negative="heavy grain in the shadows, soft face, underexposed",
        plan=["denoise 0.7 whole frame", "denoise 1.0 left side", "deblur 0.7 whole frame", "lift 0.7 left side"],
    ),
    Section(
        "headings and bullets",
        directions="""\
### Directions for Improvement
- Crisp, well-defined edges on the buildings
- Reduced noise in the night sky
- Better contrast without crushing the blacks

### Notes
- The composition is fine.
""",
        issues="""\
### Issues to Avoid
- **Severe noise** in the sky
- Slight motion blur at the bottom
- Colour banding around the street lamps
- No haze
""",
        positive=(
            "clean, smooth surfaces with natural texture in the night sky, better contrast, crisp, well-defined "
            "edges on the buildings, fine composition"
        ),
        negative="severe noise in the sky, colour banding around the street lamps, slight motion blur",
        plan=[
            "denoise 1.0 whole frame",
            "deblur_motion 0.4 bottom",
            "stretch 0.7 whole frame",
            "deband 0.7 whole frame",
        ],
    ),
    Section(
        "nothing to say",
        directions="None. The image is of high quality.",
        issues="No issues.",
        positive="image of high quality",
        negative="blur, noise and grain, compression blocking, ringing halos",
        plan=[],
    ),
    Section(
        "a table",
        directions="To improve this photo, increase the exposure, lift the shadows, and reduce the yellow cast.",
        issues="""\
| Issue | Severity | Location |
|:---|:---:|---|
| Underexposure | Severe | whole frame |
| Yellow cast | Moderate | upper left |
| Noise | None | - |
""",
        positive="increased exposure, lifted shadows, neutral white balance and natural colour",
        negative="severe underexposure, whole frame, moderate yellow cast",
        plan=["lift 1.0 whole frame", "balance 0.7 whole frame"],
    ),
    Section(
        "denials in prose",
        directions=(
            "A better version would be free of JPEG artifacts, with smooth gradients in the sky and natural skin "
            "tones, and it would not be oversharpened."
        ),
        issues=(
            "JPEG compression artifacts, such as blocking and ringing, are visible around the edges of the roof. "
            "Banding in the sky. The image is not noisy and not blurry."
        ),
        positive=(
            "continuous tones with intact texture, natural edge rendition, image with smooth gradients in the sky "
            "and natural skin tones"
        ),
        negative=(
            "JPEG compression artifacts, such as blocking, ringing, around the edges of the roof, banding in the sky"
        ),
        plan=["deblock 0.7 whole frame", "dering 0.7 whole frame", "soften 0.7 whole frame", "deband 0.7 whole frame"],
    ),
    Section(
        "labels as headings",
        directions="Sharpen the text in the centre, keep the soft background as it is, and avoid introducing halos.",
        issues="""\
Blur:
- the text in the centre is unreadable
- the left and right edges are soft

Noise:
- none
""",
        positive="sharpened text, soft background as it is, clean, single edges",
        negative="blur in the text, soft image",
        plan=["deblur 0.7 centre", "deblur 0.7 left side", "deblur 0.7 right side"],
    ),
    Section(
        "concessions",
        directions="The scene lacks depth; a clearer, haze-free view with richer colours would help.",
        issues=(
            "The distant mountains are hazy and low in contrast. Colours look washed out. While the foreground is "
            "sharp, the top of the image suffers from a blue tint."
        ),
        positive="clear air with depth and definition, richer colours, scene lacks depth, clearer",
        negative="distant mountains, hazy and low in contrast, washed out colours, blue tint",
        plan=["balance 0.7 top", "dehaze 0.7 whole frame", "enrich 0.7 whole frame"],
    ),
    Section(
        "lettered",
        directions="The photo should be less noisy, and its colours more vibrant.",
        issues=(
            "(a) grain over the whole picture; (b) dull colours; (c) an overly soft rendering of the foliage, "
            "which looks smeared."
        ),
        positive="clean, smooth surfaces with natural texture",
        negative="grain over the whole picture, dull colours, overly soft rendering of the foliage",
        plan=["denoise 0.7 whole frame", "deblur 0.7 whole frame", "enrich 0.7 whole frame"],
    ),
    Section(
        "commands as labels",
        directions="""\
**Directions for Improvement:**
1. Enhance sharpness: The main subject should be rendered with crisp, well-defined edges.
2. Reduce noise: Apply denoising in the dark regions while preserving fine texture.
3. Correct white balance to remove the bluish cast.
4. Maintain the natural bokeh of the background.
""",
        issues="""\
**Issues to Avoid:**
1. Over-smoothing: avoid losing fine texture.
2. Noise: The shadows exhibit heavy luminance noise.
3. Color cast: A bluish tint affects the whole image.
4. Overexposure: N/A
""",
        positive=(
            "enhanced sharpness, clean, smooth surfaces with natural texture, clean, smooth surfaces with natural "
            "texture in the dark regions, main subject with crisp, well-defined edges, fine texture, natural "
            "bokeh of the background"
        ),
        negative="heavy luminance noise in the shadows, bluish tint, losing fine texture",
        plan=["denoise 1.0 whole frame", "deblur 0.7 whole frame", "balance 0.7 whole frame"],
    ),
    Section(
        "advice in the passive",
        directions=(
            "The photo could be improved by increasing the sharpness of the foreground and by reducing the noise "
            "in the sky. A slightly warmer tone would make it more inviting."
        ),
        issues=(
            "The overall image is soft and lacks fine detail, especially at the left and right edges. Noise is "
            "present but not severe. There is neither banding nor blocking. The white balance is accurate."
        ),
        positive=(
            "increased sharpness of the foreground, clean, smooth surfaces with natural texture in the sky, "
            "slightly warmer tone making it more inviting"
        ),
        negative="soft image, noise",
        plan=["denoise 0.7 whole frame", "deblur 0.7 whole frame"],
    ),
    Section(
        "graded labels",
        directions="""\
- Increase overall brightness (+1 EV)
- Lift shadows in the lower right
- Remove the green tint
- Don't add artificial sharpening
""",
        issues="""\
- Underexposed: severe
- Green tint: moderate
- Noise: slight (in shadows)
- Motion blur: none
""",
        positive="increased overall brightness 1 EV, neutral white balance and natural colour, lifted shadows",
        negative="severe underexposed, moderate green tint, slight noise in shadows",
        plan=["denoise 0.4 whole frame", "lift 1.0 whole frame", "balance 0.7 whole frame"],
    ),
    Section(
        "one line each",
        directions=(
            "Directions: sharper details on the building façade, a cleaner sky without banding, and more vivid colours."
        ),
        issues=(
            "Issues: the façade is blurred; the sky shows banding; colours look dull. No noise or compression "
            "artifacts were observed."
        ),
        positive="sharper details on the building façade, cleaner sky, more vivid colours",
        negative="blurred façade, banding in the sky, dull colours",
        plan=["denoise 0.7 whole frame", "deblur 0.7 whole frame", "enrich 0.7 whole frame", "deband 0.7 whole frame"],
    ),
    Section(
        "subjects in places",
        directions="The ideal image has crisp focus on the dog's eyes and no motion blur on its legs.",
        issues=(
            "The dog's legs are blurred by motion, and its eyes are out of focus. Although the exposure is fine, "
            "the lower left corner is too dark and noisy."
        ),
        positive="steady, crisply frozen detail on its legs, ideal image with crisp focus on the dog's eyes",
        negative="image, too dark, dog's legs, blurred by motion, out of focus eyes, noisy",
        plan=[
            "denoise 0.7 lower left",
            "deblur 0.7 whole frame",
            "deblur_motion 0.7 whole frame",
            "lift 1.0 lower left",
        ],
    ),
    Section(
        "addressed advice",
        directions="I would recommend sharpening the image, denoising it, and boosting contrast.",
        issues="Severe blur, moderate noise, and low contrast degrade the image. The compression is not an issue.",
        positive="sharpened image, clean, smooth surfaces with natural texture, boosted contrast",
        negative="severe blur, moderate noise, low contrast",
        plan=["denoise 0.7 whole frame", "deblur 1.0 whole frame", "stretch 0.7 whole frame"],
    ),
    Section(
        "places in a list",
        directions="You could try reducing the exposure in the upper right and adding a bit of contrast.",
        issues="Overexposed sky at the top, dark foreground at the bottom, and blur on the left.",
        positive="highlights with full gradation, bit of contrast",
        negative="overexposed sky, blur, dark foreground",
        plan=["deblur 0.7 left side", "tame 0.7 upper right", "tame 0.7 top"],
    ),
    Section(
        "telegraphic",
        directions="More contrast, less noise, no blur.",
        issues="Low contrast, noise, blur.",
        positive="more contrast, clean, smooth surfaces with natural texture, sharp focus and crisp fine detail",
        negative="low contrast, noise, blur",
        plan=["denoise 0.7 whole frame", "deblur 0.7 whole frame", "stretch 0.7 whole frame"],
    ),
]


@pytest.mark.parametrize("section", SECTIONS, ids=[section.style for section in SECTIONS])
def test_sections_as_models_write_them(section):
    guidance = split_text(section.directions, section.issues)
    prompts = compose(guidance, "t5-512", regions="folded", quality=False)
    assert (prompts.positive, prompts.negative, prompts.cut) == (section.positive, section.negative, ())
    steps = [f"{action.operation} {action.strength} {action.phrase.region}" for action in plan_actions(guidance)]
    assert steps == section.plan


WORDS = (
    "noise", "blur", "severe", "slight", "no", "not", "is", "are", "absent", "free of", "without", "and", "or", "but",
    ",", ".", ":", "|", "\n", "\n- ", "\n1. ", "\n### ", "**", "---", "the image", "in the upper left", "on the right",
    "at the top", "centre", "reduce", "keep", "sharper", "brighter", "should be", "would show", "with", "crisp edges",
    "avoid", "adding", "none", "N/A", "blown highlights", "(a)", "0/10", "not sharp", "watermark", "which",
)  # fmt: skip
texts = st.one_of(st.text(max_size=200), st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join))


@settings(max_examples=300, deadline=None)
@given(texts, texts)
def test_every_phrase_points_at_its_words_or_is_marked_a_default(directions, issues):
    guidance = split_text(directions, issues)
    assert guidance.positive
    assert guidance.negative
    for phrase in guidance.phrases:
        section = directions if phrase.side == "positive" else issues
        if phrase.origin == "default":
            assert phrase.span is None
        else:
            assert phrase.span in sentences(section)
            assert section[slice(*phrase.span)] == phrase.source
            assert phrase.text == sanitise(phrase.text) != ""


@settings(max_examples=300, deadline=None)
@given(texts, texts)
def test_one_prompt_holds_what_separate_ones_hold(directions, issues):
    guidance = split_text(directions, issues)
    for encoder in ("none", "clip", EncoderBudget("tiny", 12)):
        folded = compose(guidance, encoder, regions="folded", quality=False)
        apart = compose(guidance, encoder, quality=False)
        cut = {each.text for each in (*folded.cut, *apart.cut)}
        for side in ("positive", "negative"):
            boxes = ", ".join(getattr(part, side) for part in apart.regional)
            everywhere = f"{getattr(apart, side)}, {boxes}"
            for phrase in getattr(guidance, side):
                bare = sanitise(without_places(phrase.text)) or phrase.text
                if cut.isdisjoint((phrase.text, bare)) and phrase.text in everywhere:
                    assert (bare if phrase.box_fraction else phrase.text) in getattr(folded, side)


@settings(max_examples=300, deadline=None)
@given(texts)
def test_stating_and_guiding_agree_on_what_is_denied(text):
    planned = {flaw for phrase in split_text(None, text).negative for flaw in phrase.flaws}
    if not stated_flaws(text):
        assert not planned
