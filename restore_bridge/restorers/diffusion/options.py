"""The options of diffusion restorers: what can be chosen, within which bounds, and what a preset stands for.

Every field is a keyword of `load_restorer(name, ...)` and of `--restorer-option`. It must not know torch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from restore_bridge.restorers.diffusion.loading import check_options
from restore_bridge.restorers.diffusion.sampling import Ramp, Sampling
from zoomiqa.errors import OptionInvalid

PRESETS = ("quality", "fidelity")
"""`quality` redraws more and follows the words more closely; `fidelity` stays nearer to the picture."""


@dataclass(frozen=True, slots=True)
class Options:
    """What every diffusion restorer takes."""

    weights: str | Path | None = None
    """Folder of a saved pipeline, or `owner/name` on the hub (`owner/name@commit` for one state of it)."""

    variant: str | None = None
    """Suffix of the weight files on the hub, such as fp16, which halves the download."""

    accept_licence: bool = False
    """Consent to weights that are not free for every use."""

    preset: str = "quality"
    steps: int | None = None
    """Of the whole schedule, 1..1000."""

    denoise: float | None = None
    """Share of the schedule that is walked at full strength, above 0 to 1: how much is redrawn."""

    guidance: float | None = None
    """How closely the words are followed in the last step, 1..30."""

    guidance_start: float | None = None
    """Likewise where there is most noise; between them it changes with the noise."""

    quality_suffix: str | None = None
    """Words after the positive prompt, where they are not in it yet; an empty text for none."""

    negative_suffix: str | None = None
    """Likewise after the negative prompt."""

    min_side: int | None = None
    """Short side in pixels to which smaller pictures are enlarged while they are worked at."""

    tile: int | None = None
    """Side in pixels of what is denoised at once; a multiple of 64."""

    overlap: int | None = None
    """Pixels that neighbouring tiles share."""

    device: str = "auto"
    dtype: str = "auto"
    offload: str = "auto"
    """What stays in the machine's memory until it is needed: none, model (whole networks) or sequential (layers)."""

    attention: str = "sdpa"
    """sdpa, or sliced (less memory, slower)."""

    compile: str | None = None
    """Backend of `torch.compile`, such as inductor: a slow first picture, faster ones after it."""

    def __post_init__(self) -> None:
        self._as_text("weights")
        check_options(self.dtype, self.offload, self.attention)
        if self.preset not in PRESETS:
            raise OptionInvalid("there is no preset of that name", self.preset, f"choose one of {', '.join(PRESETS)}")
        self._within("steps", 1, 1000)
        self._within("denoise", 0, 1, is_open=True)
        self._within("guidance", 1, 30)
        self._within("guidance_start", 1, 30)
        self._within("min_side", 8, 8192)
        self._within("tile", 64, 8192)
        if self.tile is not None and self.tile % 64:
            raise OptionInvalid("the tile must be a multiple of 64 pixels", self.tile, "choose 512, 768 or 1024")
        if self.overlap is not None and not 0 <= self.overlap < (self.tile or 8192):
            raise OptionInvalid("the overlap must be at least 0 and less than the tile", self.overlap, "half of it")

    def _as_text(self, name: str) -> None:
        """A path as the text that a record can hold."""
        value = getattr(self, name)
        if value is not None:
            object.__setattr__(self, name, str(value))

    def _within(self, name: str, low: float, high: float, *, is_open: bool = False) -> None:
        value = getattr(self, name)
        if value is None:
            return
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not low <= value <= high or (is_open and value == low):
            bounds = f"above {low} to {high}" if is_open else f"in {low}..{high}"
            raise OptionInvalid(f"{name} must lie {bounds}", value, "leave it out for the preset's")

    def sampling(self, preset: Sampling, strength: float) -> Sampling:
        """`preset` with what was chosen otherwise, at `strength` (above 0 to 1) of the whole change."""
        guidance = ramp(preset.guidance, self.guidance_start, self.guidance)
        share = preset.denoise if self.denoise is None else self.denoise
        return Sampling(self.steps or preset.steps, share * strength, guidance, preset.control, preset.pull)

    def to_dict(self) -> dict[str, Any]:
        """What was chosen; defaults are left out."""
        chosen = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        return {name: value for name, value, default in chosen if value != default}


@dataclass(frozen=True, slots=True)
class ControlOptions(Options):
    """With a ControlNet that holds the picture's structure."""

    controlnet: str | Path | None = None
    """Folder or hub id of the ControlNet; a pipeline folder may bring its own."""

    control: float | None = None
    """How strongly it holds in the last step, 0..2."""

    control_start: float | None = None
    """Likewise where there is most noise."""

    pull: float | None = None
    """Pull towards the picture while the noise is high, as an exponent: 0 is off, and larger ones pull less."""

    def __post_init__(self) -> None:
        # A plain `super()` does not work here: slots make the decorator build the class anew.
        Options.__post_init__(self)
        self._as_text("controlnet")
        self._within("control", 0, 2)
        self._within("control_start", 0, 2)
        self._within("pull", 0, 100)

    def sampling(self, preset: Sampling, strength: float) -> Sampling:
        plain = Options.sampling(self, preset, strength)
        control = ramp(preset.control, self.control_start, self.control)
        pull = preset.pull if self.pull is None else self.pull
        return Sampling(plain.steps, plain.denoise, plain.guidance, control, pull)


def ramp(preset: Ramp, start: float | None, end: float | None) -> Ramp:
    """`preset` with another end or start; a start alone or an end alone moves only itself."""
    return Ramp(preset.start if start is None else start, preset.end if end is None else end)
