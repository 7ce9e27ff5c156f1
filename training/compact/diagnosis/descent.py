"""The loop that all networks of the diagnosis are trained by. It must not know what they read or tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

WARM_UP = 50
LEAST_RATE = 1e-5
REPORT_EVERY = 500


def descend(
    torch: Any,
    layers: Any,
    batches: Iterable[NDArray[np.int64]],
    loss_of: Callable[[NDArray[np.int64]], Any],
    *,
    steps: int,
    rate: float,
    decay: float,
    title: str,
) -> None:
    """Train `layers` by AdamW; the rate rises over `WARM_UP` steps and falls by a cosine.

    Args:
        torch: The framework, which is imported where it is needed.
        layers: A module with its parameters.
        batches: The rows of each step.
        loss_of: The loss of the rows of a step.
        steps: How many steps.
        rate: The highest rate.
        decay: Of the weights.
        title: What the reports begin with.
    """
    optimizer = torch.optim.AdamW(layers.parameters(), lr=rate, weight_decay=decay)
    for step, rows in zip(range(steps), batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, step / WARM_UP) * (0.5 + 0.5 * np.cos(np.pi * step / steps)) + LEAST_RATE
        loss = loss_of(rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % REPORT_EVERY == 0 or step == steps - 1:
            print(f"{title}, step {step}: {loss.item():.2f}", flush=True)


def scaled_loss(error: Any, log_scale: Any, axes: int) -> Any:
    """The mean of errors in units of a scale that is estimated beside them, and half their own mean.

    A photograph with a cast or an exposure of its own may be called uncertain, so that it does not count for more than
    all others; the second part keeps all others from it.

    Args:
        error: N lengths of error.
        log_scale: N logarithms of their scale.
        axes: Of what the error is the length: each axis adds one logarithm of the scale.
    """
    scale = log_scale.clamp(-4, 2)
    return (error / scale.exp() + axes * scale + 0.5 * error).mean()
