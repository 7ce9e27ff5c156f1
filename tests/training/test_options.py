"""Options of the trainers' commands: each fills a setting that there is, and its help says that setting's default."""

import dataclasses
import re

import pytest

pytest.importorskip("torch")

from training.grpo import command as grpo
from training.grpo.loss import LossSettings
from training.grpo.plan import BatchSettings
from training.grpo.scoring import RewardSettings
from training.grpo.settings import SAMPLING, EngineSettings, GRPOSettings, OptimizerSettings
from training.models import Lora, ModelSettings
from training.objectives.coverage import CoverageSettings
from training.options import MODEL, model_settings_from
from training.sft import command as sft
from training.sft.settings import SFTSettings
from zoomiqa.protocol import ConversationSettings

MODELS = {"model": ModelSettings, "lora": Lora}
PARTS = {
    sft: {**MODELS, "run": SFTSettings},
    grpo: {
        **MODELS,
        "run": GRPOSettings,
        "conversation": ConversationSettings,
        "sampling": type(SAMPLING),
        "batch": BatchSettings,
        "rewards": RewardSettings,
        "loss": LossSettings,
        "loss.coverage": CoverageSettings,
        "optimizer": OptimizerSettings,
        "engine": EngineSettings,
    },
}
NEEDED = {sft: ["--data", "d", "--image-root", "i", "--out", "o"], grpo: ["--labels", "l", "--out", "o"]}
_DEFAULT = re.compile(r"\(default: (-?[\d.]+(?:e-?\d+)?)\b")


def options(command):
    """(flag, the default of its setting, its help) of every option that fills one."""
    for action in command.build_parser()._actions:
        part, _, name = action.dest.rpartition(".")
        if part:
            field = {field.name: field for field in dataclasses.fields(PARTS[command][part])}[name]
            default = getattr(SAMPLING, name) if part == "sampling" else field.default
            yield action.option_strings[0], default, action.help


@pytest.mark.parametrize("command", [sft, grpo])
def test_help_says_the_defaults_of_the_settings(command):
    said = [
        (flag, float(told[1]), default) for flag, default, text in options(command) if (told := _DEFAULT.search(text))
    ]
    assert len(said) > 10
    assert [flag for flag, told, default in said if told != default] == []


@pytest.mark.parametrize("command", [sft, grpo])
def test_what_is_given_arrives_and_the_rest_is_the_settings_own(command):
    def read(*words):
        return command.settings_from(command.build_parser().parse_args([*NEEDED[command], *words]))

    plain, told = read(), read("--seed", "7", "--no-merge", "--keep", "5", "--device", "cpu", "--overwrite")
    assert plain.model == ModelSettings(MODEL)
    assert told == dataclasses.replace(
        plain, seed=7, merge=False, keep=5, overwrite=True, model=dataclasses.replace(plain.model, device="cpu")
    )


def test_adapters_are_asked_for_by_their_rank():
    def read(*words):
        return model_settings_from(sft.build_parser().parse_args([*NEEDED[sft], *words])).lora

    assert read() is None
    assert read("--lora", "8") == Lora(8, 16, 0.05)
    assert read("--lora", "8", "--lora-alpha", "4", "--lora-dropout", "0", "--lora-vision") == Lora(8, 4, 0.0, True)


def test_parts_of_parts_do_not_mix():
    words = ["--clip", "0.1", "--coverage-share", "0.5", "--coverage-scope", "micro", "--no-vllm-sleep", "--lift"]
    made = grpo.settings_from(grpo.build_parser().parse_args([*NEEDED[grpo], *words]))
    assert made.loss == LossSettings(clip=0.1, coverage=CoverageSettings(share=0.5), scope="micro")
    assert made.engine == EngineSettings(vllm_sleep=False)
    assert made.rewards == RewardSettings(lift=True)
