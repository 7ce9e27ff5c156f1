"""What decides a run of supervised fine-tuning. It must not know how it is carried out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoomiqa.batch import OpenOptions
from zoomiqa.errors import OptionInvalid
from zoomiqa.protocol import PromptSet, default_prompts

from ..options import SCHEDULES  # noqa: TID252 - in a wheel it is zoomiqa.training

if TYPE_CHECKING:
    from ..models import ModelSettings  # noqa: TID252

Context = Literal["rewritten", "appended"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTSettings:
    """One run. The defaults are the paper's where it names a figure (see the package's page)."""

    model: ModelSettings
    data: Path
    """Folder that `training.curation build` wrote."""

    image_root: Path
    out: Path
    """Folder of the trained model; what has to be kept meanwhile lies in `checkpoints/` and `logs/` below it."""

    prompts: PromptSet = field(default_factory=default_prompts)
    """The set that the model will be asked with; the data must have been built for it."""

    context: Context = "rewritten"
    learning_rate: float = 2.5e-6
    batch_size: int = 2
    """Rows per process and forward pass."""

    gradient_accumulation_steps: int = 8
    """Forward passes per step."""

    warmup_ratio: float = 0.3
    """Share of the steps over which the learning rate rises."""

    schedule: str = "linear"
    epochs: float = 1.0
    max_steps: int | None = None
    """Steps instead of epochs."""

    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 42
    max_length: int | None = None
    """Tokens of a row, at most; `None` is the model's context."""

    too_long: Literal["leave-out", "refuse"] = "leave-out"
    validation: float = 0.0
    """Share of the trajectories whose loss is only measured, 0..0.5; drawn by the seed."""

    save_every: int | None = None
    """Steps between checkpoints; `None` is a tenth of the run."""

    keep: int = 2
    """Checkpoints kept."""

    log_every: int = 1
    workers: int = 0
    """Processes that prepare rows ahead."""

    merge: bool = True
    """With LoRA: also write the merged model."""

    open_options: OpenOptions = field(default_factory=OpenOptions)
    resume: bool = False
    """Go on from the last checkpoint in `out`; begin where there is none."""

    overwrite: bool = False
    """Begin anew where `out` holds a run."""

    def __post_init__(self) -> None:
        for name in (
            "batch_size", "gradient_accumulation_steps", "keep", "log_every", "max_steps", "save_every", "max_length",
        ):  # fmt: skip
            number = getattr(self, name)
            if number is not None and number < 1:
                raise OptionInvalid(f"{name} must be at least 1", number, "give a positive number")
        if self.resume and self.overwrite:
            raise OptionInvalid("resume and overwrite exclude each other", None, "leave one of them out")
        if not self.learning_rate > 0 or not self.epochs > 0:
            raise OptionInvalid(
                "learning rate and epochs must be above 0", (self.learning_rate, self.epochs), "2.5e-6 and 1"
            )
        if not 0 <= self.warmup_ratio < 1 or not 0 <= self.validation <= 0.5 or self.workers < 0 or self.seed < 0:
            raise OptionInvalid(
                "warmup_ratio lies in 0..1, validation in 0..0.5; workers and seed are not negative",
                (self.warmup_ratio, self.validation, self.workers, self.seed),
                "leave the defaults",
            )
        for name, word, known in (
            ("context", self.context, ("rewritten", "appended")),
            ("schedule", self.schedule, SCHEDULES),
            ("too_long", self.too_long, ("leave-out", "refuse")),
        ):
            if word not in known:
                raise OptionInvalid(f"{name} must be one of {', '.join(known)}", word, "choose one of them")

    def to_dict(self) -> dict[str, Any]:
        """What decides the weights, for the run's fingerprint; not where things lie or how often they are saved."""
        names = (
            "context", "learning_rate", "batch_size", "gradient_accumulation_steps", "warmup_ratio", "schedule",
            "epochs", "max_steps", "weight_decay", "max_grad_norm", "seed", "max_length", "too_long", "validation",
        )  # fmt: skip
        return {
            "model": self.model.to_dict(),
            "prompts": {"name": self.prompts.name, "hash": self.prompts.digest},
            **{name: getattr(self, name) for name in names},
            "open": {"limits": asdict(self.open_options.limits), "allow_truncated": self.open_options.allow_truncated},
        }

    def operation(self) -> dict[str, Any]:
        """What decides only how fast, and in how much memory, the weights are made."""
        return {**self.model.operation(), "workers": self.workers}
