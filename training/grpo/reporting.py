"""What a trainer tells while it trains: figures of rollouts and steps, samples to read. Mixed into the trainer.

It must not know how a rollout or a loss comes about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .figures import Warnings, reward_figures
from .loss import Part, Update
from .plan import Plan
from .rollout import Sample
from .scoring import Outcome, Scored
from .settings import GRPOSettings
from .showing import ROLLOUTS, show_samples


class Reporting:
    """Gathers figures over processes and hands them to TRL's log."""

    settings: GRPOSettings
    plan: Plan
    warnings: Warnings
    accelerator: Any
    state: Any
    _metrics: dict[str, Any]
    _gather: Callable[[Tensor], list[Tensor]]

    @property
    def rollout_number(self) -> int:
        """Of the rollout under way, from 0 over the whole run."""
        return int(self.state.global_step) // self.plan.updates

    def begin_reporting(self) -> None:
        """Before anything is told."""
        self.warnings = Warnings()
        self._sums: dict[str, float] = {}
        self._entropies: list[Tensor] = []

    def tell_rollout(
        self, samples: Sequence[Sample], outcomes: Sequence[Outcome], scored: Scored, sampling: float, scoring: float
    ) -> None:
        """Figures of a rollout; every process must call it.

        Args:
            samples: Of this process.
            outcomes: Of all.
            scored: Of all.
            sampling: Seconds that the engine took here.
            scoring: Seconds that the rest took here.
        """
        looks = [look for sample in samples for look in sample.looks]
        own = [
            sum(len(look.tokens) for look in looks),
            len(looks),
            sum(look.finish_reason == "length" for look in looks),
        ]
        everyone = torch.stack(self._gather(torch.tensor([*map(float, own), sampling]))).double()
        tokens, count, cut, _ = everyone.sum(0).tolist()
        self._note(reward_figures(outcomes, scored))
        self._note(
            {
                "rollout/tokens_per_look": tokens / max(count, 1),
                "rollout/cut_share": cut / max(count, 1),
                "rollout/tokens_per_second": tokens / max(float(everyone[:, 3].max()), 1e-9),
                "rollout/seconds": sampling,
                "rollout/scoring_seconds": scoring,
            }
        )
        self.state.num_input_tokens_seen += int(tokens)
        self.warnings.add(outcomes, scored)
        if self.rollout_number % self.settings.show_every == 0 and self.accelerator.is_main_process:
            show_samples(self.settings.out / ROLLOUTS, self.rollout_number, samples, scored)

    def tell_part(self, part: Part, entropies: Tensor | None) -> None:
        """Figures of a micro-batch.

        Args:
            part: Of the loss.
            entropies: Of the policy at its numeric tokens, while it is still the one that drew them.
        """
        for name in ("policy", "coverage", "reference_kl", "tokens", "clipped"):
            self._sums[name] = self._sums.get(name, 0.0) + getattr(part, name)
        if entropies is not None:
            self._entropies.append(entropies.detach().float().cpu())

    def tell_update(self, update: Update) -> None:
        """Figures of an optimizer step whose parts were told; every process must call it."""
        if self._entropies:
            everyone = torch.cat(self._gather(torch.cat(self._entropies)))
            self._entropies = []
            self.warnings.add_entropies(everyone.tolist())
            self._note(
                {f"window/{name}": value for name, value in self.warnings.figures().items() if value is not None}
            )
            if len(everyone):
                self._note({"rollout/numeric_entropy": float(everyone.mean())})
        names = sorted(self._sums)
        totals = torch.stack(self._gather(torch.tensor([self._sums[name] for name in names]))).double().sum(0).tolist()
        sums, self._sums = dict(zip(names, totals, strict=True)), {}
        self._note(
            {
                "loss/policy": sums["policy"],
                "loss/clipped_share": sums["clipped"] / max(sums["tokens"], 1),
                "coverage/value": sums["coverage"],
                "coverage/selected": update.selected,
                "coverage/candidates": update.candidates,
            }
        )
        if self.settings.loss.reference_weight > 0:
            self._note({"loss/reference_kl": sums["reference_kl"]})

    def _note(self, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._metrics["train"][name].append(value)
