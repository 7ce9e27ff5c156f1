"""Progressive re-sampling: exact expectations, evenness, repeatability."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.resampling import HALF_POINTS, Stages, epoch_indices, histogram, table
from zoomiqa.errors import OptionInvalid

WIDE = Stages((0.0, 0.5, 1.0), (1.0, 2.0, 3.0, 5.0))
RATINGS = [1.5] + [2.5] * 4 + [4.0] * 16  # bins of 1, 4 and 16

BATCHES = st.lists(st.tuples(st.floats(1, 5), st.sampled_from(["koniq", "spaq"])), min_size=1, max_size=60)


def bins_of(indices, ratings=RATINGS, edges=WIDE.edges):
    found = np.digitize(np.asarray(ratings)[indices], edges[1:-1])
    return [int(count) for count in np.bincount(found, minlength=len(edges) - 1)]


def test_expectations_by_hand():
    rows = histogram(RATINGS, WIDE)
    assert [row.items for row in rows] == [1, 4, 16]
    # Masses count^(1 - γ): 1, 4, 16; 1, 2, 4; 1, 1, 1, of 21 draws.
    assert [row.expected for row in rows] == [pytest.approx(row) for row in ((1, 3, 7), (4, 6, 7), (16, 12, 7))]
    assert [row.drawn for row in rows] == [(1, 3, 7), (4, 6, 7), (16, 12, 7)]
    for stage, expected in enumerate(([1, 4, 16], [3, 6, 12], [7, 7, 7])):
        assert bins_of(epoch_indices(RATINGS, WIDE, stage, seed=0)) == expected


def test_weights_of_items_are_those_of_the_formula():
    """How often an item comes, over all others of its data set, is count(bin)^-γ."""
    epochs = 16  # a whole number of rounds through every bin
    draws = Counter()
    for epoch in range(epochs):
        draws.update(epoch_indices(RATINGS, WIDE, 1, seed=3, epoch=epoch).tolist())
    weights = {item: count**-0.5 for item, count in enumerate([1] + [4] * 4 + [16] * 16)}
    scale = epochs * len(RATINGS) / sum(weights.values())
    assert draws == {item: round(weight * scale) for item, weight in weights.items()}


def test_stage_0_is_the_data_set_in_another_order():
    indices = epoch_indices(RATINGS, WIDE, 0, seed=5)
    assert sorted(indices.tolist()) == list(range(21))
    assert indices.tolist() != list(range(21))


def test_the_same_seed_gives_the_same_epoch_and_another_another():
    def draw(**options):
        return epoch_indices(RATINGS, WIDE, 2, **{"seed": 1, **options}).tolist()

    assert draw() == draw()
    assert draw() != draw(seed=2)
    assert draw() != draw(epoch=1)


def test_data_sets_keep_their_share_and_their_own_bins():
    ratings = [*RATINGS, *[4.5] * 9, 1.0]
    datasets = ["koniq"] * 21 + ["agiqa"] * 10
    indices = epoch_indices(ratings, WIDE, 2, seed=0, datasets=datasets)
    named = Counter(datasets[index] for index in indices)
    assert named == {"koniq": 21, "agiqa": 10}
    agiqa = [index for index in indices if datasets[index] == "agiqa"]
    assert bins_of(agiqa, ratings) == [5, 0, 5]
    rows = histogram(ratings, WIDE, datasets=datasets)
    assert [(row.dataset, row.items) for row in rows] == [
        ("agiqa", 1), ("agiqa", 9), ("koniq", 1), ("koniq", 4), ("koniq", 16),
    ]  # fmt: skip


@given(BATCHES, st.integers(1, 5), st.integers(0, 3), st.integers(0, 2**32))
def test_every_epoch_has_the_length_of_the_data_and_every_bin_its_due(rows, count, epoch, seed):
    ratings, datasets = (list(column) for column in zip(*rows, strict=True))
    stages = Stages.rising(count)
    for stage in range(count):
        indices = epoch_indices(ratings, stages, stage, seed=seed, epoch=epoch, datasets=datasets)
        assert len(indices) == len(ratings)
        assert Counter(datasets[index] for index in indices) == Counter(datasets)
        draws = Counter(indices.tolist())
        for row in histogram(ratings, stages, datasets=datasets):
            assert abs(row.drawn[stage] - row.expected[stage]) < 1
            inside = [
                item
                for item, (rating, name) in enumerate(rows)
                if name == row.dataset and row.low <= rating and (rating < row.high or row.high == rating == 5)
            ]
            assert len(inside) == row.items
            taken = [draws[item] for item in inside]
            assert sum(taken) == row.drawn[stage]
            assert max(taken) - min(taken) <= 1


@given(BATCHES)
def test_rare_bins_only_gain_from_stage_to_stage(rows):
    rows = histogram([rating for rating, _ in rows], Stages.rising(4))
    rarest = min(rows, key=lambda row: row.items)
    commonest = max(rows, key=lambda row: row.items)
    assert all(now <= later + 1e-9 for now, later in zip(rarest.expected, rarest.expected[1:], strict=False))
    assert all(now >= later - 1e-9 for now, later in zip(commonest.expected, commonest.expected[1:], strict=False))


def test_borders_belong_to_the_bin_above_and_the_last_to_the_last():
    rows = histogram([1.0, 1.5, 4.5, 5.0], Stages())
    assert [(row.low, row.high, row.items) for row in rows] == [(1.0, 1.5, 1), (1.5, 2.0, 1), (4.5, 5.0, 2)]
    assert HALF_POINTS == (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)


def test_the_stages_follow_the_training():
    stages = Stages.rising(3)
    assert stages.gammas == (0.0, 0.5, 1.0) == Stages().gammas
    assert [stages.stage_at(progress) for progress in (0, 0.33, 0.34, 0.66, 0.67, 1)] == [0, 0, 1, 1, 2, 2]
    assert Stages.rising(1).gammas == (0.0,)
    assert stages.to_dict() == {"gammas": [0.0, 0.5, 1.0], "edges": list(HALF_POINTS)}


def test_the_table_shows_what_is_drawn():
    assert table(histogram(RATINGS, WIDE, datasets=["koniq-10k"] * 21), WIDE).splitlines() == [
        "data set   ratings      items   γ 0.00   γ 0.50   γ 1.00",
        "koniq-10k  1.00-2.00        1        1        3        7",
        "koniq-10k  2.00-3.00        4        4        6        7",
        "koniq-10k  3.00-5.00       16       16       12        7",
    ]


@pytest.mark.parametrize(
    "build",
    [
        lambda: Stages(()),
        lambda: Stages((0.0, 1.5)),
        lambda: Stages((math.nan,)),
        lambda: Stages(edges=(1.0,)),
        lambda: Stages(edges=(1.0, 3.0, 2.0)),
        lambda: Stages.rising(0),
        lambda: Stages().stage_at(1.1),
        lambda: epoch_indices([], Stages(), 0, seed=0),
        lambda: epoch_indices([3.0], Stages(), 3, seed=0),
        lambda: epoch_indices([3.0], Stages(), -1, seed=0),
        lambda: epoch_indices([71.0], Stages(), 0, seed=0),
        lambda: epoch_indices([math.nan], Stages(), 0, seed=0),
        lambda: epoch_indices([3.0, 4.0], Stages(), 0, seed=0, datasets=["koniq"]),
    ],
)
def test_what_makes_no_sense_is_refused(build):
    with pytest.raises(OptionInvalid):
        build()
