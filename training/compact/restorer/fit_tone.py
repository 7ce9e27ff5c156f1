"""Fitting the tone network: photographs made dark as thumbnails, and the curve that brings them back.

Each photograph is darkened with the formula of `low_light` in `zoomiqa.imaging.distortions`, on its thumbnail at twice
the side that the network sees; some are tinted before, which is to stay. It must not know detail.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restore_bridge.actions import STRENGTHS
from restore_bridge.restorers.compact.tone import THUMBNAIL, Floats, quantiles_of
from restore_bridge.restorers.operations.light import to_coded, to_linear
from zoomiqa.files import atomic_write_text
from zoomiqa.vocabulary import Severity

from .cases import DEEPEN, WORDLESS, word_for
from .network import ToneNet
from .photos import Photo

EPSILON = 1e-4
GAINS = (0.6, 0.05)
"""Linear gain of the weakest and the strongest darkening; even in the logarithm."""

DOUBT = 0.25
"""Standard deviation of the level by which a word of strength is chosen."""

FALSE = 0.15
"""Share of photographs that are called dark and are not."""

FALSE_LEVEL = 0.4
"""Highest level by which the word for such a one is chosen."""

TINTED, TINT = 0.25, 0.3
"""Share of photographs with a cast that nobody speaks of, and the standard deviation of its log gains."""

NOISY = 0.35
MOST_NOISE = 50.0 / 255


@dataclass(frozen=True, slots=True)
class ToneSettings:
    """What decides a fit."""

    steps: int = 1500
    batch: int = 24
    rate: float = 2e-3
    averaging: float = 0.998
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """The rate of `step`: a short rise, then half a cosine."""
        return float(self.rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + np.cos(np.pi * step / self.steps)))


def thumbnails_of(photos: Sequence[Photo]) -> Floats:
    """N×2s×2s×3, 0..1 in linear light: each photograph whole and, twice, a random part of it (s: `THUMBNAIL`)."""
    import cv2

    rng = np.random.default_rng(1)
    made = []
    for photo in photos:
        height, width = photo.pixels.shape[:2]
        for share in (1.0, float(rng.uniform(0.5, 0.9)), float(rng.uniform(0.5, 0.9))):
            h, w = int(height * share), int(width * share)
            y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            part = photo.pixels[y : y + h, x : x + w]
            made.append(cv2.resize(part, (2 * THUMBNAIL, 2 * THUMBNAIL), interpolation=cv2.INTER_AREA))
    return np.stack([to_linear(np.asarray(part, np.float32) / np.float32(255)) for part in made])


def draw_tones(light: Floats, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Darken photographs, N×2s×2s×3 in linear light, and tell of it.

    Returns:
        The dark ones and the wanted ones, both coded, and what is told (N×1).
    """
    dark, wanted = np.empty_like(light), np.empty_like(light)
    told = np.zeros((len(light), 1), np.float32)
    for row, picture in enumerate(light):
        if rng.random() < TINTED:
            gains = np.exp(np.float32(TINT) * rng.standard_normal(3, np.float32))
            picture = np.minimum(picture * (gains / gains.mean()), 1)
        wanted[row] = to_coded(picture)
        level = float(rng.random())
        if rng.random() < FALSE:
            level *= FALSE_LEVEL
            dark[row] = wanted[row]
        else:
            gain = GAINS[0] * (GAINS[1] / GAINS[0]) ** level
            dark[row] = to_coded(np.float32(gain) * picture ** np.float32(DEEPEN))
            if rng.random() < NOISY:
                dark[row] = _clipped_mean(dark[row], float(rng.uniform(0.005, MOST_NOISE)))
        word = None if rng.random() < WORDLESS else Severity(word_for(level + DOUBT * float(rng.standard_normal())))
        told[row] = STRENGTHS[word]
    return np.asarray(np.rint(dark * 255) / 255, np.float32), wanted, told


def _clipped_mean(values: Floats, sigma: float) -> Floats:
    """The mean of values under normal noise of `sigma` that a file clips at 0: how noise lightens the dark."""
    from scipy.special import ndtr

    ratio = values / np.float32(sigma)
    return np.asarray(values * ndtr(ratio) + sigma * np.exp(-(ratio**2) / 2) / np.sqrt(2 * np.pi), np.float32)


def halved(pictures: Floats) -> Floats:
    """N×2s×2s×3 → N×3×s×s by averaging."""
    count, side = len(pictures), pictures.shape[1] // 2
    return np.ascontiguousarray(pictures.reshape(count, side, 2, side, 2, 3).mean((2, 4)).transpose(0, 3, 1, 2))


def curved(pixels: Tensor, curve: Tensor) -> Tensor:
    """As `restore_bridge.restorers.compact.tone.apply_curve`, for N×3×h×w and N×2, with gradients."""
    linear = torch.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4).clamp(min=1e-6)
    light = torch.exp(curve[:, :1, None, None] + torch.exp(curve[:, 1:, None, None]) * torch.log(linear))
    # Past white the picture is clipped, but its gradient must not vanish.
    over = (light - 1).clamp(min=0)
    light = (light.clamp(max=1)).clamp(min=1e-6)
    coded = torch.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return coded + 0.02 * (over - over.detach())


def fit_tone(
    photos: Sequence[Photo], settings: ToneSettings, *, report: Callable[[str], None] = print, report_every: int = 250
) -> ToneNet:
    """Fit the tone network; the averaged network is returned."""
    torch.manual_seed(settings.seed)
    net = ToneNet()
    optimiser = torch.optim.AdamW(net.parameters(), lr=settings.rate, weight_decay=1e-3)
    average = {name: value.clone() for name, value in net.state_dict().items()}
    light = thumbnails_of(photos)
    losses, before = [], []
    for step in range(settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = settings.rate_at(step)
        rng = np.random.default_rng([settings.seed, step])
        chosen = light[rng.integers(len(light), size=settings.batch)]
        chosen = chosen[:, :, ::-1] if rng.random() < 0.5 else chosen
        dark, bright, told = draw_tones(chosen, rng)
        given, wanted = halved(dark), torch.from_numpy(halved(bright))
        curve = net(torch.from_numpy(given), torch.from_numpy(quantiles_of(given)), torch.from_numpy(told))
        made = curved(torch.from_numpy(given), curve)
        loss = torch.log((made - wanted).square().mean((1, 2, 3)) + EPSILON).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        keep = min(settings.averaging, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in net.state_dict().items():
                average[name].lerp_(value, 1 - keep)
        losses.append(loss.item())
        before.append(float(np.log(np.square(given - wanted.numpy()).mean((1, 2, 3)) + EPSILON).mean()))
        if (step + 1) % report_every == 0 or step + 1 == settings.steps:
            gained = 10 / np.log(10) * (np.mean(before) - np.mean(losses))
            report(f"step {step + 1}: {-10 / np.log(10) * np.mean(losses):.2f} dB, gain {gained:.2f} dB")
            losses.clear()
            before.clear()
    net.load_state_dict(average)
    net.eval()
    return net


def save_tone(net: ToneNet, settings: ToneSettings, folder: Path) -> None:
    """Keep a fitted network in the folder of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), folder / "tone.pt")
    atomic_write_text(folder / "tone.json", json.dumps(asdict(settings)) + "\n")
