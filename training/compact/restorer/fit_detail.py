"""Fitting the detail network: the loop, its rate, its state on disk. It must not know flaws or photographs' origin.

The loss is the mean of log(MSE + ε) over patches, which is the mean PSNR but for a factor (as in NAFNet, Chen et al.,
ECCV 2022). The rate rises, stays, and falls to nothing over the last `FALL` of the steps. What is kept is the running
mean of the weights. Every batch follows from (seed, step), so that a run that was cut off goes on as if nothing had
happened.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restore_bridge.restorers.compact.condition import FULL
from zoomiqa.files import atomic_write_text

from ...runs import refuse_changes  # noqa: TID252 - in a wheel it is zoomiqa.training
from ..files import read_weights  # noqa: TID252
from .network import DetailNet
from .photos import Photo, digest_of
from .pool import Pool, PoolSettings

EPSILON = 1e-4
"""Of a mean squared error of 0..1 pictures: beyond 40 dB little more is gained."""

UNTOUCHED = 0.25
"""Weight of patches that should come out as they went in. Their error is small, and so its logarithm steep: with full
weight they taught the network to do nothing at all."""

FALL = 0.6
MOST_GRADIENT = 1.0


@dataclass(frozen=True, slots=True)
class FitSettings:
    """What decides a fit."""

    steps: int = 38_000
    rate: float = 1e-3
    warm_up: int = 150
    averaging: float = 0.999
    seed: int = 0
    pool: PoolSettings = field(default_factory=PoolSettings)

    def rate_at(self, step: int) -> float:
        """The rate of `step`, counted from 0."""
        falling = max(1, round(FALL * self.steps))
        return self.rate * min(1.0, (step + 1) / self.warm_up, max(self.steps - step, 1) / falling)


def loss_of(made: Tensor, given: Tensor, wanted: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of log(MSE + ε) over patches, each patch's error taken where something is named, and the gain over
    `given` in decibels, of those patches that had something to gain.
    """
    presence = torch.clamp(condition.amax(1, keepdim=True) / FULL, 0, 1)
    count = 3 * presence.sum((1, 2, 3)) + 1
    before, after = (
        torch.log((presence * (picture - wanted).square()).sum((1, 2, 3)) / count + EPSILON)
        for picture in (given, made)
    )
    is_spoiled = ((given - wanted).abs().amax((1, 2, 3)) > 0).float()
    weight = UNTOUCHED + (1 - UNTOUCHED) * is_spoiled
    gain = 10 / math.log(10) * ((before - after.detach()) * is_spoiled).sum() / is_spoiled.sum().clamp(min=1)
    return (weight * after).mean(), gain


def fit_detail(
    photos: Sequence[Photo],
    settings: FitSettings,
    folder: Path,
    *,
    start: Path | None = None,
    report: Callable[[str], None] = print,
    until: int | None = None,
    save_every: int = 250,
    report_every: int = 250,
) -> DetailNet:
    """Fit, or go on with, the network whose state is kept in `folder`; the averaged network is returned.

    Args:
        photos: What is trained on.
        settings: What decides the fit.
        folder: Where its state is kept.
        start: An exported network to go on from; without one the weights begin at random.
        report: Where progress goes.
        until: The step to stop at, for a run that is to be gone on with later; the rate follows `settings.steps` all
            the same. `None` is the end.
        save_every, report_every: Steps from one state, and one report, to the next.

    Raises:
        RecordSettingsChanged: the folder holds the state of another fit.
    """
    identity, told = {**asdict(settings), "photos": digest_of(photos)}, folder / "detail.json"
    if start is not None:
        identity["start"] = hashlib.sha256(start.read_bytes()).hexdigest()
    if told.exists():
        # What a state does not tell of itself is taken to be alike.
        known = {**identity, **json.loads(told.read_text("utf-8"))}
        refuse_changes({name: known[name] for name in known if name != "step"}, identity)
    last = settings.steps if until is None else min(until, settings.steps)
    torch.manual_seed(settings.seed)
    net: DetailNet = DetailNet().to(memory_format=torch.channels_last)
    if start is not None:
        read_weights(start, net)
    optimiser = torch.optim.AdamW(net.parameters(), lr=settings.rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    weights = net.state_dict()
    average = {name: value.clone() for name, value in weights.items()}
    first, state_path = 0, folder / "detail.pt"
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        net.load_state_dict(state["net"])
        optimiser.load_state_dict(state["optimiser"])
        average, first = state["average"], state["step"]
        report(f"going on from step {first}")
    folder.mkdir(parents=True, exist_ok=True)
    pool = Pool(photos, settings.pool, settings.seed, first)
    gains, began = [], time.monotonic()
    for step in range(first, last):
        for group in optimiser.param_groups:
            group["lr"] = settings.rate_at(step)
        given, guess, condition, wanted = pool.draw(step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            made = net(given, guess, condition)
        loss, gain = loss_of(made.float(), given, wanted, condition)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), MOST_GRADIENT)
        optimiser.step()
        keep = min(settings.averaging, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), [weights[name] for name in average], 1 - keep)
        gains.append(gain.item())
        done = step + 1
        if done % report_every == 0 or done == last:
            pace = (time.monotonic() - began) / (done - first)
            report(f"step {done}: gain {np.mean(gains):.3f} dB, {pace:.3f} s a step")
            gains.clear()
        if done % save_every == 0 or done == last:
            whole = {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "average": average, "step": done}
            part = folder / "detail.part"
            torch.save(whole, part)
            part.replace(state_path)
            atomic_write_text(told, json.dumps({"step": done, **identity}) + "\n")
    net.load_state_dict(average)
    net.eval()
    return net
