"""Synthetic data: the truth is true, the same seed gives the same bytes, and every reply keeps the format."""

import json
import re
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from training.curation.trajectories import read_trajectories
from training.synthesis.command import gather_photos, main
from training.synthesis.masks import SHAPES, draw_mask
from training.synthesis.phrases import CONFUSED, EVIDENCE
from training.synthesis.samples import LEAST_CHANGE, Mix, Photo, draw_sample
from training.synthesis.teacher import MeasuredTeacher
from zoomiqa.assessors.compact.diagnosis import overlap
from zoomiqa.errors import OptionInvalid, ZoomIQAError
from zoomiqa.imaging.distortions import DISTORTIONS, box_of_mask
from zoomiqa.limits import LOCAL
from zoomiqa.protocol import parse_reply
from zoomiqa.vocabulary import TERMS, Flaw, find_flaws

COUNT = 24


def run(photos, out, *words, count=COUNT):
    return main([str(photos), "--out", str(out), "--count", str(count), "--seed", "5", "--side", "360", *words])


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture(scope="module")
def made(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("synthesis") / "set"
    assert run(photos, out) == 0
    return out


def test_masks_are_soft_inside_the_picture_and_of_every_shape():
    seen = Counter()
    for seed in range(60):
        mask, name = draw_mask((120, 180), np.random.default_rng(seed))
        seen[name] += 1
        assert mask.dtype == np.float32
        assert mask.min() == 0
        assert mask.max() == 1
        assert 0.02 < (mask >= 0.5).mean() < 0.35
        steps = max(np.abs(np.diff(mask, axis=axis)).max() for axis in (0, 1))
        assert steps < 0.75, "no hard border"
        x1, y1, x2, y2 = box_of_mask(mask)
        assert 0 <= x1 < x2 <= 1
        assert 0 <= y1 < y2 <= 1
    assert set(seen) == set(SHAPES)


def test_a_local_distortion_stays_under_its_mask_and_shows_there(made, photos):
    sources = {photo.sha256: photo for photo in gather_photos([str(photos)], LOCAL)}
    local = [record for record in lines(made / "samples.jsonl") if record["truth"]["scope"] == "local"]
    assert len(local) > COUNT // 3
    for record in local:
        mask = np.asarray(Image.open(made / record["mask"]))
        pixels = np.asarray(Image.open(made / record["image"]["path"]), int)
        clean = np.asarray(Image.open(sources[record["photo"]["sha256"]].path).convert("RGB"), int)
        assert mask.shape == pixels.shape[:2]
        assert np.abs(pixels - clean)[mask == 0].max() <= 1, "only what the mask's eight bits round away"
        assert np.abs(pixels - clean)[mask == 255].mean() > 0.5 * LEAST_CHANGE
        assert record["truth"]["change"] >= LEAST_CHANGE
        rows, columns = np.nonzero(mask >= 128)
        box = (columns.min() / mask.shape[1], rows.min() / mask.shape[0])
        assert record["truth"]["box_fraction"][:2] == pytest.approx(box, abs=0.01)


def test_untouched_pixels_are_the_photo_itself(photos):
    some = gather_photos([str(photos)], LOCAL)
    mix = Mix(side=300, local_share=1, clean_share=0)
    for index in range(8):
        sample = draw_sample(index, 9, some, mix)
        assert np.array_equal(sample.pixels[sample.mask == 0], sample.clean[sample.mask == 0])
        inside = sample.mask >= 0.5
        change = np.abs(sample.pixels.astype(int) - sample.clean)[inside].mean()
        assert change > 0.4 * sample.truth.change


def test_every_combination_comes_once_before_any_comes_again(photos):
    some = gather_photos([str(photos)], LOCAL)
    mix = Mix(side=128, local_share=0, clean_share=0, distortions=("jpeg", "haze", "gaussian_noise"))
    drawn = Counter()
    for index in range(30):
        truth = draw_sample(index, 2, some, mix).truth
        drawn[truth.distortion, truth.severity] += 1
    assert set(drawn.values()) == {2}
    assert len(drawn) == 15


def test_every_reply_is_strict_and_its_crop_is_where_the_truth_is(made):
    samples = {record["id"]: record for record in lines(made / "samples.jsonl")}
    looks = Counter()
    for record in read_trajectories(made / "trajectories.jsonl"):
        truth = samples[record["id"]]["truth"]
        looks[truth["scope"], len(record["rounds"])] += 1
        for look in record["rounds"]:
            parsed = parse_reply(look["text"], strict=True)
            assert parsed.rating == look["rating"]
            assert re.search(r'"rating": \d\.\d\d,', look["text"])
        first = record["rounds"][0]
        if len(record["rounds"]) == 2:
            assert first["tool"] == "crop"
            assert record["rounds"][1]["shown_box"] == first["box"]
            if truth["scope"] == "local":
                assert overlap(tuple(first["box_model"]), tuple(truth["box_fraction"])) > 0.95
    assert looks["local", 2] > looks["local", 1]
    assert looks["none", 1]
    assert looks["none", 2]


def test_directions_name_no_flaw_and_issues_only_those_of_the_truth(made):
    for record in lines(made / "samples.jsonl"):
        flaw = record["truth"]["flaw"]
        final = record["trajectory"]["rounds"][-1]["sections"]
        for look in record["trajectory"]["rounds"]:
            assert not find_flaws(look["sections"]["directions"]), look["sections"]["directions"]
        stated = {found for found, _ in find_flaws(final["issues"])}
        if flaw is None:
            assert not stated & {Flaw.BLUR, Flaw.NOISE, Flaw.BLOCKING}, "a refuted doubt must not stay"
        else:
            assert Flaw(flaw) in stated
            assert not stated & set(CONFUSED[Flaw(flaw)]), "what it could be taken for is no issue in the end"


def test_ratings_fall_with_the_strength_of_a_distortion(photos):
    teacher, one = MeasuredTeacher(), gather_photos([str(photos)], LOCAL)[:1]
    ratings = {"gaussian_blur": [], "jpeg": [], "gaussian_noise": []}
    for name, values in ratings.items():
        mix = Mix(side=300, local_share=0, clean_share=0, distortions=(name,))
        by_severity = {}
        for index in range(5):
            sample = draw_sample(index, 4, one, mix)
            rating = teacher.write(sample, np.random.default_rng(index)).ratings[-1]
            by_severity.setdefault(sample.truth.severity, []).append(rating)
        values += [np.mean(by_severity[severity]) for severity in sorted(by_severity)]
        assert max(values[2:]) < values[0] - 0.3, (name, values)  # from 3 on the regressor may be at its floor


def test_a_closer_look_moves_the_rating_as_it_says(made):
    cases = Counter()
    for record in read_trajectories(made / "trajectories.jsonl"):
        cases[record["case"]] += 1
        ratings = [look["rating"] for look in record["rounds"]]
        if record["case"] == "final":
            assert len(ratings) == 1
            continue
        move = ratings[1] - ratings[0]
        assert {"lowered": move <= -0.05, "raised": move >= 0.05, "kept": abs(move) < 0.051}[record["case"]]
        decision = record["rounds"][1]["sections"]["decision"]
        assert f"{ratings[0]:.2f}" in decision
        assert f"{ratings[1]:.2f}" in decision
    assert len(cases) >= 3


def test_the_words_vary(made):
    summaries = [
        record["rounds"][0]["sections"]["decision"] for record in read_trajectories(made / "trajectories.jsonl")
    ]
    shapes = {
        re.sub(r"\d\.\d\d|(?:upper|lower) (?:left|right)|left side|right side|top|bottom|centre", "#", text)
        for text in summaries
    }
    assert len(shapes) > COUNT // 3


def test_every_flaw_has_its_words():
    assert set(EVIDENCE) == set(CONFUSED) == set(Flaw)
    for flaw, ways in EVIDENCE.items():
        for way in ways:
            assert {found for found, _ in find_flaws(way)} <= {flaw}, way


def test_perception_tasks_have_true_answers(made):
    samples = {record["id"]: record for record in lines(made / "samples.jsonl")}
    tasks = Counter()
    for row in lines(made / "perception.jsonl"):
        record = samples[row["id"].rsplit("-", 1)[0]]
        truth = record["truth"]
        tasks[row["task"]] += 1
        assert (made / row["image"]).is_file()
        reply = re.fullmatch(r"<think>(.+)</think><answer>(.+)</answer>", row["answer"])
        answer = json.loads(reply[2])
        assert answer.items() <= row["truth"].items()
        if row["task"] == "name":
            assert answer == {"distortion": truth["flaw"] or "none"}
            assert f'"{answer["distortion"]}"' in row["question"]
        elif row["task"] == "severity":
            assert answer == {"severity": truth["severity"]}
        else:
            assert truth["scope"] == "local"
            assert overlap(tuple(answer["bbox_2d"]), tuple(truth["box_fraction"])) > 0.95
            assert TERMS[Flaw(truth["flaw"])].phrase in row["question"]
    scopes = Counter(record["truth"]["scope"] for record in samples.values())
    assert tasks == {"name": COUNT, "severity": scopes["local"] + scopes["global"], "where": scopes["local"]}


def test_the_same_seed_gives_the_same_bytes_wherever_it_is_cut(made, photos, tmp_path, capsys):
    elsewhere = tmp_path / "photos elsewhere"
    shutil.copytree(photos, elsewhere)
    out = tmp_path / "set"
    assert run(elsewhere, out, count=5) == 0
    journal = out / "samples.jsonl"
    journal.write_bytes(journal.read_bytes()[:-40])  # killed in the middle of a line
    assert run(elsewhere, out, "--resume") == 0
    assert contents(out) == contents(made)
    assert capsys.readouterr().out == ""


def test_another_seed_gives_other_pictures(photos):
    some = gather_photos([str(photos)], LOCAL)
    one, two = (draw_sample(0, seed, some, Mix(side=128, local_share=1, clean_share=0)) for seed in (1, 2))
    assert one.pixels.shape != two.pixels.shape or not np.array_equal(one.pixels, two.pixels)


def test_a_bad_photo_is_passed_over_and_no_photo_at_all_is_a_failure(photos, tmp_path, capsys):
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "a-broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    Image.new("RGB", (20, 20)).save(folder / "b-small.png")
    bad = tmp_path / "bad"
    shutil.copytree(folder, bad)
    shutil.copy(photos / "coffee.png", folder / "c.png")
    assert run(folder, tmp_path / "out", count=3) == 0
    assert run(bad, tmp_path / "none", count=2) == 1
    assert "2 failed" in capsys.readouterr().err
    records = lines(tmp_path / "none" / "samples.jsonl")
    assert {record["error"]["code"] for record in records} <= {"ZIQ-101", "ZIQ-104", "ZIQ-106"}
    assert (tmp_path / "none" / "perception.jsonl").read_text() == ""


def test_a_picture_in_which_nothing_can_show_is_a_failure(tmp_path):
    Image.new("RGB", (100, 100), (128, 128, 128)).save(tmp_path / "grey.png")
    photo = Photo(tmp_path / "grey.png", "grey.png", "0")
    with pytest.raises(ZoomIQAError, match="changes too little"):
        draw_sample(0, 1, [photo], Mix(local_share=1, clean_share=0, distortions=("gaussian_blur",)))


@pytest.mark.parametrize(
    "words",
    [["--side", "10"], ["--local-share", "1.5"], ["--clean-share", "-1"], ["--distortions", "rust"], ["--seed", "-1"]],
)
def test_wrong_options_are_refused_in_a_sentence(photos, tmp_path, words, capsys):
    assert run(photos, tmp_path / "out", *words) == 2
    said = capsys.readouterr().err
    assert "ZIQ-501" in said
    assert "Traceback" not in said


def test_other_settings_cannot_be_mixed_in(made, photos, capsys):
    assert run(photos, made, "--resume", "--format", "jpeg") == 2
    assert "ZIQ-301" in capsys.readouterr().err
    assert run(photos, made) == 2
    assert "ZIQ-601" in capsys.readouterr().err


def test_the_card_counts_what_is_there(made):
    card = json.loads((made / "card.json").read_text("utf-8"))
    assert card["samples"] == COUNT == sum(card["scopes"].values()) == sum(card["cases"].values())
    page = (made / "README.md").read_text("utf-8")
    for name in DISTORTIONS:
        assert f"| {name} |" in page


def test_mixes_are_checked():
    with pytest.raises(OptionInvalid):
        Mix(distortions=())


def test_every_answer_earns_the_whole_reward(made):
    from zoomiqa.rewards.perception import perception_reward
    from zoomiqa.rewards.trajectory import Trajectory, Truth

    for row in lines(made / "perception.jsonl"):
        trajectory = Trajectory.from_texts([row["answer"]], group=row["id"], truth=Truth.of_task(row["truth"]))
        assert perception_reward([trajectory]) == [1.0], row["id"]
