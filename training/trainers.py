"""What both stages change of TRL's trainers and ask of them. It must not know data, losses or settings of a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoomiqa.errors import BackendFailed, ExtraMissing

from .models import INSTALL, is_adapted, reload_weights

try:
    from transformers.integrations import TensorBoardCallback
except ImportError as missing:
    raise ExtraMissing("training needs transformers", missing.name, INSTALL) from missing


class OwnFolder:
    """Put before one of TRL's trainers: checkpoints that are really read back, and nothing written or sent unasked."""

    model: Any

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Nothing, in the place of TRL's page on what it takes the run to be: the run's own card says more."""

    def _send_telemetry(self) -> None:
        """Nothing is sent anywhere."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if is_adapted(self.model) or is_spread(self):
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
        else:
            reload_weights(self.model, resume_from_checkpoint)


def is_spread(trainer: Any) -> bool:
    """Whether the weights are spread over the processes, so that all must take part in gathering or reading them."""
    return bool(trainer.is_fsdp_enabled) or bool(trainer.is_deepspeed_enabled)


def gathered_weights(trainer: Any) -> dict[str, Any] | None:
    """The trained weights, where they are spread; to be called by all processes. `None`: the model holds them all."""
    return trainer.accelerator.get_state_dict(trainer.model_wrapped) if is_spread(trainer) else None


def tensorboard(folder: Path) -> TensorBoardCallback:
    """Writes what is logged to `folder`; for the first process only."""
    from torch.utils.tensorboard import SummaryWriter

    return TensorBoardCallback(SummaryWriter(log_dir=str(folder)))


def refuse_no_number(loss: float | None) -> None:
    """End a run whose loss is no finite number: no later step can mend the weights.

    Raises:
        BackendFailed: it is NaN or infinite.
    """
    if loss is not None and not abs(float(loss)) < float("inf"):
        raise BackendFailed("the loss is no number", loss, "lower the learning rate, or compute in fp32")
