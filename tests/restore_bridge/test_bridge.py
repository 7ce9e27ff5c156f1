"""The pipeline: what is tried, what is kept, and why."""

import json
import math

import numpy as np
import pytest
from skimage import data

from restore_bridge.bridge import RestoreBridge
from restore_bridge.guidance import split_text
from restore_bridge.restorers import Capabilities, Restored
from restore_bridge.selection import FLAW_WEIGHT, standing
from restore_bridge.settings import STRENGTHS, BridgeSettings
from zoomiqa.assessors import ConversationalAssessor
from zoomiqa.backends import ScriptedBackend
from zoomiqa.errors import BackendFailed, ImageTooLarge, OptionInvalid
from zoomiqa.imaging import picture_from_array
from zoomiqa.limits import Limits
from zoomiqa.types import Assessment, Finding, Round, Sections
from zoomiqa.vocabulary import Flaw, Severity


def reply(rating, issues="Severe noise is visible across the whole frame."):
    return (
        f"<think>Image Quality Summary: S.\nDirections for Improvement: The picture would show clean surfaces.\n"
        f"Issues to Avoid: {issues}\nDecision & Rationale: R.</think>"
        f'<answer>{{"bbox_2d": [0, 0, 0, 0], "rating": {rating}, "tool": "final"}}</answer>'
    )


def judge(*ratings):
    return ConversationalAssessor(ScriptedBackend([item if isinstance(item, str) else reply(item) for item in ratings]))


class Brighten:
    """A restorer that adds what it is told, so that a test knows every pixel."""

    def __init__(self, steps=None, seeded=False, scales=(1, 2)):
        self.capabilities = Capabilities("brighten", "A test double.", True, False, scales=scales, seeded=seeded)
        self.settings, self.steps = [], steps

    def restore(self, picture, guidance, *, prompts=None, settings=None):
        self.settings.append(settings)
        if self.steps and isinstance(self.steps[len(self.settings) - 1], Exception):
            raise self.steps[len(self.settings) - 1]
        add = 10 * settings.strength if self.steps is None else self.steps[len(self.settings) - 1]
        if callable(add):
            return Restored(picture.with_pixels(add(picture.pixels)))
        values = np.clip(picture.pixels.astype(float) + add, 0, 255).astype(np.uint8)
        return Restored(picture.with_pixels(values), steps=({"operation": "lift", "amount": add, "because": "x"},))


@pytest.fixture(scope="module")
def photo():
    return picture_from_array(data.astronaut()[:160, :200])


def test_the_better_picture_is_kept(photo):
    restorer = Brighten()
    result = RestoreBridge(judge(2.0, 2.5, 3.1), restorer=restorer).run(photo)
    assert (result.kept, result.chosen) == ("restored", 1)
    assert [item.strength for item in restorer.settings] == [1.0, 0.6]
    assert result.after.rating == 3.1
    assert np.array_equal(result.picture.pixels, np.clip(photo.pixels.astype(float) + 6, 0, 255).astype(np.uint8))
    assert "rating 2.00 to 3.10" in result.reason


def test_the_original_is_kept_when_no_candidate_is_better(photo):
    result = RestoreBridge(judge(3.0, 2.5, 3.0), restorer=Brighten()).run(photo)
    assert (result.kept, result.chosen) == ("original", None)
    assert result.picture is photo
    assert "no candidate is better" in result.reason
    assert result.after.rating == 3.0, "the best one tried is on the record"
    assert [item.accepted for item in result.candidates] == [False, False]


def test_invented_content_is_refused_however_well_it_is_rated(photo):
    other = np.random.default_rng(0).integers(0, 256, photo.pixels.shape, np.uint8)
    restorer = Brighten(steps=[lambda _: other])
    result = RestoreBridge(judge(2.0, 5.0), BridgeSettings(candidates=1), restorer=restorer).run(photo)
    assert result.kept == "original"
    assert "strays too far from the input" in result.reason
    assert result.candidates[0].consistency < 0.5


def test_a_gain_can_be_demanded(photo):
    settings = BridgeSettings(candidates=1, min_gain=0.5)
    assert RestoreBridge(judge(2.0, 2.4), settings, restorer=Brighten()).run(photo).kept == "original"
    assert RestoreBridge(judge(2.0, 2.6), settings, restorer=Brighten()).run(photo).kept == "restored"


def test_a_failing_candidate_spares_the_others(photo):
    restorer = Brighten(steps=[BackendFailed("out of memory", None, "use tiles"), 8])
    result = RestoreBridge(judge(2.0, 3.0), restorer=restorer).run(photo)
    assert result.chosen == 1
    assert result.candidates[0].error["code"] == "ZIQ-401"
    alone = RestoreBridge(judge(2.0), BridgeSettings(candidates=1), restorer=Brighten(steps=[BackendFailed("no")])).run(
        photo
    )
    assert (alone.kept, alone.after) == ("original", None)
    assert "it failed" in alone.reason
    assert alone.error["code"] == "ZIQ-401", "a restoration that never came about is no success"


def test_whatever_a_restorer_raises_is_a_value(photo):
    result = RestoreBridge(judge(2.0, 3.0), restorer=Brighten(steps=[RuntimeError("boom"), 5])).run(photo)
    assert "RuntimeError" in result.candidates[0].error["message"]
    assert result.chosen == 1


def test_when_memory_runs_out_tiles_are_halved_once(photo):
    """C8 71: once, with a note; then it is a failure."""
    restorer = Brighten(steps=[MemoryError(), 8])
    result = RestoreBridge(judge(2.0, 3.0), BridgeSettings(candidates=1), restorer=restorer).run(photo)
    assert result.kept == "restored"
    assert [note.code for note in result.candidates[0].notes] == ["tiles-halved"]
    assert restorer.settings[1].tile_px == restorer.settings[0].tile_px // 2
    twice = Brighten(steps=[MemoryError(), MemoryError()])
    result = RestoreBridge(judge(2.0), BridgeSettings(candidates=1), restorer=twice).run(photo)
    assert "MemoryError" in result.error["message"]
    assert len(twice.settings) == 2


def test_alpha_comes_back(photo):
    """C8 72."""
    alpha = np.full(photo.pixels.shape[:2], 200, np.uint8)
    picture = picture_from_array(np.dstack([photo.pixels, alpha]))
    result = RestoreBridge(judge(2.0, 3.0), BridgeSettings(candidates=1), restorer=Brighten()).run(picture)
    assert result.kept == "restored"
    assert np.array_equal(result.picture.alpha, alpha)


def test_a_scale_the_restorer_lacks_is_refused_by_run_and_plan(photo):
    bridge = RestoreBridge(judge(2.0), BridgeSettings(scale=3), restorer=Brighten())
    for call in (bridge.run, bridge.plan):
        with pytest.raises(OptionInvalid, match="no scale 3"):
            call(photo)


def test_a_refuted_flaw_does_not_count_against_a_picture():
    finding = Finding(Flaw.BLUR, Severity.SEVERE, 0.8, "resolution", 0.2, 0.66)
    first = Round(0, "", Sections(), 3.0, "crop", findings=(finding,))
    assert standing(Assessment(rounds=(first, Round(1, "", Sections(), 3.0, "final")), rating=3.0)) == 3.0


def test_a_candidate_that_cannot_be_rated_is_not_kept(photo):
    result = RestoreBridge(judge(2.0, "no answer", 1.5), restorer=Brighten()).run(photo)
    assert result.kept == "original"
    assert result.candidates[0].reason == "it could not be rated"


def test_an_input_that_cannot_be_assessed_is_returned_with_the_error(photo):
    result = RestoreBridge(judge("no answer"), restorer=Brighten()).run(photo)
    assert result.picture is photo
    assert result.error["code"] == "ZIQ-201"
    assert result.candidates == ()


def test_nothing_to_do_is_tried_once(photo):
    restorer = Brighten(steps=[0, 0])
    result = RestoreBridge(judge(4.0), restorer=restorer).run(photo)
    assert len(restorer.settings) == 1
    assert "nothing to change" in result.reason


def test_restorers_that_draw_vary_the_seed_and_others_the_strength_only(photo):
    for seeded, seeds in ((True, [42, 43, 44, 45, 46]), (False, [42, 42, 42, 42])):
        restorer = Brighten(seeded=seeded)
        result = RestoreBridge(judge(*[2.0] * 6), BridgeSettings(candidates=5), restorer=restorer).run(photo)
        assert [item.seed for item in restorer.settings] == seeds
        assert [item.strength for item in restorer.settings] == [*STRENGTHS, STRENGTHS[0]][: len(seeds)]
        assert [note.code for note in result.notes if note.code == "seeds-left-out"] == ["seeds-left-out"] * (
            not seeded
        )


def test_the_input_is_never_changed(photo):
    before = photo.pixels.copy()
    RestoreBridge(judge(2.0, 3.0, 3.0), restorer=Brighten()).run(photo)
    assert np.array_equal(photo.pixels, before)


def test_a_result_too_large_is_refused_before_anything_is_tried(photo):
    """C8 4."""
    restorer = Brighten()
    bridge = RestoreBridge(
        judge(2.0), BridgeSettings(scale=2), restorer=restorer, limits=Limits(result_pixels=160 * 200 * 4 - 1)
    )
    with pytest.raises(ImageTooLarge, match="enlarged 2 times"):
        bridge.run(photo)
    assert restorer.settings == []


def test_standing_is_the_rating_less_the_stated_flaws():
    finding = Finding(Flaw.NOISE, Severity.SEVERE, 0.8, "noise_sigma", 20.0, 7.0)
    look = RestoreBridge(judge(3.0), restorer=Brighten())._assess(picture_from_array(np.zeros((8, 8, 3), np.uint8)))
    assert standing(look) == 3.0
    flawed = Assessment(
        rounds=(look.rounds[0].__class__(0, "", look.sections, 3.0, "final", findings=(finding,)),), rating=3.0
    )
    assert standing(flawed) == pytest.approx(3.0 - FLAW_WEIGHT * 0.8)
    with pytest.raises(OptionInvalid):
        standing(Assessment(rounds=(), rating=None))


def test_plan_says_what_would_be_done_without_doing_it(photo):
    restorer = Brighten()
    plan = RestoreBridge(judge(2.0), BridgeSettings(scale=2), restorer=restorer).plan(photo).to_dict()
    assert restorer.settings == []
    assert plan["result_size"] == [400, 320]
    assert [action["operation"] for action in plan["actions"]] == ["denoise"]
    assert "severe noise" in plan["prompts"]["negative"]


def test_given_guidance_takes_the_place_of_the_assessments_in_the_first_round(photo):
    restorer = Brighten()
    settings = BridgeSettings(candidates=1, loop=2, prompt="golden light")
    replies = [reply(2.0), reply(3.0, "Severe blur across the whole frame."), reply(2.5)]
    given = split_text(None, "Severe banding across the whole frame.")
    bridge = RestoreBridge(judge(*replies), settings, restorer=restorer)
    result = bridge.run(photo, guidance=given)
    first, second = result.rounds
    assert first.guidance is given
    assert "banding" in first.prompts.negative
    assert "noise" not in first.prompts.negative
    assert "golden light" not in first.prompts.positive
    assert "blur" in second.prompts.negative
    assert "banding" not in second.prompts.negative
    assert "golden light" in second.prompts.positive
    assert result.before.rating == 2.0, "the picture is assessed all the same"


def test_a_plan_under_given_guidance_asks_nobody(photo):
    given = split_text(None, "Severe banding across the whole frame.")
    plan = RestoreBridge(judge(), restorer=Brighten()).plan(photo, guidance=given)
    assert plan.guidance is given
    assert "banding" in plan.prompts.negative


def test_the_record_is_json(photo):
    record = RestoreBridge(judge(2.0, 3.0, 2.5), restorer=Brighten()).run(photo).to_dict()
    again = json.loads(json.dumps(record, allow_nan=False))
    assert again["candidates"][0]["steps"][0]["operation"] == "lift"
    assert again["settings"]["seed"] == 42


@pytest.mark.parametrize(
    "change",
    [
        {"candidates": 0},
        {"candidates": 17},
        {"strength": 0},
        {"strength": 1.5},
        {"scale": 0},
        {"scale": 5},
        {"color_fix": "x"},
        {"seeds": ()},
        {"seeds": (1, 1)},
        {"seeds": (-1,)},
        {"seed": 2**32},
        {"strengths": (0.5, 0.0)},
        {"strengths": (1.2,)},
        {"seeds": tuple(range(6)), "strengths": (1.0, 0.5, 0.25)},
        {"loop": 0},
        {"loop": 9},
        {"max_change": -1},
        {"max_change": math.nan},
        {"min_gain": math.nan},
        {"min_gain": math.inf},
        {"min_consistency": math.nan},
        {"min_consistency": 5},
    ],
)
def test_bad_settings_are_refused(change):
    with pytest.raises(OptionInvalid):
        BridgeSettings(**change)
