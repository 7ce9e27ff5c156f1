"""Closing the loop: which candidates are tried, what a round goes on from, when it ends, and what is never rewarded."""

import json

import numpy as np
import pytest
from skimage import data

from restore_bridge.bridge import RestoreBridge
from restore_bridge.cli import build_parser, main
from restore_bridge.guidance import split_text
from restore_bridge.report import write_report
from restore_bridge.restorers import Capabilities, Restored, RestoreSettings
from restore_bridge.scoring import unasked_change
from restore_bridge.selection import Candidate, asked_places, choose
from restore_bridge.settings import BridgeSettings, plan_trials
from tests.restore_bridge.test_bridge import Brighten, judge, reply
from zoomiqa.assessors import ConversationalAssessor
from zoomiqa.backends import Capabilities as BackendCapabilities
from zoomiqa.errors import BackendFailed, RecordCorrupt
from zoomiqa.imaging import open_picture, picture_from_array, save_picture
from zoomiqa.imaging.distortions import distort
from zoomiqa.types import Assessment, Reply

DARK = "Severe underexposure across the whole frame."


@pytest.fixture(scope="module")
def photo():
    return picture_from_array(data.astronaut()[:160, :200] // 2)


class Adder(Brighten):
    """Adds a level per 10 of strength, and keeps what it was given."""

    def __init__(self, steps=None, **capabilities):
        super().__init__(steps, **capabilities)
        self.given, self.prompts = [], []

    def restore(self, picture, guidance, *, prompts=None, settings=None):
        self.given.append(picture)
        self.prompts.append(prompts)
        return super().restore(picture, guidance, prompts=prompts, settings=settings)


def run(photo, ratings, restorer, **settings):
    return RestoreBridge(judge(*ratings), BridgeSettings(**settings), restorer=restorer).run(photo)


def test_each_round_goes_on_from_the_best_picture_and_the_loop_ends_when_nothing_is_better(photo):
    restorer = Adder()
    result = run(photo, [2.0, 2.5, 3.0, 3.6, 3.1, 3.5, 3.2], restorer, loop=5)
    assert [one.start for one in result.rounds] == [None, 1, 2]
    assert [one.chosen for one in result.rounds] == [1, 2, None]
    assert [item.index for item in result.candidates] == [0, 1, 2, 3, 4, 5]
    first_best = np.clip(photo.pixels.astype(int) + 6, 0, 255)
    assert np.array_equal(restorer.given[2].pixels, first_best)
    assert np.array_equal(restorer.given[4].pixels, np.clip(first_best + 10, 0, 255))
    assert (result.kept, result.chosen, result.after.rating) == ("restored", 2, 3.6)
    assert np.array_equal(result.picture.pixels, restorer.given[4].pixels), "the last round is rolled back"
    assert "rating 2.00 to 3.60" in result.reason
    assert "after 2 rounds" in result.reason
    assert "no candidate is better" in result.rounds[2].reason


def test_no_more_rounds_than_asked_for(photo):
    restorer = Adder()
    result = run(photo, [2.0, 2.5, 3.0, 3.5], restorer, loop=2, candidates=1)
    assert len(restorer.given) == len(result.rounds) == 2
    assert result.chosen == 1


def test_one_round_is_the_default_and_an_original_that_stands_is_never_gone_on_from(photo):
    restorer = Adder()
    result = run(photo, [3.0, 2.5, 2.9], restorer, loop=4)
    assert (result.kept, len(result.rounds)) == ("original", 1)
    assert result.picture is photo
    assert BridgeSettings().loop == 1


def test_guidance_of_a_later_round_comes_from_the_new_assessment(photo):
    restorer = Adder()
    replies = [reply(2.0), reply(3.0, "Severe blur across the whole frame."), reply(2.5)]
    result = run(photo, replies, restorer, loop=2, candidates=1)
    assert "noise" in restorer.prompts[0].negative
    assert "noise" not in restorer.prompts[1].negative
    assert "blur" in restorer.prompts[1].negative
    record = result.to_dict()
    assert [one["prompts"]["negative"] for one in record["rounds"]] == [one.negative for one in restorer.prompts]


def test_small_changes_that_nobody_asked_for_do_not_add_up(photo):
    """Each step is within the limit, their sum is not: the limit is against the input, not the last picture."""
    result = run(photo, [2.0, 3.0, 4.0], Adder(steps=[30, 30]), loop=2, candidates=1)
    assert [item.change for item in result.candidates] == [pytest.approx(30, abs=1), pytest.approx(60, abs=1)]
    assert result.chosen == 0
    assert "did not ask to change" in result.candidates[1].reason


def test_what_an_earlier_round_was_asked_to_change_stays_allowed(photo):
    replies = [reply(2.0, DARK), reply(3.0), reply(4.0)]
    result = run(photo, replies, Adder(steps=[60, 8]), loop=2, candidates=1)
    assert [item.change for item in result.candidates] == [None, None]
    assert result.chosen == 1


def test_a_small_invention_loses_although_its_structure_mostly_agrees(photo):
    def paste(pixels):
        changed = pixels.copy()
        changed[60:86, 80:106] = 255 - pixels[60:86, 80:106]
        return changed

    result = run(photo, [2.0, 5.0], Adder(steps=[paste]), candidates=1)
    assert result.candidates[0].consistency > 0.8
    assert result.candidates[0].change > 40
    assert result.kept == "original"


def test_a_change_of_tone_is_allowed_where_it_was_asked_for_only(photo):
    half = split_text(None, "Severe underexposure on the left side.")
    (place,) = asked_places(half)
    lifted = photo.pixels.copy()
    lifted[40:120, :80] += 60
    assert unasked_change(lifted, photo.pixels, (place,)) == 0
    assert unasked_change(lifted, photo.pixels) == pytest.approx(60, abs=0.5)
    assert unasked_change(lifted, photo.pixels, [(0.0, 0.0, 1.0, 1.0)]) is None
    assert asked_places(split_text(None, "Severe noise on the left side.")) == ()
    assert asked_places(split_text(None, None)) == (), "defaults ask for nothing"


def test_change_is_blind_to_noise_and_size(photo):
    noisy = np.clip(photo.pixels + np.random.default_rng(0).normal(0, 15, photo.pixels.shape), 0, 255).astype(np.uint8)
    assert unasked_change(noisy, photo.pixels) < 6
    assert unasked_change(photo.pixels.repeat(2, 0).repeat(2, 1), photo.pixels) < 1
    assert unasked_change(photo.pixels[:3, :2], photo.pixels[:3, :2]) == 0


def test_a_failing_later_round_leaves_the_best_picture(photo):
    restorer = Adder(steps=[8, BackendFailed("no"), RuntimeError("boom")])
    result = run(photo, [2.0, 3.0], restorer, loop=3, seeds=(7,), strengths=(1.0,))
    assert (result.kept, result.chosen, result.error) == ("restored", 0, None)
    assert result.candidates[1].error["code"] == "ZIQ-401"
    assert len(result.rounds) == 2, "a round without a picture ends the loop"


def test_memory_is_halved_in_every_round_anew(photo):
    restorer = Adder(steps=[8, MemoryError(), 8])
    result = run(photo, [2.0, 3.0, 4.0], restorer, loop=2, candidates=1)
    assert result.chosen == 1
    assert [[note.code for note in item.notes] for item in result.candidates] == [[], ["tiles-halved"]]


class Doubler(Adder):
    def restore(self, picture, guidance, *, prompts=None, settings=None):
        done = super().restore(picture, guidance, prompts=prompts, settings=settings)
        enlarged = done.picture.pixels.repeat(settings.scale, 0).repeat(settings.scale, 1)
        return Restored(picture.with_pixels(enlarged))


def test_a_picture_is_enlarged_once(photo):
    restorer = Doubler()
    result = run(photo, [2.0, 3.0, 4.0], restorer, loop=2, candidates=1, scale=2)
    assert [item.scale for item in restorer.settings] == [2, 1]
    assert result.chosen == 1
    assert result.picture.size == (400, 320)


def test_a_restorer_that_can_only_enlarge_ends_the_loop_with_a_reason(photo):
    result = run(photo, [2.0, 3.0], Doubler(scales=(2,)), loop=3, candidates=1, scale=2)
    assert (result.chosen, len(result.rounds)) == (0, 2)
    assert "no scale 1" in result.rounds[1].reason


def test_the_prepass_runs_once_and_holds_the_colour_in_every_round(photo):
    class Count:
        name, calls = "count", 0

        def clean(self, picture):
            Count.calls += 1
            return picture

    restorer = Adder(steps=[20, 20])
    settings = BridgeSettings(loop=2, candidates=1, color_fix="adain")
    result = RestoreBridge(judge(2.0, 3.0, 4.0), settings, restorer=restorer, prepass=Count()).run(photo)
    assert Count.calls == 1
    means = result.picture.pixels.mean(axis=(0, 1)) - photo.pixels.mean(axis=(0, 1))
    assert np.abs(means).max() <= 1


def test_the_same_settings_give_the_same_record(photo):
    records = [run(photo, [2.0, 2.5, 3.0, 3.4, 3.3], Adder(), loop=2).to_dict() for _ in range(2)]
    assert records[0] == records[1]
    assert json.loads(json.dumps(records[0], allow_nan=False))["schema_version"] == "2.0"


@pytest.mark.parametrize(
    ("settings", "seeded", "expected"),
    [
        ({"seeds": (3, 1)}, True, [(3, 1.0), (1, 1.0)]),
        ({"seeds": (3, 1), "strengths": (1.0, 0.5)}, True, [(3, 1.0), (3, 0.5), (1, 1.0), (1, 0.5)]),
        ({"strengths": (0.5, 1.0), "candidates": 2, "seed": 5}, True, [(5, 0.5), (5, 1.0), (6, 0.5), (6, 1.0)]),
        ({"candidates": 2, "strength": 0.5}, True, [(42, 0.5), (43, 0.3)]),
        ({"seeds": (3, 1), "strengths": (1.0, 0.5)}, False, [(3, 1.0), (3, 0.5)]),
        ({"seeds": (3, 1, 4)}, False, [(3, 1.0)]),
        ({"candidates": 9}, False, [(42, 1.0), (42, 0.6), (42, 0.35), (42, 0.8)]),
    ],
)
def test_every_seed_is_tried_with_every_strength_and_none_for_nothing(settings, seeded, expected):
    wanted = BridgeSettings(**settings)
    trials, notes = plan_trials(wanted, Capabilities("x", "A test double.", True, False, seeded=seeded))
    assert [(trial.seed, trial.strength) for trial in trials] == expected
    asked = len(wanted.seeds or range(wanted.candidates)) * len(wanted.strengths or (1,))
    assert bool(notes) == (len(expected) < asked)
    assert all("whatever the seed" in note.message for note in notes)


def test_of_equals_the_first_is_chosen_and_only_what_was_made_counts(photo):
    def candidate(index, rating, **changes):
        made = {"assessment": Assessment((), rating), "consistency": 1.0, "change": 0.0, "picture": photo}
        return Candidate(index, 0, 1.0, **{**made, **changes})

    start = Assessment((), 2.0)
    tried = [candidate(0, 2.0), candidate(1, 3.0), candidate(2, 3.0), candidate(3, 5.0, picture=None, reason="why")]
    judged, best = choose(start, tried)
    assert best.index == 1
    assert [item.accepted for item in judged] == [False, True, True, False]
    assert judged[3].reason == "why"
    assert choose(start, tried, min_gain=1.0)[1] is None
    assert choose(start, [candidate(0, 5.0, consistency=0.79)])[1] is None
    assert choose(start, [candidate(0, 5.0, change=40.5)])[1] is None
    assert choose(start, [candidate(0, 5.0, change=40.5)], max_change=41)[1].index == 0
    assert choose(start, [])[1] is None
    assert choose(start, [candidate(0, 2.04)])[1].index == 0
    assert choose(start, [candidate(0, 2.04, round_index=1)])[1] is None, "a later round must gain more than a trifle"
    assert choose(start, [candidate(0, 2.06, round_index=1)])[1].index == 0


def test_the_command_loops_and_its_report_shows_every_round(tmp_path, capsys):
    spoiled = distort(np.ascontiguousarray(data.astronaut()[60:220, 120:320]), "gaussian_noise", 4, seed=3).pixels
    save_picture(distort(spoiled, "low_light", 3, seed=1).pixels, tmp_path / "a.png")
    command = ["run", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--loop", "3", "--strengths", "1,0.6"]
    assert main([*command, "--seeds", "0,1"]) == 0
    (record,) = map(json.loads, (tmp_path / "out/records.jsonl").read_text().splitlines())
    assert record["kept"] == "restored"
    assert len(record["rounds"]) > 1
    assert record["settings"]["seeds"] == [0, 1]
    assert [note["code"] for note in record["notes"]].count("seeds-left-out") == 1
    assert {item["seed"] for item in record["candidates"]} == {0}
    standings = [record["standing"]["before"]]
    standings += [
        record["candidates"][one["chosen"]]["standing"] for one in record["rounds"] if one["chosen"] is not None
    ]
    assert standings == sorted(standings)
    assert record["standing"]["after"] == standings[-1]
    page = (tmp_path / "out/report.html").read_text()
    assert "Round 2, from candidate" in page
    assert open_picture(tmp_path / "out/pictures/a.png").size == (200, 160)
    assert main([*command, "--seeds", "0,2"]) == 2
    assert "seeds" in capsys.readouterr().err
    assert main(["plan", str(tmp_path / "a.png"), "--seeds", "0,1", "--strengths", "1,0.6", "--loop", "2"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["candidates"] == [{"seed": 0, "strength": 1.0}, {"seed": 0, "strength": 0.6}]
    assert plan["loop"] == 2
    record["schema_version"] = "1.0"
    with pytest.raises(RecordCorrupt, match="run the pictures again"):
        write_report([record], tmp_path / "r.html")


def test_the_command_s_defaults_are_the_settings_own():
    arguments = build_parser().parse_args(["run", "x.png", "--out", "out"])
    for name, value in BridgeSettings().to_dict().items():
        assert getattr(arguments, name, value) == value


def test_lists_that_are_no_numbers_are_refused(tmp_path, capsys):
    for option, value in (("--seeds", "1,b"), ("--strengths", "high"), ("--seeds", "")):
        with pytest.raises(SystemExit):
            main(["run", "x.png", "--out", str(tmp_path), option, value])
        assert "no list of" in capsys.readouterr().err
    assert main(["run", "x.png", "--out", str(tmp_path), "--strengths", "nan"]) == 2
    assert "ZIQ-501" in capsys.readouterr().err


class Painter:
    """A restorer that invents detail: it tints the whole picture and adds a little grain by its seed."""

    capabilities = Capabilities("painter", "A test double.", text_guided=True, tiled=False, generative=True)

    def __init__(self, log):
        self.log = log

    def restore(self, picture, guidance, *, prompts=None, settings=None):
        self.log.append("restore")
        tinted = picture.pixels + np.array([30, 0, -30])
        grain = np.random.default_rng((settings or RestoreSettings()).seed).integers(-3, 4, tinted.shape)
        return Restored(picture.with_pixels(np.clip(tinted + grain, 0, 255).astype(np.uint8)))

    def unload(self):
        self.log.append("restorer gives way")


class Model:
    """A backend that lies in memory."""

    capabilities = BackendCapabilities("model", "1", "A test double.")

    def __init__(self, log, issues="noise in the sky"):
        self.log, self.issues = log, issues

    def generate(self, requests):
        self.log.append("assess")
        answer = '<answer>{"bbox_2d": [0, 0, 0, 0], "rating": 3.00, "tool": "final"}</answer>'
        text = f"<think>Directions for Improvement: Clean sky.\nIssues to Avoid: {self.issues}.</think>{answer}"
        return [Reply(text) for _ in requests]

    def unload(self):
        self.log.append("assessor gives way")


@pytest.fixture
def middle_grey():
    return picture_from_array(np.random.default_rng(1).integers(90, 160, (48, 64, 3), np.uint8))


def test_two_models_of_one_machine_change_places_once_a_round(middle_grey):
    log = []
    settings = BridgeSettings(seeds=(1, 2))
    RestoreBridge(ConversationalAssessor(Model(log)), settings, restorer=Painter(log)).run(middle_grey)
    assert log[:3] == ["assess", "assessor gives way", "assessor gives way"], "before the pre-pass, and the restorer"
    assert log[3:] == ["restore", "restore", "restorer gives way", "assess", "assess"]


@pytest.mark.parametrize("kept", [True, False])
def test_models_stay_where_that_is_wanted_or_nothing_competes(middle_grey, kept):
    log = []
    backend = Model(log)
    if not kept:
        backend.unload = None  # the embedded assessor holds no model
    settings = BridgeSettings(seeds=(1,), keep_loaded=kept)
    RestoreBridge(ConversationalAssessor(backend), settings, restorer=Painter(log)).run(middle_grey)
    assert log == ["assess", "restore", "assess"]


@pytest.mark.parametrize(("issues", "held"), [("noise in the sky", True), ("underexposed, dark sky", False)])
def test_colour_is_held_unless_a_change_of_tone_is_asked_for(middle_grey, issues, held):
    settings = BridgeSettings(seeds=(1,))
    bridge = RestoreBridge(ConversationalAssessor(Model([], issues)), settings, restorer=Painter([]))
    candidate = bridge.run(middle_grey).rounds[0].candidates[0]
    shift = candidate.picture.pixels.mean((0, 1)) - middle_grey.pixels.mean((0, 1))
    assert (abs(shift) < 2).all() == held
    assert ("color-held" in {note.code for note in candidate.notes}) == held
