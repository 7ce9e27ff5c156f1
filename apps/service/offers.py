"""What can be chosen here: found from what is installed, as `zoomiqa doctor` finds it. It must not know jobs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Collection, Mapping
from typing import Any

from restore_bridge.restorers import DEFAULT_RESTORER, REGISTRY
from zoomiqa.cli.doctor import inspect

from .settings import Offer

_DOCTOR = "import sys; from zoomiqa.cli import main; sys.exit(main(['doctor', '--json']))"
_DOCTOR_SECONDS = 120


class Doctor:
    """`zoomiqa doctor --json`, asked at once; `report` waits for what it says.

    Where torch is installed it is asked in a process of its own: naming the device imports torch, which takes a while
    and would stay in this process's memory.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        if importlib.util.find_spec("torch") is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _DOCTOR], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )

    @property
    def is_asking(self) -> bool:
        """Whether it is at work in a process of its own."""
        return self._process is not None

    def report(self) -> dict[str, Any]:
        """What it found; without an answer, nothing and no GPU."""
        if self._process is None:
            return inspect()
        try:
            answer, _ = self._process.communicate(timeout=_DOCTOR_SECONDS)
            found: dict[str, Any] = json.loads(answer)
        except (ValueError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.communicate()
            return {"extras": {}, "device": {"value": "cpu", "reason": "the doctor gave no answer"}}
        return found


def find_restorers(report: Mapping[str, Any], asked_for: Collection[str] = ()) -> tuple[Offer, ...]:
    """Every restorer, the ready ones first: the default before all, `identity` last of them.

    One that redraws with a diffusion model is ready where its extra is installed and a GPU is here, or where whoever
    starts the service asks for it by name.

    Args:
        report: Of the doctor.
        asked_for: Names that are offered wherever they can be had at all.
    """
    offers = []
    for name in REGISTRY.names():
        try:
            able = REGISTRY.find(name).capabilities  # type: ignore[attr-defined]
        except Exception as error:
            offers.append(Offer(name, "", False, f"it cannot be loaded ({type(error).__name__})"))
            continue
        missing = [] if able.extra is None else _missing(report, able.extra)
        on_gpu = report.get("device", {}).get("value", "cpu") != "cpu"
        if missing:
            is_ready, reason = False, f'lacks {", ".join(missing)}: pip install "zoomiqa[{able.extra}]"'
        elif able.extra == "diffusion" and not on_gpu and name not in asked_for:
            is_ready, reason = (
                False,
                f"wants a GPU ({able.memory or 'see docs'}); --offer {name} offers it all the same",
            )
        else:
            is_ready, reason = True, able.memory
        offers.append(Offer(name, able.description, is_ready, reason, able.scales, able.generative, able.encoder))
    return tuple(
        sorted(offers, key=lambda offer: (not offer.is_ready, offer.name == "identity", offer.name != DEFAULT_RESTORER))
    )


def _missing(report: Mapping[str, Any], extra: str) -> list[str]:
    parts = report.get("extras", {}).get(extra)
    return [extra] if parts is None else [part["name"] for part in parts if not part["ok"]]
