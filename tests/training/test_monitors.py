"""Early warnings: each figure by hand, and what raises an alarm."""

import pytest

from training.monitors import (
    THRESHOLDS,
    Limit,
    alarms,
    crop_figures,
    entropy_figures,
    group_figures,
    score_figures,
)

BOX = (0.1, 0.1, 0.6, 0.6)
SPREAD = [1 + 4 * place / 99 for place in range(100)]


def names(figures, *thresholds):
    return [alarm.figure for alarm in alarms(figures, *thresholds)]


def test_crops_by_hand():
    looks = [2] * 30 + [1] * 10
    boxes = [BOX] * 24 + [(0.05 * place, 0.0, 1.0, 1.0) for place in range(1, 17)]
    figures = crop_figures(looks, boxes)
    assert figures == {"crop_rate": 0.75, "same_place_share": 24 / 40}
    assert names(figures) == []


def test_crops_collapse_in_three_ways():
    never, always = crop_figures([1] * 64, []), crop_figures([2] * 64, [(0.01 * n, 0, 1, 1) for n in range(64)])
    assert names(never) == ["crop_rate"]
    assert never["same_place_share"] is None
    assert names(always) == ["crop_rate"]
    assert names(crop_figures([1, 2] * 32, [BOX] * 31 + [(0.12, 0.08, 0.6, 0.61)])) == ["same_place_share"]


def test_healthy_scores_raise_nothing():
    figures = score_figures([6 - value for value in SPREAD], SPREAD)
    assert figures["unique_score_share"] == pytest.approx(1, abs=0.05)
    assert figures["score_spread_share"] == pytest.approx(1)
    assert names(figures) == []


def test_scores_collapse():
    few = score_figures([2.0, 3.0, 4.0, 5.0] * 25, SPREAD)
    assert few["unique_score_ratio"] == 0.04
    assert names(few) == ["unique_score_share"]
    narrow = score_figures([3 + 0.05 * value for value in SPREAD], SPREAD)
    assert "score_spread_share" in names(narrow)


def test_failures_are_left_out_of_the_scores_and_equal_labels_have_no_spread():
    assert score_figures([*SPREAD, None, None], [*SPREAD, 1.0, 1.0]) == score_figures(SPREAD, SPREAD)
    assert score_figures(SPREAD, [3.0] * 100)["score_spread_share"] is None


def test_entropy_is_compared_with_the_start():
    start = entropy_figures([0.5, 1.5] * 20, None)
    assert start == {"numeric_entropy": 1.0, "entropy_share": None}
    assert names(start) == []
    assert entropy_figures([0.1] * 40, 1.0)["entropy_share"] == pytest.approx(0.1)
    assert names(entropy_figures([0.1] * 40, 1.0)) == ["entropy_share"]
    assert names(entropy_figures([6.0] * 40, 1.0)) == ["entropy_share"]
    assert entropy_figures([0.1] * 40, 0.0)["entropy_share"] is None


def test_groups_that_teach_nothing():
    rewards = [1.0, 2.0, *[3.0] * 62]
    groups = [place // 2 for place in range(64)]
    assert group_figures(rewards, groups) == {"live_group_share": 1 / 32}
    assert names(group_figures(rewards, groups)) == ["live_group_share"]
    assert names(group_figures(range(64), groups)) == []


def test_a_small_batch_raises_no_alarm():
    small = {
        **crop_figures([1] * 8, [BOX] * 8),
        **score_figures([3.0] * 8, [4.0] * 8),
        **entropy_figures([0.0] * 8, 1.0),
        **group_figures([1.0] * 8, [0] * 8),
    }
    assert set(small.values()) == {None}
    assert set(THRESHOLDS) <= set(small)
    assert names(small) == []


def test_thresholds_are_data_and_an_alarm_says_what_it_means():
    own = {"crop_rate": Limit(0.5, 0.9, "look at it.")}
    low, high = (alarms({"crop_rate": value, "other": 9.0}, own) for value in (0.25, 0.95))
    assert [str(alarm) for alarm in (*low, *high)] == [
        "crop_rate 0.25 is below 0.5: look at it.",
        "crop_rate 0.95 is above 0.9: look at it.",
    ]
    assert names({"crop_rate": 0.5}, own) == []
