"""The objectives: against figures by hand, slow references in float64, and derivatives taken numerically."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.shared import need
from zoomiqa.errors import OptionInvalid

torch = pytest.importorskip("torch")

from training.objectives.advantages import group_advantages  # noqa: E402
from training.objectives.coverage import (  # noqa: E402
    CoverageSettings,
    collect,
    exact_penalty,
    penalty,
    refuse_inert,
    select,
    updates_per_rollout,
)
from training.objectives.gathering import gather_ragged, own_rank  # noqa: E402
from training.objectives.grpo import clipped_loss, trajectory_share, trajectory_tokens  # noqa: E402
from training.objectives.tokens import (  # noqa: E402
    numeric_in_answer,
    numeric_mask,
    numeric_vocabulary,
    token_pieces,
)

ROOT = Path(__file__).resolve().parents[2]
INF = math.inf


def doubles(values, **options):
    return torch.tensor(values, dtype=torch.float64, **options)


# --- advantages -------------------------------------------------------------------------------------------------


def test_advantages_by_hand():
    rewards = doubles([1.0, 10.0, 3.0, 10.0, 2.0])
    groups = torch.tensor([7, 3, 7, 3, 7])
    # Group 7: mean 2, unbiased deviation 1. Group 3: equal.
    expected = [-1 / 1.0001, 0.0, 1 / 1.0001, 0.0, 0.0]
    assert group_advantages(rewards, groups).tolist() == pytest.approx(expected, abs=1e-12)


def test_equal_rewards_give_exactly_nothing():
    third = doubles([0.1 + 0.2, 0.3, 0.3])  # equal up to rounding
    assert group_advantages(third, torch.zeros(3, dtype=torch.long)).tolist() == [0.0, 0.0, 0.0]
    assert group_advantages(doubles([4.0]), torch.tensor([0])).tolist() == [0.0]


def test_a_sample_without_a_reward_is_left_out():
    rewards = doubles([1.0, math.nan, 3.0, math.nan])
    advantages = group_advantages(rewards, torch.tensor([0, 0, 0, 1])).tolist()
    side = 1 / (math.sqrt(2) + 1e-4)
    assert advantages == pytest.approx([-side, 0.0, side, 0.0])
    assert group_advantages(doubles([math.nan]), torch.tensor([0])).tolist() == [0.0]


@given(st.lists(st.tuples(st.floats(0, 4), st.integers(0, 3)), min_size=1, max_size=24), st.randoms())
def test_advantages_are_centred_and_do_not_depend_on_order(rows, generator):
    order = list(range(len(rows)))
    generator.shuffle(order)

    def of(rows):
        return group_advantages(doubles([row[0] for row in rows]), torch.tensor([row[1] for row in rows]))

    advantages = of(rows)
    assert torch.isfinite(advantages).all()
    for group in range(4):
        members = [value for value, row in zip(advantages.tolist(), rows, strict=True) if row[1] == group]
        assert sum(members) == pytest.approx(0, abs=1e-9)
    assert of([rows[place] for place in order]).tolist() == pytest.approx(
        [advantages[place].item() for place in order], abs=1e-9
    )


def test_advantages_refuse_what_makes_no_sense():
    for rewards, groups, options in (
        (doubles([1.0]), torch.tensor([0, 0]), {}),
        (doubles([INF]), torch.tensor([0]), {}),
        (doubles([1.0]), torch.tensor([0]), {"epsilon": 0.0}),
    ):
        with pytest.raises(OptionInvalid):
            group_advantages(rewards, groups, **options)


# --- numeric tokens ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('<think>4</think><answer>{"bbox_2d": [0.1, 0, 1, 0.25], "rating": 3.45}</answer> 9', "0.1 0 1 0.25 3.45"),
        ("<answer>1</answer><answer>22</answer>", "22"),  # the last pair counts, as for the parser
        ("<answer>BBox 2D: [-1, +2] Rating: 2.5e-1, v1</answer>", "-1 +2 2.5e-1"),
        ('<answer>{"rating": 3.', "3"),  # cut off
        ("<answer>.5 3.5.1 2D x9</answer>", ".5 3.5"),
        ("<think>4.5</think>", ""),
        ("3 </answer>", ""),
        ("", ""),
    ],
)
def test_the_numbers_of_the_answer(text, expected):
    found = numeric_in_answer(list(text))
    assert "".join(character for character, flag in zip(text, found, strict=True) if flag) == expected.replace(" ", "")


def test_a_token_is_numeric_if_all_it_holds_is_part_of_one_number():
    pieces = ["<answer", '>{"r": ', " 3", ".", "4", '5, "', "12 ", "1,", " 7 8", "\n6", " ", "</answer>"]
    found = [piece for piece, flag in zip(pieces, numeric_in_answer(pieces), strict=True) if flag]
    assert found == [" 3", ".", "4", "12 ", "\n6"]


ANSWER = '<think>At 100 % I see 3 flaws – ein Ärgernis.</think>\n<answer>{"bbox_2d": [0.12, 0.3, 1, 0.95], "rating": 3.45, "tool": "crop"}</answer>'  # noqa: E501
DIGITS = ["0", ".", "1", "2", "0", ".", "3", "1", "0", ".", "9", "5", "3", ".", "4", "5"]


def found_in(tokenizer, text):
    piece = token_pieces(tokenizer)
    tokens = torch.tensor([tokenizer.encode(text)])
    mask = numeric_mask(tokens, torch.ones_like(tokens), piece)
    return [piece(token) for token, flag in zip(tokens[0].tolist(), mask[0].tolist(), strict=True) if flag]


@pytest.mark.shared
def test_with_the_tokenizer_of_qwen():
    """It writes every digit as a token of its own, and joins tags and braces with their neighbours."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(need("data/qwen2_tokenizer"))
    assert found_in(tokenizer, ANSWER) == DIGITS
    assert found_in(tokenizer, json.dumps({"rating": 3.45})) == []
    words = {token_pieces(tokenizer)(token) for token in numeric_vocabulary(tokenizer).tolist()}
    assert set("0123456789.,-") <= words
    assert len(words) < 20


def test_with_the_tiny_tokenizer():
    pytest.importorskip("transformers")
    from tests.tiny_vlm import build_tokenizer

    tokenizer = build_tokenizer()
    assert found_in(tokenizer, ANSWER) == DIGITS
    assert token_pieces(tokenizer)(len(tokenizer) + 3) == ""
    assert token_pieces(tokenizer)(tokenizer.eos_token_id) == "<|im_end|>"
    assert {token_pieces(tokenizer)(token) for token in numeric_vocabulary(tokenizer).tolist()} >= set("0123456789.,-")


def test_every_run_of_generated_tokens_is_a_reply_of_its_own():
    first, crop, second = "<answer>1.5</answer>", "<answer>9</answer>", "<answer>2.5</answer>"
    text = first + crop + second
    tokens = torch.tensor([[ord(character) for character in text + "___"]])
    valid = torch.tensor([[1] * len(first) + [0] * len(crop) + [1] * len(second) + [0] * 3])
    mask = numeric_mask(tokens, valid, chr)[0].tolist()
    assert "".join(character for character, flag in zip(text, mask, strict=False) if flag) == "1.52.5"
    assert mask[-3:] == [False] * 3


# --- clipped objective ------------------------------------------------------------------------------------------


def make_batch(seed=0, rows=12, length=9):
    generator = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(rows, length, generator=generator, dtype=torch.float64) - 0.05
    new = old + 0.4 * torch.randn(rows, length, generator=generator, dtype=torch.float64)
    reference = old + 0.4 * torch.randn(rows, length, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, length + 1, (rows,), generator=generator)
    valid = (torch.arange(length) < lengths[:, None]).long()
    numeric = (torch.rand(rows, length, generator=generator) < 0.5) & valid.bool()
    advantages = torch.randn(rows, generator=generator, dtype=torch.float64)
    trajectories = torch.arange(rows) // 2  # two looks each
    return {
        "old": old, "new": new, "reference": reference, "valid": valid, "numeric": numeric, "advantages": advantages,
        "tokens": trajectory_tokens(valid, trajectories), "trajectories": trajectories,
    }  # fmt: skip


def loss_of(batch, rows=slice(None), trajectories=None, new=None, **options):
    new = batch["new"] if new is None else new
    if trajectories is None:
        trajectories = trajectory_share(batch["valid"], batch["tokens"])
    return clipped_loss(
        new[rows], batch["old"][rows], batch["advantages"][rows], batch["valid"][rows], batch["tokens"][rows],
        trajectories, **options,
    )  # fmt: skip


def test_the_clipped_loss_by_hand():
    new, old = (
        doubles([[math.log(0.6), math.log(0.1), 0.0], [math.log(0.5), 0.0, 0.0]]),
        doubles([[math.log(0.4), math.log(0.2), -INF], [math.log(0.5), 0.0, 0.0]]),
    )
    valid = torch.tensor([[1, 1, 0], [1, 0, 0]])
    tokens = trajectory_tokens(valid, torch.tensor([5, 4]))
    assert tokens.tolist() == [2, 1]
    found = clipped_loss(new, old, doubles([1.0, -2.0]), valid, tokens, 2)
    # Ratios 1.5 (held at 1.2) and 0.5 for the first, 1 for the second.
    assert found.loss.item() == pytest.approx(-((1.2 + 0.5) / 2 + -2.0) / 2)
    assert (found.tokens, found.clipped, found.reference_kl) == (3, 1, 0.0)
    negative = clipped_loss(new, old, doubles([-1.0, 2.0]), valid, tokens, 2)
    assert negative.loss.item() == pytest.approx(-((-1.5 - 0.8) / 2 + 2.0) / 2)
    wider = clipped_loss(new, old, doubles([1.0, -2.0]), valid, tokens, 2, clip_high=0.3)
    assert wider.loss.item() == pytest.approx(-((1.3 + 0.5) / 2 + -2.0) / 2)


def test_the_rows_of_a_trajectory_share_one_mean():
    """Σ V of Eq. 7 is the trajectory's: a long first look is not weighed like a short second one."""
    old = torch.zeros(2, 3, dtype=torch.float64)
    valid = torch.tensor([[1, 1, 1], [1, 0, 0]])
    advantages = doubles([1.0, 1.0])
    per_token = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    tokens = trajectory_tokens(valid, torch.tensor([0, 0]))
    assert tokens.tolist() == [4, 4]
    assert trajectory_share(valid, tokens) == 1.0
    clipped_loss(per_token, old, advantages, valid, tokens, 1).loss.backward()
    assert per_token.grad.tolist() == [[-0.25] * 3, [-0.25, 0.0, 0.0]]


def slow_loss(batch, clip=0.2, reference_weight=0.0):
    total, kinds = 0.0, sorted(set(batch["trajectories"].tolist()))
    for kind in kinds:
        tokens = [
            (row, place)
            for row in range(len(batch["valid"]))
            if batch["trajectories"][row] == kind
            for place in range(batch["valid"].shape[1])
            if batch["valid"][row, place]
        ]
        mean = 0.0
        for row, place in tokens:
            ratio = math.exp(batch["new"][row, place] - batch["old"][row, place])
            advantage = float(batch["advantages"][row])
            mean += min(ratio * advantage, min(max(ratio, 1 - clip), 1 + clip) * advantage)
            away = float(batch["reference"][row, place] - batch["new"][row, place])
            mean -= reference_weight * (math.exp(away) - 1 - away)
        total += mean / len(tokens)
    return -total / len(kinds)


@pytest.mark.parametrize("seed", range(3))
def test_the_clipped_loss_is_the_slow_one(seed):
    batch = make_batch(seed)
    assert loss_of(batch).loss.item() == pytest.approx(slow_loss(batch), abs=1e-12)
    with_reference = loss_of(batch, reference_log_probs=batch["reference"], reference_weight=0.04)
    assert with_reference.loss.item() == pytest.approx(slow_loss(batch, reference_weight=0.04), abs=1e-12)
    assert with_reference.reference_kl > 0


@pytest.mark.parametrize("size", [1, 3, 5, 12])
def test_the_losses_of_the_parts_add_up_to_that_of_the_whole(size):
    batch = make_batch(1)
    parts = [slice(start, start + size) for start in range(0, 12, size)]
    share = sum(trajectory_share(batch["valid"][part], batch["tokens"][part]) for part in parts)
    assert share == pytest.approx(6)
    whole = batch["new"].clone().requires_grad_()
    loss_of(batch, new=whole).loss.backward()
    split = batch["new"].clone().requires_grad_()
    for part in parts:
        loss_of(batch, part, share, new=split).loss.backward()
    torch.testing.assert_close(split.grad, whole.grad, rtol=0, atol=1e-15)


def test_gradients_of_the_clipped_loss_are_right():
    batch = make_batch(2, rows=4, length=5)

    def loss(new):
        return loss_of(batch, new=new, reference_log_probs=batch["reference"], reference_weight=0.3).loss

    assert torch.autograd.gradcheck(loss, (batch["new"].clone().requires_grad_(),))


def test_what_is_not_generated_reaches_neither_value_nor_gradient():
    batch = make_batch(3)
    clean = batch["new"].clone().requires_grad_()
    expected = loss_of(batch, new=clean).loss
    expected.backward()
    outside = batch["valid"] == 0
    for rubbish in (INF, -INF, math.nan, 1e30):
        dirty = batch["new"].masked_fill(outside, rubbish).requires_grad_()
        loss = loss_of({**batch, "old": batch["old"].masked_fill(outside, -rubbish)}, new=dirty).loss
        loss.backward()
        assert loss.item() == expected.item()
        assert torch.equal(dirty.grad, clean.grad)
        assert not dirty.grad[outside].any()


def test_a_token_that_has_drifted_absurdly_makes_no_infinity():
    old = torch.full((1, 1), -2000.0)
    for advantage in (1.0, -1.0):
        new = torch.zeros(1, 1, requires_grad=True)
        loss = clipped_loss(new, old, torch.tensor([advantage]), torch.ones(1, 1), torch.tensor([1]), 1).loss
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(new.grad).all()


def test_a_row_without_tokens_costs_nothing():
    """The stand-in for a second look that was not taken."""
    valid = torch.tensor([[1, 1], [0, 0]])
    tokens = trajectory_tokens(valid, torch.tensor([0, 1]))
    assert trajectory_share(valid, tokens) == 1.0
    new = torch.zeros(2, 2, requires_grad=True)
    clipped_loss(new, torch.zeros(2, 2), torch.ones(2), valid, tokens, 1).loss.backward()
    assert new.grad.tolist() == [[-0.5, -0.5], [0.0, 0.0]]


@pytest.mark.parametrize(
    "options",
    [{"clip": 1.0}, {"clip": -0.1}, {"clip_high": -0.1}, {"trajectories": 0.0}, {"reference_weight": 0.1},
     {"reference_weight": -1.0}],
)  # fmt: skip
def test_options_of_the_clipped_loss(options):
    with pytest.raises(OptionInvalid):
        loss_of(make_batch(), **options)


# --- KL-Coverage ------------------------------------------------------------------------------------------------


def slow_coverage(batch, settings):
    """Eq. 1 and 2 token by token: the set of selected places and the loss."""
    valid, numeric = batch["valid"], batch["numeric"]
    rows, length = valid.shape
    everywhere = [(row, place) for row in range(rows) for place in range(length) if valid[row, place]]
    candidates = [at for at in everywhere if numeric[at]]
    members = candidates if settings.centring == "numeric" else everywhere
    mean_log = sum(float(batch["new"][at]) for at in members) / len(members)
    mean_advantage = sum(float(batch["advantages"][at[0]]) for at in members) / len(members)
    scores = {
        at: (float(batch["new"][at]) - mean_log) * (float(batch["advantages"][at[0]]) - mean_advantage)
        for at in candidates
    }
    count = max(1, int(settings.share * len(candidates) + 1e-9))
    chosen = sorted(candidates, key=lambda at: -scores[at])[:count]
    drifts = [float(batch["new"][at] - batch["old"][at]) for at in chosen]
    return set(chosen), sum(math.exp(drift) - 1 - drift for drift in drifts) / count


def coverage(batch, settings, sizes, *, new=None, gather=None, rank=0):
    """Masks and summed loss of a batch that is split into micro-batches of `sizes` rows."""
    new = batch["new"] if new is None else new
    parts = [slice(sum(sizes[:index]), sum(sizes[: index + 1])) for index in range(len(sizes))]
    collected = [
        collect(new.detach()[part], batch["advantages"][part], batch["numeric"][part], batch["valid"][part], settings)
        for part in parts
    ]
    selection = select(collected, settings, gather=gather, rank=rank)
    loss = sum(
        penalty(new[part], batch["old"][part], mask, selection.count)
        for part, mask in zip(parts, selection.masks, strict=True)
    )
    return torch.cat(selection.masks), loss, selection


@pytest.mark.parametrize("centring", ["numeric", "all"])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_coverage_is_the_slow_one(centring, share, seed):
    batch, settings = make_batch(seed), CoverageSettings(share=share, centring=centring)
    mask, loss, selection = coverage(batch, settings, [12])
    chosen, expected = slow_coverage(batch, settings)
    assert {tuple(at) for at in mask.nonzero().tolist()} == chosen
    assert selection.count == len(chosen)
    assert selection.candidates == int(batch["numeric"].sum())
    assert loss.item() == pytest.approx(expected, abs=1e-12)


def test_single_precision_keeps_the_reference_value_and_gradient():
    batch = make_batch(4)
    batch["new"] = batch["old"] + 1e-3 * (batch["new"] - batch["old"])  # small drifts, where differences cancel
    settings = CoverageSettings(share=0.5)
    results = []
    for kind in (torch.float64, torch.float32):
        cast = {name: value.to(kind) if value.is_floating_point() else value for name, value in batch.items()}
        new = cast["new"].clone().requires_grad_()
        mask, loss, _ = coverage(cast, settings, [12], new=new)
        loss.backward()
        results.append((mask, loss.double(), new.grad.double()))
    (mask, loss, gradient), (mask_single, loss_single, gradient_single) = results
    assert torch.equal(mask, mask_single)
    assert abs(loss - loss_single) < 1e-9
    assert (gradient - gradient_single).abs().max() < 1e-6


@pytest.mark.parametrize("centring", ["numeric", "all"])
@pytest.mark.parametrize("sizes", [[12], [6, 6], [4, 4, 4], [1] * 12, [5, 1, 6], [11, 1]])
def test_the_split_into_micro_batches_changes_nothing(sizes, centring):
    """Ranked within each micro-batch, the floor of one token alone would select as many as there are micro-batches."""
    batch, settings = make_batch(5), CoverageSettings(share=0.1, centring=centring)
    whole = batch["new"].clone().requires_grad_()
    mask, loss, selection = coverage(batch, settings, [12], new=whole)
    loss.backward()
    split = batch["new"].clone().requires_grad_()
    mask_of_parts, loss_of_parts, selection_of_parts = coverage(batch, settings, sizes, new=split)
    loss_of_parts.backward()
    assert torch.equal(mask, mask_of_parts)
    assert (selection.count, selection.least) == (selection_of_parts.count, selection_of_parts.least)
    assert loss.item() == pytest.approx(loss_of_parts.item(), abs=1e-15)
    assert torch.equal(whole.grad, split.grad)


def test_padding_of_a_micro_batch_changes_nothing():
    batch, settings = make_batch(6), CoverageSettings(share=0.2)
    mask, loss, _ = coverage(batch, settings, [12])
    wide = {
        name: torch.nn.functional.pad(value, (0, 4), value=math.nan if value.is_floating_point() else 0)
        if value.ndim == 2
        else value
        for name, value in batch.items()
    }
    padded_mask, padded_loss, _ = coverage(wide, settings, [12])
    assert torch.equal(padded_mask[:, :9], mask)
    assert padded_loss.item() == loss.item()


@pytest.mark.parametrize("sizes", [(6, 6), (1, 11), (8, 4), (12, 0)])
def test_two_processes_choose_what_one_would(sizes):
    batch, settings = make_batch(7), CoverageSettings(share=0.1)
    mask, loss, selection = coverage(batch, settings, [12])
    halves = [
        {name: value[start:end] for name, value in batch.items()} for start, end in ((0, sizes[0]), (sizes[0], 12))
    ]
    sent = [
        collect(half["new"], half["advantages"], half["numeric"], half["valid"], settings).columns.reshape(-1)
        for half in halves
    ]
    found = [
        coverage(half, settings, [len(half["old"])], gather=lambda _: sent, rank=rank)
        for rank, half in enumerate(halves)
    ]
    assert torch.equal(torch.cat([item[0] for item in found]), mask)
    assert sum(item[1].item() for item in found) == pytest.approx(loss.item(), abs=1e-15)
    assert {item[2].count for item in found} == {selection.count}


def test_only_selected_numeric_tokens_get_a_gradient():
    batch = make_batch(8)
    new = batch["new"].clone().requires_grad_()
    mask, loss, _ = coverage(batch, CoverageSettings(share=0.3), [4, 8], new=new)
    loss.backward()
    assert torch.equal(new.grad != 0, mask)
    assert not (mask & ~batch["numeric"]).any()
    expected = (torch.expm1(batch["new"] - batch["old"]) * mask / mask.sum()).double()  # (r - 1) times the score
    torch.testing.assert_close(new.grad, expected, rtol=0, atol=1e-15)


def test_it_is_exactly_zero_on_policy():
    batch = make_batch(9)
    new = batch["old"].clone().requires_grad_()
    _, loss, selection = coverage(batch, CoverageSettings(share=0.5), [12], new=new)
    loss.backward()
    assert selection.count > 1
    assert loss.item() == 0.0
    assert not new.grad.any()


def test_exactly_the_share_is_taken_even_when_all_are_equal():
    batch = make_batch(10)
    batch["advantages"] = torch.zeros(12, dtype=torch.float64)
    mask, _, selection = coverage(batch, CoverageSettings(share=0.25), [12])
    assert int(mask.sum()) == selection.count == int(0.25 * int(batch["numeric"].sum()))
    assert selection.least == 0.0


@pytest.mark.parametrize(
    ("share", "candidates", "count"), [(0.02, 49, 1), (0.02, 100, 2), (0.29, 100, 29), (0.02, 1, 1)]
)
def test_how_many_are_taken(share, candidates, count):
    settings = CoverageSettings(share=share)
    ones = torch.ones(1, candidates)
    part = collect(torch.linspace(-1, 0, candidates)[None], torch.ones(1), ones, ones, settings)
    assert select([part], settings).count == count


def test_a_batch_without_a_number_costs_nothing():
    batch = make_batch(11)
    batch["numeric"] = torch.zeros_like(batch["numeric"])
    for centring in ("numeric", "all"):
        new = batch["new"].clone().requires_grad_()
        mask, loss, selection = coverage(batch, CoverageSettings(centring=centring), [6, 6], new=new)
        loss.backward()
        assert (selection.count, selection.candidates, selection.least) == (0, 0, None)
        assert not mask.any()
        assert loss.item() == 0.0
        assert not new.grad.any()


def test_gradients_of_the_penalties_are_right():
    batch = make_batch(12, rows=3, length=4)
    mask = batch["numeric"]
    assert mask.any()

    def sampled(new):
        return penalty(new, batch["old"], mask, 5)

    assert torch.autograd.gradcheck(sampled, (batch["new"].clone().requires_grad_(),))
    generator = torch.Generator().manual_seed(0)
    old, new = (torch.randn(3, 4, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(lambda scores: exact_penalty(scores, old, mask, 5), (new.requires_grad_(),))


def test_the_exact_divergence_by_hand():
    old = doubles([0.5, 0.25, 0.25]).log().expand(1, 2, 3)
    new = doubles([0.25, 0.25, 0.5]).log().expand(1, 2, 3) + 7.0  # logits are as good as log-probabilities
    only_first = torch.tensor([[True, False]])
    expected = 0.5 * math.log(2) - 0.25 * math.log(2)
    assert exact_penalty(new, old, only_first, 1).item() == pytest.approx(expected)
    assert exact_penalty(new, old, only_first, 4).item() == pytest.approx(expected / 4)
    assert exact_penalty(old, old, only_first, 1).item() == 0.0


def test_the_sampled_estimator_means_the_exact_divergence():
    """Over tokens drawn from π_old, r - 1 - log r has the mean KL(π_old ‖ π)."""
    old, new = (doubles(values).log() for values in ([0.5, 0.3, 0.2], [0.4, 0.35, 0.25]))
    one = torch.ones(1, 1, dtype=torch.bool)
    mean = sum(old[token].exp() * penalty(new[token].view(1, 1), old[token].view(1, 1), one, 1) for token in range(3))
    assert mean.item() == pytest.approx(exact_penalty(new.view(1, 1, 3), old.view(1, 1, 3), one, 1).item(), abs=1e-15)


def test_numbers_that_are_none_are_refused():
    batch = make_batch(13)
    batch["new"][batch["numeric"].nonzero()[0].tolist()[0], batch["numeric"].nonzero()[0].tolist()[1]] = -INF
    with pytest.raises(OptionInvalid, match="finite"):
        coverage(batch, CoverageSettings(), [12])
    with pytest.raises(OptionInvalid, match="nothing to select"):
        select([], CoverageSettings())


@pytest.mark.parametrize(
    "options",
    [
        {"share": 0.0},
        {"share": 2.0},
        {"weight": -0.1},
        {"weight": math.nan},
        {"centring": "answer"},
        {"estimator": "k1"},
    ],
)
def test_options_of_coverage(options):
    with pytest.raises(OptionInvalid):
        CoverageSettings(**options)


def test_settings_under_which_it_never_acts_are_refused():
    assert updates_per_rollout(iterations=1, micro_batches=2, accumulation_steps=2) == 1
    assert updates_per_rollout(iterations=2, micro_batches=2, accumulation_steps=2) == 2
    assert updates_per_rollout(iterations=1, micro_batches=8, accumulation_steps=2) == 4
    for updates in (0.5, 1):
        with pytest.raises(OptionInvalid, match="exactly zero"):
            refuse_inert(CoverageSettings(), updates)
        refuse_inert(CoverageSettings(weight=0.0), updates)
    refuse_inert(CoverageSettings(), 2)


# --- processes --------------------------------------------------------------------------------------------------


def test_without_a_process_group_there_is_one_process():
    own = torch.ones(2, requires_grad=True)
    gathered = gather_ragged(own)
    assert [vector.tolist() for vector in gathered] == [[1.0, 1.0]]
    assert not gathered[0].requires_grad
    assert own_rank() == 0


PROCESS = """
import sys, torch
from torch import distributed as dist
from tests.training.test_objectives import coverage, make_batch
from training.objectives.coverage import CoverageSettings
from training.objectives.gathering import gather_ragged, own_rank

rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
batch = {name: value[:5] if rank == 0 else value[5:] for name, value in make_batch(14).items()}
sizes = [2, 3] if rank == 0 else [7]
mask, loss, selection = coverage(batch, CoverageSettings(share=0.1), sizes, gather=gather_ragged, rank=own_rank())
empty = gather_ragged(torch.zeros(rank))
print(mask.nonzero().tolist(), "|", repr(float(loss)), "|", [len(vector) for vector in empty])
dist.destroy_process_group()
"""


def test_two_real_processes_choose_what_one_would(tmp_path):
    mask, loss, _ = coverage(make_batch(14), CoverageSettings(share=0.1), [12])
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PROCESS, str(rank), str(tmp_path / "store")],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=120) for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], [err for _, err in said]
    found = [[json.loads(field) for field in out.strip().split(" | ")] for out, _ in said]
    assert [*found[0][0], *([row + 5, place] for row, place in found[1][0])] == mask.nonzero().tolist()
    assert found[0][1] + found[1][1] == pytest.approx(loss.item(), abs=1e-15)
    assert found[0][2] == found[1][2] == [0, 1]
