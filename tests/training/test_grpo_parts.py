"""The rooms of GRPO that need no trainer: sizes, order, rows, rewards, loss, warnings, the command."""

import contextlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.grpo_tools import PROMPTS, build_world, reply, tiny_settings
from training.grpo.figures import Warnings, reward_figures
from training.grpo.items import Item, check_ids, read_labels, read_tasks
from training.grpo.loss import LossSettings, begin_update, part_of_loss
from training.grpo.order import draw_order, rollout_count
from training.grpo.plan import BatchSettings, make_plan
from training.grpo.rollout import Draw, SampledReply, sample_all, seed_of, talks_of
from training.grpo.rows import MicroBatch, Row, make_batch, rows_of, silent
from training.grpo.scoring import Outcome, RewardSettings, score
from training.grpo.settings import EngineSettings, refuse_spread
from training.grpo.thinking import probes
from training.objectives.coverage import CoverageSettings
from training.objectives.grpo import trajectory_tokens
from training.resampling import Stages
from zoomiqa.backends.session import BatchSession
from zoomiqa.errors import BackendFailed, OptionInvalid
from zoomiqa.imaging import picture_from_array
from zoomiqa.protocol import ConversationSettings
from zoomiqa.rewards import Trajectory, Truth
from zoomiqa.types import Reply

PICTURE = picture_from_array(np.zeros((56, 84, 3), np.uint8))


# Sizes


def test_the_papers_sizes_on_eight_gpus_fill_one_step_and_are_gone_through_twice():
    plan = make_plan(BatchSettings(), 8)
    assert (plan.pictures, plan.trajectories, plan.iterations, plan.updates) == (2, 16, 2, 2)
    assert (plan.micro_batches, plan.local_trajectories) == (2, 2)


def test_one_process_splits_the_rollout_instead_of_going_through_it_twice():
    plan = make_plan(BatchSettings(), 1)
    assert (plan.pictures, plan.iterations, plan.updates, plan.micro_batches) == (2, 1, 8, 16)


@pytest.mark.parametrize("processes", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_every_plan_fills_whole_steps_and_holds_two_pictures(processes, size):
    plan = make_plan(BatchSettings(batch_size=size, gradient_accumulation_steps=2, group_size=4), processes)
    assert plan.pictures >= 2
    assert plan.updates >= 2
    assert plan.trajectories % (processes * size * 2) == 0


def test_pictures_that_leave_a_step_unfilled_are_refused():
    with pytest.raises(OptionInvalid, match="multiple of 4 pictures"):
        make_plan(BatchSettings(batch_size=8, gradient_accumulation_steps=4, group_size=8, pictures=6), 1)


@pytest.mark.parametrize("processes", [1, 4, 8])
@pytest.mark.parametrize("share", [0.01, 0.25, 1 / 3, 0.5, 0.75, 0.99])
def test_the_fewest_pictures_hold_a_task_and_two_that_can_be_compared(processes, share):
    settings = BatchSettings(group_size=4)
    plan = make_plan(settings, processes, share)
    assert plan.tasks == round(share * plan.pictures) >= 1
    assert plan.pictures - plan.tasks >= 2
    assert plan.trajectories % (processes * settings.gradient_accumulation_steps) == 0


@pytest.mark.parametrize(
    ("share", "pictures", "message"),
    [(0.25, 2, "no place for a perception task.*use 3 pictures"), (0.75, 2, "no place for a rated.*use 6 pictures")],
)
def test_pictures_that_leave_out_a_kind_are_refused_with_the_least_number_that_works(share, pictures, message):
    with pytest.raises(OptionInvalid, match=message):
        make_plan(BatchSettings(pictures=pictures), 1, share)


def test_all_pictures_may_be_tasks():
    assert make_plan(BatchSettings(), 1, 1.0).tasks == 2


# Order


def item(number, rating=3.0, **others):
    return Item(f"p{number}", None, f"{number}.png", Truth(rating=rating, **others), "set")


ITEMS = [item(number, 1 + number / 5) for number in range(20)]
TASKS = [
    Item(f"t{number}", None, "x.png", Truth(task="severity", severity=3), "perception", "How strong?")
    for number in range(5)
]


def test_no_rollout_shows_a_picture_twice_and_an_epoch_shows_all():
    order = draw_order(ITEMS, Stages.rising(1), rollouts=20, pictures=3, tasks=0, seed=4)
    assert all(len(set(places)) == 3 for places in order)
    assert sorted(place for places in order for place in places) == sorted([*range(20)] * 3)


def test_later_stages_draw_rare_scores_more_often():
    items = [item(number, 3.1) for number in range(90)] + [item(90 + number, 4.7) for number in range(10)]
    order = draw_order(items, Stages.rising(3), rollouts=60, pictures=10, tasks=0, seed=0)
    share = [sum(place >= 90 for places in part for place in places) / 200 for part in (order[:20], order[40:])]
    assert share[0] == pytest.approx(0.1, abs=0.02)
    assert share[1] > 0.4


def test_perception_tasks_take_their_share_of_every_rollout():
    order = draw_order([*ITEMS, *TASKS], Stages.rising(1), rollouts=8, pictures=4, tasks=1, seed=0)
    assert all(sum(place >= 20 for place in places) == 1 for places in order)
    assert rollout_count([*ITEMS, *TASKS], 4, 1.0, 1) == math.ceil(20 / 3)


def test_a_rollout_may_be_tasks_alone():
    order = draw_order([*ITEMS, *TASKS], Stages.rising(1), rollouts=3, pictures=2, tasks=2, seed=0)
    assert all(place >= 20 for places in order for place in places)


def test_the_order_depends_on_the_seed_alone():
    first, again, other = (
        draw_order(ITEMS, Stages(), rollouts=9, pictures=4, tasks=0, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_fewer_pictures_than_a_rollout_shows_are_refused():
    with pytest.raises(OptionInvalid, match="rated pictures"):
        draw_order(ITEMS[:2], Stages(), rollouts=1, pictures=3, tasks=0, seed=0)


# Items


def test_labels_and_tasks_are_read_with_their_truths(tmp_path):
    labels = build_world(tmp_path / "world")
    items = read_labels(labels, labels.parent)
    assert [entry.truth.rating for entry in items] == pytest.approx([1.3, 1.9, 2.5, 3.1, 3.7, 4.3])
    assert items[0].path == "0.png"
    row = {"id": "a", "image": "0.png", "question": "How strong?", "truth": {"task": "severity", "severity": 2}}
    (tmp_path / "perception.jsonl").write_text(json.dumps(row) + "\n")
    (task,) = read_tasks(tmp_path / "perception.jsonl", tmp_path)
    assert task.is_task
    assert task.truth.severity == 2


def test_scores_outside_the_scale_and_double_ids_are_refused(tmp_path):
    (tmp_path / "labels.json").write_text(json.dumps([{"id": "x", "image": "0.png", "gt_score": 63.0}]))
    with pytest.raises(OptionInvalid, match="x: the true rating"):
        read_labels(tmp_path / "labels.json", tmp_path)
    with pytest.raises(OptionInvalid, match="one id"):
        check_ids([ITEMS[0], ITEMS[0]])


# Rollouts, over a backend that says which tokens were drawn


class Spelling:
    """A session whose tokens are the characters of its texts."""

    def __init__(self, script):
        self._script = script
        self.requests = []
        self.inner = BatchSession(self, 4)

    def generate(self, requests):
        self.requests += requests
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        text = self._script(request)
        if text is None:
            return Reply("", finish_reason="error", error={"code": "ZIQ-401", "type": "BackendFailed", "message": "no"})
        prompt = "".join(part.text for message in request.messages for part in message.parts if hasattr(part, "text"))
        ids = torch.tensor([[ord(character) for character in prompt]])
        return SampledReply(text, prompt={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
                            tokens=tuple(ord(character) for character in text))  # fmt: skip


def sampled(script, items=ITEMS[:1], count=2, **settings):
    spelling = Spelling(script)
    draws = [Draw(entry, group, number) for group, entry in enumerate(items) for number in range(count)]
    talks = talks_of(draws, [PICTURE] * len(draws), ConversationSettings(**settings), PROMPTS, seed=7, rollout=3)
    return sample_all(spelling.inner, talks), spelling.requests


def two_looks(request):
    return reply(3.21, crop=request.round_index == 0, later=request.round_index > 0)


def test_a_sample_holds_both_looks_and_the_rating_of_the_last():
    samples, requests = sampled(two_looks)
    assert [len(sample.looks) for sample in samples] == [2, 2]
    assert all(sample.trajectory.rating == 3.21 for sample in samples)
    assert [request.round_index for request in requests].count(1) == 2


def test_every_look_of_every_sample_has_a_seed_of_its_own_and_a_group_one_question():
    _, requests = sampled(two_looks, ITEMS[:2], 3)
    seeds = {request.sampling.seed for request in requests}
    assert len(seeds) == len(requests) == 12
    assert seed_of(1, 2) == seed_of(1, 2) != seed_of(1, 3)
    samples, _ = sampled(two_looks, ITEMS[:2], 3)
    questions = [sample.assessment.question for sample in samples]
    assert len(set(questions[:3])) == len(set(questions[3:])) == 1


def test_a_failure_of_the_engine_is_told_from_a_bad_reply():
    samples, _ = sampled(lambda request: None if request.round_index else two_looks(request))
    assert samples[0].error
    assert samples[0].trajectory.rating is None
    samples, _ = sampled(lambda request: "nonsense")
    assert samples[0].error is None
    assert samples[0].trajectory.rating is None
    with pytest.raises(BackendFailed):
        sampled(lambda request: None)


def test_a_perception_task_is_asked_once_in_its_own_words():
    samples, requests = sampled(lambda request: '<think>x</think><answer>{"severity": 3}</answer>', TASKS[:1], 1)
    assert len(requests) == 1
    assert requests[0].messages[0].text == "How strong?"
    assert samples[0].trajectory.truth.task == "severity"


# Rows


def look(prompt, text):
    ids = torch.tensor([[ord(character) for character in prompt]])
    return SampledReply(text, prompt={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
                        tokens=tuple(map(ord, text)))  # fmt: skip


def test_a_rewritten_context_is_a_row_of_its_own_and_an_appended_one_is_not():
    assert [row.written for row in rows_of([look("ab", "cd"), look("xyab", "ef")])] == [((2, 4),), ((4, 6),)]
    (row,) = rows_of([look("ab", "cd"), look("abcd|ef", "gh")])
    assert row.written == ((2, 4), (7, 9))
    assert row.length == 9


def test_appended_context_that_was_written_with_other_tokens_stays_two_rows():
    rows = rows_of([look("ab", "cd"), look("abcX|ef", "gh")])
    assert len(rows) == 2


def pieces(token):
    return chr(token)


def batch_of(*texts, advantages=None):
    rows = [rows_of([look("?", text)]) for text in texts]
    return make_batch(
        [(place, (advantages or [1.0] * len(texts))[place], own) for place, own in enumerate(rows)], pieces, padding=0
    )


def test_only_written_tokens_are_valid_and_only_numbers_of_answers_numeric():
    batch = batch_of("12<answer>3.4</answer>", "<answer>5")
    spelled = [
        "".join(chr(token) for token in row[mask])
        for row, mask in zip(batch.inputs["input_ids"][:, 1:], batch.valid, strict=True)
    ]
    assert spelled == ["12<answer>3.4</answer>", "<answer>5"]
    numbers = [
        "".join(chr(token) for token in row[mask])
        for row, mask in zip(batch.inputs["input_ids"][:, 1:], batch.numeric, strict=True)
    ]
    assert numbers == ["3.4", "5"]
    assert (batch.labels[:, 1:][~batch.valid] == -100).all()
    assert batch.inputs["attention_mask"].sum(1).tolist() == [23, 10]


def test_rows_of_one_trajectory_share_advantage_and_count_of_tokens():
    rows = rows_of([look("ab", "cd"), look("xyab", "efg")])
    batch = make_batch([(0, -0.5, rows), (1, 2.0, rows_of([look("ab", "c")]))], pieces, padding=0)
    assert batch.advantages.tolist() == [-0.5, -0.5, 2.0]
    assert batch.tokens_of_trajectory.tolist() == [5, 5, 1]
    assert batch.tokens_of_trajectory.tolist() == trajectory_tokens(batch.valid, torch.tensor([0, 0, 1])).tolist()


def test_a_silent_row_has_a_context_but_nothing_to_learn():
    batch = make_batch([(-1, 0.0, [silent(rows_of([look("ab", "cd")])[0])])], pieces, padding=0)
    assert not batch.valid.any()
    assert batch.tokens_of_trajectory.tolist() == [0]


# Rewards


def outcome(rating, *, group=0, truth=3.0, text=None, dataset="set", failed=False, key=None):
    trajectory = Trajectory.from_texts(
        [text or reply(rating)], group=key or f"p{group}", truth=Truth(rating=truth), dataset=dataset
    )
    return Outcome(group, trajectory, failed)


def test_the_total_is_the_papers_sum():
    outcomes = [outcome(rating, group=group, truth=2.0 + group) for group in (0, 1) for rating in (1.9, 2.2, 3.1)]
    scored = score(outcomes, RewardSettings())
    for place in range(6):
        parts = [scored.parts[name][place] for name in ("format", "score", "rank")]
        assert scored.totals[place] == pytest.approx(parts[0] + parts[1] + 2 * parts[2])
    for group in (0, 3):
        assert sum(scored.advantages[group : group + 3]) == pytest.approx(0, abs=1e-9)


def test_an_unreadable_reply_earns_nothing_and_a_failure_of_the_engine_counts_nothing():
    outcomes = [
        outcome(3.0), outcome(2.9), outcome(0, text="no answer"), outcome(3.0, failed=True), Outcome(0, None, True),
        outcome(4.0, group=1, truth=4.0), outcome(4.1, group=1, truth=4.0),
    ]  # fmt: skip
    scored = score(outcomes, RewardSettings())
    assert scored.totals[2] == 0
    assert scored.totals[3] is None
    assert scored.totals[4] is None
    assert scored.advantages[3] == scored.advantages[4] == 0
    assert scored.advantages[2] < 0
    assert sum(scored.advantages[:3]) == pytest.approx(0, abs=1e-9)


def test_pictures_of_different_data_sets_are_not_ranked_against_each_other():
    outcomes = [outcome(3.0, group=group, dataset=name) for group, name in enumerate(("one", "two"))]
    assert score(outcomes, RewardSettings()).parts["rank"] == [None, None]


def test_a_group_of_equal_rewards_has_no_advantage():
    scored = score([outcome(3.0), outcome(3.0), outcome(3.0)], RewardSettings())
    assert scored.advantages == [0.0, 0.0, 0.0]


def test_perception_tasks_are_paid_by_rule_and_not_by_rating():
    truth = Truth(task="severity", severity=3)
    texts = [f'<think>x</think><answer>{{"severity": {degree}}}</answer>' for degree in (3, 4, 5)]
    outcomes = [Outcome(0, Trajectory.from_texts([text], group="t", truth=truth)) for text in texts]
    scored = score([*outcomes, outcome(3.0, group=1)], RewardSettings())
    assert scored.totals[:3] == [2.0, 1.5, 1.0]
    assert scored.parts["score"][:3] == [None] * 3
    assert scored.parts["perception"][3] is None


def test_the_rule_of_refine_iqa_lifts_negative_advantages_beside_a_right_sample():
    outcomes = [outcome(3.0), outcome(1.2), outcome(4.9, group=1), outcome(1.2, group=1)]
    plain, lifted = (score(outcomes, RewardSettings(lift=lift)).advantages for lift in (False, True))
    assert plain[1] < 0
    assert lifted[1] == 0
    assert lifted[2:] == plain[2:]


def test_thinking_is_paid_in_proportion_to_format_and_score():
    settings = RewardSettings(thinking=1.0, rank=0.0)
    measured = [replace(outcome(rating), with_thinking=0.7, without_thinking=0.2) for rating in (3.0, 1.0)]
    scored = score([*measured, outcome(3.0)], settings)
    assert scored.parts["thinking"][0] == pytest.approx(0.5)
    assert scored.parts["thinking"][1] == pytest.approx(0.5 * 0.5)
    assert scored.parts["thinking"][2] is None


def test_attributes_are_ranked_where_they_are_asked_for():
    def with_attribute(value, group):
        text = reply(3.0).replace('"tool"', f'"attributes": {{"sharpness": {value}}}, "tool"')
        truth = Truth(rating=3.0, attributes={"sharpness": 2.0 + group})
        return Outcome(group, Trajectory.from_texts([text], group=group, truth=truth, attributes=("sharpness",)))

    scored = score([with_attribute(2.0, 0), with_attribute(4.0, 1)], RewardSettings(attributes=0.5))
    assert all(value > 0.99 for value in scored.parts["attributes"])


def test_weights_below_zero_or_all_zero_are_refused():
    with pytest.raises(OptionInvalid):
        RewardSettings(score=-1.0)
    with pytest.raises(OptionInvalid):
        RewardSettings(format=0, score=0, rank=0, perception=0)


# What the thinking reward needs


class Letters:
    """A tokenizer of characters."""

    @staticmethod
    def encode(text, add_special_tokens=False):
        return [ord(character) for character in text]


def test_the_probes_ask_for_the_true_first_decimal_with_and_without_thinking():
    text = reply(2.87)
    own, empty = probes(look("?", text), 3.46, Letters())
    written = ["".join(map(chr, row.tokens)) for row in (own, empty)]
    assert written[0] == text[: text.index("2.87")] + "3.4"
    assert written[1].startswith("<think></think><answer>")
    assert written[1].endswith('"rating": 3.4')
    for row in (own, empty):
        assert row.written == ((row.length - 1, row.length),)
    assert probes(look("?", "no rating"), 3.46, Letters()) is None


# The loss

CHARACTERS = "<answer>1.234567</answer>"


def drifted(batches, seed=0, drift=0.3):
    """Log-probabilities, and those of the policy that drew the tokens, which are a little different."""
    generator = torch.Generator().manual_seed(seed)
    for batch in batches:
        batch.old = -torch.rand(batch.valid.shape, generator=generator, dtype=torch.float64) * 3
    return [
        (batch.old + drift * torch.randn(batch.valid.shape, generator=generator, dtype=torch.float64)).requires_grad_()
        for batch in batches
    ]


def alone(values):
    return [values]


def pad_to(tensor, width):
    return torch.nn.functional.pad(tensor, (0, width - tensor.shape[1]))


def join(batches):
    """Several micro-batches as one."""
    width = max(batch.valid.shape[1] for batch in batches)
    return MicroBatch(
        inputs={}, labels=torch.zeros(0), places=(),
        **{name: torch.cat([pad_to(getattr(batch, name), width) for batch in batches])
           for name in ("valid", "numeric", "old")},
        **{name: torch.cat([getattr(batch, name) for batch in batches])
           for name in ("advantages", "tokens_of_trajectory")},
    )  # fmt: skip


def total(batches, log_probs, settings):
    update = begin_update(batches, settings, [values.detach() for values in log_probs], gather=alone, rank=0)
    parts = [
        part_of_loss(values, batch, update, place, settings)
        for place, (values, batch) in enumerate(zip(log_probs, batches, strict=True))
    ]
    return sum(part.loss for part in parts), parts, update


def four_rows():
    texts = ["ab<answer>1.5</answer>", "<answer>2.25, 3</answer>", CHARACTERS, "none"]
    return [
        batch_of(text, advantages=[advantage]) for text, advantage in zip(texts, (1.2, -0.7, 0.4, -0.9), strict=True)
    ]


@pytest.mark.parametrize("centring", ["numeric", "all"])
@pytest.mark.parametrize("parts", [(4,), (2, 2), (1, 1, 1, 1), (1, 3)])
def test_the_loss_does_not_depend_on_how_the_batch_is_split(parts, centring):
    settings = LossSettings(coverage=CoverageSettings(share=0.3, weight=5.0, centring=centring))
    rows = four_rows()
    log_probs = drifted(rows)
    loss, _, _ = total(rows, log_probs, settings)
    loss.backward()
    groups, start = [], 0
    for size in parts:
        groups.append(slice(start, start + size))
        start += size
    joined = [join(rows[group]) for group in groups]
    others = [
        torch.cat(
            [pad_to(values.detach(), joined[number].valid.shape[1]) for values in log_probs[group]]
        ).requires_grad_()
        for number, group in enumerate(groups)
    ]
    again, _, _ = total(joined, others, settings)
    again.backward()
    assert again.item() == pytest.approx(loss.item(), rel=1e-12)
    for number, group in enumerate(groups):
        for row, values in enumerate(log_probs[group]):
            width = values.shape[1]
            torch.testing.assert_close(others[number].grad[row, :width], values.grad[0], rtol=1e-12, atol=1e-14)


def test_it_is_the_sum_of_the_objective_and_kl_coverage_by_hand():
    rows = four_rows()
    log_probs = drifted(rows)
    settings = LossSettings(coverage=CoverageSettings(share=0.3, weight=5.0))
    loss, _, update = total(rows, log_probs, settings)
    objective, candidates = 0.0, []
    for batch, values in zip(rows, log_probs, strict=True):
        new, old = values.detach()[0].numpy(), batch.old[0].numpy()
        valid, numeric = batch.valid[0].numpy(), batch.numeric[0].numpy()
        advantage = float(batch.advantages[0])
        ratio = np.exp(new - old)[valid]
        objective += np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage).mean() / 4
        candidates += [(new[t], old[t], advantage) for t in np.flatnonzero(numeric)]
    new, old, advantage = map(np.array, zip(*candidates, strict=True))
    covariance = (new - new.mean()) * (advantage - advantage.mean())
    chosen = np.argsort(-covariance)[: int(0.3 * len(new))]
    ratio = np.exp(new - old)[chosen]
    coverage = (ratio - 1 - np.log(ratio)).mean()
    assert update.selected == len(chosen)
    assert loss.item() == pytest.approx(-objective + 5 * coverage, rel=1e-6)  # advantages are float32


def test_only_numeric_tokens_get_a_gradient_of_kl_coverage():
    rows = four_rows()
    log_probs = drifted(rows)
    with_it, _, update = total(rows, log_probs, LossSettings(coverage=CoverageSettings(share=0.5, weight=1.0)))
    with_it.backward()
    gradients = [values.grad.clone() for values in log_probs]
    for values in log_probs:
        values.grad = None
    without, _, _ = total(rows, log_probs, LossSettings(coverage=CoverageSettings(share=0.5, weight=0.0)))
    without.backward()
    touched = 0
    for batch, mask, first, values in zip(rows, update.masks, gradients, log_probs, strict=True):
        difference = (first - values.grad).abs() > 1e-12
        assert not (difference & ~batch.numeric).any()
        assert (difference == mask).all()
        touched += int(difference.sum())
    assert touched == update.selected > 1


def test_kl_coverage_is_exactly_zero_while_nothing_has_drifted():
    rows = four_rows()
    log_probs = drifted(rows, drift=0.0)
    loss, parts, _ = total(rows, log_probs, LossSettings(coverage=CoverageSettings(share=0.5, weight=1e6)))
    plain, _, _ = total(rows, log_probs, LossSettings(coverage=CoverageSettings(weight=0.0)))
    assert sum(part.coverage for part in parts) == 0
    assert loss.item() == plain.item()


@pytest.mark.parametrize(("scope", "least"), [("micro", 3), ("batch", 1), ("global", 1)])
def test_a_narrow_scope_selects_the_floor_of_each_part(scope, least):
    rows = four_rows()
    log_probs = drifted(rows)
    settings = LossSettings(coverage=CoverageSettings(share=0.02), scope=scope)
    _, _, update = total(rows, log_probs, settings)
    assert update.selected == least  # the fourth row has no number


def test_equal_rewards_move_nothing():
    rows = [batch_of("<answer>1</answer>", advantages=[0.0]) for _ in range(2)]
    log_probs = drifted(rows)
    loss, _, _ = total(rows, log_probs, LossSettings(coverage=CoverageSettings(weight=0.0)))
    loss.backward()
    assert loss.item() == 0
    assert all(not values.grad.any() for values in log_probs)


# Figures and warnings


def test_figures_are_of_the_samples_they_apply_to():
    outcomes = [outcome(3.0), outcome(2.0), outcome(0, text="nothing"), Outcome(0, None, True)]
    figures = reward_figures(outcomes, score(outcomes, RewardSettings()))
    assert figures["rewards/format"] == pytest.approx(2 / 3)
    assert figures["rollout/unreadable_share"] == pytest.approx(1 / 3)
    assert figures["rollout/failed_share"] == 0.25
    assert figures["rollout/unique_scores"] == 1
    assert "rewards/rank" not in figures


def test_collapsed_scores_and_crops_are_warned_of_also_after_a_restart():
    warnings = Warnings(least=8)
    outcomes = [outcome(3.0, group=group, truth=1.0 + 0.25 * group) for group in range(16)]
    warnings.add(outcomes, score(outcomes, RewardSettings()))
    warnings.add_entropies([1.0] * 20)
    warnings.add_entropies([0.01] * 4096)
    sounding = {alarm.figure for alarm in warnings.alarms()}
    assert {"crop_rate", "unique_score_share", "score_spread_share", "entropy_share"} <= sounding
    again = Warnings(least=8)
    again.restore(json.loads(json.dumps(warnings.state())))
    assert again.figures() == warnings.figures()


def test_few_samples_warn_of_nothing():
    warnings = Warnings()
    warnings.add([outcome(3.0)], score([outcome(3.0)], RewardSettings()))
    assert not warnings.alarms()


# Settings and the command


def test_the_commands_defaults_are_the_settings_defaults(tmp_path):
    from training.grpo.command import build_parser, settings_from
    from training.grpo.settings import GRPOSettings, Source
    from training.models import ModelSettings

    arguments = build_parser().parse_args(["--labels", str(tmp_path / "a.json"), "--out", str(tmp_path / "o")])
    made = settings_from(arguments)
    model = ModelSettings("Qwen/Qwen2.5-VL-7B-Instruct")
    assert made == GRPOSettings(model, (Source(tmp_path / "a.json", tmp_path),), tmp_path / "o")


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0.0},
        {"perception_share": 0.5},
        {"perception": ("a file",), "perception_share": 1.0},
        {"labels": ()},
        {"resume": True, "overwrite": True},
        {"save_every": 0},
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path, changes):
    settings = tiny_settings("model", tmp_path / "labels.json", tmp_path / "out")
    with pytest.raises(OptionInvalid):
        replace(settings, **changes)


def test_settings_are_json_and_say_nothing_of_places(tmp_path):
    settings = tiny_settings("model", tmp_path / "labels.json", tmp_path / "out")
    text = json.dumps(settings.to_dict())
    assert str(tmp_path) not in text
    assert replace(settings, out=tmp_path / "other", resume=True).to_dict() == settings.to_dict()


@pytest.mark.parametrize(
    ("part", "changes", "decides"),
    [
        ("model", {"device": "cuda", "gradient_checkpointing": True}, False),
        ("model", {"max_pixels": 50_000}, True),
        ("engine", {"slots": 2, "vllm_memory": 0.2, "vllm_sleep": False, "vllm_max_length": 4096}, False),
        ("engine", {"importance_cap": 3.0}, True),
    ],
)
def test_a_run_may_go_on_in_less_memory_but_not_as_another(tmp_path, part, changes, decides):
    settings = tiny_settings("model", tmp_path / "labels.json", tmp_path / "out")
    other = replace(settings, **{part: replace(getattr(settings, part), **changes)})
    assert (other.to_dict() != settings.to_dict()) == decides
    assert (other.operation() == settings.operation()) == decides
    assert {**settings.to_dict()[part], **settings.operation()}.keys() >= changes.keys()


@pytest.mark.parametrize(
    ("estimator", "engine", "spread", "message"),
    [
        ("exact", "vllm", {"zero3": True, "fsdp": False}, "shares out"),
        ("k3", "transformers", {"zero3": False, "fsdp": True}, "equally often"),
        ("k3", "transformers", {"zero3": True, "fsdp": False}, None),
        ("exact", "vllm", {"zero3": False, "fsdp": True}, None),
        ("exact", "transformers", {"zero3": False, "fsdp": False}, None),
    ],
)
def test_what_cannot_be_done_with_weights_shared_out_is_refused(tmp_path, estimator, engine, spread, message):
    settings = replace(
        tiny_settings("model", tmp_path / "labels.json", tmp_path / "out"),
        loss=LossSettings(coverage=CoverageSettings(estimator=estimator)),
        engine=EngineSettings(engine),
    )
    with pytest.raises(OptionInvalid, match=message) if message else contextlib.nullcontext():
        refuse_spread(settings, **spread)


def test_a_row_knows_its_tokens():
    row = Row({"input_ids": torch.tensor([[1, 2]])}, (3, 4), ((2, 4),))
    assert row.ids().tolist() == [1, 2, 3, 4]


def test_importance_weights_of_another_engine_weight_the_objective_alone():
    rows = [batch_of("<answer>1.5</answer>", advantages=[1.0])]
    log_probs = drifted(rows, drift=0.0)
    settings = LossSettings(coverage=CoverageSettings(weight=0.0))
    plain, _, _ = total(rows, log_probs, settings)
    rows[0].weights = torch.full(rows[0].valid.shape, 0.5)
    weighted, _, _ = total(rows, log_probs, settings)
    assert weighted.item() == pytest.approx(0.5 * plain.item())
