"""The sizes of the replication, and the arms of the ablation. It must not know how anything is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from zoomiqa.errors import OptionInvalid

from .model import Shape

FormName = Literal["test", "short", "long"]


@dataclass(frozen=True, slots=True)
class Form:
    """How much is done."""

    shape: Shape
    photos: int | None
    """Pictures used, of those labelled; `None` is all."""

    test: int
    """Of these, pictures kept out of all training."""

    samples: int
    """Samples of synthesis, the cold start's trajectories."""

    sft_epochs: float
    sft_batch: int
    sft_rate: float
    rollouts: int
    """Rollouts of GRPO in each arm."""

    groups: int
    """Pictures per rollout."""

    group_size: int
    """Conversations per picture; the paper's N."""

    grpo_rate: float
    side: int = 512
    """Longest side of the synthesised pictures."""

    max_new_tokens: int = 96
    log_every: int = 10
    """Steps of SFT between two lines of its log."""

    def __post_init__(self) -> None:
        if self.rollouts < 1 or self.groups < 2:
            raise OptionInvalid("GRPO needs a rollout of two pictures", (self.rollouts, self.groups), "raise them")


FORMS: Mapping[FormName, Form] = {
    # Seconds, for tests: everything happens, nothing is learned.
    "test": Form(Shape(56, 64, 2, 32, 2, 480), 16, 4, 8, 1, 4, 1e-3, 1, 4, 2, 1e-4, side=96, max_new_tokens=64),
    # About half an hour on one quiet core of a processor (estimated from its parts).
    "short": Form(Shape(112, 128, 3, 96, 3), None, 400, 2400, 2, 8, 1e-3, 20, 6, 8, 2e-4),
    # One GPU; not run yet.
    "long": Form(Shape(224, 384, 8, 256, 8, 1024), None, 600, 12000, 12, 64, 6e-4, 400, 32, 8, 3e-5),
}


@dataclass(frozen=True, slots=True)
class Arm:
    """A row of the paper's Table 3."""

    name: str
    title: str
    score: bool = True
    rank: bool = True
    coverage: bool = True
    progressive: bool = False
    is_trained: bool = True
    """Whether GRPO takes place at all."""

    paper_row: int = 0
    paper: tuple[float, float] = (0.0, 0.0)
    """PLCC and SRCC on KonIQ in the paper's table, for the report."""


ARMS: tuple[Arm, ...] = (
    Arm("sft", "SFT", False, False, False, is_trained=False, paper_row=1, paper=(0.836, 0.806)),
    Arm("rank", "rank reward only", score=False, paper_row=2, paper=(0.906, 0.887)),
    Arm("score", "score reward only", rank=False, paper_row=3, paper=(0.928, 0.915)),
    Arm("no-coverage", "no KL-Coverage", coverage=False, paper_row=4, paper=(0.908, 0.890)),
    Arm("full", "full", paper_row=5, paper=(0.932, 0.918)),
    Arm("progressive", "full, progressive", progressive=True, paper_row=6, paper=(0.938, 0.922)),
)
