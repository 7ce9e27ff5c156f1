"""GRPO for real: TRL's trainer on a tiny Qwen2.5-VL, conversations with crops, checkpoints, two processes."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.grpo_tools import (
    PROMPTS,
    Watch,
    build_doubtful_vlm,
    build_world,
    free_digits,
    planned_policy,
    reply,
    tiny_settings,
)
from training.grpo import run, trainer
from training.grpo.loss import LossSettings
from training.grpo.plan import BatchSettings
from training.grpo.scoring import RewardSettings
from training.grpo.settings import EngineSettings, OptimizerSettings, Source
from training.models import Lora
from training.objectives.coverage import CoverageSettings
from zoomiqa.errors import OptionInvalid, OutputWouldOverwrite, RecordSettingsChanged
from zoomiqa.protocol import ConversationSettings
from zoomiqa.records import read_records
from zoomiqa.types import Sampling

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_doubtful_vlm(tmp_path_factory.mktemp("grpo") / "vlm")


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    return build_world(tmp_path_factory.mktemp("grpo") / "world")


class Seen:
    """What a run did, from inside."""

    def __init__(self):
        self.watch = Watch()
        self.trainer = None
        self.steps = []


def carry_out(settings, script=free_digits, *, patch=None):
    """`train`, with a planned policy and watched from inside."""
    seen = Seen()
    with pytest.MonkeyPatch.context() as patcher:
        patcher.setattr(trainer, "PolicyBackend", planned_policy(script))
        make = run.make_trainer

        def watched(*arguments):
            seen.trainer = made = make(*arguments)
            made.add_callback(seen.watch.callback)
            compute = made._compute_loss

            def noted(model, batch):
                loss = compute(model, batch)
                seen.steps.append((made.state.global_step, batch, made._update, float(loss.detach())))
                return loss

            made._compute_loss = noted
            if patch:
                patch(made)
            return made

        patcher.setattr(run, "make_trainer", watched)
        result = run.train(settings)
    return result, seen


def weights_of(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def three(model, labels, tmp_path_factory):
    """A run of three rollouts, with what was seen."""
    settings = tiny_settings(model, labels, tmp_path_factory.mktemp("grpo") / "three", rollouts=3)
    return settings, *carry_out(settings)


def test_a_run_takes_both_looks_and_two_steps_per_rollout(three, model):
    settings, result, seen = three
    assert (result.rollouts, result.updates) == (3, 6)
    looks = [len(line["looks"]) for line in read_records(settings.out / "rollouts.jsonl")]
    assert set(looks) == {1, 2}
    rows = [len(batch.places) for _, batch, _, _ in seen.steps]
    assert max(rows) > 2  # trajectories of two looks are two rows
    before, after = weights_of(model), weights_of(settings.out)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("visual" in name for name in changed)
    assert any("lm_head" in name for name in changed)


def test_the_log_tells_what_it_should(three):
    settings, result, _ = three
    first = next(line for line in result.history if "reward" in line)
    assert {
        "rewards/format", "rewards/score", "rewards/rank", "reward_std", "rollout/second_round_share",
        "rollout/unique_scores", "rollout/numeric_entropy", "rollout/tokens_per_second", "rollout/cut_share",
        "loss/clipped_share", "coverage/value", "coverage/selected", "grad_norm", "loss",
    } <= first.keys()  # fmt: skip
    card = json.loads((settings.out / "training.json").read_text())
    assert card["plan"]["updates_per_rollout"] == 2
    assert card["figures"]["reward"]
    assert "rollouts.jsonl" in (settings.out / "README.md").read_text()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(settings.out / "logs")).Reload()
    assert {"train/reward", "train/coverage/value"} <= set(events.Tags()["scalars"])


def test_the_result_is_read_by_inference(three, labels):
    from zoomiqa.assessors.conversational import ConversationalAssessor
    from zoomiqa.backends.transformers import TransformersBackend
    from zoomiqa.imaging import open_picture

    settings, _, _ = three
    backend = TransformersBackend(settings.out, device="cpu")
    assessor = ConversationalAssessor(
        backend, ConversationSettings(sampling=Sampling(max_new_tokens=4)), prompts=PROMPTS
    )
    (assessment,) = assessor.assess([open_picture(labels.parent / "0.png")])
    assert assessment.rounds[0].tokens_out > 0


def test_a_row_gives_the_probabilities_of_the_very_tokens_that_were_drawn(three):
    """What training reads beside what generation saw: the same context, token for token."""
    _, _, seen = three
    made = seen.trainer
    _, batch, _, _ = seen.steps[0]
    assert batch.valid.sum() == (batch.labels != -100).sum()
    written = [made._loaded.processor.tokenizer.decode(row[row != -100]) for row in batch.labels]
    assert all(text.startswith("<think>") and text.endswith("<|im_end|>") for text in written)
    images = batch.inputs["image_grid_thw"].shape[0]
    assert images == sum(2 if "Crop Inspection" in text else 1 for text in written)


def test_kl_coverage_in_the_trainer_is_the_reference_on_the_very_rows(three):
    settings, result, seen = three
    coverage = settings.loss.coverage
    # The first step of a rollout is on-policy, the second is not.
    values = [line["coverage/value"] for line in result.history if "coverage/value" in line]
    assert values[0::2] == [0.0, 0.0, 0.0]
    assert all(value > 0 for value in values[1::2])
    candidates, masked = [], []
    made = seen.trainer
    steps = [entry for entry in seen.steps if entry[0] == 5]
    assert len(steps) == settings.batch.gradient_accumulation_steps
    saved = {name: weight.clone() for name, weight in made.model.state_dict().items()}
    checkpoint = settings.out / "checkpoints" / "checkpoint-6"
    assert checkpoint.is_dir()
    made.model.load_state_dict(BEFORE_LAST[str(settings.out)])
    try:
        for place, (_, batch, update, _) in enumerate(steps):
            with torch.no_grad():
                new = made._read(made.model, batch)[0].double().numpy()
            old = batch.old.double().numpy()
            for row, column in np.argwhere(batch.numeric.numpy()):
                advantage = float(batch.advantages[row])
                candidates.append((new[row, column], old[row, column], advantage))
                masked.append(bool(update.masks[place][row, column]))
    finally:
        made.model.load_state_dict(saved)
    new, old, advantage = map(np.array, zip(*candidates, strict=True))
    covariance = (new - new.mean()) * (advantage - advantage.mean())
    chosen = np.argsort(-covariance, kind="stable")[: max(1, int(coverage.share * len(new)))]
    assert sorted(np.flatnonzero(masked)) == sorted(chosen)
    ratio = np.exp(new - old)[chosen]
    assert values[5] == pytest.approx((ratio - 1 - np.log(ratio)).mean(), rel=1e-4, abs=1e-9)
    assert steps[0][2].candidates == len(new)


BEFORE_LAST = {}


@pytest.fixture(scope="module", autouse=True)
def _weights_before_the_last_step(request):
    """Keep what the policy was when the last step of a run began."""
    inner = trainer.ConversationTrainer._begin_update

    def kept(self, *, is_first):
        state = {name: weight.clone() for name, weight in self.model.state_dict().items()}
        BEFORE_LAST[str(self.settings.out)] = state
        return inner(self, is_first=is_first)

    patcher = pytest.MonkeyPatch()
    patcher.setattr(trainer.ConversationTrainer, "_begin_update", kept)
    yield
    patcher.undo()
    BEFORE_LAST.clear()


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(three, tmp_path):
    settings, result, _ = three
    broken = replace(settings, out=tmp_path / "broken")

    def break_in_the_last_rollout(made):
        generate = made._generate

        def failing(draws):
            samples = generate(draws)
            if made.rollout_number == 2:
                raise KeyboardInterrupt
            return samples

        made._generate = failing

    with pytest.raises(KeyboardInterrupt):
        carry_out(broken, patch=break_in_the_last_rollout)
    assert not (broken.out / "model.safetensors").exists()
    torch.manual_seed(99)  # whatever the process has drawn meanwhile
    again, _ = carry_out(replace(broken, resume=True))

    for name, weight in weights_of(settings.out).items():
        assert torch.equal(weight, weights_of(broken.out)[name]), name
    one, other = (
        torch.load(out / "checkpoints" / "checkpoint-6" / "optimizer.pt", weights_only=True)["state"]
        for out in (settings.out, broken.out)
    )
    assert all(torch.equal(one[key][name], other[key][name]) for key in one for name in one[key])
    for file in ("rollouts.jsonl",):
        assert (settings.out / file).read_bytes() == (broken.out / file).read_bytes()
    plain, resumed = (
        [{name: value for name, value in line.items() if "second" not in name and "time" not in name} for line in lines]
        for lines in (result.history[:-1], again.history[:-1])
    )
    assert plain == resumed


def test_a_run_is_not_mixed_with_another(three, labels):
    settings, _, _ = three
    with pytest.raises(OutputWouldOverwrite):
        run.train(settings)
    with pytest.raises(RecordSettingsChanged, match="seed"):
        run.train(replace(settings, resume=True, seed=5))


def test_one_step_per_rollout_is_refused_with_kl_coverage(model, labels, tmp_path):
    settings = tiny_settings(model, labels, tmp_path / "out")
    once = replace(settings, batch=replace(settings.batch, iterations=1))
    with pytest.raises(OptionInvalid, match="exactly zero"):
        run.train(once)


def test_equal_and_unreadable_replies_move_nothing(model, labels, tmp_path):
    settings = tiny_settings(model, labels, tmp_path / "same", rollouts=1)
    _, seen = carry_out(settings, lambda request: reply(3.0))
    # Ratings are the same within each group, though not their rewards between groups.
    assert all(not gradient.any() for step in seen.watch.gradients for gradient in step.values())
    result, seen = carry_out(replace(settings, out=tmp_path / "bad"), lambda request: "What a nice photo.")
    assert result.history[0]["reward"] == 0
    assert result.history[0]["rollout/unreadable_share"] == 1
    assert all(not gradient.any() for step in seen.watch.gradients for gradient in step.values())


def test_special_tokens_of_pictures_are_never_drawn(model, labels, tmp_path):
    from training.grpo.policy import PolicyBackend

    settings = tiny_settings(model, labels, tmp_path)
    backend = PolicyBackend(settings.model, "cpu", 2)
    loaded = run.load_model(settings.model)
    backend.use(loaded.model.eval())
    decoder = backend.decoder(2)
    suppressed = set(decoder._suppressed.tolist())
    assert suppressed == set(loaded.suppressed)
    tokenizer = loaded.processor.tokenizer
    assert {tokenizer.convert_tokens_to_ids(name) for name in ("<|vision_start|>", "<|video_pad|>")} <= suppressed


def test_every_process_reads_the_model_as_often_as_the_one_with_the_most_to_ask(model, labels, tmp_path):
    """Replies without a rating have no thinking to be paid: another process may have more that have."""

    def script(request):
        return "no answer" if request.picture.info.path.endswith("0.png") else reply()

    passes = []

    def patch(made):
        made._most = lambda count: count + 3
        chances, read = made._thinking_chances, made._read

        def counted(samples):
            made._read = lambda *arguments: passes.append(arguments[1]) or read(*arguments)
            found = chances(samples)
            made._read = read
            passes.append(sum(own is not None for own, _ in found))
            return found

        made._thinking_chances = counted

    settings = tiny_settings(model, labels, tmp_path / "out", rollouts=1, rewards=RewardSettings(thinking=1.0))
    settings = replace(settings, batch=replace(settings.batch, pictures=6))
    carry_out(settings, script, patch=patch)
    *batches, asked = passes
    assert asked == 20
    assert [int(batch.valid.sum()) for batch in batches] == [2] * 20 + [0] * 3


@pytest.mark.parametrize("context", ["rewritten", "appended"])
def test_everything_at_once(model, labels, tmp_path, context):
    """Tasks, thinking and the advantage rule; the exact KL, a reference, LoRA."""
    row = {"id": "t", "image": "0.png", "question": "How strong?", "truth": {"task": "severity", "severity": 2}}
    tasks = tmp_path / "perception.jsonl"
    tasks.write_text(json.dumps(row) + "\n")

    def script(request):
        if request.messages[0].text == "How strong?":
            return '<think>x</think><answer>{"severity": #}</answer>'
        return free_digits(request, share=0.75)

    settings = tiny_settings(model, labels, tmp_path / "out", rollouts=1)
    settings = replace(
        settings,
        model=replace(settings.model, lora=Lora(4, 8, 0.0)),
        perception=(Source(tasks, labels.parent),),
        perception_share=1 / 3,
        conversation=replace(settings.conversation, context=context),
        batch=BatchSettings(batch_size=2, gradient_accumulation_steps=3, group_size=4, pictures=3),
        rewards=RewardSettings(thinking=1.0, lift=True),
        loss=LossSettings(reference_weight=0.1, coverage=CoverageSettings(estimator="exact")),
    )
    result, seen = carry_out(settings, script)
    first, last = result.history[0], result.history[-2]
    assert {"rewards/perception", "rewards/thinking", "loss/reference_kl"} <= first.keys()
    assert first["loss/reference_kl"] == pytest.approx(0, abs=1e-6)
    assert last["loss/reference_kl"] > 0
    assert last["coverage/value"] > 0
    rows = sum(len(batch.places) for _, batch, _, _ in seen.steps)
    looks = first["rollout/second_round_share"] * 8 + 12
    assert rows == (looks if context == "rewritten" else 12)
    assert [path.name for path in (settings.out / "adapter").rglob("*.safetensors")] == ["adapter_model.safetensors"]
    assert (settings.out / "model.safetensors").exists()
    assert set(seen.watch.gradients[0]) <= {
        name for name, weight in seen.trainer.model.named_parameters() if "lora" in name
    }


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_reward_rises(labels, tmp_path, seed):
    """By 0.25 at least over the first rollout, whose digits are random; they are the policy's own draws."""
    good = build_world(tmp_path / "world", ratings=[4.3, 4.4, 4.45, 4.5, 4.55, 4.6])
    settings = tiny_settings(
        build_doubtful_vlm(tmp_path / "vlm", seed=seed), good, tmp_path / "out",
        rollouts=8, seed=seed, save_every=100, show_every=100, engine=EngineSettings(slots=32),
        batch=BatchSettings(batch_size=8, gradient_accumulation_steps=4, group_size=16, pictures=2),
        optimizer=OptimizerSettings(learning_rate=2e-2),
        # A wider trust region upwards: digits at random would otherwise take many more rollouts to change.
        loss=LossSettings(clip_high=1.0), rewards=RewardSettings(rank=0.0),
    )  # fmt: skip
    text = '<answer>{"bbox_2d": [0, 0, 0, 0], "rating": ^.##, "tool": "final"}</answer>'
    result, _ = carry_out(settings, lambda request: text)
    rewards = [line["rewards/score"] for line in result.history if "rewards/score" in line]
    assert np.mean(rewards[-3:]) > rewards[0] + 0.25, rewards


@pytest.mark.slow
def test_two_processes_reward_and_update_as_one(model, labels, tmp_path):
    folders = {}
    for name, processes, accumulation in (("one", 1, 4), ("two", 2, 2)):
        folder = folders[name] = tmp_path / name
        folder.mkdir()
        options = {"model": str(model), "labels": str(labels), "accumulation": accumulation}
        (folder / "options.json").write_text(json.dumps(options))
        launch(folder, processes)
    one = torch.load(folders["one"] / "rank0.pt", weights_only=True)
    ranks = [torch.load(folders["two"] / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    for rank in ranks:
        for name in ("reward", "rewards/rank", "rewards/score", "rollout/unique_scores"):
            assert rank["history"][0][name] == pytest.approx(one["history"][0][name], abs=1e-12)
        for step, (mine, theirs) in enumerate(zip(one["gradients"], rank["gradients"], strict=True)):
            for name, gradient in mine.items():
                scale = gradient.abs().max().clamp(min=1e-6)
                # After the first step the weights differ in the last bits, which Adam enlarges.
                torch.testing.assert_close(
                    theirs[name] / scale, gradient / scale, rtol=0, atol=1e-4 if step == 0 else 1e-2
                )
        for name in ("coverage/selected", "coverage/candidates"):
            assert rank["history"][1][name] == one["history"][1][name]
        assert rank["history"][1]["coverage/value"] == pytest.approx(one["history"][1]["coverage/value"], rel=2e-2)


def launch(folder, processes):
    """A run in several processes that talk through gloo."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = []
    for rank in range(processes):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        if processes > 1:
            environment |= {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
                "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            }  # fmt: skip
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.training.grpo_tools", str(folder)], cwd=ROOT, env=environment,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
        )  # fmt: skip
    try:
        for process in running:
            output, _ = process.communicate(timeout=600)  # a busy machine takes minutes to import torch twice
            assert process.returncode == 0, output[-4000:]
    finally:
        for process in running:
            process.kill()


def test_the_command_trains_what_the_policy_itself_writes(model, labels, tmp_path, capsys):
    """Nothing is planned here: a few tokens of nonsense each, drawn by the policy, from an adapted model."""
    from training.grpo.command import main

    prompts = tmp_path / "short.toml"
    prompts.write_text('first = "Rate: {question}"\nlater = "Closer: {question}"\nquestions = ["How good is it?"]\n')
    words = (
        f"--model {model} --device cpu --lora 2 --labels {labels} --out {tmp_path / 'out'} --prompts {prompts}"
        " --samples 2 --pictures 2 --batch 2 --accumulation 2 --max-new-tokens 6 --rollouts 1"
    ).split()
    assert main(words) == 0
    told = capsys.readouterr().err
    assert "unreadable 100%" in told
    lines = list(read_records(tmp_path / "out" / "rollouts.jsonl"))
    assert len({line["looks"][0]["text"] for line in lines}) == 2
    assert main([*words, "--overwrite", "--iterations", "1"]) == 2
    assert "KL-Coverage is exactly zero" in capsys.readouterr().err


def test_the_command_draws_tasks_of_every_file_without_being_told_sizes(model, labels, tmp_path):
    from training.grpo.command import main

    row = {"id": "s0-name", "image": "0.png", "question": "Which?", "truth": {"task": "name", "distortion": "noise"}}
    files = [tmp_path / name / "perception.jsonl" for name in "ab"]
    for file in files:
        shutil.copytree(labels.parent, file.parent)
        file.write_text(json.dumps(row) + "\n")
    words = (
        f"--model {model} --device cpu --labels {labels} --perception {files[0]} {files[1]} --out {tmp_path / 'out'}"
        " --samples 2 --batch 2 --accumulation 1 --max-new-tokens 2 --rollouts 2"
    ).split()
    assert main(words) == 0
    card = json.loads((tmp_path / "out" / "training.json").read_text())
    assert card["plan"]["tasks"] == 1
    assert card["data"] == {"labels": 6, "perception": 1, "perception-2": 1}
    assert any("rewards/perception" in line for line in json.loads((tmp_path / "out" / "history.json").read_text()))
