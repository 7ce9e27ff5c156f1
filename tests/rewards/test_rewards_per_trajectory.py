"""Rewards that look at one trajectory: format, score, perception, thinking, and their sum."""

import json
import math
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rewards.replies import CROP, reply, think, trajectory
from zoomiqa import rewards
from zoomiqa.errors import OptionInvalid
from zoomiqa.protocol import converse
from zoomiqa.rewards import (
    PAPER_WEIGHTS,
    Trajectory,
    Truth,
    first_decimal,
    format_reward,
    fully_right,
    intersection_over_union,
    lift_advantages,
    near_reward,
    perception_reward,
    probability_difference,
    score_reward,
    thinking_reward,
    total_reward,
)
from zoomiqa.types import Reply
from zoomiqa.vocabulary import ATTRIBUTES

RATINGS = st.floats(1, 5)


def formatted(*texts, **demand):
    return format_reward([Trajectory.from_texts(texts, group=0)], **demand)[0]


# --- format -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "texts",
    [
        [reply()],
        [reply(**CROP)],  # the only round there is may ask for a crop
        [f"\n {reply()} \n"],
        [reply(**CROP), reply(index=1)],
        [reply(**CROP), reply(index=1, **CROP), reply(index=1)],
        [reply(1.0)],
        [reply(5)],
        [reply(box=(0, 0, 1, 1), tool="crop")],
    ],
)
def test_replies_in_the_format_earn_one(texts):
    assert formatted(*texts) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(reply() + " Thank you.", id="words after the answer"),
        pytest.param("Sure. " + reply(), id="words before the thinking"),
        pytest.param(reply().replace("</think>", "</think> so"), id="words between"),
        pytest.param(reply().replace("</think>", ""), id="thinking not closed"),
        pytest.param(reply().replace("</answer>", ""), id="answer not closed"),
        pytest.param(reply() + reply(), id="twice"),
        pytest.param(reply().replace("<think>", "<think><think>"), id="tag twice"),
        pytest.param(reply(leave_out=("Issues to Avoid",)), id="no issues"),
        pytest.param(reply(leave_out=("Directions for Improvement",)), id="no directions"),
        pytest.param(reply(leave_out=("Decision & Rationale",)), id="no decision"),
        pytest.param(reply(index=1), id="headings of a later round"),
        pytest.param(reply("3.5"), id="rating as text"),
        pytest.param(reply(5.01), id="rating above 5"),
        pytest.param(reply(0.99), id="rating below 1"),
        pytest.param(reply(True), id="rating no number"),
        pytest.param(reply(tool="zoom", box=CROP["box"]), id="unknown tool"),
        pytest.param(reply(tool="crop"), id="crop of nothing"),
        pytest.param(reply(box=CROP["box"]), id="final with a box"),
        pytest.param(reply(box=(0.6, 0.2, 0.1, 0.9), tool="crop"), id="box not ordered"),
        pytest.param(reply(box=(10, 20, 60, 90), tool="crop"), id="box in pixels"),
        pytest.param(reply(box=(0.1, 0.2, 0.6), tool="crop"), id="three numbers"),
        pytest.param(reply().replace('"tool"', '"tools"'), id="key missing"),
        pytest.param(reply().replace("}</answer>", "</answer>"), id="JSON broken"),
        pytest.param(reply().replace("{", "Here: {"), id="words in the answer"),
    ],
)
def test_one_broken_rule_costs_everything(text):
    assert formatted(text) == 0.0


@pytest.mark.parametrize(
    "texts",
    [
        pytest.param([reply(), reply(index=1)], id="looked again after final"),
        pytest.param([reply(**CROP), reply(index=1, **CROP)], id="the last of several asks for a crop"),
        pytest.param([reply(**CROP), reply()], id="the later headings are missing"),
        pytest.param([reply(**CROP, leave_out=("Issues to Avoid",)), reply(index=1)], id="the first is broken"),
        pytest.param([reply(**CROP), "no answer"], id="the last is broken"),
    ],
)
def test_every_round_must_hold(texts):
    assert formatted(*texts) == 0.0


def test_only_the_two_sections_that_the_paper_names_can_be_asked_for():
    short = reply(leave_out=("Image Quality Summary", "Decision & Rationale"))
    assert formatted(short) == 0.0
    assert formatted(short, sections="guidance") == 1.0
    assert formatted(reply(leave_out=("Issues to Avoid",)), sections="guidance") == 0.0
    assert formatted(reply("3.5", leave_out=("Decision & Rationale",)), sections="guidance") == 0.0


def test_attributes_that_were_asked_for_are_part_of_the_format():
    rated = reply(attributes=dict.fromkeys(ATTRIBUTES, 3.0))
    for text, expected in ((rated, 1.0), (reply(), 0.0), (reply(attributes={"sharpness": 3.0}), 0.0)):
        built = Trajectory.from_texts([text], group=0, attributes=ATTRIBUTES)
        assert format_reward([built]) == [expected]


def test_a_conversation_becomes_a_trajectory():
    class Size:
        size = (640, 480)

    talk = converse(Size())
    next(talk)
    talk.send(Reply(reply(2.0, **CROP)))
    with pytest.raises(StopIteration) as stop:
        talk.send(Reply(reply(4.25, index=1)))
    built = Trajectory.from_assessment(stop.value.value, group="a", truth=Truth(rating=4.25), dataset="set")
    assert (built.rating, len(built.texts), built.dataset) == (4.25, 2, "set")
    assert format_reward([built]) == score_reward([built]) == [1.0]


def test_a_conversation_whose_last_look_failed_has_no_rating():
    class Size:
        size = (640, 480)

    talk = converse(Size())
    next(talk)
    talk.send(Reply(reply(4.0, **CROP)))
    with pytest.raises(StopIteration) as stop:
        talk.send(Reply("no answer"))
    built = Trajectory.from_assessment(stop.value.value, group="a", truth=Truth(rating=4.0))
    assert built.rating is None
    assert built.attributes == {}
    assert score_reward([built]) == format_reward([built]) == [0.0]


# --- score ------------------------------------------------------------------------------------------------------


def test_score_by_hand():
    batch = [trajectory(3.0), trajectory(3.35), trajectory(2.3), trajectory(None), trajectory(3.0, truth=None)]
    earned = score_reward(batch)
    assert earned == [1.0, pytest.approx(math.exp(-0.5)), pytest.approx(math.exp(-2)), 0.0, None]
    assert score_reward(batch[1:2], sigma=0.7) == [pytest.approx(math.exp(-0.125))]
    assert near_reward([trajectory(3.5), trajectory(3.51), trajectory(None), trajectory(3, None)]) == [1, 0, 0, None]


@given(RATINGS, RATINGS, RATINGS)
def test_a_rating_nearer_the_truth_never_earns_less(truth, first, second):
    near, far = sorted((first, second), key=lambda rating: abs(rating - truth))
    base = trajectory(3.0, truth=truth)
    one, two = score_reward([replace(base, rating=near), replace(base, rating=far)])
    assert 0 <= two <= one <= 1


@pytest.mark.parametrize("sigma", [0, -1, math.nan, math.inf])
def test_a_useless_sigma_is_refused(sigma):
    with pytest.raises(OptionInvalid, match="sigma"):
        score_reward([], sigma=sigma)


# --- perception -------------------------------------------------------------------------------------------------


def task(answer, **known):
    text = f"<think>I look.</think><answer>{answer if isinstance(answer, str) else json.dumps(answer)}</answer>"
    return Trajectory.from_texts([text], group=0, truth=Truth.of_task(known))


BOX = [0.2, 0.2, 0.6, 0.6]


@pytest.mark.parametrize(
    ("answer", "known", "expected", "in_form"),
    [
        ({"distortion": "blur"}, {"task": "name", "distortion": "blur"}, 1.0, 1.0),
        ({"distortion": " Blur "}, {"task": "name", "distortion": "blur"}, 1.0, 1.0),
        ({"distortion": "noise"}, {"task": "name", "distortion": "blur"}, 0.0, 1.0),
        ({"distortion": "none"}, {"task": "name", "distortion": "none"}, 1.0, 1.0),
        ({"distortion": ["blur"]}, {"task": "name", "distortion": "blur"}, 0.0, 0.0),
        ({"severity": 3}, {"task": "severity", "severity": 3}, 1.0, 1.0),
        ({"severity": 4}, {"task": "severity", "severity": 3}, 0.5, 1.0),
        ({"severity": 5}, {"task": "severity", "severity": 3}, 0.0, 1.0),
        ({"severity": 5}, {"task": "severity", "severity": 1}, 0.0, 1.0),
        ({"severity": True}, {"task": "severity", "severity": 1}, 0.0, 0.0),
        ({"severity": 3.0}, {"task": "severity", "severity": 3}, 0.0, 0.0),
        ({"severity": 6}, {"task": "severity", "severity": 5}, 0.0, 0.0),
        ({"bbox_2d": BOX}, {"task": "where", "bbox_2d": BOX}, 1.0, 1.0),
        ({"bbox_2d": [0.2, 0.2, 0.6, 0.4]}, {"task": "where", "bbox_2d": BOX}, 0.5, 1.0),
        ({"bbox_2d": [0.4, 0.4, 0.8, 0.8]}, {"task": "where", "bbox_2d": BOX}, 1 / 7, 1.0),
        ({"bbox_2d": [0.7, 0.7, 0.8, 0.8]}, {"task": "where", "bbox_2d": BOX}, 0.0, 1.0),
        ({"bbox_2d": [0.6, 0.6, 0.2, 0.2]}, {"task": "where", "bbox_2d": BOX}, 0.0, 0.0),
        ({"bbox_2d": [0.2, 0.2, 0.6]}, {"task": "where", "bbox_2d": BOX}, 0.0, 0.0),
        ({"bbox_2d": [20, 20, 60, 60]}, {"task": "where", "bbox_2d": BOX}, 0.0, 0.0),
        ("[1, 2]", {"task": "name", "distortion": "blur"}, 0.0, 0.0),
        ("[" * 3000, {"task": "name", "distortion": "blur"}, 0.0, 0.0),
        ('{"severity": ' + "9" * 3990 + "}", {"task": "severity", "severity": 5}, 0.0, 0.0),
        ('{"distortion": "' + "x" * 5000 + '"}', {"task": "name", "distortion": "blur"}, 0.0, 0.0),
    ],
)
def test_perception_by_rule(answer, known, expected, in_form):
    built = task(answer, **known)
    assert perception_reward([built]) == [pytest.approx(expected)]
    assert format_reward([built]) == [in_form]
    assert score_reward([built]) == [None]


def test_perception_needs_a_task_and_an_answer():
    assert perception_reward([trajectory(3.0)]) == [None]
    lost = Trajectory.from_texts(["blur"], group=0, truth=Truth(task="name", distortion="blur"))
    assert perception_reward([lost]) == format_reward([lost]) == [0.0]
    with pytest.raises(OptionInvalid, match="needs its answer"):
        Truth(task="severity")
    with pytest.raises(OptionInvalid, match="needs its answer"):
        Truth.of_task({"task": "where", "bbox_2d": [0.1, 0.2]})
    with pytest.raises(OptionInvalid, match="unknown perception task"):
        Truth(task="count")


def test_rows_of_the_synthesis_are_answered_rightly_by_their_own_answers():
    import numpy as np

    from training.synthesis.perception import perception_rows
    from training.synthesis.samples import Truth as Sample
    from zoomiqa.vocabulary import Flaw

    local = Sample("local", "gaussian_blur", Flaw.BLUR, 4, 2.0, "", (0.25, 0.125, 0.75, 0.5), 0.2, "ellipse", 9.0)
    for truth in (local, Sample("none")):
        for row in perception_rows("s", "s.png", truth, np.random.default_rng(0)):
            built = Trajectory.from_texts([row["answer"]], group="s", truth=Truth.of_task(row["truth"]))
            assert perception_reward([built]) == format_reward([built]) == [1.0], row


EDGES = st.tuples(*[st.floats(0, 1) for _ in range(4)]).filter(lambda e: e[0] != e[1] and e[2] != e[3])


@given(EDGES, EDGES)
def test_the_overlap_is_symmetric_and_bounded(first, second):
    one, two = ((min(e[0], e[1]), min(e[2], e[3]), max(e[0], e[1]), max(e[2], e[3])) for e in (first, second))
    if (one[2] - one[0]) * (one[3] - one[1]) + (two[2] - two[0]) * (two[3] - two[1]) == 0:
        return  # areas below the smallest float
    value = intersection_over_union(one, two)
    assert 0 <= value <= 1
    assert value == intersection_over_union(two, one)


def test_two_boxes_without_area_have_no_overlap_to_speak_of():
    with pytest.raises(OptionInvalid, match="area"):
        intersection_over_union((0, 0, 0, 0), (0.5, 0.5, 0.5, 0.5))


# --- thinking ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rating", "digit"), [(3.45, "4"), (1, "0"), (4.999, "0"), (2.95, "9"), (5, "0")])
def test_the_digit_that_is_watched(rating, digit):
    assert first_decimal(rating) == digit


def test_a_rating_off_the_scale_has_no_digit():
    with pytest.raises(OptionInvalid):
        first_decimal(5.5)


def test_probability_difference_is_held_between_0_and_1():
    assert probability_difference(0.75, 0.25) == 0.5
    assert probability_difference(0.25, 0.75) == 0.0
    assert probability_difference(None, 0.5) is None
    assert probability_difference(0.5, None) is None
    with pytest.raises(OptionInvalid, match="probabilities"):
        probability_difference(-0.2, 0.1)
    with pytest.raises(OptionInvalid, match="probabilities"):
        probability_difference(math.nan, 0.1)


def test_thinking_earns_in_proportion_to_the_rule_reward():
    rules, after, before = [2.0, 1.0, 0.0, None, 2.0], [0.9] * 4 + [None], [0.4] * 5
    earned = thinking_reward(rules, after, before, rule_maximum=2)
    assert earned == [pytest.approx(0.5), pytest.approx(0.25), 0.0, None, None]
    released = thinking_reward(rules, after, before, rule_maximum=2, share="full")
    assert released == [pytest.approx(0.5), 0.0, 0.0, None, None]
    with pytest.raises(OptionInvalid, match="share"):
        thinking_reward([], [], [], rule_maximum=2, share="half")
    with pytest.raises(OptionInvalid, match="maximum"):
        thinking_reward([], [], [], rule_maximum=0)


def test_negative_advantages_are_lifted_only_where_a_sample_is_fully_right():
    lifted = lift_advantages(
        [1.5, -0.5, -1.0, 0.7, -0.7], ["a", "a", "a", "b", "b"], [True, False, False, False, False]
    )
    assert lifted.tolist() == [1.5, 0.0, 0.0, 0.7, -0.7]
    with pytest.raises(OptionInvalid):
        lift_advantages([1.0], ["a", "a"], [True, False])


def test_fully_right_is_in_form_and_near():
    batch = [trajectory(3.4), trajectory(3.6), trajectory(None), trajectory(3.0, truth=None)]
    broken = Trajectory.from_texts([reply(3.4) + "!"], group=0, truth=Truth(rating=3.0))
    assert fully_right([*batch, broken]) == [True, False, False, False, False]


# --- total ------------------------------------------------------------------------------------------------------


def test_the_total_by_hand():
    parts = {"format": [1.0, 0.0, 1.0, None], "score": [0.5, 0.0, None, None], "rank": [0.25, 0.0, None, None]}
    assert total_reward(parts) == [2.0, 0.0, 1.0, None]
    assert total_reward({**parts, "thinking": [0.5, None, None, 0.5]}, {**PAPER_WEIGHTS, "thinking": 2}) == [3, 0, 1, 1]


@pytest.mark.parametrize(
    ("parts", "weights"),
    [
        ({"format": [1.0]}, PAPER_WEIGHTS),
        ({"format": [1.0], "rank": [1.0]}, {"format": 1}),
        ({"format": [1.0], "rank": [1.0, 2.0]}, {"format": 1, "rank": 1}),
        ({"format": [math.nan]}, {"format": 1}),
        ({"format": [1.0]}, {"format": math.inf}),
    ],
)
def test_sums_that_make_no_sense_are_refused(parts, weights):
    with pytest.raises(OptionInvalid):
        total_reward(parts, weights)


# --- all ---------------------------------------------------------------------------------------------------------


def test_labels_off_the_scale_are_refused():
    for truth in ({"rating": 71.0}, {"rating": math.nan}, {"attributes": {"noise": 0.0}}):
        with pytest.raises(OptionInvalid, match="in 1"):
            Truth(**truth)


def test_trajectories_are_frozen_and_whole():
    built = trajectory(3.0)
    with pytest.raises(FrozenInstanceError):
        built.rating = 4.0
    with pytest.raises(OptionInvalid):
        Trajectory((), (), None, 0)
    with pytest.raises(OptionInvalid):
        replace(built, rating=math.nan)
    assert think() in built.texts[0]


@pytest.mark.parametrize("name", [name for name in rewards.__all__ if name.endswith("_reward")])
def test_rewards_survive_pickling(name):
    """C8 81."""
    function = getattr(rewards, name)
    assert pickle.loads(pickle.dumps(function)) is function


def test_rewards_bring_no_torch():
    code = (
        "import sys, zoomiqa.rewards; print([n for n in ('torch', 'transformers', 'PIL', 'cv2') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
