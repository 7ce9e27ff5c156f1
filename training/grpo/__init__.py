"""GRPO over whole conversations (Zoom-IQA Sec. 3.2 and 10; Eq. 1 to 7), on TRL's `GRPOTrainer`.

    python -m training.grpo --model SFT_MODEL --labels koniq.json --image-root koniq/ --out run

- `settings`, `plan`: what decides a run; how a rollout divides into groups, micro-batches and optimizer steps.
- `items`, `order`: labelled pictures and perception tasks; which of them each rollout draws (progressive re-sampling).
- `rollout`: the conversation generator driven over an engine; `policy` and `vllm_policy` are the engines.
- `rows`: sampled conversations as training rows with validity masks.
- `scoring`, `thinking`: rewards and advantages over the global batch; the probabilities of Refine-IQA's reward.
- `loss`: clipped objective and KL-Coverage over the whole optimizer batch.
- `figures`: what is logged and warned of. `trainer`: TRL's trainer with all of this in it. `run`, `command`: a run.

Only `trainer`, `vllm_policy` and `run` know TRL; the rest serves any engine. Departures from the paper stand in each
module and in `training/PAPER_INDEX.md`. The one that matters most: with one optimizer step per rollout, as trainers of
this kind usually take, KL-Coverage is exactly zero, so a rollout here gives at least two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .run import train
    from .settings import GRPOSettings

__all__ = ["GRPOSettings", "train"]


def __getattr__(name: str) -> Any:
    """The two public names, read when asked for: rooms without torch must not bring it in."""
    if name == "GRPOSettings":
        from .settings import GRPOSettings

        return GRPOSettings
    if name == "train":
        from .run import train

        return train
    raise AttributeError(name)
