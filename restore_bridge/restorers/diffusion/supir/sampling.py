"""SUPIR's two walks from noise to a picture, window by window. It must not know networks or words.

Source: SUPIR (Yu et al., CVPR 2024), section 3.3 and algorithm 1, over EDM's stochastic sampler (Karras et al., NeurIPS
2022, algorithm 2 without its second-order correction). A step from noise level σ to σ':

    γ  = min(churn / steps, √2 - 1) where churning is on at σ, else 0;   σ̂ = σ (1 + γ)
    x̂  = x + noise_scale · √(σ̂² - σ²) · ε
    D  = u + g(σ̂) (c - u)                        the clean latent under guidance g, of both sides of the words
    D -= (D - z) · (σ / σmax)^pull                only while σ' > 0.05 and pull > 0; z is the first stage's latent
    x' = x̂ + (x̂ - D) / σ̂ · (σ' - σ̂)

Guidance and control are ramps over σ / σmax; the control is read at σ, guidance at σ̂. The second walk, for distilled
bases that need few steps, is DPM-Solver++(2M) with noise (Lu et al., 2022; SDE form with η = 1) over Karras' levels.

What the original does oddly, kept unless `faithful` is off:

- σmax is 14.6146, where the schedule ends at 14.614641;
- windows weigh by a bell whose middle lies half a latent pixel too low (`windows.py`);
- the second walk ignores the pull and the control's ramp, and adds no noise after its first step although the step was
  shortened for it.

Different from the original: windows are blended before the step instead of after it, which is the same, as the step is
linear; the second walk draws fresh noise for every step instead of pieces of one Brownian path, which has the same
distribution; the start may be a latent under less noise (`start`), which the original cannot do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from restore_bridge.restorers.diffusion.sampling import PULL_ENDS_BELOW, Ramp, check_finite
from restore_bridge.restorers.diffusion.supir.schedule import RELEASED_MAXIMUM, SUPIRSchedule

if TYPE_CHECKING:
    from torch import Tensor

    from zoomiqa.types import Box

Sampler = Literal["edm", "dpmpp-2m"]
MOST_CHURN = 2**0.5 - 1

Denoise = Callable[["Tensor", int, "Tensor", float], "Tensor"]
"""(noisy latent of one window (b, c, h, w), its number, noise level, control scale) → clean latents (2b, c, h, w), the
unwanted side first, or (b, c, h, w) where there is no guidance."""

Draw = Callable[[], "Tensor"]
"""Noise of the whole latent (b, c, h, w), of unit scale."""

OnStep = Callable[[int, "Tensor", "Tensor"], "Tensor"]
"""(number of the step, noise level it went to, latent) → latent to go on with."""


@dataclass(frozen=True, slots=True)
class Walk:
    """How one latent is restored."""

    steps: int = 50
    """Of the whole walk; see `begin`."""

    begin: int = 0
    """Steps left out at the start; the latent is then expected under the noise of that level."""

    guidance: Ramp | None = field(default=Ramp(1.0, 4.0))
    """Classifier-free guidance over the noise; `None` for a single side."""

    control: Ramp = field(default=Ramp(1.0, 1.0))
    """Scale of the control over the noise."""

    churn: float = 5.0
    churn_from: float = 0.0
    churn_to: float = float("inf")
    """Noise levels between which there is churn."""

    noise_scale: float = 1.003
    pull: float = -1.0
    """Exponent of the pull towards the first stage; larger ones pull less, 0 and below is off."""

    pull_ends_below: float = PULL_ENDS_BELOW
    eta: float = 1.0
    """Share of noise in the second walk; 0 is the plain solver."""

    sampler: Sampler = "edm"
    faithful: bool = True
    """Whether to do what the original does where that looks like a mistake; see the module."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Parts of the latent that are denoised at once, and what each pixel of them weighs."""

    boxes: tuple[Box, ...]
    weights: tuple[Tensor, ...]
    """(h, w) each, summing to 1 at every pixel of the latent."""

    def blend(self, work: Callable[[Tensor, int], Tensor], whole: Tensor) -> Tensor:
        """`work` on every window of `whole` (b, c, h, w), as one latent."""
        import torch

        total = torch.zeros_like(whole)
        for number, (box, weight) in enumerate(zip(self.boxes, self.weights, strict=True)):
            part = (..., slice(box.y1, box.y2), slice(box.x1, box.x2))
            total[part] += work(whole[part], number) * weight.to(whole.device)
        return total


def sigmas_of(schedule: SUPIRSchedule, walk: Walk) -> Tensor:
    """Noise levels of the walk, falling to 0: (steps - begin + 1,)."""
    spaced = schedule.sigmas if walk.sampler == "edm" else schedule.karras_sigmas
    return spaced(walk.steps)[walk.begin :]


def start(noise: Tensor, sigmas: Tensor, latent: Tensor | None = None) -> Tensor:
    """Where the walk begins.

    Args:
        noise: (b, c, h, w), of unit scale.
        sigmas: What `sigmas_of` gave.
        latent: What lies under the noise; `None` for nothing, which then has unit scale itself.
    """
    if latent is None:
        return noise * (sigmas[0] ** 2 + 1) ** 0.5
    return latent + noise * sigmas[0]


def restore(
    schedule: SUPIRSchedule,
    first: Tensor,
    centre: Tensor | None,
    denoise: Denoise,
    windows: Windows,
    walk: Walk,
    *,
    draw: Draw,
    on_step: OnStep | None = None,
) -> Tensor:
    """Walk from noise to a picture's latent.

    Args:
        schedule: Noise levels.
        first: What `start` gave (b, c, h, w), 32-bit.
        centre: The first stage's latent (b, c, h, w), which the pull goes to; `None` where the walk has none.
        denoise: The model.
        windows: Parts of the latent.
        walk: What to do.
        draw: Called once for every step that adds noise.
        on_step: Called after every step.

    Raises:
        BackendFailed: the latent holds NaN or infinity after a step.
    """
    maximum = RELEASED_MAXIMUM if walk.faithful else schedule.maximum
    sigmas = sigmas_of(schedule, walk)
    stepper = _EDM(walk, maximum, centre, draw) if walk.sampler == "edm" else _DPM(walk, maximum, centre, draw)
    latent = first
    for number in range(len(sigmas) - 1):
        latent = stepper.step(latent, sigmas[number], sigmas[number + 1], denoise, windows)
        check_finite(latent, f"step {number + 1} of {len(sigmas) - 1}")
        if on_step is not None:
            latent = on_step(number, sigmas[number + 1], latent)
    return latent


class _Stepper:
    """What both walks share: the clean latent under guidance, and the pull."""

    def __init__(self, walk: Walk, maximum: float, centre: Tensor | None, draw: Draw) -> None:
        self.walk, self.maximum, self.centre, self.draw = walk, maximum, centre, draw

    def clean(self, latent: Tensor, sigma: Tensor, control: float, denoise: Denoise, windows: Windows) -> Tensor:
        """D of the formulas, before the pull."""
        ramp = self.walk.guidance
        scale = None if ramp is None else (sigma * (ramp.start - ramp.end) / self.maximum + ramp.end)

        def work(part: Tensor, number: int) -> Tensor:
            found = denoise(part, number, sigma, control)
            if scale is None:
                return found
            unwanted, wanted = found.chunk(2)
            return unwanted + scale * (wanted - unwanted)

        return windows.blend(work, latent)

    def control_at(self, sigma: Tensor) -> float:
        """The control's scale: its ramp at this noise level."""
        return self.walk.control.at(float(sigma) / self.maximum)

    def pulled(self, clean: Tensor, sigma: Tensor, after: Tensor) -> Tensor:
        """`clean`, nearer to the first stage."""
        if self.centre is None or self.walk.pull <= 0 or float(after) <= self.walk.pull_ends_below:
            return clean
        return clean - (clean - self.centre) * (sigma / self.maximum) ** self.walk.pull


class _EDM(_Stepper):
    """SUPIR's own walk."""

    def step(self, latent: Tensor, sigma: Tensor, after: Tensor, denoise: Denoise, windows: Windows) -> Tensor:
        walk = self.walk
        is_on = walk.churn_from <= float(sigma) <= walk.churn_to
        gamma = min(walk.churn / walk.steps, MOST_CHURN) if is_on else 0.0
        raised = sigma * (gamma + 1.0)
        if gamma > 0:
            latent = latent + self.draw() * walk.noise_scale * (raised**2 - sigma**2) ** 0.5
        clean = self.clean(latent, raised, self.control_at(sigma), denoise, windows)
        clean = self.pulled(clean, sigma, after)
        return latent + (latent - clean) / raised * (after - raised)


class _DPM(_Stepper):
    """DPM-Solver++(2M), with noise."""

    def __init__(self, walk: Walk, maximum: float, centre: Tensor | None, draw: Draw) -> None:
        super().__init__(walk, maximum, centre, draw)
        self.before: tuple[Tensor, Tensor] | None = None
        """Noise level and clean latent of the step before."""

    def step(self, latent: Tensor, sigma: Tensor, after: Tensor, denoise: Denoise, windows: Windows) -> Tensor:
        walk = self.walk
        control = walk.control.end if walk.faithful else self.control_at(sigma)
        clean = self.clean(latent, sigma, control, denoise, windows)
        if not walk.faithful:
            clean = self.pulled(clean, sigma, after)
        before, self.before = self.before, (sigma, clean)
        if float(after) == 0:
            return clean
        width = sigma.log() - after.log()
        noise_width = walk.eta * width
        target = clean
        if before is not None:
            ratio = 2 * (before[0].log() - sigma.log()) / width
            target = clean + (clean - before[1]) / ratio
        latent = after / sigma * (-noise_width).exp() * latent - (-width - noise_width).expm1() * target
        if walk.eta > 0 and (before is not None or not walk.faithful):
            latent = latent + self.draw() * (after * (-2 * noise_width).expm1().neg().sqrt() * walk.noise_scale)
        return latent
