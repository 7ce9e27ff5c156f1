"""What the run's configuration says: the block `zoomiqa:`, and the parts of verl's own that the objective reads.

What verl names already is not named twice: the clipping range is `actor.clip_ratio_low` and `clip_ratio_high`, the
KL to the reference is `actor.use_kl_loss` with `kl_loss_coef`, samples of a picture are `rollout.n`, and how tokens are
drawn is `rollout.temperature` and its neighbours. It must not know verl's classes: a configuration is anything that is
indexed by names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoomiqa.errors import OptionInvalid
from zoomiqa.protocol import ConversationSettings, PromptSet, default_prompts, load_prompts

from ..grpo.loss import LossSettings  # noqa: TID252
from ..grpo.scoring import RewardSettings  # noqa: TID252
from ..objectives.coverage import CoverageSettings, refuse_inert, updates_per_rollout  # noqa: TID252


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """The choices of a run that are this project's; each means the same as on one machine."""

    conversation: ConversationSettings = field(default_factory=ConversationSettings)
    """Rounds, context and question; its sampling is of no account."""

    prompts: str | None = None
    """File of a prompt set; `None` is the project's own."""

    max_pixels: int | None = None
    """Pictures are shrunk to so many pixels before the model sees them; `None` is the processor's own limit."""

    rewards: RewardSettings = field(default_factory=RewardSettings)
    loss: LossSettings = field(default_factory=lambda: LossSettings(log_probs="old"))
    seed: int = 0
    """Of the stock questions."""

    def __post_init__(self) -> None:
        if self.rewards.thinking > 0:
            raise OptionInvalid(
                "the reward for thinking needs forward passes that are not made on a cluster", self.rewards.thinking,
                "set its weight to 0, or train with training.grpo",
            )  # fmt: skip
        if self.loss.coverage.estimator != "k3":
            raise OptionInvalid(
                "verl hands the loss log-probabilities of the drawn tokens only", self.loss.coverage.estimator, "use k3"
            )

    def prompt_set(self) -> PromptSet:
        """The words.

        Raises:
            PromptSetInvalid: the file holds no prompt set.
        """
        return default_prompts() if self.prompts is None else load_prompts(Path(self.prompts))


def read_settings(config: Mapping[str, Any]) -> ClusterSettings:
    """The settings in a run's configuration.

    Raises:
        OptionInvalid: an option is unknown or outside its range.
    """
    own, actor = dict(config["zoomiqa"]), config["actor_rollout_ref"]["actor"]
    groups = {name: dict(own.pop(name, {})) for name in ("conversation", "rewards", "coverage")}
    try:
        loss = LossSettings(
            clip=float(actor["clip_ratio_low"]),
            clip_high=float(actor["clip_ratio_high"]),
            reference_weight=float(actor["kl_loss_coef"]) if actor["use_kl_loss"] else 0.0,
            coverage=CoverageSettings(**groups["coverage"]),
            log_probs="old",
        )
        conversation, rewards = ConversationSettings(**groups["conversation"]), RewardSettings(**groups["rewards"])
        return ClusterSettings(conversation, rewards=rewards, loss=loss, **own)
    except TypeError as error:
        raise OptionInvalid("an option of the block zoomiqa is unknown", error, "see README.md for the list") from error


def check(config: Mapping[str, Any]) -> ClusterSettings:
    """The settings, and a refusal of what would not do what it says. verl checks the rest itself.

    Raises:
        OptionInvalid: an option is unknown or outside its range; KL-Coverage would be inert; or an option of verl asks
            for what this adapter replaces.
    """
    settings = read_settings(config)
    trainer, data, algorithm = config["trainer"], config["data"], config["algorithm"]
    actor, rollout = config["actor_rollout_ref"]["actor"], config["actor_rollout_ref"]["rollout"]
    correction = algorithm["rollout_correction"]
    for name, value in (
        ("actor_rollout_ref.model.path", config["actor_rollout_ref"]["model"]["path"]),
        *((f"data.{name}", data[name]) for name in ("image_root", "train_files", "val_files")),
    ):
        if not value:
            raise OptionInvalid(f"{name} is not given", value, f"add {name}=... to the command")
    for is_wrong, what, value, fix in (
        (not trainer["use_v1"], "only verl's V1 trainer is adapted", False, "set trainer.use_v1=true"),
        (trainer["v1"]["trainer_mode"] != "sync", "only verl's synchronous trainer is adapted",
         trainer["v1"]["trainer_mode"], "set trainer.v1.trainer_mode=sync"),
        (trainer["total_epochs"] != 1, "the data set is the whole training", trainer["total_epochs"],
         "set trainer.total_epochs=1, and data.epochs to how often pictures are drawn"),
        (algorithm["adv_estimator"] != "grpo", "advantages are those of groups, without a critic",
         algorithm["adv_estimator"], "set algorithm.adv_estimator=grpo"),
        (algorithm["use_kl_in_reward"], "a KL in the reward is no part of the objective", True,
         "use actor.use_kl_loss for a KL to the reference"),
        (correction["rollout_is"] or correction["rollout_rs"], "rollout correction is not adapted",
         (correction["rollout_is"], correction["rollout_rs"]), "leave rollout_is and rollout_rs empty"),
        (actor["entropy_coeff"] != 0, "an entropy bonus is no part of the objective", actor["entropy_coeff"],
         "set actor.entropy_coeff=0"),
        (actor["shuffle"], "updates are laid out before the workers get them", True, "set actor.shuffle=false"),
        (data["shuffle"], "the data set deals its own order, by stages", True, "set data.shuffle=false"),
        (not 0 <= data["task_share"] < 1, "task_share is a share of pictures that leaves rated ones",
         data["task_share"], "0.25 is a moderate figure"),
        (files(data["train_files"]) == files(data["val_files"]), "validation is told from training by its files",
         files(data["val_files"]), "name other files for validation"),
        (rollout["n"] < 2, "a group needs at least two samples of a picture", rollout["n"], "8 is the paper's figure"),
    ):  # fmt: skip
        if is_wrong:
            raise OptionInvalid(what, value, fix)
    # Second looks add rows, and rows make updates: there are never fewer than these.
    updates = updates_per_rollout(
        iterations=actor["ppo_epochs"],
        micro_batches=data["train_batch_size"],
        accumulation_steps=actor["ppo_mini_batch_size"],
    )
    refuse_inert(settings.loss.coverage, updates)
    return settings


def files(value: Any) -> list[str]:
    """One file or several, as a list."""
    return [value] if isinstance(value, str) else [str(file) for file in value or ()]
