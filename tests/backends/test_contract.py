"""What every backend promises. A new backend is added to `BACKENDS` and nowhere else."""

import numpy as np
import pytest

from tests.backends.fake_server import FakeServer
from tests.tiny_vlm import forced_backend
from zoomiqa.assessors.compact import CompactBackend, SignalsBackend
from zoomiqa.backends import Backend, ScriptedBackend, open_session, stream_reply
from zoomiqa.imaging import picture_from_array
from zoomiqa.protocol import parse_reply
from zoomiqa.types import Box, ImagePart, Message, Reply, Request, TextPart

TEXT = (
    "<think>Image Quality Summary: S.\nDirections for Improvement: D.\nIssues to Avoid: I.\nDecision & Rationale: R."
    '</think><answer>{"bbox_2d": [0, 0, 0, 0], "rating": 3.00, "tool": "final"}</answer>'
)


def openai_backend(request):
    """The backend for model servers, asking one that always answers with `TEXT`."""
    pytest.importorskip("httpx2", reason="model servers need httpx2")
    from zoomiqa.backends.openai import OpenAIBackend

    server = FakeServer(lambda seen, number: TEXT).__enter__()
    request.addfinalizer(server.__exit__)
    return OpenAIBackend("any", base_url=server.url)


def vllm_backend(request):
    """The backend for vLLM's engine, over the stand-in whose surface is checked against the real package."""
    from tests.fake_vllm import FakeVLLM
    from zoomiqa.backends.vllm import VLLMBackend

    patch = pytest.MonkeyPatch()
    request.addfinalizer(patch.undo)
    FakeVLLM.install(patch, lambda prompt, sampling: TEXT)
    return VLLMBackend(request.getfixturevalue("tiny_vlm"), batch_size=2)


BACKENDS = {
    "scripted": lambda _: ScriptedBackend(lambda request: TEXT),
    "compact": lambda _: CompactBackend(),
    "signals": lambda _: SignalsBackend(),
    "openai": openai_backend,
    "transformers": lambda request: forced_backend(request.getfixturevalue("tiny_vlm"), lambda _: TEXT, batch_size=2),
    "vllm": vllm_backend,
}
"""Name to what makes the backend, from pytest's `request`."""


@pytest.fixture(params=BACKENDS, scope="module")
def backend(request):
    return BACKENDS[request.param](request)


@pytest.fixture(scope="module")
def pictures():
    noise = np.random.default_rng(5)
    return [
        picture_from_array(noise.integers(0, 256, size, np.uint8)) for size in [(400, 500, 3), (64, 48, 3), (1, 1, 3)]
    ]


def ask(picture, box=None):
    parts = [TextPart("How good?"), ImagePart()]
    if box is not None:
        parts += [TextPart("Cropped Image: "), ImagePart(box=box, size=picture.size)]
    return Request(picture, (Message("user", tuple(parts)),), round_index=0 if box is None else 1)


def test_it_is_a_backend_and_says_what_it_is(backend):
    assert isinstance(backend, Backend)
    able = backend.capabilities
    assert able.name
    assert able.version
    assert able.description.endswith(".")
    assert able.batch_size >= 1


def test_one_reply_per_request_in_order(backend, pictures):
    replies = backend.generate([ask(picture) for picture in pictures])
    assert len(replies) == len(pictures)
    singles = [backend.generate([ask(picture)])[0] for picture in pictures]
    if backend.capabilities.deterministic or isinstance(backend, ScriptedBackend):  # this script always says the same
        assert replies == singles, "a batch of n is n single calls"


def test_no_request_is_an_empty_answer(backend):
    assert backend.generate([]) == []


def test_replies_can_be_parsed_strictly(backend, pictures):
    for reply in backend.generate([ask(picture) for picture in pictures]):
        assert isinstance(reply, Reply)
        parsed = parse_reply(reply.text, strict=True)
        assert parsed.rating is not None


def test_a_region_can_be_shown(backend, pictures):
    picture = pictures[0]
    reply = backend.generate([ask(picture, Box(50, 40, 400, 300))])[0]
    assert parse_reply(reply.text).tool == "final"


def test_the_picture_is_not_changed(backend, pictures):
    before = pictures[0].pixels.copy()
    backend.generate([ask(pictures[0])])
    assert np.array_equal(before, pictures[0].pixels)


def test_a_bad_request_is_an_error_reply_and_spares_the_others(backend, pictures):
    class NoPicture:
        size = (10, 10)

    if isinstance(backend, ScriptedBackend):
        backend = ScriptedBackend([Reply("", finish_reason="error", error={"code": "ZIQ-401"}), TEXT])
    bad, good = backend.generate([ask(NoPicture()), ask(pictures[0])])
    assert bad.finish_reason == "error"
    assert bad.error["code"].startswith("ZIQ-")
    assert good.finish_reason == "stop"


def test_a_path_never_reaches_a_model(backend):
    """Text in place of a picture is refused; the scripted double looks at no picture at all."""
    reply = backend.generate([ask("photo.jpg")])[0]
    assert isinstance(backend, ScriptedBackend) or reply.finish_reason == "error"


def test_a_session_answers_every_ticket_once(backend, pictures):
    session = open_session(backend)
    assert session.collect() == [], "nothing is under way"
    submitted, replies = 0, {}
    while submitted < 7 or len(replies) < 7:
        while submitted < 7 and session.room > 0:
            session.submit(100 + submitted, ask(pictures[submitted % 2]))
            submitted += 1
        for ticket, reply in session.collect():
            assert ticket not in replies
            replies[ticket] = reply
    session.close()
    assert sorted(replies) == list(range(100, 107))
    assert all(reply.finish_reason == "stop" for reply in replies.values())


def test_text_comes_in_pieces_or_whole(backend, pictures):
    pieces, stream = [], stream_reply(backend, ask(pictures[0]))
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as stop:
            reply = stop.value
            break
    assert "".join(pieces) == reply.text
    assert parse_reply(reply.text, strict=True).rating is not None
