"""Rewards that compare trajectories of different pictures: rank and attributes."""

import math
import random
import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rewards.replies import reply, trajectory
from zoomiqa.errors import OptionInvalid
from zoomiqa.rewards import Trajectory, Truth, attribute_reward, rank_reward, rank_rewards
from zoomiqa.vocabulary import ATTRIBUTES

EPSILON = 1e-6
MOST = math.sqrt(1 + EPSILON) + math.sqrt(EPSILON)
"""The fidelity of a certain and right order; 1 without epsilon."""


def normal(z):
    return 0.5 * math.erfc(-z / math.sqrt(2))


def fidelity(p, truth, epsilon=EPSILON):
    return math.sqrt(p * truth + epsilon) + math.sqrt((1 - p) * (1 - truth) + epsilon)


def reference(ratings, truths, groups, datasets, *, form="sample", epsilon=EPSILON):
    """Eq. 5 word for word, sample by sample."""
    members = {}
    for row, key in enumerate(zip(datasets, groups, strict=True)):
        if truths[row] is not None:
            members.setdefault(key, []).append(row)

    def stats(key):
        known = [ratings[row] for row in members[key] if ratings[row] is not None]
        return known and (statistics.fmean(known), statistics.variance(known) if len(known) > 1 else 0.0)

    earned = [None] * len(ratings)
    for key, rows in members.items():
        others = [other for other in members if other[0] == key[0] and other != key and stats(other)]
        for row in rows if others else ():
            if ratings[row] is None:
                earned[row] = 0.0
                continue
            values = []
            for other in others:
                mean, variance = stats(other)
                level = stats(key)[0] if form == "mean" else ratings[row]
                spread = math.sqrt(stats(key)[1] + variance + epsilon)
                mine, theirs = truths[row], truths[members[other][0]]
                truth = 1.0 if mine > theirs else 0.0 if mine < theirs else 0.5
                values.append(fidelity(normal((level - mean) / spread), truth, epsilon))
            earned[row] = statistics.fmean(values)
    return earned


def columns(batch):
    return (
        [item.rating for item in batch],
        [item.truth.rating for item in batch],
        [item.group for item in batch],
        [item.dataset for item in batch],
    )


def test_two_pictures_by_hand():
    # Means 3.5 and 2, variances 0.5 and 0; the first picture is truly better.
    batch = [trajectory(4.0, 4.5, "a"), trajectory(3.0, 4.5, "a"), trajectory(2.0, 2.5, "b"), trajectory(2.0, 2.5, "b")]
    scale = math.sqrt(0.5 + EPSILON)
    expected = [fidelity(normal(2 / scale), 1), fidelity(normal(1 / scale), 1), fidelity(normal(-1.5 / scale), 0)]
    assert rank_reward(batch) == pytest.approx([*expected, expected[2]], abs=1e-12)
    both = fidelity(normal(1.5 / scale), 1)
    assert rank_reward(batch, form="mean") == pytest.approx([both] * 4, abs=1e-12)
    # Φ(1/√0.5) = 0.92135, so √ of it is 0.95987, and the guard adds √1e-6.
    assert rank_reward(batch)[1] == pytest.approx(0.96087, abs=1e-5)


def test_equal_truths_ask_for_equal_ratings():
    near, far = ([trajectory(3.0, 3.0, "a"), trajectory(other, 3.0, "b")] for other in (3.0, 3.5))
    assert rank_reward(near)[0] == pytest.approx(2 * math.sqrt(0.25 + EPSILON))
    assert rank_reward(far)[0] < 0.75
    assert rank_reward(near, epsilon=0) == [1.0, 1.0]


def test_without_epsilon_single_samples_are_certain():
    batch = [trajectory(4.0, 4.0, "a"), trajectory(2.0, 3.0, "b"), trajectory(2.0, 2.0, "c")]
    # b and c are tied where truth is certain: √0.5.
    assert rank_reward(batch, epsilon=0) == pytest.approx([1.0, (1 + math.sqrt(0.5)) / 2, (1 + math.sqrt(0.5)) / 2])


def test_what_cannot_be_compared_gets_none():
    assert rank_reward([]) == []
    assert rank_reward([trajectory(3.0), trajectory(4.0)]) == [None, None]  # one picture alone
    unlabelled = [trajectory(3.0, None, "a"), trajectory(4.0, 4.0, "b"), trajectory(2.0, 1.0, "c")]
    assert rank_reward(unlabelled)[0] is None
    assert rank_reward(unlabelled)[1:] == pytest.approx([MOST, MOST])


def test_a_sample_without_a_rating_earns_nothing_and_moves_nobody():
    batch = [trajectory(4.0, 4.0, "a"), trajectory(3.0, 4.0, "a"), trajectory(2.0, 2.0, "b"), trajectory(2.5, 2.0, "b")]
    with_failure = [*batch, trajectory(None, 4.0, "a")]
    assert rank_reward(with_failure)[-1] == 0.0
    assert rank_reward(with_failure)[:-1] == rank_reward(batch)


def test_a_picture_that_nobody_could_rate_is_no_partner():
    batch = [
        trajectory(4.0, 4.0, "a"),
        trajectory(2.0, 2.0, "b"),
        trajectory(None, 3.0, "c"),
        trajectory(None, 3.0, "c"),
    ]
    assert rank_reward(batch)[:2] == rank_reward(batch[:2])
    assert rank_reward(batch)[2:] == [0.0, 0.0]
    assert rank_reward([batch[0], batch[2]]) == [None, 0.0]


def test_data_sets_are_never_compared():
    """MG-IQA: each keeps its own scale, so that a shift between them costs nothing."""
    one = [trajectory(rating, truth, group, "koniq") for rating, truth, group in ((4.0, 4.0, 1), (2.0, 2.0, 2))]
    two = [trajectory(rating, truth, group, "agiqa") for rating, truth, group in ((4.5, 2.0, 1), (4.0, 1.0, 2))]
    alone = trajectory(1.0, 5.0, 1, "csiq")
    together = rank_reward([*one, *two, alone])
    assert together == [*rank_reward(one), *rank_reward(two), None]
    merged = rank_reward([replace(item, dataset="all", group=(item.dataset, item.group)) for item in [*one, *two]])
    assert merged[1] < together[1]


def test_samples_of_one_picture_have_one_truth():
    with pytest.raises(OptionInvalid, match="true ratings"):
        rank_reward([trajectory(3.0, 3.0, 1), trajectory(3.0, 3.5, 1), trajectory(2.0, 1.0, 2)])


@pytest.mark.parametrize("options", [{"form": "median"}, {"epsilon": -1e-6}, {"epsilon": math.nan}])
def test_options_outside_their_range_are_refused(options):
    with pytest.raises(OptionInvalid):
        rank_reward([], **options)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(OptionInvalid, match="same samples"):
        rank_rewards([3.0, 4.0], [3.0, 4.0], [0, 1], ["koniq"])


def draw_batch(generator, *, pictures, samples, datasets=2):
    batch = []
    for picture in range(pictures):
        truth = round(generator.uniform(1, 5), 1)
        for _ in range(samples):
            rating = None if generator.random() < 0.1 else round(min(5, max(1, generator.gauss(truth, 0.5))), 2)
            batch.append((rating, truth, picture, f"set {picture % datasets}"))
    return tuple(list(column) for column in zip(*batch, strict=True))


@pytest.mark.parametrize("form", ["sample", "mean"])
@pytest.mark.parametrize("seed", range(5))
def test_the_fast_form_is_the_slow_one(form, seed):
    drawn = draw_batch(random.Random(seed), pictures=9, samples=4)
    fast, slow = rank_rewards(*drawn, form=form), reference(*drawn, form=form)
    assert [value is None for value in fast] == [value is None for value in slow]
    assert fast == pytest.approx(slow, abs=1e-12, nan_ok=False)


ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.floats(1, 5).map(lambda value: round(value, 2))),
        st.integers(0, 4),
        st.sampled_from(["a", "b"]),
    ),
    min_size=1,
    max_size=20,
)
TRUTHS = {(group, name): 1 + (3 * group + len(name) * (name == "b")) % 5 for group in range(5) for name in "ab"}


def unpack(rows):
    ratings, groups, datasets = (list(column) for column in zip(*rows, strict=True))
    return ratings, [float(TRUTHS[key]) for key in zip(groups, datasets, strict=True)], groups, datasets


@given(ROWS, st.sampled_from(["sample", "mean"]), st.sampled_from([0.0, EPSILON]))
def test_rank_is_bounded_and_finite(rows, form, epsilon):
    most = MOST if epsilon else 1 + 1e-12
    for value in rank_rewards(*unpack(rows), form=form, epsilon=epsilon):
        assert value is None or 0 <= value <= most


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_batch_does_not_matter(rows, generator):
    earned = rank_rewards(*unpack(rows))
    order = list(range(len(rows)))
    generator.shuffle(order)
    mixed = rank_rewards(*unpack([rows[place] for place in order]))
    assert mixed == pytest.approx([earned[place] for place in order], abs=1e-12)


@given(ROWS)
def test_turning_the_scale_around_changes_nothing(rows):
    ratings, truths, groups, datasets = unpack(rows)
    turned = [None if rating is None else 6 - rating for rating in ratings]
    there, back = (rank_rewards(r, t, groups, datasets) for r, t in ((ratings, truths), (turned, [-t for t in truths])))
    assert there == pytest.approx(back, abs=1e-9)


@given(st.floats(1, 5), st.floats(1, 5), st.floats(1, 5), st.floats(1, 5))
def test_both_of_a_pair_earn_the_same_in_the_mean_form(first, second, truth, other):
    one, two = rank_rewards([first, second], [truth, other], [0, 1], form="mean")
    assert one == pytest.approx(two, abs=1e-12)


@given(st.floats(1, 5), st.floats(1, 5))
def test_the_best_picture_never_earns_less_for_a_higher_rating(first, second):
    low, high = sorted((first, second))
    others = [
        trajectory(2.0, 2.0, "b"),
        trajectory(2.6, 2.0, "b"),
        trajectory(3.0, 3.0, "c"),
        trajectory(3.2, 3.0, "c"),
    ]
    base = trajectory(3.0, 5.0, "a")
    less, more = (rank_reward([replace(base, rating=rating), *others])[0] for rating in (low, high))
    assert less <= more + 1e-12


def test_gathered_columns_give_every_process_its_share_of_the_global_reward():
    drawn = draw_batch(random.Random(7), pictures=6, samples=4, datasets=1)
    whole = rank_rewards(*drawn)
    half = [column[:12] for column in drawn], [column[12:] for column in drawn]
    gathered = [[*first, *second] for first, second in zip(*half, strict=True)]
    assert rank_rewards(*gathered) == whole
    assert rank_rewards(*half[0]) != whole[:12], "one process's share is another comparison set"


# --- attributes -------------------------------------------------------------------------------------------------


def rated(rating, truth, group, attributes, labels, dataset=""):
    text = reply(rating, attributes=attributes)
    truths = Truth(rating=truth, attributes=labels)
    return Trajectory.from_texts([text], group=group, truth=truths, dataset=dataset, attributes=ATTRIBUTES)


def test_attributes_are_ranked_one_by_one_weighted_and_summed():
    batch = [
        rated(3.0, 3.0, "a", {"sharpness": 4.0, "noise": 2.0}, {"sharpness": 4.0, "noise": 4.0}),
        rated(3.0, 3.0, "b", {"sharpness": 2.0, "noise": 3.0}, {"sharpness": 2.0, "noise": 2.0}),
    ]
    wrong = 2 * math.sqrt(EPSILON)  # the order of the noise is certain and false
    assert attribute_reward(batch) == pytest.approx([(MOST + wrong) / 2] * 2, abs=1e-9)
    weighted = attribute_reward(batch, weights={"sharpness": 3.0, "noise": 1.0, "composition": 5.0})
    assert weighted == pytest.approx([(3 * MOST + wrong) / 4] * 2, abs=1e-9)


def test_a_missing_attribute_costs_only_where_a_label_asks_for_it():
    batch = [
        rated(3.0, 3.0, "a", {"sharpness": 4.0}, {"sharpness": 4.0, "noise": 4.0}),  # does not rate the noise
        rated(3.0, 3.0, "b", {"sharpness": 2.0, "noise": 3.0}, {"sharpness": 2.0, "noise": 2.0}),
        rated(3.0, 3.0, "c", {"sharpness": 1.0, "noise": 4.0}, {"sharpness": 1.0}),  # nobody labelled the noise
        rated(3.0, 3.0, "d", {}, {}),
    ]
    earned = attribute_reward(batch)
    assert earned[0] == pytest.approx(MOST / 2)
    assert earned[1] == pytest.approx(MOST), "its only partner for the noise has no rating: sharpness alone counts"
    assert earned[2] == pytest.approx(MOST)
    assert earned[3] is None


def test_a_failed_trajectory_earns_nothing_for_its_attributes():
    good = rated(3.0, 3.0, "a", {"sharpness": 4.0}, {"sharpness": 4.0})
    failed = replace(good, rating=None)
    other = rated(3.0, 3.0, "b", {"sharpness": 2.0}, {"sharpness": 2.0})
    assert attribute_reward([failed, good, other]) == pytest.approx([0.0, MOST, MOST])


def test_attributes_of_different_data_sets_are_never_compared():
    batch = [rated(3.0, 3.0, 0, {"noise": 4.0}, {"noise": 4.0}, name) for name in ("koniq", "spaq")]
    assert attribute_reward(batch) == [None, None]


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_useless_weights_are_refused(weight):
    with pytest.raises(OptionInvalid, match="weights"):
        attribute_reward([], weights={"noise": weight})


def test_columns_and_trajectories_agree():
    batch = [trajectory(rating, truth, group) for rating, truth, group in ((4.0, 4.0, 1), (2.0, 3.0, 2), (2.5, 2.0, 3))]
    assert rank_reward(batch) == rank_rewards(*columns(batch)) == rank_rewards(*columns(batch)[:3])
