"""SUPIR's noise levels: SDXL's thousand, a few of them for a walk, and the nearest one for the network.

Source: SDXL's training schedule (DDPM with "scaled linear" variances from 0.00085 to 0.012; Podell et al., ICLR 2024)
in the form of EDM (Karras et al., NeurIPS 2022): σ = sqrt((1 - ᾱ) / ᾱ), 0.0292 to 14.6146, a latent of unit scale plus
σ times noise. The network knows only the thousand levels, so a level between two is rounded to the nearer one, and a
level above the highest (after churning) counts as the highest.

Why not diffusers' `EulerDiscreteScheduler`: with churn it predicts at the lower of the two levels, spreads the steps
otherwise, and has no place for the pull towards a latent. Numbers are 32-bit, as the original's are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from zoomiqa.errors import OptionInvalid

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

RELEASED_MAXIMUM = 14.6146
"""What the original divides by to get a share of the highest noise; the schedule's own maximum is 14.614641."""

KARRAS_RHO = 7.0
"""How strongly Karras' spacing (equation 5 there) favours low noise."""


class SUPIRSchedule(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """Noise levels, as data that a pipeline's folder can hold.

    Args:
        num_train_timesteps: Levels that the network knows.
        beta_start, beta_end: Variances of the first and the last; their square roots are spread evenly.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, num_train_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> None:
        import numpy as np
        import torch

        roots = torch.linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps, dtype=torch.float64)
        self._signal = np.cumprod(1.0 - (roots**2).numpy())
        self.levels = self._sigmas(self._signal)

    @staticmethod
    def _sigmas(signal: Any) -> Tensor:
        """The share of the picture's variance that is left → noise level."""
        import torch

        return torch.tensor((1 - signal) / signal, dtype=torch.float32) ** 0.5

    @property
    def maximum(self) -> float:
        """The highest level."""
        return float(self.levels[-1])

    def sigmas(self, steps: int) -> Tensor:
        """Levels of a walk, falling, with a 0 at the end: (steps + 1,).

        Raises:
            OptionInvalid: more steps than levels.
        """
        import numpy as np
        import torch

        known = len(self.levels)
        if not 1 <= steps <= known:
            raise OptionInvalid(f"steps must lie in 1..{known}", steps, "50 is SUPIR's own")
        chosen = np.linspace(known - 1, 0, steps, endpoint=False).astype(int)
        if steps == known:
            chosen = np.arange(known)[::-1]
        return torch.cat([self._sigmas(self._signal[chosen]), torch.zeros(1)])

    def karras_sigmas(self, steps: int) -> Tensor:
        """Likewise between the same two ends, spaced as Karras et al. do: (steps + 1,)."""
        import torch

        ends = self.sigmas(steps)
        low, high = ends[-2] ** (1 / KARRAS_RHO), ends[0] ** (1 / KARRAS_RHO)
        return torch.cat([(high + torch.linspace(0, 1, steps) * (low - high)) ** KARRAS_RHO, torch.zeros(1)])

    def index_of(self, sigma: Tensor) -> Tensor:
        """Number (0..999) of the known level nearest to each of `sigma`, of any shape; the lower one of two as near."""
        levels = self.levels.to(sigma.device)
        return (sigma.reshape(1, -1) - levels[:, None]).abs().argmin(dim=0).reshape(sigma.shape)

    def denoised(self, predict: Callable[[Tensor, Tensor], Tensor], noisy: Tensor, sigma: Tensor) -> Tensor:
        """The clean latent that a noise prediction means.

        Args:
            predict: (what the network sees (b, c, h, w), level numbers (b,)) → noise (b, c, h, w).
            noisy: (b, c, h, w).
            sigma: Its noise level, (b,) or a single number.
        """
        import torch

        index = self.index_of(torch.as_tensor(sigma, dtype=torch.float32).expand(len(noisy)))
        known = self.levels[index.to(self.levels.device)].to(noisy.device).reshape(-1, 1, 1, 1)
        noise = predict(noisy / (known**2 + 1) ** 0.5, index.to(noisy.device)).float()
        return noisy - noise * known
