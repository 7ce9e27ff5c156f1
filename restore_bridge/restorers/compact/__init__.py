"""The compact restorer: two small networks of this project that do what the guidance names, where it names it.

Noise, blur, motion blur, compression (and ringing) go to a U-Net told by maps of strength, which starts from what
`classical` makes of a named blur or motion; darkness goes to a curve from a thumbnail. The networks were trained on the
answers of the same parser (`training.compact.restorer`). All other flaws, casts among them, go on to `classical`. What
nothing is said of comes out as it went in, pixel for pixel.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from restore_bridge.actions import REPAIRS, Action, Operation, plan_actions
from restore_bridge.restorers.base import DEFAULT_SETTINGS, Capabilities, Restored, RestoreSettings, check_scale
from zoomiqa.types import Box, Note

if TYPE_CHECKING:
    from pathlib import Path

    from restore_bridge.guidance import Guidance, Phrase
    from restore_bridge.prompts import Prompts
    from restore_bridge.restorers.compact.condition import Floats
    from zoomiqa.imaging.picture import Picture


class CompactRestorer:
    """Two packaged networks, steered by guidance.

    Args:
        folder: Where other networks of this form lie, as `python -m training.compact.restorer export` makes them.
    """

    capabilities = Capabilities(
        name="compact",
        description="small networks of this project repair the named flaws of detail and light; others as classical",
        text_guided=True,
        tiled=True,
        licence="Apache-2.0 (code and weights; fitted on Kodak24, BSDS500 and BIQ2021)",
        memory="about 0.5 GB with tiles of 1024",
        seeded=False,
        encoder="none",
        tile_px=1024,
        overlap_px=96,
    )

    def __init__(self, *, folder: Path | None = None) -> None:
        from restore_bridge.restorers.compact.networks import Networks

        self._networks = Networks(folder)

    def restore(
        self,
        picture: Picture,
        guidance: Guidance,
        *,
        prompts: Prompts | None = None,
        settings: RestoreSettings = DEFAULT_SETTINGS,
    ) -> Restored:
        import numpy as np

        from restore_bridge.restorers.classical import ClassicalRestorer
        from restore_bridge.restorers.compact.condition import OWN

        check_scale(self.capabilities, settings, picture.size)
        actions = tuple(action for action in plan_actions(guidance) if action.operation in OWN)
        rest = _without(guidance, OWN)
        has_rest = bool(plan_actions(rest))
        if settings.strength == 0 or not (actions or has_rest):
            return Restored(
                picture, (Note("compact-nothing-asked", "the guidance names no flaw; the picture is unchanged"),)
            )
        steps: list[dict[str, Any]] = []
        if actions:
            current = np.asarray(picture.pixels, np.float32) / np.float32(255)
            current = self._tone(current, actions, settings, steps)
            current = self._detail(current, actions, settings, steps)
            picture = picture.with_pixels(np.clip(np.rint(current * 255), 0, 255).astype(np.uint8))
        if not has_rest:
            return Restored(picture, (), tuple(steps))
        done = ClassicalRestorer().restore(picture, rest, prompts=prompts, settings=settings)
        return Restored(done.picture, done.notes, (*steps, *done.steps))

    def _tone(
        self, current: Floats, actions: tuple[Action, ...], settings: RestoreSettings, steps: list[dict[str, Any]]
    ) -> Floats:
        """Light, place by place; the whole picture first."""
        import numpy as np

        from restore_bridge.restorers.classical import feathered_mask
        from restore_bridge.restorers.compact.tone import apply_curve

        size = (current.shape[1], current.shape[0])
        for action in actions:
            if action.operation is not Operation.LIFT:
                continue
            box = Box(0, 0, *size) if action.box_fraction is None else Box.from_fraction(action.box_fraction, size)
            inside = (slice(box.y1, box.y2), slice(box.x1, box.x2))
            part = current[inside]
            curve = self._networks.curve(part, action.strength)
            changed = apply_curve(part, curve, settings.strength)
            current = current.copy()
            current[inside] = part + feathered_mask(box, size)[inside][:, :, None] * (changed - part)
            amount = {"stops": round(float(curve[0] / np.log(2)), 2), "exponent": round(float(np.exp(curve[1])), 3)}
            steps.append({**action.to_dict(), "amount": amount})
        return current

    def _detail(
        self, current: Floats, actions: tuple[Action, ...], settings: RestoreSettings, steps: list[dict[str, Any]]
    ) -> Floats:
        """Noise, blur and compression, all at once."""
        import numpy as np

        from restore_bridge.restorers.compact.condition import DETAIL, condition_maps, first_guess

        named = tuple(action for action in actions if action.operation in DETAIL)
        if not named:
            return current
        tile, overlap = settings.tiles(self.capabilities)
        condition = condition_maps(named, (current.shape[1], current.shape[0]))
        guess, measured = first_guess(current, named)
        made = self._networks.detail(current, guess, condition, tile=tile, overlap=overlap)
        change = round(float(np.abs(made - current).mean()) * 255 * settings.strength, 2)
        for action in named:
            if action.operation is not Operation.LIFT:
                amount = {**measured.get(action, {}), "mean_change_of_255": change}
                steps.append({**action.to_dict(), "amount": amount})
        return current + np.float32(settings.strength) * (made - current)


def _without(guidance: Guidance, done: frozenset[Operation]) -> Guidance:
    """`guidance` less what the operations `done` repair."""

    def less(phrases: tuple[Phrase, ...]) -> tuple[Phrase, ...]:
        return tuple(
            replace(phrase, flaws=tuple(flaw for flaw in phrase.flaws if REPAIRS[flaw] not in done))
            for phrase in phrases
        )

    return replace(guidance, positive=less(guidance.positive), negative=less(guidance.negative))
