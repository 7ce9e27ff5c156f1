"""Many conversations at once: order, interleaving, and one failure sparing the rest."""

import json

import numpy as np
import pytest

from zoomiqa.assessors import ConversationalAssessor
from zoomiqa.backends import Capabilities, ScriptedBackend
from zoomiqa.errors import OptionInvalid
from zoomiqa.imaging import picture_from_array
from zoomiqa.types import ImageInfo, Reply


def picture(name, side=120):
    return picture_from_array(np.zeros((side, side, 3), np.uint8), name=name)


def text(rating, tool="final", box=(0, 0, 0, 0)):
    answer = json.dumps({"bbox_2d": list(box), "rating": rating, "tool": tool})
    return f"<think>Image Quality Summary: S.</think><answer>{answer}</answer>"


CROP = text(3.0, "crop", (0.1, 0.1, 0.8, 0.8))


class Counting:
    """A backend that asks for a crop of some pictures and records each call."""

    def __init__(self, crops=(), batch_size=2, broken=()):
        self.capabilities = Capabilities("counting", "1", "A test double.", batch_size=batch_size)
        self.crops, self.broken, self.calls = set(crops), set(broken), []

    def generate(self, requests):
        self.calls.append([(request.picture.info.path, request.round_index) for request in requests])
        if any(request.picture.info.path in self.broken for request in requests):
            raise RuntimeError("no memory at 0x7f00")
        return [
            Reply(CROP if request.round_index == 0 and request.picture.info.path in self.crops else text(2.0))
            for request in requests
        ]


def test_results_keep_the_order_and_rounds_interleave():
    backend = Counting(crops="ac")
    results = list(ConversationalAssessor(backend).assess(picture(name) for name in "abcd"))
    assert [item.image.path for item in results] == list("abcd")
    assert [len(item.rounds) for item in results] == [2, 1, 2, 1]
    assert backend.calls == [[("a", 0), ("b", 0)], [("a", 1), ("c", 0)], [("c", 1), ("d", 0)]], "no barrier per round"


def test_pictures_are_taken_only_as_needed():
    taken = []

    def source():
        for name in "abcdef":
            taken.append(name)
            yield picture(name)

    results = ConversationalAssessor(Counting(batch_size=2)).assess(source())
    next(results)
    assert len(taken) <= 3


def test_a_batch_of_n_is_n_single_runs():
    names = "abcde"
    together = list(ConversationalAssessor(Counting(crops="bd", batch_size=3)).assess(picture(n) for n in names))
    alone = [next(ConversationalAssessor(Counting(crops="bd")).assess([picture(n)])) for n in names]
    assert [item.to_dict() for item in together] == [item.to_dict() for item in alone]


def test_one_failing_request_spares_the_others():
    results = list(ConversationalAssessor(Counting(batch_size=3, broken="b")).assess(picture(n) for n in "abc"))
    assert [item.rating for item in results] == [2.0, None, 2.0]
    assert results[1].error["code"] == "ZIQ-401"
    assert "RuntimeError" in results[1].error["message"]


def test_a_backend_that_miscounts_is_a_failure_and_no_mixup():
    backend = ScriptedBackend(lambda request: text(4.0), batch_size=2)
    backend.generate = lambda requests: [Reply(text(4.0))]
    results = list(ConversationalAssessor(backend).assess([picture("a"), picture("b")]))
    assert [item.error["code"] for item in results] == ["ZIQ-401"] * 2


def test_who_assessed_what_is_on_the_record():
    assessor = ConversationalAssessor(ScriptedBackend([text(4.0)]))
    record = next(assessor.assess([picture("a")]))
    assert record.assessor == assessor.info
    assert record.assessor.prompt_set == "zoomiqa-1"
    assert record.image == ImageInfo("a", None, 120, 120)


def test_no_pictures_no_results():
    assert list(ConversationalAssessor(Counting()).assess([])) == []


def test_a_batch_needs_room():
    with pytest.raises(OptionInvalid):
        ConversationalAssessor(Counting(), batch_size=0)


def test_the_script_running_out_is_a_failure():
    results = list(ConversationalAssessor(ScriptedBackend([text(4.0)])).assess([picture("a"), picture("b")]))
    assert results[0].rating == 4.0
    assert results[1].error["message"].startswith("the script has no reply left")
