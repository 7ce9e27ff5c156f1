"""The denoising loop: from a picture's latent, some noise added, back to a picture's latent. It must not know models.

A model is known here by one function, which predicts the noise of one window for both sides of the guidance. Everything
that changes from step to step lives here: the strength of guidance and control, the pull towards the first latent, and
the blend of windows.

Why the loop is not the pipeline's own: diffusers' pipelines for pictures with a ControlNet keep the guidance scale that
they were called with (a later `_guidance_scale` is ignored), and see one prompt and one window. With one window and
constant scales this loop gives the same pictures; a test holds it to that for every model.

Sources: classifier-free guidance (Ho and Salimans 2021); image to image by partial noise (SDEdit, Meng et al., ICLR
2022); guidance that grows as the noise falls, and restoration-guided sampling (SUPIR, Yu et al., CVPR 2024).
"""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoomiqa.errors import BackendFailed

if TYPE_CHECKING:
    from torch import Tensor

    from zoomiqa.types import Box

LEAST_GUIDANCE = 1.01
"""At 1 the negative prompt would have no say."""

PULL_ENDS_BELOW = 0.05
"""Noise level under which nothing is pulled any more, so that detail can settle (SUPIR)."""


@dataclass(frozen=True, slots=True)
class Ramp:
    """A value that follows the noise: `start` at the model's highest noise level, `end` at none, linear between."""

    start: float
    end: float

    def at(self, share: float) -> float:
        """The value where the noise level is `share` (0..1) of the highest."""
        return self.end + (self.start - self.end) * share


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one latent is denoised."""

    steps: int
    """Of the whole schedule; with `denoise` below 1 only the last part of it is walked."""

    denoise: float
    """Share of the schedule that is walked, above 0 to 1: how much of the picture is redrawn."""

    guidance: Ramp
    """Classifier-free guidance scale."""

    control: Ramp
    """Scale of the ControlNet, where there is one."""

    pull: float = 0.0
    """Exponent of the pull towards the first latent: 0 is off, a larger one pulls less."""

    @property
    def walked(self) -> int:
        """Steps that are walked; at least one."""
        return max(1, min(self.steps, int(self.steps * self.denoise + 1e-6)))


@dataclass(frozen=True, slots=True)
class Step:
    """Where in the schedule a prediction is made."""

    timestep: Any
    """0-dimensional tensor."""

    control: float


Predict = Callable[["Tensor", int, Step], "Tensor"]
"""(latent of one window (1, c, h, w), its index, step) → predictions (2, c, h, w), negative side first."""


def denoise(
    schedule: Schedule,
    first: Tensor,
    predict: Predict,
    boxes: Sequence[Box],
    weights: Sequence[Any],
    sampling: Sampling,
    *,
    generator: Any,
) -> Tensor:
    """Add noise to `first` and take it away again under guidance.

    Args:
        schedule: See `schedule_for`; its state is this run's own.
        first: Latent of the picture (1, c, h, w).
        predict: The model.
        boxes: Windows, in latent pixels.
        weights: Of each window (h, w), summing to 1 at every pixel.
        sampling: What to do.
        generator: A generator on the CPU: one seed gives one noise on any device.

    Raises:
        BackendFailed: the latent holds NaN or infinity after a step.
    """
    import torch

    timesteps = schedule.start(sampling, first.device)
    noise = torch.randn(first.shape, generator=generator, dtype=torch.float32).to(first.device, first.dtype)
    latent = schedule.noised(first, noise, timesteps[:1])
    masks = [torch.from_numpy(weight).to(first.device, torch.float32) for weight in weights]
    for index, timestep in enumerate(timesteps):
        share = schedule.share(timestep)
        step = Step(timestep, sampling.control.at(share))
        scale = max(LEAST_GUIDANCE, sampling.guidance.at(share))
        shown = schedule.shown(latent, timestep)
        total = torch.zeros(latent.shape, dtype=torch.float32, device=latent.device)
        for number, (box, mask) in enumerate(zip(boxes, masks, strict=True)):
            part = (..., slice(box.y1, box.y2), slice(box.x1, box.x2))
            negative, positive = predict(shown[part], number, step).float().chunk(2)
            total[part] += mask * (negative + scale * (positive - negative))
        after = timesteps[index + 1] if index + 1 < len(timesteps) else None
        if sampling.pull > 0 and after is not None and schedule.noise(after) > PULL_ENDS_BELOW:
            weight = share**sampling.pull
            clean = schedule.clean(total, shown, timestep)
            total = schedule.prediction(clean + weight * (first.float() - clean), shown, timestep)
        latent = schedule.step(total.to(latent.dtype), timestep, latent, generator)
        check_finite(latent, f"step {index + 1} of {len(timesteps)}")
    return latent


def check_finite(values: Tensor, where: str) -> None:
    """Refuse NaN and infinity at once: they would come out as a black picture.

    Raises:
        BackendFailed: there are some.
    """
    import torch

    if not bool(torch.isfinite(values).all()):
        raise BackendFailed(
            f"the picture became NaN or infinite at {where}",
            f"number format {str(values.dtype).removeprefix('torch.')}",
            "use dtype bf16 or fp32" if values.dtype != torch.float32 else "check the weights; they may be damaged",
        )


class Schedule(ABC):
    """How noise comes and goes, over a scheduler of diffusers.

    `clean` and `prediction` are each other's inverse: from what the model says to the latent that it means, and back.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self._has_generator = "generator" in inspect.signature(scheduler.step).parameters

    def start(self, sampling: Sampling, device: Any) -> Any:
        """The timesteps to walk, the last `sampling.walked` of the schedule; the scheduler is set to the first."""
        with warnings.catch_warnings():
            # diffusers hands torch tensors to numpy in a way that numpy 2 warns of.
            warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy", DeprecationWarning)
            self.set_timesteps(sampling.steps, device)
        begin = (sampling.steps - sampling.walked) * getattr(self.scheduler, "order", 1)
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(begin)
        return self.scheduler.timesteps[begin:]

    def step(self, prediction: Tensor, timestep: Any, latent: Tensor, generator: Any) -> Tensor:
        """The latent one step further."""
        extra = {"generator": generator} if self._has_generator else {}
        return self.scheduler.step(prediction, timestep, latent, **extra, return_dict=False)[0]

    @abstractmethod
    def set_timesteps(self, steps: int, device: Any) -> None: ...

    @abstractmethod
    def noised(self, first: Tensor, noise: Tensor, timestep: Any) -> Tensor: ...

    @abstractmethod
    def shown(self, latent: Tensor, timestep: Any) -> Tensor:
        """The latent as the model wants to see it."""

    @abstractmethod
    def noise(self, timestep: Any) -> float:
        """Noise level beside a picture of unit scale."""

    @abstractmethod
    def share(self, timestep: Any) -> float:
        """Noise level as a share of the highest, 0..1."""

    @abstractmethod
    def clean(self, prediction: Tensor, shown: Tensor, timestep: Any) -> Tensor: ...

    @abstractmethod
    def prediction(self, clean: Tensor, shown: Tensor, timestep: Any) -> Tensor: ...


class DiffusionSchedule(Schedule):
    """Noise or velocity predictions over ᾱ, the share of the picture's variance that is left (DDPM and its kin)."""

    def set_timesteps(self, steps: int, device: Any) -> None:
        self.scheduler.set_timesteps(steps, device=device)

    def noised(self, first: Tensor, noise: Tensor, timestep: Any) -> Tensor:
        return self.scheduler.add_noise(first, noise, timestep)

    def shown(self, latent: Tensor, timestep: Any) -> Tensor:
        return self.scheduler.scale_model_input(latent, timestep)

    def noise(self, timestep: Any) -> float:
        signal = self._signal(timestep)
        return float(((1 - signal) / signal) ** 0.5)

    def share(self, timestep: Any) -> float:
        return min(1.0, self.noise(timestep) / self.noise(len(self.scheduler.alphas_cumprod) - 1))

    def clean(self, prediction: Tensor, shown: Tensor, timestep: Any) -> Tensor:
        keep, noise = self._scales(timestep)
        if self._is_velocity:
            return keep * shown.float() - noise * prediction
        return (shown.float() - noise * prediction) / keep

    def prediction(self, clean: Tensor, shown: Tensor, timestep: Any) -> Tensor:
        keep, noise = self._scales(timestep)
        epsilon = (shown.float() - keep * clean) / noise
        return keep * epsilon - noise * clean if self._is_velocity else epsilon

    @property
    def _is_velocity(self) -> bool:
        return bool(self.scheduler.config.prediction_type == "v_prediction")

    def _scales(self, timestep: Any) -> tuple[float, float]:
        signal = self._signal(timestep)
        return signal**0.5, (1 - signal) ** 0.5

    def _signal(self, timestep: Any) -> float:
        table = self.scheduler.alphas_cumprod
        return float(table[min(max(round(float(timestep)), 0), len(table) - 1)].clamp(min=1e-6))


class FlowSchedule(Schedule):
    """Straight paths from noise to picture (rectified flow): x = (1 - σ)·picture + σ·noise, velocity = noise - picture.

    Args:
        scheduler: Of diffusers.
        tokens: Of the largest window; where the scheduler shifts with the picture's size, this is the size.
    """

    def __init__(self, scheduler: Any, tokens: int) -> None:
        super().__init__(scheduler)
        self.tokens = tokens

    def set_timesteps(self, steps: int, device: Any) -> None:
        import numpy as np

        config = self.scheduler.config
        extra = {}
        if config.get("use_dynamic_shifting"):
            # Linear between two picture sizes, as FLUX's authors do.
            low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
            slope = (config.get("max_shift", 1.15) - config.get("base_shift", 0.5)) / (high - low)
            extra["mu"] = config.get("base_shift", 0.5) + slope * (self.tokens - low)
        self.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), device=device, **extra)

    def noised(self, first: Tensor, noise: Tensor, timestep: Any) -> Tensor:
        return self.scheduler.scale_noise(first, timestep, noise)

    def shown(self, latent: Tensor, timestep: Any) -> Tensor:  # noqa: ARG002
        return latent

    def noise(self, timestep: Any) -> float:
        level = self.share(timestep)
        return level / max(1 - level, 1e-3)

    def share(self, timestep: Any) -> float:
        return min(1.0, float(timestep) / float(self.scheduler.config.num_train_timesteps))

    def clean(self, prediction: Tensor, shown: Tensor, timestep: Any) -> Tensor:
        return shown.float() - self.share(timestep) * prediction

    def prediction(self, clean: Tensor, shown: Tensor, timestep: Any) -> Tensor:
        return (shown.float() - clean) / self.share(timestep)


def schedule_for(scheduler: Any, tokens: int) -> Schedule:
    """A schedule over a fresh copy of a pipeline's scheduler.

    Args:
        scheduler: Of the pipeline; not changed.
        tokens: Of the largest window.
    """
    fresh = type(scheduler).from_config(scheduler.config)
    return DiffusionSchedule(fresh) if hasattr(fresh, "alphas_cumprod") else FlowSchedule(fresh, tokens)
