"""A line per log entry for people, and the warnings. It must not know what is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback

from ..trainers import refuse_no_number  # noqa: TID252
from .figures import Warnings
from .plan import Plan

_SHOWN = (
    ("reward", "reward", "{:.3f}"),
    ("rewards/format", "format", "{:.2f}"),
    ("rewards/score", "score", "{:.2f}"),
    ("rewards/rank", "rank", "{:.2f}"),
    ("rewards/perception", "tasks", "{:.2f}"),
    ("rewards/attributes", "attributes", "{:.2f}"),
    ("rewards/thinking", "thinking", "{:.3f}"),
    ("rollout/second_round_share", "second look", "{:.0%}"),
    ("rollout/unique_scores", "unique scores", "{:.0%}"),
    ("rollout/unreadable_share", "unreadable", "{:.0%}"),
    ("rollout/numeric_entropy", "entropy", "{:.3f}"),
    ("rollout/tokens_per_second", "tokens/s", "{:.0f}"),
    ("loss/clipped_share", "clipped", "{:.1%}"),
    ("coverage/value", "coverage", "{:.2e}"),
    ("coverage/selected", "of tokens", "{:.0f}"),
    ("loss/reference_kl", "reference KL", "{:.2e}"),
    ("grad_norm", "gradient", "{:.3g}"),
)


class Console(TrainerCallback):  # type: ignore[misc]  # transformers is not typed for us
    """Tells what was logged, and what is alarming, once when it begins; a loss that is no number ends the run.

    Args:
        warnings: What is alarming.
        plan: Sizes of the run.
        rollouts: In the whole run.
        say: What is done with a sentence.
    """

    def __init__(self, warnings: Warnings, plan: Plan, rollouts: int, say: Callable[[str], None]) -> None:
        self._warnings, self._plan, self._rollouts, self._say = warnings, plan, rollouts, say
        self._told: set[str] = set()

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:  # noqa: ARG002 - transformers' signature
        logs = logs or {}
        shown = [f"{word} {form.format(logs[name])}" for name, word, form in _SHOWN if logs.get(name) is not None]
        if shown:
            rollout = (state.global_step - 1) // self._plan.updates + 1
            self._say(f"step {state.global_step}, rollout {rollout}/{self._rollouts}: {', '.join(shown)}")
        sounding = {alarm.figure: alarm for alarm in self._warnings.alarms()}
        for name in sorted(sounding.keys() - self._told):
            self._say(f"warning: {sounding[name]}")
        self._told = set(sounding)
        refuse_no_number(logs.get("loss"))
