"""Many conversations at once: order, interleaving, and one failure sparing the rest."""

import json
import weakref

import numpy as np
import pytest

from zoomiqa.assessors import AssessorSpec, ConversationalAssessor, Task, create_assessor
from zoomiqa.backends import Capabilities, ScriptedBackend
from zoomiqa.errors import OptionInvalid, PromptSetInvalid
from zoomiqa.imaging import picture_from_array
from zoomiqa.protocol import ConversationSettings, PromptSet, default_prompts
from zoomiqa.types import ImageInfo, Reply, Sampling, failed


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


def sampled(ratings, **options):
    """An assessor whose every conversation ends at once, with ratings in the order of the conversations' seeds."""
    replies = iter(ratings)
    backend = ScriptedBackend(lambda _: text(rating) if (rating := next(replies)) else "no idea")
    return ConversationalAssessor(backend, samples=len(ratings), **options), backend


def test_several_samples_give_their_mean_and_spread():
    assessor, backend = sampled([2.0, 3.0, 4.0])
    result = next(assessor.assess([picture("a")]))
    assert result.rating == pytest.approx(3.0)
    assert result.spread == pytest.approx(1.0)
    assert result.samples == (2.0, 3.0, 4.0)
    assert result.rounds[0].rating == 3.0, "the conversation nearest to the mean is shown"
    assert len({request.sampling.seed for request in backend.requests}) == 3


def test_failed_samples_are_left_out_and_said():
    result = next(sampled([2.0, None, 4.0])[0].assess([picture("a")]))
    assert (result.rating, result.samples) == (3.0, (2.0, None, 4.0))
    assert [note.code for note in result.notes] == ["samples-failed"]
    nothing = next(sampled([None, None])[0].assess([picture("a")]))
    assert nothing.rating is None
    assert nothing.error["code"] == "ZIQ-201"


def test_samples_that_could_not_differ_are_refused():
    with pytest.raises(OptionInvalid, match="would be the same"):
        sampled([1.0, 2.0], settings=ConversationSettings(sampling=Sampling(temperature=0.0)))
    for name in ("compact", "signals"):
        with pytest.raises(OptionInvalid, match=f"{name}, which draws nothing, would be the same"):
            create_assessor(AssessorSpec(name, samples=3))
    with pytest.raises(OptionInvalid, match="at least 1"):
        ConversationalAssessor(Counting(), samples=0)


def test_a_pictures_draw_does_not_depend_on_the_others():
    def seeds(names):
        backend = Counting(batch_size=2)
        seen = {}
        generate = backend.generate

        def spy(requests):
            seen.update({request.picture.pixels[0, 0, 0]: request.sampling.seed for request in requests})
            return generate(requests)

        backend.generate = spy
        list(ConversationalAssessor(backend).assess(grey(name) for name in names))
        return seen

    alone, together = seeds([7]), seeds([3, 7, 9])
    assert together[7] == alone[7]
    assert len(set(together.values())) == 3


def grey(level):
    return picture_from_array(np.full((40, 40, 3), level, np.uint8), name=str(level))


def test_a_pictures_own_question_is_asked_and_recorded():
    backend = ScriptedBackend(lambda request: CROP if request.round_index == 0 else text(2.0))
    assessor = ConversationalAssessor(backend, ConversationSettings(question="Is it sharp?"))
    own, common = assessor.assess([Task(picture("a"), "<|image|>Is it clean?"), picture("b")])
    assert own.question == "<|image|>Is it clean?"
    assert common.question == "Is it sharp?"
    first, second = (request for request in backend.requests if request.picture.info.path == "a")
    assert "Is it clean?" in first.messages[0].text
    assert "<|image|>" not in first.messages[0].text
    # The released protocol repeats the question as it was annotated.
    assert second.messages[0].text == "<|image|>Is it clean?"


def test_failures_from_before_keep_their_place():
    lost = failed({"code": "ZIQ-101", "type": "ImageUnreadable", "message": "no picture"})
    results = list(ConversationalAssessor(Counting(crops="a", batch_size=2)).assess([picture("a"), lost, picture("c")]))
    assert [result.error["code"] if result.error else result.rating for result in results] == [2.0, "ZIQ-101", 2.0]


def test_pictures_are_not_kept_while_their_results_wait():
    """The first takes two looks; the others are done before it, and only their records may wait."""
    alive = weakref.WeakSet()

    def source():
        for name in "abcdefgh":
            item = picture(name)
            alive.add(item)
            yield item
            del item

    backend, most = Counting(crops="a", batch_size=1), 0
    generate = backend.generate

    def spy(requests):
        nonlocal most
        most = max(most, len(alive))
        return generate(requests)

    backend.generate = spy
    list(ConversationalAssessor(backend).assess(source()))
    assert most <= 3


ATTRIBUTES = {"sharpness": 4.0, "color_fidelity": 3.5, "noise": "2.25", "composition": 9}


def test_attributes_are_asked_for_and_read():
    def reply(request):
        answer = {"bbox_2d": [0, 0, 0, 0], "rating": 3.0, "tool": "final", "attributes": ATTRIBUTES}
        return f"<think>Image Quality Summary: S.</think><answer>{json.dumps(answer)}</answer>"

    backend = ScriptedBackend(reply)
    prompts = default_prompts().with_attributes()
    result = next(ConversationalAssessor(backend, prompts=prompts).assess([picture("a")]))
    assert result.attributes == {"sharpness": 4.0, "color_fidelity": 3.5, "noise": 2.25, "composition": 5.0}
    assert "attribute-clipped" in {note.code for note in result.rounds[0].notes}
    assert result.to_dict()["attributes"] == result.attributes
    sent = backend.requests[0].messages[0].text
    assert '"attributes"' in sent
    assert sent.rstrip().endswith(result.question)
    assert result.assessor.prompt_set == "zoomiqa-1+attributes"
    assert result.assessor.prompt_hash != default_prompts().digest


def test_attributes_that_are_not_given_are_said_and_not_guessed():
    prompts = default_prompts().with_attributes()
    result = next(ConversationalAssessor(ScriptedBackend([text(3.0)]), prompts=prompts).assess([picture("a")]))
    assert result.attributes == {}
    assert [note.code for note in result.rounds[0].notes].count("attribute-missing") == 4
    unasked = next(ConversationalAssessor(ScriptedBackend([text(3.0)])).assess([picture("a")]))
    assert not any(note.code.startswith("attribute") for note in unasked.rounds[0].notes)


def test_a_prompt_set_without_that_text_cannot_ask_for_attributes():
    bare = PromptSet("bare", "first {question}", "later", ("How?",))
    with pytest.raises(PromptSetInvalid, match="cannot ask for attributes"):
        bare.with_attributes()


def test_a_stream_tells_what_happens_even_where_the_backend_cannot_stream():
    backend = ScriptedBackend([CROP, text(2.0)])
    events = list(ConversationalAssessor(backend).assess_stream(picture("a")))
    kinds = [type(event).__name__ for event in events]
    assert kinds == ["LookStarted", "TextWritten", "LookRead"] * 2 + ["Assessment"]
    assert events[2].look.rating == 3.0
    assert events[3].box == events[2].look.box == events[-1].box
    assert events[-1].rating == 2.0


def test_a_stream_of_a_failure_ends_in_the_failure():
    events = list(ConversationalAssessor(Counting(broken="a")).assess_stream(picture("a")))
    assert [type(event).__name__ for event in events] == ["LookStarted", "Assessment"]
    assert events[-1].error["code"] == "ZIQ-401"
    assessor, _ = sampled([1.0, 2.0])
    with pytest.raises(OptionInvalid, match="one conversation"):
        next(assessor.assess_stream(picture("a")))
