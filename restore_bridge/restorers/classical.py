"""The embedded restorer: does what the guidance says, where it says it, as strongly as it says. No weights, no GPU.

Each operation measures how much is needed on the picture itself (noise, blur width, JPEG quality, exposure, cast);
the guidance decides **whether** and **where**, and its words bound how far. Without guidance nothing changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from restore_bridge.actions import STRENGTHS, Action, Operation, plan_actions
from restore_bridge.restorers.base import DEFAULT_SETTINGS, Capabilities, Restored, RestoreSettings, check_scale
from zoomiqa.types import Box, BoxFraction, Note
from zoomiqa.vocabulary import Severity

if TYPE_CHECKING:
    import numpy as np

    from restore_bridge.guidance import Guidance
    from restore_bridge.prompts import Prompts
    from restore_bridge.restorers.operations.transform import Floats
    from zoomiqa.imaging.picture import Picture

MARGIN_PX = 48
"""Pixels around a regional box that an operation sees beyond it."""

FEATHER = 0.08
"""Width of the soft edge of a regional box, as a share of its shorter side."""

LEAST_NOISE = 1.0 / 255
LEAST_BLUR_PX = 0.42
"""Below these a picture is as clean and sharp as ordinary photographs; there is nothing to repair."""

MOST_UNNAMED_NOISE = 6.0 / 255
"""Noise above which a motion is left alone unless noise is named as well."""

ASSUMED_QUALITY = {0.4: 50, 0.7: 30, 1.0: 15}
"""JPEG quality taken for each strength of words when the picture's own grid cannot be found."""


@dataclass(frozen=True, slots=True)
class _Context:
    seed: int
    is_motion: bool
    """Whether motion blur is named for the same place: undoing a round blur there would ring."""

    is_noise: bool
    """Whether noise is: only then may undoing a blur calm it."""


class ClassicalRestorer:
    """Library algorithms, steered by guidance."""

    capabilities = Capabilities(
        name="classical",
        description="measures the named flaws and repairs them with signal processing, region by region",
        text_guided=True,
        tiled=False,
        licence="Apache-2.0",
        memory="about 120 bytes per pixel",
        seeded=False,
        encoder="none",
    )

    def restore(
        self,
        picture: Picture,
        guidance: Guidance,
        *,
        prompts: Prompts | None = None,  # noqa: ARG002
        settings: RestoreSettings = DEFAULT_SETTINGS,
    ) -> Restored:
        import numpy as np

        check_scale(self.capabilities, settings, picture.size)
        actions = [action for action in plan_actions(guidance) if action.strength * settings.strength > 0]
        if not actions:
            return Restored(
                picture, (Note("classical-nothing-asked", "the guidance names no flaw; the picture is unchanged"),)
            )
        original = np.asarray(picture.pixels, np.float32) / np.float32(255)
        current, steps = carry_out(original, actions, strength=settings.strength, seed=settings.seed)
        pixels = np.clip(np.rint(current * 255), 0, 255).astype(np.uint8)
        idle = [step["operation"] for step in steps if not step["amount"]]
        notes = (
            (Note("classical-not-measured", f"named but not found by measurement, left alone: {', '.join(idle)}"),)
            if idle
            else ()
        )
        unchanged = np.array_equal(pixels, picture.pixels)
        return Restored(picture if unchanged else picture.with_pixels(pixels), notes, tuple(steps))


def carry_out(
    pixels: Floats, actions: Sequence[Action], *, strength: float = 1.0, seed: int = 0, beside: Sequence[Action] = ()
) -> tuple[Floats, list[dict[str, Any]]]:
    """Carry out a plan, step by step.

    Args:
        pixels: H×W×3 RGB 0..1.
        actions: The plan, in working order.
        strength: Multiplies the strength of every action.
        seed: For operations that draw.
        beside: What is named as well and carried out by others.

    Returns:
        The picture (not clipped), and for each action what was measured (empty where nothing was to be done).
    """
    size = (pixels.shape[1], pixels.shape[0])
    places: dict[Operation, set[BoxFraction | None]] = defaultdict(set)
    for action in (*actions, *beside):
        places[action.operation].add(action.box_fraction)
    steps: list[dict[str, Any]] = []
    for action in actions:
        is_motion, is_noise = (
            bool({None, action.box_fraction} & places[operation])
            for operation in (Operation.DEBLUR_MOTION, Operation.DENOISE)
        )
        context = _Context(seed, is_motion, is_noise)
        if action.box_fraction is None:
            pixels, amount = _OPERATIONS[action.operation](pixels, action.strength * strength, action, context)
        else:
            pixels, amount = _in_box(pixels, action, action.strength * strength, size, context)
        steps.append({**action.to_dict(), "amount": amount})
    return pixels, steps


Amount = dict[str, float | str]
Work = Callable[["Floats", float, Action, _Context], tuple["Floats", Amount]]
"""(picture, strength, action, context) → (picture, measured amounts; empty when nothing was to be done)."""


def feathered_mask(box: Box, size: tuple[int, int]) -> np.ndarray:
    """H×W float32 weights, 1 inside `box`, falling smoothly to 0 at its edge; edges on the frame's border stay 1."""
    import numpy as np

    width, height = size
    soft = max(1.0, FEATHER * min(box.width, box.height))

    def along(start: int, stop: int, length: int) -> np.ndarray:
        place = np.arange(length) + 0.5
        near = np.full(length, np.inf) if start == 0 else place - start
        far = np.full(length, np.inf) if stop == length else stop - place
        ramp = np.clip(np.minimum(near, far) / soft, 0, 1)
        return np.asarray(ramp * ramp * (3 - 2 * ramp), np.float32)

    return np.asarray(np.outer(along(box.y1, box.y2, height), along(box.x1, box.x2, width)), np.float32)


def _in_box(
    current: Floats, action: Action, strength: float, size: tuple[int, int], context: _Context
) -> tuple[Floats, Amount]:
    import numpy as np

    assert action.box_fraction is not None  # noqa: S101 - for the type checker; callers have just tested it
    box = Box.from_fraction(action.box_fraction, size)
    x1, y1 = max(0, box.x1 - MARGIN_PX) // 8 * 8, max(0, box.y1 - MARGIN_PX) // 8 * 8  # keeps a JPEG grid in place
    x2, y2 = min(size[0], box.x2 + MARGIN_PX), min(size[1], box.y2 + MARGIN_PX)
    part = np.ascontiguousarray(current[y1:y2, x1:x2])
    changed, amount = _OPERATIONS[action.operation](part, strength, action, context)
    weight = feathered_mask(box, size)[y1:y2, x1:x2, None]
    result = current.copy()
    result[y1:y2, x1:x2] = part + weight * (changed - part)
    return result, amount


def _deblock(pixels: Floats, strength: float, action: Action, context: _Context) -> tuple[Floats, Amount]:  # noqa: ARG001
    from restore_bridge.restorers.operations import compression, sharpness

    quality, comb = compression.find_quality(sharpness.luminance(pixels) * 255)
    if quality is not None:
        return compression.deblock(pixels, quality, amount=0.7 + 0.3 * strength), {
            "jpeg_quality": quality,
            "comb": comb,
        }
    assumed = min(ASSUMED_QUALITY.items(), key=lambda item: abs(item[0] - strength))[1]
    repaired = compression.deblock(pixels, assumed, aligned=False, amount=0.6)
    return repaired, {"jpeg_quality_assumed": assumed, "comb": comb}


def _denoise(pixels: Floats, strength: float, action: Action, context: _Context) -> tuple[Floats, Amount]:  # noqa: ARG001
    from restore_bridge.restorers.operations import noise

    level = noise.noise_level(noise.to_planes(pixels))
    sigma = float(level.mean())
    if sigma < LEAST_NOISE:
        return pixels, {}
    return noise.denoise(pixels, level * (0.85 + 0.18 * strength)), {"sigma_of_255": round(sigma * 255, 2)}


def _deblur(pixels: Floats, strength: float, action: Action, context: _Context) -> tuple[Floats, Amount]:  # noqa: ARG001
    from restore_bridge.restorers.operations import noise, sharpness

    if context.is_motion:
        return pixels, {}
    level = float(noise.noise_level(noise.to_planes(pixels))[0])
    spectrum = sharpness.measure(sharpness.luminance(pixels), level)
    if spectrum.sigma < LEAST_BLUR_PX:
        return pixels, {}
    sigma = min(spectrum.sigma * (0.9 + 0.09 * strength), 1.0 + 4.0 * strength)
    sharp = sharpness.wiener(pixels, spectrum, sigma=sigma, caution=2.0, calms_noise=context.is_noise)
    sharp = sharpness.hold_overshoot(sharp, pixels, 1.0, max(2, round(2 * sigma)))
    return sharp, {"sigma_px": round(spectrum.sigma, 2), "undone_px": round(sigma, 2)}


def _deblur_motion(pixels: Floats, strength: float, action: Action, context: _Context) -> tuple[Floats, Amount]:  # noqa: ARG001
    from restore_bridge.restorers.operations import motion, noise, sharpness

    level = float(noise.noise_level(noise.to_planes(pixels))[0])
    found = motion.find(sharpness.luminance(pixels), level)
    # What undoes a motion takes noise for granted and calms it, which is done only where it is named.
    if found is None or (found.noise > MOST_UNNAMED_NOISE and not context.is_noise):
        return pixels, {}
    sharp = sharpness.hold_overshoot(motion.undo(pixels, found), pixels, 1.0, round(found.length / 2) + 2)
    mixed = pixels + min(1.0, strength / STRENGTHS[Severity.SLIGHT]) * (sharp - pixels)
    return mixed, {"length_px": round(found.length, 1), "angle": round(found.angle, 1)}


def _sharpen(pixels: Floats, strength: float, action: Action, context: _Context) -> tuple[Floats, Amount]:  # noqa: ARG001
    from restore_bridge.restorers.operations import noise, sharpness

    if context.is_motion:
        return pixels, {}
    level = float(noise.noise_level(noise.to_planes(pixels))[0])
    spectrum = sharpness.measure(sharpness.luminance(pixels), level)
    sigma = min(0.6 * spectrum.sigma, 0.3 + 0.25 * strength)
    if spectrum.sigma < LEAST_BLUR_PX:
        return pixels, {}
    sharp = sharpness.wiener(pixels, spectrum, sigma=sigma, caution=4.0, calms_noise=context.is_noise)
    return sharp, {"undone_px": round(sigma, 2)}


def _soften(pixels: Floats, strength: float, action: Action, context: _Context) -> tuple[Floats, Amount]:  # noqa: ARG001
    import cv2
    import numpy as np

    sigma = 0.35 + 0.35 * strength
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.float32), {"sigma_px": round(sigma, 2)}


def _lift(pixels: Floats, strength: float, action: Action, context: _Context) -> tuple[Floats, Amount]:  # noqa: ARG001
    from restore_bridge.restorers.operations import light, noise

    level = noise.noise_level(noise.to_planes(pixels))
    brighter, gain = light.lift(pixels, strength)
    if gain < 1.02:
        return pixels, {}
    if gain > 1.5 and float(level[1:].mean()) > LEAST_NOISE:  # the lift makes the noise of the dark visible in colour
        level[0] = 0.0
        brighter, gain = light.lift(noise.denoise(pixels, level), strength)
    return brighter, {"gain": round(gain, 2)}


def _tame(pixels: Floats, strength: float, action: Action, context: _Context) -> tuple[Floats, Amount]:  # noqa: ARG001
    from restore_bridge.restorers.operations import light

    return _measured(pixels, light.tame(pixels, strength))


def _stretch(pixels: Floats, strength: float, action: Action, context: _Context) -> tuple[Floats, Amount]:  # noqa: ARG001
    from restore_bridge.restorers.operations import light

    return _measured(pixels, light.stretch(pixels, strength))


def _dehaze(pixels: Floats, strength: float, action: Action, context: _Context) -> tuple[Floats, Amount]:  # noqa: ARG001
    from restore_bridge.restorers.operations import light

    return _measured(pixels, light.dehaze(pixels, strength))


def _balance(pixels: Floats, strength: float, action: Action, context: _Context) -> tuple[Floats, Amount]:  # noqa: ARG001
    from restore_bridge.restorers.operations import colour

    balanced, stops = colour.neutralise(pixels, strength, action.detail)
    return (balanced, {"stops": round(stops, 2), "hue": action.detail}) if stops > 0.02 else (pixels, {})


def _enrich(pixels: Floats, strength: float, action: Action, context: _Context) -> tuple[Floats, Amount]:  # noqa: ARG001
    from restore_bridge.restorers.operations import colour

    return _measured(pixels, colour.enrich(pixels, strength))


def _calm(pixels: Floats, strength: float, action: Action, context: _Context) -> tuple[Floats, Amount]:  # noqa: ARG001
    from restore_bridge.restorers.operations import colour

    return _measured(pixels, colour.calm(pixels, strength))


def _deband(pixels: Floats, strength: float, action: Action, context: _Context) -> tuple[Floats, Amount]:  # noqa: ARG001
    from restore_bridge.restorers.operations import bands

    return bands.deband(pixels, strength, context.seed), {"step_of_255": round(bands.step_size(pixels) * 255, 1)}


def _measured(before: Floats, after: Floats) -> tuple[Floats, Amount]:
    import numpy as np

    change = float(np.abs(after - before).mean()) * 255
    return (after, {"mean_change_of_255": round(change, 2)}) if change > 0.25 else (before, {})


_OPERATIONS: dict[Operation, Work] = {
    Operation.DEBLOCK: _deblock,
    Operation.DERING: _deblock,
    Operation.DENOISE: _denoise,
    Operation.DEBLUR: _deblur,
    Operation.DEBLUR_MOTION: _deblur_motion,
    Operation.SHARPEN: _sharpen,
    Operation.SOFTEN: _soften,
    Operation.LIFT: _lift,
    Operation.TAME: _tame,
    Operation.BALANCE: _balance,
    Operation.DEHAZE: _dehaze,
    Operation.STRETCH: _stretch,
    Operation.ENRICH: _enrich,
    Operation.CALM: _calm,
    Operation.DEBAND: _deband,
}
