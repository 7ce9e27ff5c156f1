"""The card of a trained model: what it was made of, how, and what was seen on the way. It must not know trainers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from zoomiqa.files import atomic_write_text

from ..runs import CARD, PAGE  # noqa: TID252
from .items import Item
from .plan import Plan
from .settings import GRPOSettings

HISTORY = "history.json"

_TOLD = (
    ("reward", "total reward"),
    ("rewards/format", "format reward"),
    ("rewards/score", "score reward"),
    ("rewards/rank", "rank reward"),
    ("rewards/perception", "perception reward"),
    ("rewards/thinking", "thinking reward"),
    ("rewards/attributes", "attribute reward"),
    ("rollout/second_round_share", "share with a closer look"),
    ("rollout/unique_scores", "unique scores over all"),
    ("rollout/unreadable_share", "share without a rating"),
    ("rollout/numeric_entropy", "entropy at numbers of answers (nats)"),
    ("rollout/tokens_per_look", "tokens per reply"),
)


def write_card(
    settings: GRPOSettings,
    plan: Plan,
    identity: Mapping[str, Any],
    items: Sequence[Item],
    rollouts: int,
    history: Sequence[Mapping[str, Any]],
) -> None:
    """Write the card (`training.json`), its page (`README.md`) and the log (`history.json`) into the run's folder.

    Args:
        settings: Of the run.
        plan: Its sizes.
        identity: What decided the weights.
        items: What was trained on.
        rollouts: How many there were.
        history: What was logged.
    """
    card = {
        "stage": "grpo",
        "settings": dict(identity),
        "operation": settings.operation(),
        "data": dict(sorted(Counter(item.dataset for item in items).items())),
        "rollouts": rollouts,
        "plan": {**asdict(plan), "updates_per_rollout": plan.updates},
        "figures": _first_and_last(history),
    }
    atomic_write_text(settings.out / HISTORY, json.dumps(list(history), indent=1) + "\n")
    atomic_write_text(settings.out / CARD, json.dumps(card, indent=1) + "\n")
    atomic_write_text(settings.out / PAGE, _page(settings, plan, card))


def _first_and_last(history: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Means over the first and the last tenth of what was logged of each figure."""
    figures = {}
    for name, _ in _TOLD:
        values = [float(line[name]) for line in history if line.get(name) is not None]
        tenth = max(1, len(values) // 10)
        if values:
            figures[name] = [round(fmean(part), 4) for part in (values[:tenth], values[-tenth:])]
    return figures


def _page(settings: GRPOSettings, plan: Plan, card: Mapping[str, Any]) -> str:
    coverage, rewards = settings.loss.coverage, settings.rewards
    prompts = settings.prompts
    weights = ", ".join(f"{name} {weight:g}" for name, weight in rewards.weights.items())
    sets = ", ".join(f"{count} of {name}" for name, count in card["data"].items())
    rows = [
        f"| {words} | {{}} | {{}} |".format(*card["figures"][name]) for name, words in _TOLD if name in card["figures"]
    ]
    table = "\n".join(rows)
    return f"""# A model for image quality assessment, trained with GRPO

Base: `{settings.model.model}`. {card["rollouts"]} rollouts of {plan.pictures} pictures with {plan.group_size} samples
each, {plan.updates} optimizer steps per rollout, learning rate {settings.optimizer.learning_rate:g}. Trained on {sets},
whose licences hold for their labels. Prompt set {prompts.name} ({prompts.digest}); ask it with the same one. Everything
else is in `{CARD}`; samples from the training are in `rollouts.jsonl`.

Rewards: {weights}. KL-Coverage: weight {coverage.weight:g}, share {coverage.share:g}, estimator {coverage.estimator},
over {settings.loss.scope}. KL to the model at the start: weight {settings.loss.reference_weight:g}. Re-sampling: gamma
{", ".join(f"{gamma:g}" for gamma in settings.stages.gammas)}.

| of samples drawn in training | first tenth | last tenth |
|---|---|---|
{table}

These figures are no evaluation: `zoomiqa evaluate` makes one. Ratings are estimates.
"""
