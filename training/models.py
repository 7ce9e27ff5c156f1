"""A vision-language model made ready to be trained, and written so that it can be used: what SFT and GRPO share.

The model comes through `AutoModelForImageTextToText`, its processor through the one that inference uses, so that what
is trained is what is run. Either all weights of chosen parts are trained (the paper's way), or low-rank adapters on the
linear projections of the language layers (Hu et al., LoRA, arXiv 2106.09685). It must not know data, losses, trainers
or rewards.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoomiqa.backends.processor import ChatProcessor, load_processor
from zoomiqa.devices import choose_device, choose_dtype, memory_errors
from zoomiqa.errors import ExtraMissing, OptionInvalid, WeightsUnsuitable
from zoomiqa.types import Choice

INSTALL = 'pip install "zoomiqa[train]"'

try:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging as hf_logging
except ImportError as missing:
    raise ExtraMissing("training needs torch and transformers", missing.name, INSTALL) from missing

ATTENTIONS = {"auto": "sdpa", "sdpa": "sdpa", "flash": "flash_attention_2", "eager": "eager"}
COMPUTE_DTYPES = ("auto", "bf16", "fp16", "fp32")
WEIGHT_DTYPES = ("auto", "bf16", "fp32")

ADAPTER = "adapter"
"""Folder, inside a trained model's folder, of the low-rank adapter that was merged into it."""

_TORCH_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

_VISION = ("visual", "vision_tower", "vision_model")
_PROJECTORS = ("merger", "multi_modal_projector", "connector", "deepstack_merger_list")
_LANGUAGE = ("language_model", "text_model")
"""What families of models call their parts, in transformers; the first name found in a parameter's path decides."""


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adapters. The paper trains all weights and names none of these figures: they are this project's."""

    rank: int = 64
    alpha: int = 128
    dropout: float = 0.05
    vision: bool = False
    """Adapters on the vision tower's linear layers as well. Never on the output head: TRL reads its weight directly."""

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 1:
            raise OptionInvalid("rank and alpha of LoRA must be at least 1", (self.rank, self.alpha), "64 and 128")
        if not 0 <= self.dropout < 1:
            raise OptionInvalid("LoRA's dropout lies in 0..1, without 1", self.dropout, "0.05 is the default")


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """Which model, and what of it is trained. Part of a run's settings."""

    model: str
    """Hub id (`owner/name`) or folder."""

    revision: str | None = None
    """Branch, tag or commit on the hub."""

    device: str = "auto"
    dtype: str = "auto"
    """What is computed in: `auto` (bf16 on CUDA where there is bf16, fp32 on a CPU), `bf16`, `fp16`, `fp32`."""

    weights: str = "auto"
    """What the weights are held in: `auto` (see `choose_weights`), `bf16` or `fp32`."""

    attention: str = "auto"
    max_pixels: int | None = None
    """Pictures are shrunk to so many pixels before the model sees them; `None` is the model's own limit."""

    lora: Lora | None = None
    """`None` trains all weights that are not frozen."""

    freeze_vision: bool | None = None
    """`None`: frozen with LoRA, trained without."""

    freeze_projector: bool | None = None
    """Likewise, what joins vision tower and language layers; `None`: as the vision tower."""

    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more work."""

    def __post_init__(self) -> None:
        for name, word, known in (
            ("dtype", self.dtype, COMPUTE_DTYPES),
            ("weights", self.weights, WEIGHT_DTYPES),
            ("attention", self.attention, tuple(ATTENTIONS)),
        ):
            if word not in known:
                raise OptionInvalid(f"{name} must be one of {', '.join(known)}", word, "choose one of them")
        if self.max_pixels is not None and self.max_pixels < 1:
            raise OptionInvalid("max_pixels must be at least 1", self.max_pixels, "give a positive number")
        if self.lora is not None and self.lora.vision and self.freeze_vision:
            raise OptionInvalid("a frozen vision tower takes no adapters", None, "leave one of the two out")

    @property
    def vision_is_frozen(self) -> bool:
        return self.freeze_vision if self.freeze_vision is not None else self.lora is not None

    @property
    def projector_is_frozen(self) -> bool:
        return self.freeze_projector if self.freeze_projector is not None else self.vision_is_frozen

    def to_dict(self) -> dict[str, Any]:
        """What decides the weights, for a run's fingerprint."""
        return {name: value for name, value in asdict(self).items() if name not in self.operation()}

    def operation(self) -> dict[str, Any]:
        """What decides only where, and in how much memory, they are made: a run may go on with others."""
        return {"device": self.device, "gradient_checkpointing": self.gradient_checkpointing}


@dataclass(frozen=True, slots=True, eq=False)
class TrainingModel:
    """A loaded model, on the CPU (trainers move it), with what a trainer must know of it."""

    model: Any
    """A `PreTrainedModel`, or a `PeftModel` around one."""

    processor: ChatProcessor
    device: Choice
    dtype: Choice
    """What to compute in: `bf16`, `fp16` (both by autocast) or `fp32`."""

    weights: Choice
    """What the weights are held in."""

    ends: tuple[int, ...]
    """Ids that end a reply."""

    suppressed: tuple[int, ...]
    """Ids that must never be sampled, see `suppressed_tokens`."""

    settings: ModelSettings

    @property
    def trained(self) -> int:
        """Number of weights that are trained."""
        return sum(weight.numel() for weight in self.model.parameters() if weight.requires_grad)

    @property
    def size(self) -> int:
        """Number of all weights."""
        return sum(weight.numel() for weight in self.model.parameters())

    def precision(self) -> dict[str, bool]:
        """The keywords of transformers' `TrainingArguments` that say where and in what is computed."""
        return {
            "bf16": self.dtype.value == "bf16",
            "fp16": self.dtype.value == "fp16",
            "use_cpu": self.device.value == "cpu",
            "gradient_checkpointing": self.settings.gradient_checkpointing,
        }


def load_model(settings: ModelSettings) -> TrainingModel:
    """Read a model and its processor and make the chosen parts trainable.

    Raises:
        OptionInvalid: no such model, or one that is no chat model for pictures, or its weights cannot be read.
        ExtraMissing: LoRA is asked for and peft is not installed.
        WeightsUnsuitable: a part that is to be frozen or adapted was not found in the model.
    """
    processor = load_processor(settings.model, settings.revision, settings.max_pixels)
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device.value)
    weights = choose_weights(settings, dtype.value)
    model = read_weights(settings.model, settings.revision, weights.value, ATTENTIONS[settings.attention])
    ends = end_tokens(model, processor)
    suppressed = suppressed_tokens(model, processor)
    if settings.lora is not None:
        model = _with_adapters(model, settings.lora)
    else:
        _freeze(model, settings)
    return TrainingModel(model, processor, device, dtype, weights, ends, suppressed, settings)


def choose_weights(settings: ModelSettings, dtype: str) -> Choice:
    """What the weights are held in, with the reason.

    A step of 1e-6 is lost in bf16, whose numbers lie 0.4 % apart: trained weights need 32 bits somewhere. DeepSpeed
    keeps such a copy itself, LoRA has its adapters in 32 bits, and otherwise the weights are the copy.
    """
    if settings.weights != "auto":
        return Choice(settings.weights, "asked for")
    if dtype != "bf16":
        return Choice("fp32", f"computing in {dtype}")
    if settings.lora is not None:
        return Choice("bf16", "only the adapters are trained, and they have 32 bits")
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        return Choice("bf16", "DeepSpeed keeps a copy of 32 bits")
    return Choice("fp32", "small steps vanish in bf16")


def read_weights(model: str, revision: str | None, weights: str, attention: str) -> Any:
    """The model on the CPU.

    Raises:
        OptionInvalid: its weights cannot be read.
    """
    with quiet_loading():
        try:
            with memory_errors():
                return AutoModelForImageTextToText.from_pretrained(
                    model, revision=revision, dtype=_TORCH_DTYPES[weights], attn_implementation=attention
                )
        except MemoryError as error:
            raise OptionInvalid(
                "the model does not fit into memory", model, "use weights bf16 with LoRA, or a smaller model"
            ) from error
        except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
            why = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise OptionInvalid("the model's weights cannot be read", model, why) from error


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Within it, transformers draws no bars: a log file is no terminal."""
    was_on = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            hf_logging.enable_progress_bar()


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Within it, TRL and peft may call transformers by names that it gives up only in its next major version."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)
        yield


def silence_libraries() -> None:
    """Let only warnings of the libraries through, as the console is ours."""
    for name in ("transformers", "accelerate", "trl", "datasets"):
        logging.getLogger(name).setLevel(logging.WARNING)


def end_tokens(model: Any, processor: ChatProcessor) -> tuple[int, ...]:
    """Ids that end a reply: the model's own, and the tokenizer's."""
    ids = model.generation_config.eos_token_id
    ids = ids if isinstance(ids, list | tuple) else [ids]
    found = {int(token) for token in (*ids, processor.tokenizer.eos_token_id) if token is not None}
    return tuple(sorted(found))


def suppressed_tokens(model: Any, processor: ChatProcessor) -> tuple[int, ...]:
    """Ids that a rollout must never write, as in inference.

    All special tokens but the ends: a written place of a picture or a video would make the positions of the next
    forward pass disagree with the pictures given. And the ids beyond the tokenizer's, which pad the weights.
    """
    special = set(processor.special_tokens.values())
    vocabulary = int(model.get_output_embeddings().weight.shape[0])
    padding = range(len(processor.tokenizer), vocabulary)
    return tuple(sorted((special | set(padding)) - set(end_tokens(model, processor))))


def part_of(name: str) -> str:
    """Which part a parameter or module belongs to by its path: "vision", "projector", "language" or "head"."""
    words = name.split(".")
    if any(word in _PROJECTORS for word in words):
        return "projector"
    if any(word in _VISION for word in words):
        return "vision"
    return "language" if any(word in _LANGUAGE for word in words) else "head"


def lora_targets(model: Any, *, vision: bool = False) -> str:
    """A regular expression, for peft, of the linear layers that get adapters.

    Those of the language layers, and with `vision` those of the vision tower; never the output head or the projector.

    Raises:
        WeightsUnsuitable: the model has none.
    """
    parts = {"language", "vision"} if vision else {"language"}
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and part_of(name) in parts and re.search(r"\.\d+\.", name)
    ]
    if not names:
        raise WeightsUnsuitable("no linear layers were found for LoRA", type(model).__name__, "train it without LoRA")
    # Layers differ by their number only: a pattern of a few alternatives keeps the adapter's file readable.
    patterns = {re.sub(r"\\\.\d+\\\.", lambda _: r"\.\d+\.", re.escape(name)) for name in names}
    return "|".join(sorted(patterns))


def _with_adapters(model: Any, lora: Lora) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ExtraMissing("low-rank adapters need peft", error.name, INSTALL) from error
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora_targets(model, vision=lora.vision),
        task_type="CAUSAL_LM",
    )
    with quiet_libraries():
        return get_peft_model(model, config)


def _freeze(model: Any, settings: ModelSettings) -> None:
    frozen = {
        part
        for part, is_frozen in (("vision", settings.vision_is_frozen), ("projector", settings.projector_is_frozen))
        if is_frozen
    }
    found = set()
    for name, weight in model.named_parameters():
        part = part_of(name)
        if part in frozen:
            found.add(part)
            weight.requires_grad_(False)
    if missing := frozen - found:
        raise WeightsUnsuitable(
            f"the model has no {' or '.join(sorted(missing))} to freeze", type(model).__name__, "leave the option out"
        )


def is_adapted(model: Any) -> bool:
    """Whether it is a model with peft's adapters around it."""
    return hasattr(model, "peft_config")


def reload_weights(model: Any, checkpoint: str | Path) -> None:
    """Give `model` the weights of a checkpoint of its trainer.

    Transformers writes a vision-language model under the names of its hub, which its trainer does not read back: with
    no more than a warning, a resumed run would go on with the weights it began with. `from_pretrained` knows both.
    """
    with quiet_loading():
        kept = type(model).from_pretrained(checkpoint, dtype=model.dtype)
    model.load_state_dict(kept.state_dict())


def save_model(
    model: Any,
    processor: ChatProcessor,
    settings: ModelSettings,
    folder: Path,
    *,
    state_dict: dict[str, Any] | None = None,
    merge: bool = True,
) -> Path:
    """Write a trained model to `folder`, so that inference (`zoomiqa assess --model FOLDER`) can read it.

    A fully trained model is written as it is. An adapter is written to `folder/adapter`, and unless `merge` is off,
    base and adapter are merged in 32 bits and written to `folder` in the base's number type. Weights are safetensors.

    Args:
        model: What was trained.
        processor: Its processor, written beside it.
        settings: Where the base came from, for merging.
        folder: Made if it is not there.
        state_dict: The gathered weights, where they are shared out over processes.
        merge: Whether an adapter is merged.

    Returns:
        `folder`, or the adapter's folder without merging.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not is_adapted(model):
        _write_whole(model, processor, folder, state_dict)
        return folder
    adapter = folder / ADAPTER
    with quiet_loading():
        model.save_pretrained(adapter, state_dict=state_dict)
    if not merge:
        processor.processor.save_pretrained(adapter)
        return adapter
    return merge_adapter(settings, adapter, folder)


def merge_adapter(settings: ModelSettings, adapter: Path, folder: Path) -> Path:
    """Merge an adapter into its base and write the result to `folder`; returns that.

    The base is read anew, on the CPU, in 32 bits: merging in bf16 would round most of the adapter away.
    """
    from peft import PeftModel
    from transformers import AutoConfig

    base = read_weights(settings.model, settings.revision, "fp32", "sdpa")
    with quiet_libraries():
        merged = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    stored = AutoConfig.from_pretrained(settings.model, revision=settings.revision).dtype
    if isinstance(stored, torch.dtype):
        merged = merged.to(stored)
    _write_whole(merged, load_processor(settings.model, settings.revision), folder, None)
    return folder


def _write_whole(model: Any, processor: ChatProcessor, folder: Path, state_dict: dict[str, Any] | None) -> None:
    with quiet_loading():
        model.save_pretrained(folder, state_dict=state_dict)
    processor.processor.save_pretrained(folder)
