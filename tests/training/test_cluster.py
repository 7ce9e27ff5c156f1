"""The verl adapter: its pure functions everywhere, its classes against verl's own where verl is installed."""

import asyncio
import copy
import inspect
import json
import random
import warnings
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
yaml = pytest.importorskip("yaml")

from tests.rewards.replies import CROP, reply  # noqa: E402
from tests.tiny_vlm import build_tokenizer  # noqa: E402
from training.cluster import loss as cluster_loss  # noqa: E402
from training.cluster.configuration import CONFIGS, compose  # noqa: E402
from training.cluster.data import LaidOutPictures, item_of, row_of, truth_of  # noqa: E402
from training.cluster.settings import check, read_settings  # noqa: E402
from training.cluster.updates import deal_padding, numeric_flags, prepare, update_numbers  # noqa: E402
from training.grpo.items import Item  # noqa: E402
from training.grpo.loss import begin_update, part_of_loss  # noqa: E402
from training.grpo.order import draw_order  # noqa: E402
from training.grpo.rollout import Draw, SampledReply, talks_of  # noqa: E402
from training.grpo.rows import make_batch, rows_of  # noqa: E402
from training.grpo.scoring import Outcome, score  # noqa: E402
from training.objectives.tokens import numeric_in_answer, token_pieces  # noqa: E402
from training.resampling import Stages  # noqa: E402
from zoomiqa.errors import ExtraMissing, OptionInvalid  # noqa: E402
from zoomiqa.protocol import ConversationSettings, default_prompts  # noqa: E402
from zoomiqa.rewards import Truth  # noqa: E402
from zoomiqa.types import Sampling  # noqa: E402

VERL_DEFAULTS = {
    "trainer": {"use_v1": True, "v1": {"trainer_mode": "sync"}},
    "algorithm": {"use_kl_in_reward": False, "rollout_correction": {"rollout_is": None, "rollout_rs": None}},
    "actor_rollout_ref": {
        "model": {"path": "/model"},
        "actor": {"entropy_coeff": 0, "shuffle": False, "kl_loss_coef": 0.001},
    },
    "data": {"image_root": "/photos", "train_files": "train.json", "val_files": ["val.json"]},
}
"""What verl's own defaults add, as far as it is read without verl, and what a user must name."""


def merged(base, more):
    for name, value in more.items():
        base[name] = merged(base.get(name) or {}, value) if isinstance(value, dict) else value
    return base


def configuration(**changes):
    """The example's configuration; a change is named by its path, with __ between the steps."""
    config = merged(yaml.safe_load((CONFIGS / "zoom_iqa_7b.yaml").read_text()), copy.deepcopy(VERL_DEFAULTS))
    for path, value in changes.items():
        *steps, last = path.split("__")
        place = config
        for step in steps:
            place = place[step]
        place[last] = value
    return config


HAS_VERL = find_spec("verl") is not None

needs_verl = pytest.mark.skipif(
    not HAS_VERL, reason="needs verl 0.9.1, which takes an environment of its own: training/cluster/README.md"
)


# Settings


def test_the_example_is_the_papers_run():
    settings = check(configuration())
    assert settings.rewards.weights == {"format": 1.0, "score": 1.0, "rank": 2.0, "perception": 1.0}
    assert (settings.rewards.sigma, settings.loss.coverage.share, settings.loss.coverage.weight) == (0.35, 0.02, 0.04)
    assert (settings.conversation.rounds, settings.conversation.context) == (2, "rewritten")
    assert (settings.loss.clip, settings.loss.clip_high, settings.loss.reference_weight) == (0.2, 0.2, 0.0)


def test_a_reference_kl_is_asked_for_in_verls_words():
    config = configuration(actor_rollout_ref__actor__use_kl_loss=True, actor_rollout_ref__actor__kl_loss_coef=0.04)
    assert read_settings(config).loss.reference_weight == 0.04


def test_coverage_that_would_be_inert_is_refused():
    one_update = {"actor_rollout_ref__actor__ppo_mini_batch_size": 64}
    with pytest.raises(OptionInvalid, match="exactly zero with fewer than 2 optimizer steps"):
        check(configuration(**one_update))
    check(configuration(**one_update, actor_rollout_ref__actor__ppo_epochs=2))
    check(configuration(**one_update, zoomiqa__coverage__weight=0.0))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("trainer__use_v1", False, "V1 trainer"),
        ("trainer__v1__trainer_mode", "colocate_async", "synchronous"),
        ("trainer__total_epochs", 3, "whole training"),
        ("algorithm__adv_estimator", "gae", "groups"),
        ("algorithm__use_kl_in_reward", True, "KL in the reward"),
        ("algorithm__rollout_correction__rollout_is", "token", "rollout correction"),
        ("actor_rollout_ref__actor__entropy_coeff", 0.01, "entropy bonus"),
        ("actor_rollout_ref__actor__shuffle", True, "laid out"),
        ("actor_rollout_ref__model__path", None, "not given"),
        ("data__shuffle", True, "its own order"),
        ("data__val_files", ["train.json"], "by its files"),
        ("data__image_root", None, "not given"),
        ("actor_rollout_ref__rollout__n", 1, "two samples"),
        ("zoomiqa__rewards__thinking", 1.0, "thinking"),
        ("zoomiqa__coverage__estimator", "exact", "drawn tokens only"),
        ("zoomiqa__roundz", 2, "unknown"),
        ("zoomiqa__rewards__ranck", 2, "unknown"),
    ],
)
def test_what_would_not_do_what_it_says_is_refused(path, value, message):
    with pytest.raises(OptionInvalid, match=message):
        check(configuration(**{path: value}))


def test_without_verl_the_command_says_where_to_read():
    if HAS_VERL:
        pytest.skip("verl is installed")
    with pytest.raises(ExtraMissing, match="README"):
        compose("zoom_iqa_7b")


# Data


def labels(folder, name, count, **more):
    rows = [{"image": f"{number}.png", "gt_score": 1 + 4 * number / count, **more} for number in range(count)]
    path = folder / name
    path.write_text(json.dumps(rows))
    return str(path)


def data_config(tmp_path, **changes):
    data = configuration()["data"]
    return merged(
        data,
        {
            "image_root": str(tmp_path),
            "train_files": labels(tmp_path, "train.json", 24, dataset="koniq"),
            "val_files": [labels(tmp_path, "val.json", 5)],
            "train_batch_size": 6,
            "epochs": 3.0,
            **changes,
        },
    )


def test_the_data_set_is_the_whole_training_in_the_order_of_the_stages(tmp_path):
    config = data_config(tmp_path)
    data = LaidOutPictures(config["train_files"], None, config)
    order = draw_order(data.items, Stages((0.0, 0.5, 1.0)), rollouts=12, pictures=6, tasks=0, seed=0)
    assert data.order == [place for rollout in order for place in rollout]
    assert len(data) == 72
    row = data[7]
    assert (row["rollout"], row["group"], row["index"], row["agent_name"]) == (1, 1, 7, "zoomiqa")
    assert item_of(row["item"]) == data.items[data.order[7]]
    assert row["reward_model"]["ground_truth"] == item_of(row["item"]).truth.rating


def test_validation_shows_every_picture_once(tmp_path):
    config = data_config(tmp_path)
    data = LaidOutPictures(config["val_files"], None, config)
    assert data.order == [0, 1, 2, 3, 4]
    assert len(LaidOutPictures(config["val_files"], None, config, max_samples=2)) == 2


def test_stages_that_would_not_come_are_refused(tmp_path):
    config = data_config(tmp_path, epochs=0.3)
    with pytest.raises(OptionInvalid, match="every stage needs a rollout"):
        LaidOutPictures(config["train_files"], None, config)


def test_perception_tasks_take_their_share_of_each_rollout(tmp_path):
    truths = [{"task": "severity", "severity": 3}, {"task": "where", "bbox_2d": [0.1, 0.2, 0.5, 0.6]}]
    rows = [{"id": f"t{n}", "image": f"{n}.png", "question": "How strong?", "truth": t} for n, t in enumerate(truths)]
    tasks = tmp_path / "perception.jsonl"
    tasks.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = data_config(tmp_path, task_files=[str(tasks)], task_root=str(tmp_path), task_share=0.34)
    data = LaidOutPictures(config["train_files"], None, config)
    for start in range(0, len(data), 6):
        chosen = [item_of(json.loads(json.dumps(data[start + n]["item"]))) for n in range(6)]
        assert sum(item.is_task for item in chosen) == 2
    assert truth_of(json.loads(json.dumps(row_of(data.items[-1])["truth"]))) == data.items[-1].truth


# Rollouts made by hand: the one conversation generator, a script in the place of a model


TOKENIZER = build_tokenizer()
PIECES = token_pieces(TOKENIZER)
SETTINGS = check(configuration(zoomiqa__coverage__share=0.2))


class Sized:
    size = (400, 300)


def script(rating, looks):
    """The replies of one sample."""
    first = reply(rating, **CROP) if looks == 2 else reply(rating)
    return [first, reply(rating + 0.25, index=1)][:looks]


def sampled(item, group, number, texts):
    """A sample whose replies are `texts`, one token per piece of the tokenizer, prompts of made-up tokens."""
    conversation = ConversationSettings(sampling=Sampling(max_new_tokens=512))
    draw = Draw(item, group, number)
    (talk,) = talks_of([draw], [Sized()], conversation, default_prompts(), seed=0, rollout=0)
    next(talk)
    for look, text in enumerate(texts):
        ids = (*TOKENIZER.encode(text), TOKENIZER.eos_token_id)
        prompt = {"input_ids": torch.arange(3 + look + number)[None] + 300}
        try:
            talk.send(SampledReply(text=text, tokens=ids, prompt=prompt))
        except StopIteration as stop:
            return stop.value
    raise AssertionError("the conversation did not end")


def recorded_rollout(*, unreadable=True):
    """Three pictures with four samples each: one look and two, good, bad and unreadable."""
    randomness = random.Random(5)
    samples = []
    for group, rating in enumerate((1.5, 3.0, 4.5)):
        item = Item(f"photo-{group}", Path("/photos"), f"{group}.png", Truth(rating=rating), "koniq")
        for number in range(4):
            texts = script(round(randomness.uniform(1, 4.5), 2), 1 + (number + group) % 2)
            if unreadable and (group, number) == (1, 3):
                texts = ["I cannot say."]
            samples.append(sampled(item, group, number, texts))
    return samples


def records_of(samples):
    """The rows of samples as `looks` writes them, and their tokens."""
    rows = []
    for sample in samples:
        for look in sample.looks:
            record = {
                "trajectory": f"u{sample.draw.group}_{sample.draw.number}",
                "group": f"u{sample.draw.group}",
                "texts": list(sample.trajectory.texts),
                "rating": sample.trajectory.rating,
                "attributes": [],
                "item": row_of(sample.draw.item),
                "numeric": numeric_in_answer([PIECES(token) for token in look.tokens]),
            }
            rows.append((json.loads(json.dumps(record)), look.tokens))
    return rows


def padded(rows, seed=0, empty=0):
    """Records, (rows, T) old log-probabilities and valid flags; `empty` of verl's rows at the end."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(len(tokens) for _, tokens in rows)
    valid = torch.tensor(
        [[n < len(tokens) for n in range(longest)] for _, tokens in rows] + [[False] * longest] * empty
    )
    old = -torch.rand(valid.shape, generator=generator, dtype=torch.float64) * 3
    return [*(record for record, _ in rows), *[None] * empty], old * valid, valid


def test_rows_fall_into_updates_as_verls_workers_take_them():
    assert update_numbers(12, 2, 4).tolist() == [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]
    for wrong in ((12, 2, 5), (10, 2, 4), (0, 1, 4)):
        with pytest.raises(OptionInvalid):
            update_numbers(*wrong)


def test_empty_rows_are_dealt_evenly_and_nothing_leaves_its_process():
    is_padding = [False] * 6 + [True] * 6 + [False] * 11 + [True]
    order = deal_padding(is_padding, 2, 8)
    assert sorted(order[:12]) == list(range(12))
    assert sorted(order[12:]) == list(range(12, 24))
    real = [sum(not is_padding[place] for place in order[start : start + 4]) for start in range(0, 24, 4)]
    assert real == [2, 2, 2, 3, 4, 4]
    kept = [place for place in order if not is_padding[place]]
    assert kept == sorted(kept)


def test_the_advantage_of_a_trajectory_is_that_of_all_its_rows_and_its_tokens_count_together():
    samples = recorded_rollout()
    rows = records_of(samples)
    records, old, valid = padded(rows, empty=2)
    prepared = prepare(records, old, valid, torch.zeros(len(records), dtype=int), SETTINGS)
    scored = score([Outcome(sample.draw.group, sample.trajectory) for sample in samples], SETTINGS.rewards)
    assert prepared.scored == scored
    row = 0
    for sample, advantage, total in zip(samples, scored.advantages, scored.totals, strict=True):
        tokens = sum(len(look.tokens) for look in sample.looks)
        for look in sample.looks:
            assert prepared.advantages[row, : len(look.tokens)].tolist() == [advantage] * len(look.tokens)
            assert not prepared.advantages[row, len(look.tokens) :].any()
            assert (int(prepared.tokens[row]), float(prepared.totals[row])) == (tokens, pytest.approx(total))
            row += 1
    assert not prepared.advantages[row:].any()
    assert not prepared.selected[row:].any()
    assert prepared.trajectories.tolist() == [pytest.approx(12)] * len(records)


def test_only_numbers_of_answers_are_selected_the_best_share_of_each_update():
    rows = records_of(recorded_rollout())
    records, old, valid = padded(rows, empty=len(rows) % 2)
    updates = update_numbers(len(records), 1, len(records) // 2)
    prepared = prepare(records, old, valid, updates, SETTINGS)
    assert not (prepared.selected & ~prepared.numeric).any()
    for number in (0, 1):
        mine = updates == number
        candidates = prepared.numeric[mine]
        assert int(prepared.selected[mine].sum()) == int(0.2 * int(candidates.sum()))
        assert set(prepared.selected_count[mine].tolist()) == {int(prepared.selected[mine].sum())}
        logs, gains = old[mine], prepared.advantages[mine]
        spread = (logs - logs[candidates].mean()) * (gains - gains[candidates].mean())
        left_out = spread[candidates & ~prepared.selected[mine]].max()
        assert spread[prepared.selected[mine]].min() >= left_out


def test_the_order_of_rows_does_not_matter_to_rewards_or_advantages():
    rows = records_of(recorded_rollout())
    records, old, valid = padded(rows)
    straight = prepare(records, old, valid, torch.zeros(len(rows), dtype=int), SETTINGS)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(2))
    mixed = prepare([records[n] for n in order], old[order], valid[order], torch.zeros(len(rows), dtype=int), SETTINGS)
    assert torch.allclose(mixed.advantages, straight.advantages[order])
    assert torch.allclose(mixed.totals, straight.totals[order])
    assert torch.equal(mixed.tokens, straight.tokens[order])


def test_a_picture_drawn_twice_is_two_groups_but_never_ranked_against_itself():
    samples = recorded_rollout(unreadable=False)
    again = [sampled(sample.draw.item, 7, sample.draw.number, sample.trajectory.texts) for sample in samples[:4]]
    records, old, valid = padded(records_of([*samples, *again]))
    prepared = prepare(records, old, valid, torch.zeros(len(records), dtype=int), SETTINGS)
    ranks = prepared.scored.parts["rank"]
    assert ranks[:4] == pytest.approx(ranks[12:])
    only = [sampled(sample.draw.item, 8, sample.draw.number, sample.trajectory.texts) for sample in samples[:4]]
    records, old, valid = padded(records_of([*samples[:4], *only]))
    alone = prepare(records, old, valid, torch.zeros(len(records), dtype=int), SETTINGS)
    assert set(alone.scored.parts["rank"]) == {None}


def test_a_rollout_without_trajectories_and_flags_that_do_not_fit_are_refused():
    records, old, valid = padded(records_of(recorded_rollout()))
    with pytest.raises(OptionInvalid, match="no trajectory"):
        prepare([None] * len(records), old, valid, torch.zeros(len(records), dtype=int), SETTINGS)
    with pytest.raises(OptionInvalid, match="flag"):
        numeric_flags(records, valid.roll(1, dims=0))


# The same rollout through this adapter and through TRL's


def fields_of(prepared, old, valid):
    return {
        "response_mask": valid.long(),
        "old_log_probs": old,
        "advantages": prepared.advantages,
        cluster_loss.SELECTED: prepared.selected.long(),
        cluster_loss.TOKENS: prepared.tokens,
        cluster_loss.TRAJECTORIES: prepared.trajectories,
        cluster_loss.COUNT: prepared.selected_count,
    }


def through_cluster(rows, old, valid, new, settings, updates, empty, micro):
    """Loss and gradient by `new` of each update, its rows cut into micro-batches of `micro`."""
    records = [*(record for record, _ in rows), *[None] * empty]
    prepared = prepare(records, old, valid, updates, settings)
    found = []
    for number in updates.unique():
        own = (updates == number).nonzero()[:, 0]
        log_probs = new.clone().requires_grad_()
        total = 0.0
        for part in own.split(micro):
            data = {name: values[part] for name, values in fields_of(prepared, old, valid).items()}
            share, _ = cluster_loss.policy_loss(log_probs[part], data, settings.loss)
            share.backward()
            total += float(share.detach())
        found.append((total, log_probs.grad))
    return prepared, found


def test_both_adapters_give_the_same_rewards_masks_loss_and_gradient():
    """Whole trajectories per update, as TRL's trainer has them: then nothing may differ but the form of the rows."""
    samples = recorded_rollout()
    halves = [samples[:6], samples[6:]]
    rows_per_half = [records_of(half) for half in halves]
    size = max(map(len, rows_per_half))
    everything = [row for half in rows_per_half for row in half]
    _, old, valid = padded(everything)
    new = old + 0.3 * torch.randn(old.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    first = len(rows_per_half[0])
    updates = torch.tensor([0] * first + [1] * (len(everything) - first))
    prepared, cluster = through_cluster(everything, old, valid, new, SETTINGS, updates, 0, micro=3)
    assert size > 6  # there are second looks

    outcomes = [Outcome(sample.draw.group, sample.trajectory) for sample in samples]
    scored = score(outcomes, SETTINGS.rewards)
    assert prepared.scored == scored
    row, place = 0, 0
    for number, half in enumerate(halves):
        batches, spots = [], []
        for start in range(0, len(half), 2):  # micro-batches of two trajectories
            dealt = [(n, scored.advantages[place + n], rows_of(half[n].looks)) for n in range(start, start + 2)]
            batch = make_batch(dealt, PIECES, padding=TOKENIZER.pad_token_id)
            count = len(batch.advantages)
            batch.old = torch.zeros(batch.valid.shape, dtype=torch.float64)
            batch.old[batch.valid] = torch.cat([old[n][valid[n]] for n in range(row, row + count)])
            batches.append(batch)
            spots.append(range(row, row + count))
            row += count
        place += len(half)
        update = begin_update(batches, SETTINGS.loss, [batch.old for batch in batches], gather=lambda v: [v], rank=0)
        log_probs = new.clone().requires_grad_()
        total = 0.0
        for n, (batch, own) in enumerate(zip(batches, spots, strict=True)):
            mine = torch.zeros(batch.valid.shape, dtype=torch.float64)
            mine[batch.valid] = torch.cat([log_probs[r][valid[r]] for r in own])
            part = part_of_loss(mine, batch, update, n, SETTINGS.loss)
            part.loss.backward()
            total += float(part.loss.detach())
            for where, r in enumerate(own):
                assert batch.numeric[where][batch.valid[where]].tolist() == prepared.numeric[r][valid[r]].tolist()
                chosen = update.masks[n][where][batch.valid[where]]
                assert chosen.tolist() == prepared.selected[r][valid[r]].tolist()
        value, gradient = cluster[number]
        assert value == pytest.approx(total, rel=1e-6)
        assert torch.allclose(gradient, log_probs.grad, atol=1e-8)
        assert gradient[prepared.selected & (updates == number)[:, None]].abs().min() > 0


def test_empty_rows_and_the_size_of_micro_batches_do_not_change_the_loss():
    rows = records_of(recorded_rollout())
    _, old, valid = padded(rows)
    new = old - 0.2
    one = torch.zeros(len(rows), dtype=int)
    _, [(value, gradient)] = through_cluster(rows, old, valid, new, SETTINGS, one, 0, micro=100)
    _, more_old, more_valid = padded(rows, empty=3)
    more_new = torch.cat([new, torch.full((3, new.shape[1]), -7.0, dtype=new.dtype)])
    zeros = torch.zeros(len(rows) + 3, dtype=int)
    _, [(padded_value, padded_gradient)] = through_cluster(
        rows, more_old, more_valid, more_new, SETTINGS, zeros, 3, micro=2
    )
    assert padded_value == pytest.approx(value, rel=1e-6)
    assert torch.allclose(padded_gradient[: len(rows)], gradient, atol=1e-8)
    assert not padded_gradient[len(rows) :].any()


def test_the_regulariser_acts_on_selected_tokens_alone():
    rows = records_of(recorded_rollout())
    records, old, valid = padded(rows)
    new = (old - 0.5).requires_grad_()
    one = torch.zeros(len(rows), dtype=int)
    prepared = prepare(records, old, valid, one, SETTINGS)
    data = fields_of(prepared, old, valid) | {"advantages": torch.zeros_like(prepared.advantages)}
    share, figures = cluster_loss.policy_loss(new, data, SETTINGS.loss)
    share.backward()
    assert torch.equal(new.grad != 0, prepared.selected)
    assert float(share.detach()) == pytest.approx(0.04 * figures["kl_coverage"])
    on_policy, figures = cluster_loss.policy_loss(old.clone().requires_grad_(), data, SETTINGS.loss)
    assert float(on_policy.detach()) == 0.0 == figures["kl_coverage"]


# verl's own classes


@pytest.fixture(scope="module")
def verl():
    """The modules that need verl. Its import warns of engines that are not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {
            "looks": "training.cluster.looks",
            "controller": "training.cluster.controller",
            "agent_loop": "verl.experimental.agent_loop.agent_loop",
            "base": "verl.trainer.ppo.v1.trainer_base",
            "main": "verl.trainer.main_ppo",
            "replica": "verl.workers.rollout.replica",
            "tensordicts": "verl.utils.tensordict_utils",
        }
        return SimpleNamespace(**{name: import_module(path) for name, path in names.items()})


@pytest.fixture
def run_config(tmp_path, tiny_vlm):
    """A run with the tiny model: 4 pictures, 2 samples of each, at least 2 updates."""
    from PIL import Image

    for number in range(4):
        Image.effect_noise((80, 60), 20 + 20 * number).convert("RGB").save(tmp_path / f"{number}.png")
    train, val = (labels(tmp_path, name, 4, dataset="koniq") for name in ("train.json", "val.json"))
    sizes = {
        "data.image_root": tmp_path,
        "data.train_files": train,
        "data.val_files": val,
        "data.epochs": 3,
        "data.train_batch_size": 4,
        "data.max_response_length": 600,
        "actor_rollout_ref.model.path": tiny_vlm,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 2,
        "actor_rollout_ref.rollout.n": 2,
        "actor_rollout_ref.rollout.calculate_log_probs": "false",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
        "trainer.n_gpus_per_node": 1,
        "zoomiqa.max_pixels": 28 * 28 * 16,
        "zoomiqa.coverage.share": 0.2,
    }
    return compose("zoom_iqa_7b", [f"{name}={value}" for name, value in sizes.items()])


class Server:
    """Answers as verl's servers do, with scripted texts: the second sample of every picture looks twice."""

    def __init__(self, replica, tokenizer=None):
        self.replica, self.tokenizer, self.asked = replica, tokenizer, []

    async def generate(self, request_id, *, prompt_ids, sampling_params, image_data=None, **others):
        assert not others
        self.asked.append((prompt_ids, sampling_params, image_data))
        rating = 1.5 + 0.07 * len(self.asked)
        text = reply(rating, index=1) if len(image_data) == 2 else reply(rating)
        if len(image_data) == 1 and len(self.asked) % 2 == 0:
            text = reply(rating, **CROP)
        ids = [*self.tokenizer.encode(text), self.tokenizer.eos_token_id]
        steps = {"global_steps": 0, "min_global_steps": 0, "max_global_steps": 0}
        return self.replica.TokenOutput(token_ids=ids, stop_reason="completed", extra_fields=steps)


@pytest.fixture
def agent_loop(verl, run_config, tiny_vlm):
    """One agent loop, as verl's worker makes it, and its server."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(tiny_vlm)
    server = Server(verl.replica, processor.tokenizer)

    def made():
        return verl.looks.ZoomAgentLoop(
            trainer_config=verl.agent_loop.DictConfigWrap(run_config),
            server_manager=server,
            tokenizer=processor.tokenizer,
            processor=processor,
            hf_model_type="qwen2_5_vl",
            dataset_cls=LaidOutPictures,
            data_config=verl.agent_loop.DictConfigWrap(run_config.data),
            tools=verl.agent_loop.ToolListWrap([]),
        )

    row = LaidOutPictures(run_config.data.train_files, None, run_config.data)[0]
    return SimpleNamespace(made=made, server=server, processor=processor, row={**row, "uid": "u0", "session_id": 3})


PARAMS = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "logprobs": False}


def looked(agent_loop, **changes):
    async def run():
        return await agent_loop.made().run(dict(PARAMS), **{**agent_loop.row, **changes})

    return asyncio.run(run())


@needs_verl
def test_the_adapter_was_written_for_this_version_of_verl():
    assert metadata.version("verl") == "0.9.1"


@needs_verl
def test_what_is_overridden_exists_and_is_called_as_before(verl, monkeypatch):
    trainer = verl.controller.ZoomTrainer
    for name in ("_setup", "_balance_batch", "_compute_advantage"):
        theirs = inspect.signature(verl.base.PPOTrainer.__dict__[name])
        ours = inspect.signature(trainer.__dict__[name])
        ours.bind(*theirs.parameters)  # every argument that verl may pass is taken
    assert not verl.looks.ZoomAgentLoop.__abstractmethods__
    target = verl.agent_loop._agent_loop_registry["zoomiqa"]["_target_"]
    assert target == "training.cluster.looks.ZoomAgentLoop"

    runner = verl.main.TaskRunnerV1.__ray_metadata__.modified_class
    monkeypatch.setitem(verl.base.TRAINER_REGISTRY, "sync", verl.base.TRAINER_REGISTRY["sync"])
    monkeypatch.setattr(runner, "run", lambda self, config: config.append(verl.base.get_trainer_cls("sync")))
    seen = []
    verl.controller.ZoomTaskRunner().run(seen)
    assert seen == [trainer]


@needs_verl
@pytest.mark.parametrize("name", ["zoom_iqa_7b", "zoom_iqa_7b_nodes"])
def test_the_examples_are_valid_for_verl(name, tiny_vlm):
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    named = {
        "actor_rollout_ref.model.path": tiny_vlm,
        "data.image_root": "/p",
        "data.train_files": "a",
        "data.val_files": "b",
    }
    config = compose(name, [f"{path}={value}" for path, value in named.items()])
    assert check(config).loss.coverage.weight == 0.04
    assert not need_critic(config)
    validate_config(config, need_reference_policy(config), need_critic(config))
    with pytest.raises(OptionInvalid, match="nosuch"):
        compose(name, ["data.nosuch=1"])


@needs_verl
def test_an_agent_loop_gives_one_output_per_look(agent_loop):
    looked(agent_loop)
    first, second = looked(agent_loop)  # the server's second sample
    tokenizer = agent_loop.processor.tokenizer
    records = [output.extra_fields["zoomiqa"] for output in (first, second)]
    for output, record, text in zip((first, second), records, records[0]["texts"], strict=True):
        assert tokenizer.decode(output.response_ids, skip_special_tokens=True) == text
        assert output.response_mask == [1] * len(output.response_ids)
        numbers = [token for token, flag in zip(output.response_ids, record["numeric"], strict=True) if flag]
        assert set(tokenizer.decode(numbers)) <= set("0123456789.")
        assert len(numbers) > 5
        assert (record["trajectory"], record["group"], output.num_turns) == ("u0_3", "u0", 4)
        assert output.extra_fields["reward_extra_info"].keys() == {"format", "score"}
        assert output.reward_score == pytest.approx(sum(output.extra_fields["reward_extra_info"].values()))
        assert output.extra_fields["min_global_steps"] == 0
    assert [len(output.multi_modal_data["images"]) for output in (first, second)] == [1, 2]
    assert records[0]["rating"] == pytest.approx(1.5 + 0.07 * 3)


@needs_verl
def test_the_prompt_is_the_one_of_inference(agent_loop, run_config):
    """Token for token what the processor makes of the chat that the backends send."""
    from zoomiqa.backends.processor import ChatProcessor
    from zoomiqa.imaging import open_picture
    from zoomiqa.protocol import converse

    looked(agent_loop)
    looked(agent_loop)
    item = item_of(agent_loop.row["item"])
    (talk,) = talks_of([Draw(item, 0, 3)], [open_picture(item.root / item.path)], ConversationSettings(),
                       default_prompts(), seed=0, rollout=0)  # fmt: skip
    requests = [next(talk), talk.send(SampledReply(text=reply(1.5 + 0.07 * 2, **CROP), tokens=(1,)))]
    chat_processor = ChatProcessor(agent_loop.processor, run_config.zoomiqa.max_pixels, None)
    for request, (prompt, _, images) in zip(requests, agent_loop.server.asked[1:], strict=True):
        chat = chat_processor.chat_of(request)
        text = chat_processor.prompt(chat.messages)
        wanted = agent_loop.processor(text=[text], images=list(chat.images))["input_ids"][0]
        assert list(prompt) == list(wanted)
        assert len(images) == len(chat.images)
    assert inspect.isgeneratorfunction(converse)


@needs_verl
def test_special_tokens_other_than_the_end_are_never_drawn(agent_loop, verl):
    looked(agent_loop)
    params = agent_loop.server.asked[0][1]
    tokenizer = agent_loop.processor.tokenizer
    assert {name: params[name] for name in PARAMS} == PARAMS
    banned = {tokenizer.convert_ids_to_tokens(number) for number in params["logit_bias"]}
    assert {"<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"} <= banned
    assert tokenizer.eos_token not in banned
    assert set(params["logit_bias"].values()) == {-100.0}
    other = verl.looks.suppressed(PARAMS, agent_loop.made()._chat, "sglang")
    assert {int(number) for number in other["logit_bias"]} == set(params["logit_bias"])


@needs_verl
def test_what_fails_on_the_way_is_an_error_and_no_reply(agent_loop, verl):
    from zoomiqa.errors import BackendFailed, ImageNotFound

    item = agent_loop.row["item"]
    with pytest.raises(ImageNotFound):
        looked(agent_loop, item={**item, "path": "absent.png"})

    async def aborted(*_, **__):
        return verl.replica.TokenOutput(token_ids=[5, 6], stop_reason="aborted")

    agent_loop.server.generate = aborted
    with pytest.raises(BackendFailed, match="gave a reply up"):
        looked(agent_loop)


@needs_verl
def test_the_loss_reads_a_micro_batch_as_verls_engines_hand_it_over(verl):
    """Replies and log-probabilities without padding, prompts before them: the same loss as on padded tensors."""
    rows = records_of(recorded_rollout())
    records, old, valid = padded(rows)
    prepared = prepare(records, old, valid, torch.zeros(len(rows), dtype=int), SETTINGS)
    new = old + 0.2 * torch.randn(old.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    fields = fields_of(prepared, old, valid)
    lengths, prompt = valid.sum(1).tolist(), 5

    def jagged(values):
        return torch.nested.as_nested_tensor(values, layout=torch.jagged)

    whole = [
        torch.cat([torch.zeros(prompt - 1, dtype=new.dtype), new[n, :length], torch.zeros(1, dtype=new.dtype)])
        for n, length in enumerate(lengths)
    ]
    model = jagged(whole).requires_grad_()
    data = verl.tensordicts.get_tensordict(
        {
            name: jagged([row[:length] for row, length in zip(values, lengths, strict=True)])
            if values.ndim == 2
            else values
            for name, values in fields.items()
        }
        | {
            "prompts": jagged([torch.zeros(prompt, dtype=int)] * len(rows)),
            "responses": jagged([torch.zeros(length, dtype=int) for length in lengths]),
        },
        non_tensor_dict={"dp_size": 2},
    )
    loss, metrics = cluster_loss.verl_loss({"log_probs": model}, data, settings=SETTINGS.loss)
    loss.backward()
    plain = new.clone().requires_grad_()
    wanted, figures = cluster_loss.policy_loss(plain, fields, SETTINGS.loss)
    wanted.backward()
    assert float(loss.detach()) == pytest.approx(2 * float(wanted.detach()))
    for row, (mine, length) in enumerate(zip(model.grad.unbind(), lengths, strict=True)):
        assert torch.allclose(mine[prompt - 1 : -1], 2 * plain.grad[row, :length])
        assert not mine[: prompt - 1].any()
    assert metrics["clipped_share"].aggregate() == pytest.approx(figures["clipped_share"])
    assert metrics["kl_coverage"].aggregate_dp([metrics["kl_coverage"]] * 2) == pytest.approx(
        2 * figures["kl_coverage"]
    )


class MemoryQueue:
    """What is used of TransferQueue, in this process: rows by key, and what each row's tags say."""

    def __init__(self, tensordicts, meta):
        self.tensordicts, self.meta, self.rows, self.tags = tensordicts, meta, {}, {}

    def init(self, *_):
        """There is nothing to start."""

    def kv_list(self, partition_id):
        return {partition_id: self.tags}

    async def async_kv_put(self, key, partition_id, tag):
        self.tags.setdefault(key, {}).update(tag)

    async def async_kv_batch_put(self, **what):
        self.kv_batch_put(**what)

    def kv_batch_put(self, keys, partition_id, fields, tags=None):
        for number, key in enumerate(keys):
            row = self.rows.setdefault(key, {})
            for name, values in fields.items():
                value = values[number]
                row[name] = value if isinstance(value, torch.Tensor) else value.data
            if tags:
                self.tags[key] = tags[number]
        return self.meta(keys=list(keys), tags=[self.tags[key] for key in keys], partition_id=partition_id)

    def kv_batch_get(self, keys, partition_id, select_fields=None):
        wanted = set(self.rows[keys[0]]) if select_fields is None else set(select_fields) & set(self.rows[keys[0]])
        return self.tensordicts.list_of_dict_to_tensordict(
            [{name: self.rows[key][name] for name in sorted(wanted)} for key in keys]
        )


@pytest.fixture(params=["memory", pytest.param("ray", marks=pytest.mark.slow)])
def queue(request, verl, run_config, monkeypatch):
    """verl's TransferQueue in a Ray of its own, or a stand-in."""
    import transfer_queue

    if request.param == "memory":
        memory = MemoryQueue(verl.tensordicts, transfer_queue.KVBatchMeta)
        for path in ("verl.trainer.ppo.v1.agent_loop_tq", "verl.trainer.ppo.padding_utils"):
            monkeypatch.setattr(import_module(path), "tq", memory)
        monkeypatch.setattr(verl.base, "tq", memory)
        monkeypatch.setattr(verl.controller, "tq", memory)
        yield memory
        return
    import ray

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray.init(num_cpus=16, include_dashboard=False, log_to_driver=False)
    try:
        transfer_queue.init(run_config.transfer_queue)
        yield transfer_queue
    finally:
        transfer_queue.close()
        ray.shutdown()


@needs_verl
def test_a_rollout_goes_through_verls_worker_queue_and_trainer(verl, run_config, queue):
    """Everything is verl's and real but the server and the model: data, worker, queue, trainer, micro-batches, loss."""
    from tensordict import TensorDict
    from transfer_queue import KVBatchMeta
    from verl.trainer.ppo.utils import create_rl_dataset
    from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ
    from verl.utils.dataset.rl_dataset import collate_fn
    from verl.workers.engine.utils import prepare_micro_batches

    server = Server(verl.replica)
    worker = AgentLoopWorkerTQ.__ray_metadata__.modified_class(run_config, server, None, None)
    server.tokenizer = worker.tokenizer
    data = create_rl_dataset(run_config.data.train_files, run_config.data, worker.tokenizer, worker.processor)
    drawn = verl.tensordicts.get_tensordict(
        collate_fn([data[n] for n in range(4)]) | {"uid": [f"u{n}" for n in range(4)]}
    )
    verl.tensordicts.assign_non_tensor_data(drawn, "global_steps", 1)

    async def sample():
        await worker.generate_sequences(drawn)
        await asyncio.gather(*worker.background_tasks)

    asyncio.run(sample())
    tags = {name: tag for name, tag in queue.kv_list("train")["train"].items() if tag["status"] == "success"}
    assert len(tags) == 12  # four pictures, a sample of one look and one of two

    trainer = verl.controller.ZoomTrainer(run_config)
    trainer.tokenizer, trainer.global_steps = worker.tokenizer, 1
    trainer.actor_rollout_wg = SimpleNamespace(_dispatch_info={"actor": [0, 1]})
    trainer.resource_pool_manager = SimpleNamespace(get_n_gpus=lambda: 1)
    trainer.config.actor_rollout_ref.actor.ppo_mini_batch_size = 4  # 8 rows: 4 of them empty
    metrics = {}
    batch = KVBatchMeta(keys=list(tags), tags=list(tags.values()), partition_id="train")
    batch = trainer._balance_batch(batch, metrics)
    empty = [bool(tag.get("is_padding")) for tag in batch.tags]
    assert [sum(empty[start : start + 4]) for start in range(0, 16, 4)] == [1, 1, 1, 1]

    lengths = queue.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=["responses"])["responses"]
    lengths = lengths.offsets().diff().tolist()
    generator = torch.Generator().manual_seed(0)
    old = [-torch.rand(length, generator=generator) for length in lengths]
    fields = {name: torch.nested.as_nested_tensor(old, layout=torch.jagged) for name in ("old_log_probs", "entropy")}
    queue.kv_batch_put(keys=batch.keys, partition_id="train", fields=TensorDict(fields, batch_size=len(batch)))
    batch = trainer._compute_advantage(batch, metrics)
    assert metrics["zoomiqa/rewards/format"] == 1.0
    assert 0 < metrics["zoomiqa/rewards/rank"] < 1
    assert metrics["zoomiqa/rollout/second_round_share"] == 0.5
    assert metrics["zoomiqa/updates"] == 2
    trainer._compute_metrics(batch, metrics, {"step": 1.0, "gen": 1.0, "update_actor": 1.0}, global_steps=1, epoch=0)
    assert metrics["critic/score/mean"] == pytest.approx(
        metrics["zoomiqa/reward"], rel=0.2
    )  # verl's is a mean over rows, not trajectories

    total = 0.0
    for process, share in enumerate(batch.chunk(2)):
        mine = queue.kv_batch_get(keys=share.keys, partition_id="train")
        verl.tensordicts.assign_non_tensor(
            mine, use_dynamic_bsz=False, micro_batch_size_per_gpu=2, dp_size=2, sp_size=1
        )
        for number, micro in enumerate(prepare_micro_batches(mine)[0]):
            place = process * 8 + 2 * number
            log_probs = [
                torch.cat([torch.zeros(prompt - 1), values, torch.zeros(1)]).requires_grad_()
                for prompt, values in zip(
                    micro["prompts"].offsets().diff().tolist(), old[place : place + 2], strict=True
                )
            ]
            output = {"log_probs": torch.nested.as_nested_tensor(log_probs, layout=torch.jagged)}
            share_of_loss, figures = cluster_loss.verl_loss(output, micro, settings=trainer.settings.loss)
            assert figures["kl_coverage"].aggregate() == 0  # the policy is still the old one
            total += float(share_of_loss.detach()) / 2
    advantages = queue.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=["advantages"])["advantages"]
    tokens = queue.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=["zoomiqa_tokens"])
    shares = queue.kv_batch_get(keys=batch.keys, partition_id="train", select_fields=["zoomiqa_trajectories"])
    each = (
        advantages.to_padded_tensor(0.0).sum(1) / tokens["zoomiqa_tokens"].clamp(min=1) / shares["zoomiqa_trajectories"]
    )
    assert total == pytest.approx(-float(each.sum()), abs=1e-5)
