"""What decides a run, with the paper's figures as defaults (Zoom-IQA Sec. 10.1 and 10.2). It must not know how any of
it is done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from zoomiqa.errors import OptionInvalid
from zoomiqa.protocol import ConversationSettings, PromptSet, default_prompts
from zoomiqa.types import Sampling

from ..models import ModelSettings  # noqa: TID252
from ..resampling import Stages  # noqa: TID252
from .loss import LossSettings
from .plan import BatchSettings
from .scoring import RewardSettings

Engine = Literal["transformers", "vllm"]

SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=1024)
"""Rollouts draw from the policy itself: cut-off tails (the released evaluator's top-k and top-p) would leave tokens
whose probability is trained but was never drawn. The length is the released evaluator's."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file of what is trained on, and where its pictures are."""

    path: Path
    image_root: Path


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """AdamW. Zoom-IQA Sec. 10 gives the rate; the rest is transformers' usual."""

    learning_rate: float = 1e-6
    schedule: str = "linear"
    """A name of transformers' schedulers; "linear" falls to 0 at the end."""

    warmup_ratio: float = 0.0
    """Share of the optimizer steps in which the rate rises."""

    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    """Norm to which gradients are cut; 0 cuts nothing."""

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise OptionInvalid("the learning rate must be above 0", self.learning_rate, "1e-6 is the paper's")
        if not 0 <= self.warmup_ratio < 1:
            raise OptionInvalid("warmup_ratio is a share of the steps", self.warmup_ratio, "0 to 1")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What writes the rollouts."""

    engine: Engine = "transformers"
    """"transformers" (continuous batching over the trained model itself) or "vllm" (colocated, on CUDA)."""

    slots: int | None = None
    """Replies under way at once; `None` chooses by the device."""

    vllm_memory: float = 0.3
    """Share of each GPU's memory for vLLM."""

    vllm_sleep: bool = True
    """Whether vLLM gives its memory back while the model is trained."""

    vllm_max_length: int | None = None
    """Longest prompt and reply together, in tokens."""

    importance_cap: float | None = 2.0
    """vLLM's probabilities differ slightly from the trained model's: each token's objective is weighted with their
    ratio, at most this; `None` does not weight."""

    def __post_init__(self) -> None:
        if self.engine not in get_args(Engine):
            raise OptionInvalid("unknown engine", self.engine, f"use one of {', '.join(get_args(Engine))}")

    def to_dict(self) -> dict[str, Any]:
        """What decides the weights, for a run's fingerprint."""
        return {"engine": self.engine, "importance_cap": self.importance_cap}

    def operation(self) -> dict[str, Any]:
        """What decides only how fast, and in how much memory, rollouts are written: a run may go on with others."""
        return {name: value for name, value in asdict(self).items() if name not in self.to_dict()}


@dataclass(frozen=True, slots=True)
class GRPOSettings:
    """A run of GRPO."""

    model: ModelSettings
    """What is trained: the result of supervised training (`training.sft`)."""

    labels: tuple[Source, ...]
    """Annotation files of rated pictures (`zoomiqa.evaluation.load_annotations`), scores on 1..5."""

    out: Path
    """Folder of the result: the model, `settings.json`, `training.json` and `README.md` (the card), `history.json`,
    `checkpoints/`, `logs/` (TensorBoard), `rollouts.jsonl`."""

    perception: tuple[Source, ...] = ()
    """Files of perception tasks (`perception.jsonl` of `training.synthesis`). Refine-IQA, first stage."""

    perception_share: float = 0.0
    """Share of each rollout's pictures that are perception tasks, 0..1."""

    prompts: PromptSet = field(default_factory=default_prompts)
    """The words. With attributes in them, MG-IQA's rank reward can be used."""

    conversation: ConversationSettings = field(default_factory=lambda: ConversationSettings(sampling=SAMPLING))
    """Rounds, context, question and sampling; the sampling's seed is of no account."""

    batch: BatchSettings = field(default_factory=BatchSettings)
    rewards: RewardSettings = field(default_factory=RewardSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    stages: Stages = field(default_factory=Stages)
    """Progressive re-sampling; `Stages.rising(1)` leaves the data as it is."""

    epochs: float = 2.0
    """How often as many pictures are drawn as there are rated ones, over all stages. The paper gives none."""

    rollouts: int | None = None
    """Number of rollouts, in the place of `epochs`."""

    seed: int = 0
    log_every: int = 1
    """Optimizer steps between two lines of the log."""

    save_every: int = 20
    """Rollouts between two checkpoints; a checkpoint is made where one rollout ends and the next begins."""

    keep: int = 2
    """Checkpoints kept."""

    show_every: int = 10
    """Rollouts between two in which samples are written to `rollouts.jsonl`."""

    merge: bool = True
    """With LoRA: also write the merged model."""

    resume: bool = False
    """Go on from the last checkpoint in `out`; begin where there is none."""

    overwrite: bool = False
    """Begin anew where `out` holds a run."""

    def __post_init__(self) -> None:
        if not self.labels and not self.perception:
            raise OptionInvalid("there is nothing to train on", None, "give labelled pictures")
        if not 0 <= self.perception_share <= 1:
            raise OptionInvalid("perception_share lies in 0..1", self.perception_share, "0.25 is a moderate figure")
        if bool(self.perception) != (self.perception_share > 0):
            raise OptionInvalid(
                "perception tasks need a file and a share above 0", self.perception_share, "give both or neither"
            )
        if bool(self.labels) != (self.perception_share < 1):
            raise OptionInvalid(
                "all pictures are perception tasks where there are no labelled ones, and only there",
                self.perception_share, "0.25 is a moderate figure" if self.labels else "use 1",
            )  # fmt: skip
        if not 0 < self.epochs < math.inf:
            raise OptionInvalid("epochs must be above 0", self.epochs, "2 is the default")
        for name in ("rollouts", "log_every", "save_every", "keep", "show_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise OptionInvalid(f"{name} must be at least 1", value, "give a positive number")
        if self.resume and self.overwrite:
            raise OptionInvalid("resume and overwrite exclude each other", None, "leave one of them out")
        if self.conversation.sampling.temperature == 0:
            raise OptionInvalid("samples of one picture must differ", 0, "raise the temperature; 1 is the default")

    def to_dict(self) -> dict[str, Any]:
        """What decides the weights, in JSON's types, for the run's fingerprint; not where things lie, nor what is
        trained on (`run` adds a digest of that), nor how often something is told or saved.
        """
        parts = ("conversation", "batch", "rewards", "loss", "optimizer", "stages")
        values = {name: _plain(asdict(getattr(self, name))) for name in parts}
        plain = {name: getattr(self, name) for name in ("perception_share", "epochs", "rollouts", "seed")}
        return {
            "model": self.model.to_dict(),
            "engine": self.engine.to_dict(),
            **values,
            "prompts": {"name": self.prompts.name, "hash": self.prompts.digest},
            **plain,
        }

    def operation(self) -> dict[str, Any]:
        """What decides only how fast, and in how much memory, the weights are made."""
        return {**self.model.operation(), **self.engine.operation()}


def refuse_spread(settings: GRPOSettings, *, zero3: bool, fsdp: bool) -> None:
    """See that a run whose weights are shared out over processes is one that can be carried out.

    Raises:
        OptionInvalid: it would stand still or read an empty weight.
    """
    coverage = settings.loss.coverage
    if zero3 and coverage.weight > 0 and coverage.estimator == "exact":
        raise OptionInvalid(
            "the exact KL reads the output head, which ZeRO-3 shares out", coverage.estimator,
            "use the estimator k3, or ZeRO-2",
        )  # fmt: skip
    if fsdp and settings.engine.engine == "transformers":
        raise OptionInvalid(
            "under FSDP all processes must read the model equally often, and conversations differ in length",
            settings.engine.engine, "use the engine vllm, or DeepSpeed",
        )  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
