"""The stages of the replication, each of which is done once and goes on after an interruption.

It must not know how a stage is done by the package it calls, or how results are shown.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from zoomiqa import __version__
from zoomiqa.cli import main as zoomiqa_command
from zoomiqa.errors import BackendFailed, OutputFailed
from zoomiqa.evaluation import load_annotations
from zoomiqa.files import atomic_write_bytes
from zoomiqa.protocol import ConversationSettings, PromptSet, load_prompts
from zoomiqa.records import read_records

from ...curation.build import build  # noqa: TID252 - in a wheel it is zoomiqa.training
from ...grpo import GRPOSettings  # noqa: TID252
from ...grpo import train as train_grpo  # noqa: TID252
from ...grpo.loss import LossSettings  # noqa: TID252
from ...grpo.plan import BatchSettings  # noqa: TID252
from ...grpo.scoring import RewardSettings  # noqa: TID252
from ...grpo.settings import SAMPLING, EngineSettings, OptimizerSettings, Source  # noqa: TID252
from ...models import ModelSettings  # noqa: TID252
from ...objectives.coverage import CoverageSettings  # noqa: TID252
from ...resampling import Stages  # noqa: TID252
from ...runs import SETTINGS, files_digest, refuse_changes, say  # noqa: TID252
from ...sft import SFTSettings  # noqa: TID252
from ...sft import train as train_sft  # noqa: TID252
from ...synthesis.command import main as synthesis_command  # noqa: TID252
from .data import TEST, TRAIN, short_trajectories, split, write_trajectories
from .forms import Arm, Form
from .model import build_model

TIMING = "timing.json"
_MICRO_BATCHES = 4
"""Per rollout; two make an optimizer step, so a rollout makes two, and KL-Coverage acts in the second."""

_say = partial(say, "mini")


@dataclass(frozen=True, slots=True)
class Mini:
    """A replication."""

    photos: Path
    labels: Path
    out: Path
    form: Form
    arms: tuple[Arm, ...]
    seed: int = 0
    device: str = "auto"

    @property
    def prompts_file(self) -> Path:
        return Path(str(resources.files(__package__) / "prompts.toml"))

    def model_of(self, arm: Arm) -> Path:
        """Folder of an arm's model."""
        return self.out / ("sft" if not arm.is_trained else f"grpo-{arm.name}")

    def evaluation_of(self, arm: Arm) -> Path:
        """Folder of an arm's evaluation."""
        return self.out / "evaluation" / arm.name

    def identity(self) -> dict[str, Any]:
        """What decides the result, but for the arms: they can be added later."""
        prompts = load_prompts(self.prompts_file)
        return {
            "version": __version__,
            "form": asdict(self.form),
            "seed": self.seed,
            "prompts": {"name": prompts.name, "hash": prompts.digest},
            "labels": files_digest([self.labels]),
            "photos": files_digest(known.path for known in load_annotations(self.labels, self.photos)),
        }


def run(mini: Mini) -> None:
    """Do every stage that is not done yet.

    Raises:
        ZoomIQAError: a stage failed; the next run goes on with it.
    """
    _claim(mini)
    prompts = load_prompts(mini.prompts_file)
    _stage(mini, "split", mini.out / TEST, partial(split_photos, mini))
    _stage(mini, "synthesis", mini.out / "synthesis" / "card.json", partial(synthesise, mini))
    _stage(mini, "data", mini.out / "data" / "card.json", partial(make_data, mini, prompts))
    _stage(mini, "model", mini.out / "start" / "processor_config.json", partial(make_model, mini))
    _stage(mini, "sft", mini.out / "sft" / "training.json", partial(cold_start, mini, prompts))
    for arm in mini.arms:
        if arm.is_trained:
            done = mini.model_of(arm) / "training.json"
            _stage(mini, f"grpo-{arm.name}", done, partial(reinforce, mini, arm, prompts))
        rated = mini.evaluation_of(arm) / "summary.json"
        _stage(mini, f"evaluation-{arm.name}", rated, partial(evaluate, mini, arm))


def split_photos(mini: Mini) -> None:
    """The labelled photos as a training and a test part."""
    split(mini.labels, mini.photos, mini.form.test, mini.seed, mini.out, limit=mini.form.photos)


def synthesise(mini: Mini) -> None:
    """Distorted and untouched training photos with the measured teacher's trajectories."""
    entries = json.loads((mini.out / TRAIN).read_text("utf-8"))
    mix = ("--side", mini.form.side, "--local-share", 0.25, "--clean-share", 0.6, "--format", "jpeg")
    words = [
        *(mini.photos / entry["image"] for entry in entries),
        "--out", mini.out / "synthesis", "--count", mini.form.samples, "--seed", mini.seed, *mix, "--resume",
    ]  # fmt: skip
    # 1: some samples could not be made; what was made is used, and the card says how much that is.
    if synthesis_command([str(word) for word in words]) not in (0, 1):
        raise BackendFailed("synthesis did not come to its end", None, "see what it said above")


def make_data(mini: Mini, prompts: PromptSet) -> None:
    """The teacher's trajectories in few words, as training rows."""
    records, missing = short_trajectories(mini.out / "synthesis" / "samples.jsonl", prompts)
    write_trajectories(records, mini.out / "trajectories.jsonl")
    folder = mini.out / "data"
    folder.mkdir(exist_ok=True)
    card = build(records, folder, prompts, mini.out / "synthesis")
    _say(f"{card['trajectories']} trajectories, {card['rows']} rows; {missing} samples could not be made")


def make_model(mini: Mini) -> None:
    """An untrained model and a tokenizer for the training texts."""
    records = read_records(mini.out / "trajectories.jsonl")
    texts = [look["text"] for record in records for look in record["rounds"]]
    weights = build_model(mini.out / "start", texts, mini.form.shape, mini.seed)
    _say(f"a model of {weights / 1e6:.2f} million weights")


def cold_start(mini: Mini, prompts: PromptSet) -> None:
    """Supervised fine-tuning, here of everything from nothing."""
    form = mini.form
    train_sft(
        SFTSettings(
            model=ModelSettings(str(mini.out / "start"), device=mini.device),
            data=mini.out / "data",
            image_root=mini.out / "synthesis",
            out=mini.out / "sft",
            prompts=prompts,
            learning_rate=form.sft_rate,
            batch_size=form.sft_batch,
            gradient_accumulation_steps=1,
            warmup_ratio=0.1,
            schedule="cosine",
            epochs=form.sft_epochs,
            weight_decay=0.05,
            seed=mini.seed,
            log_every=form.log_every,
            resume=(mini.out / "sft" / SETTINGS).exists(),
        )
    )


def reinforce(mini: Mini, arm: Arm, prompts: PromptSet) -> None:
    """GRPO from the cold start, with what the arm leaves on."""
    train_grpo(grpo_settings(mini, arm, prompts))


def grpo_settings(mini: Mini, arm: Arm, prompts: PromptSet) -> GRPOSettings:
    """The settings of an arm; what it does not switch is alike in all."""
    form = mini.form
    trajectories = form.groups * form.group_size
    out = mini.model_of(arm)
    return GRPOSettings(
        model=ModelSettings(str(mini.out / "sft"), device=mini.device),
        labels=(Source(mini.out / TRAIN, mini.photos),),
        out=out,
        prompts=prompts,
        conversation=ConversationSettings(sampling=replace(SAMPLING, max_new_tokens=form.max_new_tokens)),
        batch=BatchSettings(
            batch_size=trajectories // _MICRO_BATCHES,
            gradient_accumulation_steps=_MICRO_BATCHES // 2,
            group_size=form.group_size,
            pictures=form.groups,
            iterations=1,
        ),
        rewards=RewardSettings(score=1.0 if arm.score else 0.0, rank=2.0 if arm.rank else 0.0),
        loss=LossSettings(coverage=CoverageSettings() if arm.coverage else CoverageSettings(weight=0.0)),
        optimizer=OptimizerSettings(learning_rate=form.grpo_rate),
        engine=EngineSettings(slots=min(trajectories, 128)),
        stages=Stages() if arm.progressive else Stages.rising(1),
        rollouts=form.rollouts,
        seed=mini.seed,
        save_every=max(1, form.rollouts // 10),
        show_every=max(1, form.rollouts // 5),
        resume=(out / SETTINGS).exists(),
    )


def evaluate(mini: Mini, arm: Arm) -> None:
    """Ratings of the test part, drawn greedily, against people's."""
    folder = mini.evaluation_of(arm)
    folder.parent.mkdir(exist_ok=True)
    words = [
        "evaluate", mini.out / TEST, "--image-root", mini.photos, "--model", mini.model_of(arm),
        "--prompts", mini.prompts_file, "--deterministic", "--max-new-tokens", mini.form.max_new_tokens,
        "--batch-size", 32, "--device", mini.device, "--out", folder, "--resume", "--json", "--progress", "none",
    ]  # fmt: skip
    # 1: some pictures could not be rated; they are counted in the report.
    if zoomiqa_command([str(word) for word in words]) not in (0, 1):
        raise BackendFailed(f"the evaluation of {arm.title!r} did not come to its end", None, "see what it said above")


def _stage(mini: Mini, name: str, done: Path, work: Callable[[], None]) -> None:
    if done.exists():
        return
    _say(f"stage {name}")
    began = time.perf_counter()
    work()
    if not done.exists():
        raise BackendFailed(f"the stage {name} left no {done.name}", None, "see what it said above")
    file = mini.out / TIMING
    timing = json.loads(file.read_text("utf-8")) if file.exists() else {}
    timing[name] = round(time.perf_counter() - began, 1)
    atomic_write_bytes(file, json.dumps(timing, indent=1).encode())


def _claim(mini: Mini) -> None:
    identity = mini.identity()
    file = mini.out / SETTINGS
    try:
        mini.out.mkdir(parents=True, exist_ok=True)
        known = json.loads(file.read_text("utf-8")) if file.exists() else None
    except (OSError, ValueError) as error:
        raise OutputFailed("the folder cannot be used", mini.out, "choose another") from error
    if known is None:
        atomic_write_bytes(file, json.dumps(identity, indent=1).encode())
    else:
        refuse_changes(known, identity)


def read_json(path: Path) -> Any:
    """A JSON file that a stage wrote."""
    return json.loads(path.read_text("utf-8"))


def histories(mini: Mini) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """What GRPO logged in each arm that was trained."""
    return {
        arm.name: read_json(mini.model_of(arm) / "history.json")
        for arm in mini.arms
        if arm.is_trained and (mini.model_of(arm) / "history.json").exists()
    }
