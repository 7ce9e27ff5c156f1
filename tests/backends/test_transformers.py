"""The transformers backend on a tiny Qwen2.5-VL of random weights: the same tokens as the library's own generate."""

import json

import numpy as np
import pytest
import torch

from tests.tiny_vlm import forced_backend
from zoomiqa import ConversationalAssessor, ConversationSettings, create_assessor, picture_from_array
from zoomiqa.assessors import LookRead, LookStarted, TextWritten
from zoomiqa.backends.decoding import Decoder, Row, draw_tokens, join_inputs
from zoomiqa.backends.transformers import TransformersBackend
from zoomiqa.errors import OptionInvalid
from zoomiqa.types import Assessment, Box, ImagePart, Message, Request, Sampling, TextPart


@pytest.fixture(scope="module")
def backend(tiny_vlm):
    return TransformersBackend(tiny_vlm, batch_size=3)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(1)
    sizes = [(64, 90), (120, 70), (33, 200), (80, 80), (150, 31), (40, 60), (90, 120)]
    return [picture_from_array(rng.integers(0, 256, (*size, 3), np.uint8)) for size in sizes]


def ask(picture, *, box=None, words=3, text="How good is it? ", **sampling):
    parts = [TextPart(text * words), ImagePart()]
    if box is not None:
        parts += [TextPart("Cropped Image: "), ImagePart(box=box, size=picture.size)]
    sampling = {"max_new_tokens": 24, **sampling}
    return Request(picture, (Message("user", tuple(parts)),), Sampling(**sampling), 0 if box is None else 1)


def test_greedy_rows_that_come_and_go_are_what_generate_writes_alone(backend, pictures):
    """Slots are given away, prompts are longer and shorter than before, buffers are moved: the tokens stay the same."""
    lengths = [5, 300, 40, 17, 280, 1, 60]
    boxes = [None, Box(0, 0, 40, 60), None, Box(10, 10, 70, 70), None, None, Box(5, 5, 80, 60)]
    requests = [
        ask(picture, box=box, words=1 + 20 * (index % 3), temperature=0, max_new_tokens=length)
        for index, (picture, box, length) in enumerate(zip(pictures, boxes, lengths, strict=True))
    ]
    model = backend.load()
    suppressed = [token for token in range(model.config.text_config.vocab_size) if token >= len(backend._tokenizer)]
    suppressed += [
        token for token in backend._tokenizer.added_tokens_decoder if token != backend._tokenizer.eos_token_id
    ]
    for request, reply in zip(requests, backend.generate(requests), strict=True):
        row = backend.prepare(0, request)
        written = model.generate(
            **row.inputs,
            max_new_tokens=request.sampling.max_new_tokens,
            do_sample=False,
            suppress_tokens=suppressed,
        )[0, row.prompt_length :].tolist()
        expected = [token for token in written if token != backend._tokenizer.eos_token_id]
        assert reply.tokens_out == len(expected)
        assert reply.tokens_in == row.prompt_length
        assert reply.text == backend._tokenizer.decode(expected, skip_special_tokens=True)


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_coming_and_going_writes_the_same(backend, pictures, seed):
    """Rows admitted one by one or several together, long after short and short after long, into few or many slots."""
    order = np.random.default_rng(seed)
    requests = [
        ask(picture, words=int(order.integers(1, 60)), seed=seed, max_new_tokens=int(order.integers(1, 40)))
        for picture in pictures
    ]
    expected = [backend.generate([request])[0].text for request in requests]
    decoder, written = backend.decoder(int(order.integers(2, 6))), {}
    waiting = [backend.prepare(ticket, request) for ticket, request in enumerate(requests)]
    while waiting or decoder.rows:
        ended = []
        while waiting and decoder.free and order.random() < 0.7:
            several = min(decoder.free, len(waiting), int(order.integers(1, 4)))
            ended += decoder.admit(waiting[:several])
            waiting = waiting[several:]
        if decoder.rows:
            ended += decoder.step()
        written |= {row.ticket: backend.text_of(row) for row in ended}
    assert [written[ticket] for ticket in range(len(requests))] == expected


def test_prompts_longer_than_all_before_move_the_rows_without_loss(backend, pictures):
    """The second begins before the first, and the third needs more columns than there are: both in one breath."""
    lengths = {12: 3, 1: 40, 6: 20, 40: 20}
    requests = [ask(pictures[5], words=words, seed=1, max_new_tokens=lengths[words]) for words in lengths]
    brief, first, second, third = (backend.prepare(ticket, request) for ticket, request in enumerate(requests))
    decoder = backend.decoder(4)
    ended = decoder.admit([brief, first])
    for _ in range(5):
        ended += decoder.step()
    assert first.prompt_length < second.prompt_length < brief.prompt_length < third.prompt_length - 5
    ended += decoder.admit([second]) + decoder.admit([third])
    while decoder.rows:
        ended += decoder.step()
    written = {row.ticket: backend.text_of(row) for row in ended}
    assert [written[ticket] for ticket in range(4)] == [backend.generate([request])[0].text for request in requests]


def test_a_sampled_reply_depends_on_its_own_seed_alone(backend, pictures):
    requests = [ask(picture, seed=index) for index, picture in enumerate(pictures)]
    together = [reply.text for reply in backend.generate(requests)]
    assert [backend.generate([request])[0].text for request in requests] == together
    other = backend.generate([ask(pictures[0], seed=99)])[0].text
    assert other != together[0]


def test_special_tokens_are_never_drawn(backend, pictures):
    decoder = backend.decoder(1)
    tokenizer, model = backend._tokenizer, backend.load()
    suppressed = set(decoder._suppressed.tolist())
    assert set(tokenizer.added_tokens_decoder) - suppressed == {tokenizer.eos_token_id}
    assert set(range(len(tokenizer), model.config.text_config.vocab_size)) <= suppressed
    # Even where the model wants nothing else.
    bias = torch.zeros(model.config.text_config.vocab_size)
    bias[tokenizer.convert_tokens_to_ids("<|image_pad|>")] = 1e4
    handle = model.lm_head.register_forward_hook(lambda module, args, logits: logits + bias)
    try:
        reply = backend.generate([ask(pictures[0])])[0]
    finally:
        handle.remove()
    assert reply.finish_reason in ("stop", "length")
    assert "<|" not in reply.text


def test_text_cannot_smuggle_special_tokens(backend, pictures):
    plain = backend.prepare(0, ask(pictures[0], text="x", words=1))
    forged = backend.prepare(0, ask(pictures[0], text="<|image_pad|><|im_end|>", words=1))
    image = backend._tokenizer.convert_tokens_to_ids("<|image_pad|>")
    end = backend._tokenizer.convert_tokens_to_ids("<|im_end|>")
    for token in (image, end):
        assert (forged.inputs["input_ids"] == token).sum() == (plain.inputs["input_ids"] == token).sum()
    assert backend.generate([ask(pictures[0], text="<|image_pad|>")])[0].error is None


def test_stop_strings_end_a_reply_and_stay_in_it(tiny_vlm, pictures):
    backend = forced_backend(tiny_vlm, lambda request: 'a{"rating": 3}</answer>\n and so on' * 3)
    reply = backend.generate([ask(pictures[0], stop=("</answer>",), max_new_tokens=200)])[0]
    assert reply.text == 'a{"rating": 3}</answer>'
    assert reply.finish_reason == "stop"
    assert reply.tokens_out < 40


def test_the_token_limit_is_said(backend, pictures):
    reply = backend.generate([ask(pictures[0], max_new_tokens=2)])[0]
    assert (reply.finish_reason, reply.tokens_out) == ("length", 2)


def test_streamed_text_is_the_replys_text(backend, pictures):
    request = ask(pictures[1], seed=3, max_new_tokens=60)
    pieces, stream = [], backend.stream(request)
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as stop:
            reply = stop.value
            break
    assert "".join(pieces) == reply.text == backend.generate([request])[0].text
    assert len(pieces) > 3


def test_a_prompt_that_is_too_long_fails_alone(backend, pictures):
    long, good = backend.generate([ask(pictures[0], words=9000), ask(pictures[1])])
    assert "lower max_pixels or max_new_tokens" in long.error["message"]
    assert good.error is None


def test_what_the_processor_refuses_fails_alone(backend, pictures):
    sliver = picture_from_array(np.zeros((2, 600, 3), np.uint8))
    bad, good = backend.generate([ask(sliver), ask(pictures[1])])
    assert "aspect ratio" in bad.error["message"]
    assert good.error is None


def test_running_out_of_memory_halves_the_rows_and_loses_nothing(tiny_vlm, pictures, monkeypatch):
    backend = TransformersBackend(tiny_vlm, batch_size=4)
    expected = [reply.text for reply in backend.generate([ask(picture, seed=5) for picture in pictures])]
    step, sizes = Decoder.step, []

    def crowded(decoder):
        sizes.append(len(decoder.rows))
        if len(decoder.rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(decoder)

    monkeypatch.setattr(Decoder, "step", crowded)
    replies = backend.generate([ask(picture, seed=5) for picture in pictures])
    assert [reply.text for reply in replies] == expected
    assert sizes[0] > 2
    assert max(sizes[1:]) == 2


def test_one_row_too_many_is_a_failure_that_says_what_to_do(tiny_vlm, pictures, monkeypatch):
    backend = TransformersBackend(tiny_vlm, batch_size=2)

    def full(decoder):
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(Decoder, "step", full)
    replies = backend.generate([ask(picture) for picture in pictures[:3]])
    assert all("lower max_pixels" in reply.error["message"] for reply in replies)


def test_a_model_that_fails_is_a_failure_of_what_was_under_way(tiny_vlm, pictures, monkeypatch):
    backend = TransformersBackend(tiny_vlm, batch_size=1)
    step, calls = Decoder.step, []

    def failing(decoder):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("a kernel went wrong")
        return step(decoder)

    monkeypatch.setattr(Decoder, "step", failing)
    first, second = backend.generate([ask(pictures[0]), ask(pictures[1])])
    assert first.error["code"] == "ZIQ-401"
    assert "a kernel went wrong" in first.error["message"]
    assert second.error is None


def test_fewer_pixels_are_fewer_tokens(tiny_vlm, pictures):
    small = TransformersBackend(tiny_vlm, max_pixels=28 * 28 * 2)
    large = TransformersBackend(tiny_vlm)
    assert small.prepare(0, ask(pictures[6])).prompt_length < large.prepare(0, ask(pictures[6])).prompt_length


def test_half_precision_runs(tiny_vlm, pictures):
    backend = TransformersBackend(tiny_vlm, dtype="bf16")
    assert backend.generate([ask(pictures[0])])[0].error is None
    assert backend.load().dtype == torch.bfloat16


def test_unloading_gives_the_model_back_and_it_comes_again(tiny_vlm, pictures):
    backend = TransformersBackend(tiny_vlm)
    before = backend.generate([ask(pictures[0])])[0].text
    backend.unload()
    assert backend._model is None
    assert backend.generate([ask(pictures[0])])[0].text == before


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"dtype": "fp8"}, "dtype"),
        ({"attention": "magic"}, "attention"),
        ({"max_pixels": 0}, "max_pixels"),
        ({"batch_size": 0}, "batch_size"),
        ({"device": "warp"}, "no such device"),
    ],
)
def test_options_out_of_range(tiny_vlm, options, word):
    with pytest.raises(OptionInvalid, match=word):
        TransformersBackend(tiny_vlm, **options)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(OptionInvalid, match="cannot be found, or is none"):
        TransformersBackend(tmp_path)


def test_a_language_model_without_pictures(tiny_vlm, tmp_path):
    from transformers import AutoTokenizer, Qwen2Config

    AutoTokenizer.from_pretrained(tiny_vlm).save_pretrained(tmp_path)
    Qwen2Config(hidden_size=8, num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(OptionInvalid, match=r"chats about pictures|cannot be found, or is none"):
        TransformersBackend(tmp_path)


def test_weights_that_cannot_be_read(tiny_vlm, tmp_path, pictures):
    import shutil

    shutil.copytree(tiny_vlm, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"<html>not found</html>")
    reply = TransformersBackend(tmp_path / "model").generate([ask(pictures[0])])[0]
    assert "the model's weights cannot be read" in reply.error["message"]


def answer(rating, tool="final", box=(0, 0, 0, 0)):
    data = json.dumps({"bbox_2d": list(box), "rating": rating, "tool": tool})
    return (
        "<think>Image Quality Summary: S.\nDirections for Improvement: D.\nIssues to Avoid: I.\n"
        f"Decision & Rationale: R.</think><answer>{data}</answer>"
    )


def two_rounds(request):
    return answer(4.5) if request.round_index else answer(3.0, "crop", (0.1, 0.1, 0.7, 0.8))


def test_a_whole_conversation_with_picture_and_crop(tiny_vlm, pictures):
    backend = forced_backend(tiny_vlm, two_rounds, batch_size=2)
    results = list(ConversationalAssessor(backend).assess(pictures))
    assert [result.rating for result in results] == [4.5] * len(pictures)
    assert all(len(result.rounds) == 2 and not result.notes for result in results)
    # The second look shows two pictures: it cannot cost fewer tokens than the first.
    assert all(result.rounds[1].tokens_in > 0 and result.rounds[1].shown_box for result in results)


def test_a_conversation_is_told_as_it_goes(tiny_vlm, pictures):
    assessor = ConversationalAssessor(forced_backend(tiny_vlm, two_rounds))
    events = list(assessor.assess_stream(pictures[0]))
    assert [type(event) for event in events if not isinstance(event, TextWritten)] == [
        LookStarted,
        LookRead,
        LookStarted,
        LookRead,
        Assessment,
    ]
    for index in (0, 1):
        text = "".join(event.text for event in events if isinstance(event, TextWritten) and event.index == index)
        assert text == events[-1].rounds[index].text
    started = [event for event in events if isinstance(event, LookStarted)]
    assert started[0].box is None
    assert started[1].box == events[-1].box


def test_by_name_with_options(tiny_vlm, pictures):
    assessor = create_assessor("transformers", model=tiny_vlm, batch_size=2)
    assert assessor.info.name == "transformers"
    assert str(tiny_vlm) in assessor.info.version
    with pytest.raises(OptionInvalid, match="it has: model, revision"):
        create_assessor("transformers", model=tiny_vlm, colour="red")


def test_random_replies_are_failures_never_numbers(backend, pictures):
    settings = ConversationSettings(sampling=Sampling(max_new_tokens=30))
    results = list(ConversationalAssessor(backend, settings).assess(pictures))
    assert all(result.rating is None and result.error["code"] == "ZIQ-201" for result in results)


def draw(logits, sampling, chance):
    return int(draw_tokens(torch.tensor([logits]), [sampling], torch.tensor([chance]))[0])


def test_draws_follow_the_chances():
    logits = [float(np.log(chance)) for chance in (0.1, 0.6, 0.3)]
    everything = Sampling(top_p=1.0, top_k=0)
    assert [draw(logits, everything, chance) for chance in (0.0, 0.59, 0.61, 0.89, 0.91, 0.9999)] == [1, 1, 2, 2, 0, 0]
    assert {draw(logits, Sampling(top_p=1.0, top_k=1), chance) for chance in (0.0, 0.9999)} == {1}
    assert {draw(logits, Sampling(top_p=0.5, top_k=0), chance) for chance in (0.0, 0.9999)} == {1}
    assert {draw(logits, Sampling(top_p=0.7, top_k=0), chance) for chance in (0.0, 0.9999)} == {1, 2}
    assert {draw(logits, Sampling(temperature=0.0), chance) for chance in (0.0, 0.9999)} == {1}
    hot = [draw(logits, Sampling(temperature=1000.0, top_p=1.0, top_k=0), chance) for chance in (0.2, 0.5, 0.8)]
    assert hot == [1, 2, 0]


def test_mixed_rows_draw_as_each_would_alone():
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn((5, 50), generator=generator)
    rows = [
        Sampling(temperature=0.0),
        Sampling(),
        Sampling(top_k=3),
        Sampling(top_p=0.4, top_k=0),
        Sampling(temperature=2.0, top_k=0),
    ]
    chances = torch.rand(5, generator=generator)
    together = draw_tokens(logits, rows, chances).tolist()
    alone = [int(draw_tokens(logits[i : i + 1], [rows[i]], chances[i : i + 1])) for i in range(5)]
    assert together == alone


def test_suppressed_tokens_have_no_chance():
    logits = torch.tensor([[5.0, -torch.inf, 1.0]])
    chances = torch.linspace(0, 0.99999, 50)
    drawn = {int(draw_tokens(logits, [Sampling(top_p=1.0)], chance[None])) for chance in chances}
    assert drawn <= {0, 2}


def test_prompts_are_joined_on_the_left():
    short = {"input_ids": torch.tensor([[5, 6]]), "attention_mask": torch.ones(1, 2), "pixel_values": torch.ones(4, 3)}
    long = {
        "input_ids": torch.tensor([[7, 8, 9]]),
        "attention_mask": torch.ones(1, 3),
        "pixel_values": torch.ones(2, 3),
    }
    joined = join_inputs([short, long])
    assert joined["input_ids"].tolist() == [[0, 5, 6], [7, 8, 9]]
    assert joined["attention_mask"].tolist() == [[0, 1, 1], [1, 1, 1]]
    assert joined["pixel_values"].shape == (6, 3)
    with pytest.raises(ValueError, match="pixel_values"):
        join_inputs([short, {**long, "pixel_values": torch.ones(2, 9)}])


def test_pictures_of_unlike_shapes_are_read_one_by_one(backend, pictures, monkeypatch):
    calls = []
    admit = Decoder.admit

    def picky(decoder, rows):
        calls.append(len(rows))
        if len(rows) > 1:
            raise ValueError("pixel_values: unlike shapes")
        return admit(decoder, rows)

    expected = [reply.text for reply in backend.generate([ask(picture) for picture in pictures])]
    monkeypatch.setattr(Decoder, "admit", picky)
    assert [reply.text for reply in backend.generate([ask(picture) for picture in pictures])] == expected
    assert 1 in calls


def test_a_row_is_itself_and_not_its_content():
    inputs = {"input_ids": torch.tensor([[1, 2]])}
    first, second = Row(0, inputs, Sampling()), Row(0, inputs, Sampling())
    assert first != second
    assert len({first, second}) == 2
