"""DreamClear's noise schedule and sampler: DDPM with a learned variance on evenly spread steps.

Sources: Ho et al., "Denoising Diffusion Probabilistic Models" (NeurIPS 2020), equations 6, 7 and 15; Nichol and Dhariwal,
"Improved Denoising Diffusion Probabilistic Models" (ICML 2021), equation 15 for the variance and section 4 for fewer
steps. DreamClear walks 50 of 1000 steps, βs linear from 0.0001 to 0.02.

    log σ² = f · log β + (1 - f) · log β̃,   f = (v + 1) / 2,   v the model's second half of channels

Why not diffusers' DDPMScheduler: it keeps its table as 32-bit numbers and takes differences of nearly equal ones at
every step; here the table has 64 bits and only finished coefficients are rounded. Both spread n steps from 0 to 999;
where a step falls half-way between two numbers, the running sum decides here, as in the original.

It must not know models, latents' meaning or guidance.
"""  # noqa: E501

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from numpy.typing import NDArray
from torch import Tensor

from zoomiqa.errors import OptionInvalid

Numbers = NDArray[np.float64]


def spread_steps(steps: int, total: int) -> list[int]:
    """`steps` timesteps from 0 to `total - 1`, evenly spread and rounded, rising.

    The running sum of the (inexact) stride is what is rounded, as in the original: ties between two numbers fall as its
    last bits do.

    Raises:
        OptionInvalid: more steps than there are.
    """
    if not 1 <= steps <= total:
        raise OptionInvalid(f"steps must lie in 1..{total}", steps, "50 is DreamClear's own")
    stride = (total - 1) / (steps - 1) if steps > 1 else 1.0
    place, found = 0.0, []
    for _ in range(steps):
        found.append(round(place))
        place += stride
    return found


@dataclass(frozen=True, slots=True)
class Table:
    """Coefficients of a walk, each (steps,) with 64 bits, step 0 being the last one walked."""

    betas: Numbers
    alphas_cumprod: Numbers
    alphas_cumprod_prev: Numbers
    sqrt_alphas_cumprod: Numbers
    sqrt_one_minus_alphas_cumprod: Numbers
    sqrt_recip_alphas_cumprod: Numbers
    sqrt_recipm1_alphas_cumprod: Numbers
    posterior_variance: Numbers
    posterior_log_variance_clipped: Numbers
    posterior_mean_coef1: Numbers
    posterior_mean_coef2: Numbers
    log_betas: Numbers

    @classmethod
    def of(cls, betas: Numbers) -> Table:
        """All that follows from βs."""
        alphas = 1.0 - betas
        signal = np.cumprod(alphas, dtype=np.float64)
        before = np.append(1.0, signal[:-1])
        variance = betas * (1.0 - before) / (1.0 - signal)
        # At step 0 it is 0, which has no logarithm; no noise is added there.
        clipped = np.append(variance[1:2], variance[1:]) if len(variance) > 1 else np.full(1, np.finfo(float).tiny)
        return cls(
            betas,
            signal,
            before,
            np.sqrt(signal),
            np.sqrt(1.0 - signal),
            np.sqrt(1.0 / signal),
            np.sqrt(1.0 / signal - 1),
            variance,
            np.log(clipped),
            betas * np.sqrt(before) / (1.0 - signal),
            (1.0 - before) * np.sqrt(alphas) / (1.0 - signal),
            np.log(betas),
        )


@dataclass
class IDDPMSchedulerOutput(BaseOutput):  # type: ignore[misc]
    """One step.

    Attributes:
        prev_sample: The latent one step further.
        pred_original_sample: The latent without noise that the prediction means.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor


class IDDPMScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """Ancestral sampling of a model that predicts noise and the variance's interpolation.

    Args:
        num_train_timesteps: Steps of the whole schedule.
        beta_start: First β.
        beta_end: Last β.
        clip_sample: Whether the predicted picture is held to -1..1; DreamClear does not.
        prediction_type: Always "epsilon"; here so that others can read it.
        variance_type: Always "learned_range"; likewise.
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        *,
        clip_sample: bool = False,  # noqa: ARG002 - kept in the configuration
        prediction_type: str = "epsilon",
        variance_type: str = "learned_range",
    ) -> None:
        for name, value, known in (
            ("prediction_type", prediction_type, "epsilon"),
            ("variance_type", variance_type, "learned_range"),
        ):
            if value != known:
                raise OptionInvalid(f"this schedule has only {name}={known}", value, "use a scheduler of diffusers")
        self.train = Table.of(np.linspace(beta_start, beta_end, num_train_timesteps, dtype=np.float64))
        self.alphas_cumprod = torch.from_numpy(self.train.alphas_cumprod)
        self.set_timesteps(num_train_timesteps)

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Spread `num_inference_steps` over the schedule; `timesteps` falls."""
        steps = spread_steps(num_inference_steps, self.config.num_train_timesteps)
        self.num_inference_steps = num_inference_steps
        kept = self.train.alphas_cumprod[steps]
        self.table = Table.of(1.0 - kept / np.append(1.0, kept[:-1]))
        self.timestep_map = steps
        self._index = {timestep: index for index, timestep in enumerate(steps)}
        self.timesteps = torch.tensor(steps[::-1], dtype=torch.int64, device=device)

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:  # noqa: ARG002
        """The latent as the model wants to see it, which is as it is."""
        return sample

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: Any = None,
        *,
        noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Take one step's noise away.

        Args:
            model_output: Noise and variance (b, 2c, h, w).
            timestep: One of `timesteps`.
            sample: The latent (b, c, h, w).
            generator: Draws the noise; on the CPU, one seed gives one noise on any device.
            noise: Noise to take instead (b, c, h, w).
            return_dict: Whether to return `IDDPMSchedulerOutput` rather than a tuple.

        Raises:
            OptionInvalid: the prediction has no variance, or the timestep is not one that is walked.
        """
        if model_output.shape[1] != 2 * sample.shape[1]:
            raise OptionInvalid(
                f"this schedule needs a prediction of {2 * sample.shape[1]} channels, noise and variance",
                model_output.shape[1],
                "give the model's whole output, or use a scheduler of diffusers",
            )
        index = self._index.get(int(timestep))
        if index is None:
            raise OptionInvalid("this timestep is not walked", int(timestep), "take it from `timesteps`")
        table = self.table
        epsilon, variance = model_output.float().chunk(2, dim=1)
        latent = sample.float()

        def number(values: Numbers) -> float:
            return float(np.float32(values[index]))

        clean = number(table.sqrt_recip_alphas_cumprod) * latent - number(table.sqrt_recipm1_alphas_cumprod) * epsilon
        if self.config.clip_sample:
            clean = clean.clamp(-1, 1)
        result = number(table.posterior_mean_coef1) * clean + number(table.posterior_mean_coef2) * latent
        share = (variance + 1) / 2
        low, high = number(table.posterior_log_variance_clipped), number(table.log_betas)
        # Drawn at the last step as well, as the original does: a generator that goes on is then in the same state.
        if noise is None:
            noise = randn_tensor(latent.shape, generator=generator, device=latent.device, dtype=torch.float32)
        if index > 0:
            result = result + torch.exp(0.5 * (share * high + (1 - share) * low)) * noise
        result = result.to(sample.dtype)
        return IDDPMSchedulerOutput(result, clean) if return_dict else (result,)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Latents (b, c, h, w) under as much noise as there is at `timesteps` (b or 1,), 0..999."""
        chosen = timesteps.cpu().numpy()
        shape = (-1, *(1,) * (original_samples.ndim - 1))
        keep, spread = (
            torch.from_numpy(values[chosen].astype(np.float32)).to(original_samples.device).reshape(shape)
            for values in (self.train.sqrt_alphas_cumprod, self.train.sqrt_one_minus_alphas_cumprod)
        )
        return (keep * original_samples.float() + spread * noise.float()).to(original_samples.dtype)

    def __len__(self) -> int:
        return int(self.config.num_train_timesteps)


__all__ = ["IDDPMScheduler", "IDDPMSchedulerOutput", "Table", "spread_steps"]
