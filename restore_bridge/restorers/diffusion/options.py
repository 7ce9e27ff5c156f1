"""The options of diffusion restorers: what can be chosen, within which bounds, and what a preset stands for.

Every field is a keyword of `load_restorer(name, ...)` and of `--restorer-option`. It must not know torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from restore_bridge.restorers.diffusion.loading import ATTENTIONS
from restore_bridge.restorers.diffusion.memory import DTYPE_BYTES, OFFLOADS
from restore_bridge.restorers.diffusion.sampling import Ramp, Sampling
from zoomiqa.errors import OptionInvalid

PRESETS = ("quality", "fidelity")
"""`quality` redraws more and follows the words more closely; `fidelity` stays nearer to the picture."""


_DEVICE = re.compile(r"auto|(cpu|cuda|mps)(:\d+)?")


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
        self._texts("variant", "quality_suffix", "negative_suffix", "device", "compile")
        self._flags("accept_licence")
        if not _DEVICE.fullmatch(self.device):
            raise OptionInvalid("torch knows no such device", self.device, "give cpu, cuda, cuda:1 or mps")
        self._one_of("dtype", ("auto", *DTYPE_BYTES))
        self._one_of("offload", ("auto", *OFFLOADS))
        self._one_of("attention", ATTENTIONS)
        self._one_of("preset", PRESETS)
        self._within("steps", 1, 1000, is_whole=True)
        self._within("denoise", 0, 1, is_open=True)
        self._within("guidance", 1, 30)
        self._within("guidance_start", 1, 30)
        self._within("min_side", 8, 8192, is_whole=True)
        self._within("tile", 64, 8192, is_whole=True)
        self._within("overlap", 0, 8192, is_whole=True)
        if self.tile is not None and self.tile % 64:
            raise OptionInvalid("the tile must be a multiple of 64 pixels", self.tile, "choose 512, 768 or 1024")
        if self.overlap is not None and self.overlap >= (self.tile or 8192):
            raise OptionInvalid("the overlap must be less than the tile", self.overlap, "half of it")

    def _as_text(self, name: str) -> None:
        """A path as the text that a record can hold."""
        value = getattr(self, name)
        if value is not None:
            object.__setattr__(self, name, str(value))

    def _texts(self, *names: str) -> None:
        """Refuse what is neither text nor left out."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise OptionInvalid(f"{name} must be text", value, "put it in quotes")

    def _flags(self, *names: str) -> None:
        """Refuse what is neither true nor false."""
        for name in names:
            if not isinstance(getattr(self, name), bool):
                raise OptionInvalid(f"{name} must be true or false", getattr(self, name), "choose one")

    def _one_of(self, name: str, known: Sequence[str]) -> None:
        """Refuse a word that is not known."""
        value = getattr(self, name)
        if value not in known:
            raise OptionInvalid(f"there is no {name} of that name", value, f"choose one of {', '.join(known)}")

    def _within(self, name: str, low: float, high: float, *, is_open: bool = False, is_whole: bool = False) -> None:
        """Refuse what is neither a number between `low` and `high` nor left out."""
        value = getattr(self, name)
        if value is None:
            return
        is_number = isinstance(value, int if is_whole else (int, float)) and not isinstance(value, bool)
        if not is_number or not low <= value <= high or (is_open and value == low):
            bounds = f"above {low} to {high}" if is_open else f"in {low}..{high}"
            bounds += " and be whole" if is_whole else ""
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
