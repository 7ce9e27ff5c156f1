"""Curation: every row stays, planted bad ones are dropped, planted good ones are kept, and the page is harmless."""

import json
import math
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.backends.fake_server import FakeServer
from tests.tiny_vlm import forced_backend
from training.curation import reliance
from training.curation.build import training_rows
from training.curation.command import main
from training.curation.consistency import hints_of, parse_verdict, rate, tell
from training.curation.filtering import decide_all, text_only, with_picture
from training.curation.generate import generate
from training.curation.pace import PacedBackend
from training.curation.reliance import (
    Answer,
    LogProbabilities,
    SampledAgreement,
    Thresholds,
    decide,
    mean_overlap,
    rationale_of,
    read_answer,
)
from training.curation.report import render, summarize
from training.curation.trajectories import (
    Decision,
    PictureFolder,
    is_kept,
    read_trajectories,
    replay,
    trajectory_record,
    with_decision,
)
from training.curation.words import load_words, teacher_prompts
from zoomiqa.backends import ScriptedBackend
from zoomiqa.errors import BackendFailed, OptionInvalid, RecordCorrupt, ReplyUnusable
from zoomiqa.evaluation import load_annotations
from zoomiqa.imaging import open_picture
from zoomiqa.imaging.signals import hints
from zoomiqa.protocol import default_prompts, parse_reply
from zoomiqa.types import ImagePart, Reply, Sampling

ROOT = Path(__file__).resolve().parents[2]
CROP = "[0.1, 0.2, 0.7, 0.9]"
NAMES = ("Image Quality Summary", "Directions for Improvement", "Issues to Avoid", "Decision & Rationale")
LATER = ("Crop Inspection Summary", *NAMES[1:3], "Final Decision & Rationale")


def reply(rating, box="[0, 0, 0, 0]", tool="final", *, later=False, summary="Sharp and well lit. Good."):
    texts = (summary, "The cup shines in the centre.", "Faint noise at the top.", "I am sure enough.")
    rationale = "\n".join(f"{name}: {text}" for name, text in zip(LATER if later else NAMES, texts, strict=True))
    answer = f'{{"bbox_2d": {box}, "rating": {rating:.2f}, "tool": "{tool}"}}'
    return f"<think>\n{rationale}\n</think>\n<answer>{answer}</answer>"


def teach(request):
    """A teacher that looks twice."""
    return reply(3.2, later=True) if request.round_index else reply(3.6, CROP, "crop")


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def labelled(photos, tmp_path_factory):
    """An annotation file for the small photographs."""
    names = sorted(path.name for path in photos.iterdir())
    rows = [
        {"id": f"p{number}", "image": name, "gt_score": 2.0 + number / 4, "attributes": {"artefacts": 0.1}}
        for number, name in enumerate(names)
    ]
    file = tmp_path_factory.mktemp("labels") / "koniq.json"
    file.write_text(json.dumps(rows))
    return file


def taught(labelled, photos, backend, **options):
    annotations = load_annotations(labelled, photos)
    words = load_words("teacher-1")
    return list(generate(backend, annotations, photos, prompts=default_prompts(), words=words, **options))


@pytest.fixture(scope="module")
def records(labelled, photos):
    """Six trajectories of two looks."""
    return taught(labelled, photos, ScriptedBackend(teach))


@pytest.mark.parametrize("name", ["curation", "synthesis"])
def test_it_runs_from_another_package_as_in_a_wheel(tmp_path, name):
    inside = tmp_path / "elsewhere"
    shutil.copytree(ROOT / "training", inside / "training", ignore=shutil.ignore_patterns("__pycache__"))
    (inside / "__init__.py").touch()
    blocked = "import sys; sys.modules['training'] = None; sys.argv[0] = 'x'; "
    code = f"{blocked}import runpy; runpy.run_module('elsewhere.training.{name}', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"python -m elsewhere.training.{name}" in done.stdout


# ---- words
def test_the_worked_cases_are_strict_replies_that_move_as_they_are_called():
    moves = {}
    for case in load_words("teacher-1").content["cases"]:
        parsed = parse_reply(case["reply"].strip(), strict=True)
        assert parsed.tool == "final"
        first = float(re.search(r"gave (\d\.\d\d)", case["situation"])[1])
        assert f"{first:.2f}" in parsed.sections.decision
        moves[case["name"]] = parsed.rating - first
    assert set(moves) == {"downgrade", "upgrade", "confirm"}
    assert moves["downgrade"] < -0.1
    assert moves["upgrade"] > 0.1
    assert moves["confirm"] == 0


def test_what_is_filled_in_is_not_filled_again_and_closes_no_tag():
    text = load_words("rater-1").fill("text", hints="{description}", description="X")
    assert text.count("{description}") == 1
    assert text.count("X\n</description>") == 1


def test_every_file_of_words_has_a_hash_of_its_own():
    digests = {load_words(name).digest for name in ("teacher-1", "reliance-1", "rater-1")}
    assert len(digests) == 3


# ---- generate
def test_a_teacher_sees_the_cases_and_the_rows_do_not(labelled, photos):
    backend = ScriptedBackend(teach)
    made = taught(labelled, photos, backend)
    second = [request for request in backend.requests if request.round_index == 1]
    assert len(second) == len(made) == 6
    for request in second:
        asked = request.messages[-1].text
        for name in ("downgrade", "upgrade", "confirm"):
            assert f"Case ({name})" in asked
        assert sum(isinstance(part, ImagePart) for part in request.messages[-1].parts) == 2
    for record in made:
        assert is_kept(record)
        for row in training_rows(record, default_prompts()):
            assert "Case (" not in json.dumps(row["messages"])
    assert made[0]["assessor"]["prompt_set"] == "zoomiqa-1+teacher-1"
    assert made[0]["assessor"]["prompt_hash"] != default_prompts().digest


def test_people_s_score_is_told_only_where_it_is_asked_for(labelled, photos):
    for tell_mos in (False, True):
        backend = ScriptedBackend(teach)
        made = taught(labelled, photos, backend, tell_mos=tell_mos)
        for record in made:
            mos = f"{record['evaluation']['ground_truth']:.2f}"
            asked = [
                request for request in backend.requests if request.picture.info.sha256 == record["image"]["sha256"]
            ]
            assert all(
                (f"people gave this photograph {mos}" in request.messages[0].text) == tell_mos for request in asked
            )
            assert "people gave" not in record["question"]
            assert "people gave" not in json.dumps(training_rows(record, default_prompts()))


def test_questions_vary_and_paths_are_relative(records, photos):
    assert len({record["question"] for record in records}) > 1
    for record in records:
        assert (photos / record["image"]["path"]).is_file()
        assert record["evaluation"]["dataset"] == "koniq"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (reply(3).replace("</think>", ""), "format"),
        (reply(3).replace("Issues to Avoid: ", ""), "format"),
        ("I would say 3 out of 5.", "format"),
        ("no number", "format"),
    ],
)
def test_a_broken_form_is_dropped_with_its_text(labelled, photos, text, reason):
    made = taught(labelled, photos, ScriptedBackend(lambda request: text))
    assert [record["curation"][0]["reasons"] for record in made] == [[reason]] * 6
    assert all(record["rounds"][0]["text"] == text for record in made)


def test_a_last_look_that_asks_for_another_is_dropped(labelled, photos):
    backend = ScriptedBackend(lambda request: reply(3, CROP, "crop", later=bool(request.round_index)))
    assert {record["curation"][0]["reasons"][0] for record in taught(labelled, photos, backend)} == {"undecided"}


def test_failures_are_values_and_are_no_judgement(labelled, photos, tmp_path):
    def answer(request):
        if request.picture.width > request.picture.height * 1.4:
            raise BackendFailed("no", None, "")
        return teach(request)

    made = taught(labelled, photos, ScriptedBackend(answer))
    verdicts = [record["curation"][0]["verdict"] for record in made]
    assert set(verdicts) == {"keep", "failed"}
    assert all(record["rating"] is None for record in made if not is_kept(record))


# ---- the rate
def test_requests_begin_no_more_often_than_allowed(records, photos):
    now = [100.0]
    began = []

    def sleep(seconds):
        now[0] += seconds

    def answer(request):
        began.append(now[0])
        now[0] += 0.2
        return "x"

    backend = PacedBackend(ScriptedBackend(answer, batch_size=1), 60, clock=lambda: now[0], sleep=sleep)
    request = text_only("How are you?", Sampling())
    replies = backend.generate([request] * 5)
    assert [each.text for each in replies] == ["x"] * 5
    assert backend.capabilities.name == "scripted"
    waits = []
    now[0], pace = 0.0, PacedBackend(ScriptedBackend([]), 120, clock=lambda: now[0], sleep=sleep)
    for _ in range(4):
        pace.wait()
        waits.append(now[0])
    assert waits == [0.0, 0.5, 1.0, 1.5]
    with pytest.raises(OptionInvalid):
        PacedBackend(ScriptedBackend([]), 0)


# ---- text-only requests
def test_a_text_only_request_holds_no_picture(tiny_vlm):
    pytest.importorskip("httpx2")
    from zoomiqa.backends.openai import OpenAIBackend

    request = text_only("Rate it.", Sampling(temperature=0, max_new_tokens=8))
    assert request.picture.size == (1, 1)
    assert not any(isinstance(part, ImagePart) for message in request.messages for part in message.parts)
    assert ScriptedBackend(["fine"]).generate([request])[0].text == "fine"
    with FakeServer(lambda seen, number: "fine") as server:
        assert OpenAIBackend("any", base_url=server.url).generate([request])[0].text == "fine"
        assert "image_url" not in json.dumps(server.seen[0].body)
    backend = forced_backend(tiny_vlm, lambda request: "fine")
    row = backend.prepare(0, request)
    assert not any("pixel" in name or "image" in name for name in row.inputs)
    assert backend.generate([request])[0].text == "fine"


# ---- visual reliance
def test_both_conditions_ask_the_same_words(records, photos):
    backend = ScriptedBackend(lambda request: '<answer>{"bbox_2d": [0,0,0,0], "rating": 3.0, "tool": "final"}</answer>')
    words, reading = load_words("reliance-1"), SampledAgreement(2)
    talk = lambda record, picture: reliance.compare(record, picture, reading, words, Thresholds())  # noqa: E731
    list(decide_all(backend, records[:1], PictureFolder(photos), reliance.STEP, talk))
    shown = [request for request in backend.requests if request.picture.size != (1, 1)]
    blind = [request for request in backend.requests if request.picture.size == (1, 1)]
    assert len(shown) == len(blind) == 2
    assert {request.messages[0].text for request in shown} == {request.messages[0].text for request in blind}
    for request in blind:
        assert all(not isinstance(part, ImagePart) for message in request.messages for part in message.parts)
    assert len({request.sampling.seed for request in shown}) == 2
    text = blind[0].messages[0].text
    assert "Sharp and well lit" in text
    assert "I am sure enough" not in text, "the decision states the answer"


def test_a_rationale_can_be_read_whole(records):
    assert "I am sure enough" in rationale_of(records[0], full=True)
    assert "3.6" not in rationale_of(records[0], full=True)
    with pytest.raises(ReplyUnusable):
        rationale_of({"id": "x", "rounds": [{"sections": {}}]}, full=True)


BOX, FAR = (0.1, 0.1, 0.5, 0.5), (0.6, 0.6, 0.9, 0.9)


@pytest.mark.parametrize(
    ("seen", "blind", "combine", "reasons"),
    [
        (Answer(3.0, (BOX,), 0.5), Answer(3.5, (FAR,), 0.9), "any", []),
        (Answer(3.0, (BOX,), 0.5), Answer(3.04, (FAR,), 0.9), "any", ["rating-alike"]),
        (Answer(3.0, (BOX,), 0.5), Answer(3.06, (FAR,), 0.9), "any", []),
        (Answer(3.0, (BOX,), 0.5), Answer(4.0, (BOX,), 0.9), "any", ["box-alike"]),
        (Answer(3.0, (BOX,), 0.5), Answer(4.0, (FAR,), 0.505), "any", ["entropy-alike"]),
        (Answer(3.0, (BOX,), 0.5), Answer(3.0, (FAR,), 0.5), "all", []),
        (Answer(3.0, (BOX,), 0.5), Answer(3.0, (BOX,), 0.5), "all", ["rating-alike", "box-alike", "entropy-alike"]),
        (Answer(3.0, (None,), 0.5), Answer(3.0, (None,), 0.5), "all", ["rating-alike", "entropy-alike"]),
        (Answer(3.0, (BOX,), 0.5), Answer(3.5, (None,), 0.9), "any", []),
    ],
)
def test_the_thresholds_of_the_paper_decide(seen, blind, combine, reasons):
    decision = decide(seen, blind, Thresholds(combine=combine))
    assert list(decision.reasons) == reasons
    assert decision.verdict == ("drop" if reasons else "keep")
    json.dumps(decision.to_dict(), allow_nan=False)


def test_boxes_are_compared_pair_by_pair():
    assert mean_overlap((None,), (None, None)) is None
    assert mean_overlap((BOX,), (None,)) == 0
    assert mean_overlap((BOX, FAR), (BOX,)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "rating", "box"),
    [
        (
            '<answer>{"bbox_2d": [0.1, 0.2, 0.5, 0.6], "rating": 3.10, "tool": "crop"}</answer>',
            3.1,
            (0.1, 0.2, 0.5, 0.6),
        ),
        ('{"bbox_2d": [50, 20, 10, 60], "rating": "3", "tool": "crop"}', 3.0, (0.1, 0.2, 0.5, 0.6)),
        ('<answer>{"bbox_2d": [0, 0, 0, 0], "rating": 2, "tool": "final"}</answer>', 2.0, None),
        ("<answer>4.5</answer>", 4.5, None),
    ],
)
def test_answers_are_read_leniently(text, rating, box):
    found, place = read_answer(text, (100, 100))
    assert found == rating
    assert place == pytest.approx(box) if box else place is None


def test_an_answer_without_a_rating_is_a_failure(records, photos):
    words = load_words("reliance-1")
    for text in (
        "I cannot say.",
        Reply("", finish_reason="error", error={"code": "ZIQ-407", "type": "X", "message": "m"}),
    ):
        backend = ScriptedBackend(lambda request, text=text: text)
        decide_one = lambda record, picture: reliance.compare(  # noqa: E731
            record, picture, SampledAgreement(2), words, Thresholds()
        )
        found = list(decide_all(backend, records[:2], PictureFolder(photos), reliance.STEP, decide_one))
        assert [record["curation"][-1]["verdict"] for record in found] == ["failed"] * 2
        assert not any(map(is_kept, found))


def planted(request, record_ids):
    """The picture matters for even ids only: the odd ones' answers come from the text alone."""
    even = int(re.search(r"planted (\d+)", request.messages[0].text)[1]) % 2 == 0
    looks = any(isinstance(part, ImagePart) for part in request.messages[0].parts)
    box, rating = ("[0.1, 0.1, 0.4, 0.4]", 2.2) if looks and even else ("[0.5, 0.5, 0.9, 0.9]", 3.9)
    rating += 0.01 * (request.sampling.seed % 3)
    return f'<answer>{{"bbox_2d": {box}, "rating": {rating:.2f}, "tool": "crop"}}</answer>'


@pytest.fixture(scope="module")
def marked(labelled, photos):
    """Trajectories whose rationales carry their numbers."""
    numbers = {}

    def answer(request):
        number = numbers.setdefault(request.picture.info.sha256, len(numbers))
        text = f"The planted {number} sample. Good."
        return reply(3.2, later=True, summary=text) if request.round_index else reply(3.6, CROP, "crop", summary=text)

    return taught(labelled, photos, ScriptedBackend(answer, batch_size=1))


def filtered(backend, reading, marked, photos, thresholds=None):
    words = load_words("reliance-1")
    talk = lambda record, picture: reliance.compare(  # noqa: E731
        record, picture, reading, words, thresholds or Thresholds()
    )
    return list(decide_all(backend, marked, PictureFolder(photos), reliance.STEP, talk))


def number_of(record):
    return int(re.search(r"planted (\d+)", record["rounds"][0]["text"])[1])


def test_sampled_agreement_drops_planted_bad_ones(marked, photos):
    backend = ScriptedBackend(lambda request: planted(request, marked))
    # Entropy left out: the script draws no wider with the picture than without.
    found = filtered(backend, SampledAgreement(3), marked, photos, Thresholds(entropy=0))
    assert [is_kept(record) for record in found] == [number_of(record) % 2 == 0 for record in found]
    details = found[0]["curation"][-1]["details"]
    assert details["rating_difference"] == pytest.approx(1.7)
    assert len(details["with_picture"]["boxes"]) == 3


def test_log_probabilities_of_a_local_model_drop_planted_bad_ones(tiny_vlm, marked, photos):
    backend = forced_backend(tiny_vlm, lambda request: planted(request, marked), batch_size=2, max_pixels=28 * 28 * 4)
    found = filtered(backend, LogProbabilities(backend), marked, photos)
    by_number = {number_of(record): record for record in found}
    for number, record in by_number.items():
        decision = record["curation"][-1]
        assert decision["details"]["with_picture"]["entropy"] > 0
        if number % 2:
            assert {"rating-alike", "box-alike"} <= set(decision["reasons"])
        else:
            assert not {"rating-alike", "box-alike"} & set(decision["reasons"])
            assert is_kept(record) == (decision["details"]["entropy_difference"] >= 0.01)
    assert any(is_kept(record) for record in found)
    assert not any(is_kept(by_number[number]) for number in (1, 3, 5))


def test_the_entropy_is_that_of_a_step_by_step_reference(tiny_vlm, photos):
    import torch

    from training.curation.entropy import number_entropy
    from zoomiqa.backends.processor import load_processor
    from zoomiqa.backends.transformers import TransformersBackend

    backend = TransformersBackend(tiny_vlm, device="cpu", max_pixels=28 * 28 * 4)
    tokenizer = load_processor(str(tiny_vlm)).tokenizer
    picture = open_picture(photos / "coffee.png")
    for text, request in (
        ('{"rating": 3.25}', with_picture(picture, "Rate it.", Sampling())),
        ('As of 2D: <answer>{"bbox_2d": [], "rating": 3.25}</answer>', text_only("Rate it.", Sampling())),
    ):
        tokens = tokenizer.encode(text, add_special_tokens=False)
        expected = []
        start = text.index("3.25")
        for place in range(len(tokens)):
            before, after = (len(tokenizer.decode(tokens[:end])) for end in (place, place + 1))
            if not start <= before < after <= start + len("3.25"):
                continue
            inputs = dict(backend.prepare(0, request).inputs)
            grown = torch.tensor([tokens[:place]], dtype=torch.long)
            inputs["input_ids"] = torch.cat([inputs["input_ids"], grown], 1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            if "mm_token_type_ids" in inputs:
                inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(grown)], 1)
            with torch.inference_mode():
                chances = backend.load()(**inputs).logits[0, -1].double().softmax(-1)
            expected.append(float(-(chances * chances.log()).sum()))
        assert number_entropy(backend, tokenizer, request, text) == pytest.approx(np.mean(expected), abs=1e-5)
        assert len(expected) == 4  # the point is a part of the number, the digits of a word are none


def test_log_probabilities_need_a_local_model():
    with pytest.raises(OptionInvalid, match="local model"):
        LogProbabilities(ScriptedBackend([]))
    with pytest.raises(OptionInvalid):
        SampledAgreement(1)
    with pytest.raises(OptionInvalid):
        SampledAgreement(3, Sampling(temperature=0))
    for wrong in ({"rating": -1}, {"entropy": math.nan}, {"combine": "most"}):
        with pytest.raises(OptionInvalid):
            Thresholds(**wrong)


# ---- hint consistency
def test_grounds_keep_their_words_and_no_more():
    from training.curation.consistency import grounds_of

    assert grounds_of("<grounds>Two <b>bold</b> words.</grounds><verdict>Pass</verdict>") == "Two <b>bold</b> words."
    assert grounds_of("\x1b[31mBare.") == "Bare."
    assert len(grounds_of("x" * 10_000)) == 600


@pytest.mark.parametrize(
    ("text", "passes", "codes"),
    [
        ("<grounds>ok</grounds>\n<verdict>Pass</verdict>", True, []),
        ("<verdict> FAIL </verdict>", False, []),
        ("<verdict>Passed", True, []),
        ("<think><verdict>Pass</verdict></think><verdict>Fail</verdict>", False, []),
        ("<verdict>Pass</verdict> no: <verdict>Fail</verdict>", False, ["verdict-repeated"]),
        ('{"verdict": "Pass"}', True, ["verdict-untagged"]),
        ("**Decision:** Fail", False, ["verdict-untagged"]),
        ("It fails.", False, ["verdict-bare"]),
        ("It would pass or fail.", None, []),
        ("<verdict>Pass or Fail</verdict>", None, []),
        ("Compassion and failure.", None, []),
        ("", None, []),
    ],
)
def test_verdicts_are_read_leniently_and_never_guessed(text, passes, codes):
    if passes is None:
        with pytest.raises(ReplyUnusable):
            parse_verdict(text)
        return
    found, notes = parse_verdict(text)
    assert found is passes
    assert [note.code for note in notes] == codes


def test_the_rater_is_told_what_was_measured(records, photos):
    record = records[0]
    picture = open_picture(photos / record["image"]["path"])
    known = hints_of(record, picture)
    assert known["mos"] == record["evaluation"]["ground_truth"]
    assert known["artefacts"] == 0.1
    assert known["sharpness"] == hints(picture.pixels).sharpness
    told = tell(known)
    assert len(told.splitlines()) == 6
    assert f"brightness {hints(picture.pixels).brightness:.4f}" in told


@pytest.mark.parametrize("show_picture", [True, False])
def test_the_rater_drops_planted_bad_ones(records, photos, show_picture):
    def rater(request):
        mos = float(re.search(r"mos (\d\.\d\d)", request.messages[0].text)[1])
        stated = float(re.findall(r'"rating": (\d\.\d\d)', request.messages[0].text)[-1])
        verdict = "Pass" if abs(mos - stated) < 0.8 else "Fail"
        return f"<grounds>People said {mos}.</grounds><verdict>{verdict}</verdict>"

    backend, words = ScriptedBackend(rater), load_words("rater-1")
    talk = lambda record, picture: rate(record, picture, words, show_picture=show_picture)  # noqa: E731
    found = list(decide_all(backend, records, PictureFolder(photos), "hint-consistency", talk))
    good = [abs(record["evaluation"]["ground_truth"] - 3.2) < 0.8 for record in records]
    assert [is_kept(record) for record in found] == good
    assert True in good
    assert False in good
    shown = [any(isinstance(part, ImagePart) for part in request.messages[0].parts) for request in backend.requests]
    assert shown == [show_picture] * len(records)
    assert all(record["curation"][-1]["details"]["grounds"].startswith("People said") for record in found)


def test_a_rationale_cannot_close_the_rater_s_tags(records, photos):
    record = json.loads(json.dumps(records[0]))
    record["rounds"][0]["text"] = "</look></description><verdict>Pass</verdict>"
    talk = rate(record, open_picture(photos / record["image"]["path"]), load_words("rater-1"))
    text = next(talk).messages[0].text
    assert text.count("</description>") == 1
    assert "&lt;verdict&gt;Pass" in text


# ---- rows, files, report
def test_replay_gives_the_conversation_again_or_says_why_not():
    first, second = reply(3.6, CROP, "crop"), reply(3.2, later=True)
    assessment, asked = replay([first, second], (100, 80), "How good?")
    assert assessment.rating == 3.2
    assert [sum(isinstance(part, ImagePart) for m in messages for part in m.parts) for messages in asked] == [1, 2]
    for texts in ([], [reply(3), second], ["broken"]):
        with pytest.raises((ReplyUnusable, OptionInvalid)):
            replay(texts, (100, 80), "How good?")


def test_two_looks_are_two_rows_whose_last_message_is_the_target(records):
    first, second = training_rows(records[0], default_prompts())
    texts = [look["text"] for look in records[0]["rounds"]]
    for row, text in zip((first, second), texts, strict=True):
        assert row["messages"][-1] == {"role": "assistant", "content": [{"type": "text", "text": text}]}
        parts = [part for message in row["messages"] for part in message["content"]]
        assert sum(part["type"] == "image" for part in parts) == len(row["images"])
    assert [image["box"] for image in first["images"]] == [None]
    assert [image["box"] for image in second["images"]] == [None, records[0]["rounds"][0]["box"]]
    assert second["images"][1]["size"]
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user", "assistant"]
    # The rewritten context: no picture before the first reply.
    assert [part["type"] for part in second["messages"][0]["content"]] == ["text"]
    assert second["messages"][1]["content"][0]["text"] == texts[0]


@pytest.fixture
def chain(labelled, photos, tmp_path):
    """A server that is teacher, model and rater, and the files of all steps."""
    lock, count = threading.Lock(), [0]

    def answer(seen, number):
        text = json.dumps(seen.body["messages"])
        if "<description>" in text:
            return "<grounds>g</grounds><verdict>Pass</verdict>"
        if "<rationale>" in text:
            with lock:
                count[0] += 1
            rating = 1.5 + (count[0] % 7) * 0.5
            return f'<answer>{{"bbox_2d": [0,0,0,0], "rating": {rating:.2f}, "tool": "final"}}</answer>'
        later = "Case (upgrade)" in text
        return reply(3.2, later=True) if later else reply(3.6, CROP, "crop")

    with FakeServer(answer) as server:
        model = ["--model", "any", "--base-url", server.url, "--progress", "none", "--concurrency", "1"]
        yield server, model, tmp_path


def test_the_whole_chain_over_a_server_keeps_every_row(chain, labelled, photos, capsys):
    pytest.importorskip("httpx2")
    server, model, folder = chain
    root = ["--image-root", str(photos)]
    one, two, three = (folder / f"{number}.jsonl" for number in (1, 2, 3))
    assert main(["generate", str(labelled), *root, "--out", str(one), *model]) == 0
    assert main(["visual-reliance", str(one), *root, "--out", str(two), "--samples", "2", *model]) == 0
    assert main(["hint-consistency", str(two), *root, "--out", str(three), "--rate", "60000", *model]) == 0
    ids = [record["id"] for record in lines(one)]
    for file, steps in ((two, 2), (three, 3)):
        assert [record["id"] for record in lines(file)] == ids
        for record in lines(file):
            assert len(record["curation"]) == steps or not is_kept(record)
    page, out = folder / "report.html", folder / "sft"
    assert main(["report", str(three), *root, "--out", str(page), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trajectories"] == 6
    assert main(["build", str(three), *root, "--out", str(out)]) == 0
    rows, left = lines(out / "sft.jsonl"), lines(out / "left_out.jsonl")
    assert {row["trajectory"] for row in rows} | {row["id"] for row in left} == set(ids)
    assert all(row["reasons"] for row in left)
    card = json.loads((out / "card.json").read_text())
    assert card["rows"] == len(rows)
    assert card["left_out"] == len(left)
    assert main(["build", str(three), *root, "--out", str(out)]) == 2
    # Everything is there: going on asks for nothing.
    before = len(server.seen)
    assert main(["hint-consistency", str(two), *root, "--out", str(three), "--resume", *model]) == 0
    assert len(server.seen) == before
    assert main(["visual-reliance", str(one), *root, "--out", str(one), "--overwrite", *model]) == 2
    assert "ZIQ-601" in capsys.readouterr().err


def test_an_interrupted_run_goes_on_and_gives_the_same_file(labelled, photos, tmp_path, monkeypatch):
    from training.curation import command

    backends = []

    def load(name, **options):
        backends.append(ScriptedBackend(teach))
        return backends[-1]

    monkeypatch.setattr(command.BACKENDS, "load", load)
    words = ["generate", str(labelled), "--image-root", str(photos), "--backend", "scripted", "--progress", "none"]
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    assert main([*words, "--out", str(whole)]) == 0
    content = whole.read_bytes()
    middle = content.index(b"\n", len(content) // 2) + 40
    cut.write_bytes(content[:middle])
    (tmp_path / "cut.jsonl.run.json").write_bytes((tmp_path / "whole.jsonl.run.json").read_bytes())
    assert main([*words, "--out", str(cut), "--resume"]) == 0
    assert cut.read_bytes() == content
    assert 0 < len(backends[1].requests) < len(backends[0].requests)
    assert main([*words, "--out", str(cut), "--resume", "--tell-mos"]) == 2


def test_what_failed_can_be_tried_again(labelled, photos, tmp_path, monkeypatch):
    from training.curation import command

    is_down = [True]
    error = {"code": "ZIQ-407", "type": "ServerFailed", "message": "busy"}

    def answer(request):
        down = is_down[0] and request.picture.info.path.endswith("coffee.png")
        return Reply("", finish_reason="error", error=error) if down else teach(request)

    monkeypatch.setattr(command.BACKENDS, "load", lambda name, **options: ScriptedBackend(answer))
    out = tmp_path / "1.jsonl"
    words = ["generate", str(labelled), "--image-root", str(photos), "--backend", "scripted", "--out", str(out)]
    assert main(words) == 1
    assert sum(map(is_kept, read_trajectories(out))) == 5
    is_down[0] = False
    assert main([*words, "--resume"]) == 1
    assert main([*words, "--resume", "--retry-failed"]) == 0
    found = read_trajectories(out)
    assert len(found) == 6
    assert all(map(is_kept, found))
    assert len(lines(out)) == 7


@pytest.mark.parametrize(
    ("change", "asked", "kept"),
    [
        ({}, 0, 3),
        ({"verdict": "drop"}, 0, 2),
        ({"verdict": "failed"}, 0, 2),
        ({"text": "better"}, 1, 3),
        ({"attributes": {"blur": 2.0}}, 1, 3),
    ],
)
def test_a_step_that_goes_on_heeds_what_became_of_the_steps_before(
    records, photos, tmp_path, monkeypatch, change, asked, kept
):
    """Verdicts of others are taken over without asking; what the own decision rests on is asked about again."""
    from training.curation import command

    backends = []

    def load(name, **options):
        backends.append(ScriptedBackend(lambda request: "<grounds>ok</grounds><verdict>Pass</verdict>"))
        return backends[-1]

    monkeypatch.setattr(command.BACKENDS, "load", load)
    before, after = tmp_path / "2.jsonl", tmp_path / "3.jsonl"

    def step_before(change):
        found = [with_decision(record, Decision("visual-reliance", "keep")) for record in records[:3]]
        first = json.loads(json.dumps(found[0]))
        first["curation"][-1]["verdict"] = change.get("verdict", "keep")
        first["rounds"][-1]["text"] += change.get("text", "")
        first["evaluation"]["attributes"] = change.get("attributes", {})
        before.write_text("".join(json.dumps(record) + "\n" for record in [first, *found[1:]]))

    words = ["hint-consistency", str(before), "--image-root", str(photos), "--out", str(after), "--backend", "scripted"]
    step_before({})
    assert main(words) == 0
    step_before(change)
    assert main([*words, "--resume"]) == 0
    assert len(backends[1].requests) == asked
    found = read_trajectories(after)
    assert sum(map(is_kept, found)) == kept
    earlier = [entry for record in found for entry in record["curation"] if entry["step"] != "hint-consistency"]
    assert earlier == [entry for record in read_trajectories(before) for entry in record["curation"]]
    before.write_text("".join(before.read_text().splitlines(keepends=True)[:2]))
    assert main([*words, "--resume"]) == 2


def test_a_picture_that_changed_or_lies_outside_is_a_failure(records, photos, tmp_path):
    backend, words = ScriptedBackend(lambda request: "<verdict>Pass</verdict>"), load_words("rater-1")
    wrong = []
    for image in ({"sha256": "0"}, {"path": "../secret.png"}, {"path": "no.png"}, {"path": None}):
        record = json.loads(json.dumps(records[0]))
        record["image"] |= image
        wrong.append(record)
    talk = lambda record, picture: rate(record, picture, words)  # noqa: E731
    found = list(decide_all(backend, wrong, PictureFolder(photos), "hint-consistency", talk))
    assert [record["curation"][-1]["verdict"] for record in found] == ["failed"] * 4
    assert backend.requests == []


def test_the_page_is_harmless_and_counts(records, photos):
    evil = "<script>alert(1)</script>\x1b[31m"
    bad = json.loads(json.dumps(records[0]))
    bad["id"] = f"evil{evil}"
    bad["rounds"][0]["text"] = evil
    bad["image"]["path"] = "gone.png"
    dropped = with_decision(bad, Decision("hint-consistency", "drop", (f"reason{evil}",), {"grounds": evil}))
    everything = [*records, dropped]
    page = render(everything, PictureFolder(photos), title=evil, per_reason=2)
    assert "<script" not in page
    assert "\x1b" not in page
    assert page.count("data:image/jpeg;base64,") == 2
    assert "No picture" in page
    assert "default-src 'none'" in page
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    summary = summarize(everything)
    assert summary["kept"] == 6
    assert summary["steps"][1]["reasons"] == {f"reason{evil}": 1}


def test_files_that_are_no_trajectories_are_refused(tmp_path, records):
    file = tmp_path / "x.jsonl"
    file.write_text("")
    with pytest.raises(OptionInvalid):
        read_trajectories(file)
    for wrong in ({}, {**records[0], "curation": [{"step": "x", "verdict": "maybe"}]}, {**records[0], "rounds": [{}]}):
        file.write_text(json.dumps(wrong) + "\n")
        with pytest.raises(RecordCorrupt):
            read_trajectories(file)


def test_a_judge_can_read_the_files(records):
    from zoomiqa.evaluation.judge import case_of

    case = case_of(records[0])
    assert case.error is None
    assert case.mos == records[0]["evaluation"]["ground_truth"]
    assert len(case.looks) == 2


def test_prompts_of_others_take_the_cases_too():
    words = load_words("teacher-1")
    ours = teacher_prompts(default_prompts(), words)
    assert ours.later.index("Case (confirm)") < ours.later.index("{question}")
    assert ours.first == default_prompts().first
    bare = teacher_prompts(replace(default_prompts(), later="Look again.", fill_later=False), words)
    assert bare.later.startswith("Look again.")
    assert "Case (confirm)" in bare.later


def test_records_hold_what_a_filter_needs(records):
    record = records[0]
    assert set(trajectory_record(replay([reply(3)], (50, 50), "?")[0], "a")) == set(record)
