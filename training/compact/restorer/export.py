"""From fitted networks to the files that are shipped: ONNX with 16-bit weights. It must not know photographs."""

from __future__ import annotations

from pathlib import Path

import torch

from restore_bridge.restorers.compact.condition import CHANNELS
from restore_bridge.restorers.compact.tone import QUANTILES, THUMBNAIL

from ..files import write_halved  # noqa: TID252 - in a wheel it is zoomiqa.training
from .network import STRIDE, DetailNet, ToneNet

SMALLEST = 256
"""Numbers that a tensor must hold to be stored in 16 bits."""


def export_all(run: Path, out: Path) -> None:
    """Write both networks of the run in folder `run` to folder `out`."""
    detail, tone = DetailNet(), ToneNet()
    detail.load_state_dict(torch.load(run / "detail.pt", weights_only=True)["average"])
    tone.load_state_dict(torch.load(run / "tone.pt", weights_only=True))
    out.mkdir(parents=True, exist_ok=True)
    export_detail(detail, out / "detail.onnx")
    export_tone(tone, out / "tone.onnx")


def export_detail(net: DetailNet, path: Path) -> None:
    """Write the detail network; height and width are free."""
    side = 4 * STRIDE
    picture = torch.zeros(1, 3, side, side)
    examples = {"pixels": picture, "guess": picture, "condition": torch.zeros(1, len(CHANNELS), side, side)}
    free = {name: {2: "height", 3: "width"} for name in (*examples, "restored")}
    write_halved(path, net, examples, ["restored"], free, smallest=SMALLEST)


def export_tone(net: ToneNet, path: Path) -> None:
    """Write the tone network."""
    examples = {
        "thumbnail": torch.zeros(1, 3, THUMBNAIL, THUMBNAIL),
        "quantiles": torch.zeros(1, 3 * len(QUANTILES)),
        "told": torch.zeros(1, 1),
    }
    write_halved(path, net, examples, ["curve"], {}, smallest=SMALLEST)
