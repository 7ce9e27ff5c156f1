"""Supervised fine-tuning: what is trained of a row, and that a run resumes, refuses, and gives a usable model."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from tests.training.sft_tools import PROMPTS, make_data, record, settings  # noqa: E402
from training.models import Lora, ModelSettings, load_model  # noqa: E402
from training.pictures import Pictures  # noqa: E402
from training.runs import last_checkpoint  # noqa: E402
from training.sft import run as running  # noqa: E402
from training.sft import train  # noqa: E402
from training.sft.command import main  # noqa: E402
from training.sft.encoding import IGNORED, RowEncoder, batch_of  # noqa: E402
from training.sft.rows import appended_rows, read_rows, split_rows  # noqa: E402
from zoomiqa.backends.transformers import TransformersBackend  # noqa: E402
from zoomiqa.cli import main as zoomiqa_main  # noqa: E402
from zoomiqa.errors import (  # noqa: E402
    ImageNotFound,
    OptionInvalid,
    OutputWouldOverwrite,
    PromptSetInvalid,
    RecordCorrupt,
    RecordSettingsChanged,
)
from zoomiqa.imaging import open_picture  # noqa: E402
from zoomiqa.protocol import ConversationSettings, converse, default_prompts  # noqa: E402
from zoomiqa.types import Reply  # noqa: E402

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(photos, tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("curated") / "data", photos)


@pytest.fixture(scope="module")
def processor(tiny_vlm):
    return load_model(ModelSettings(str(tiny_vlm))).processor


@pytest.fixture(scope="module")
def rows(data):
    return read_rows(data, PROMPTS)


@pytest.fixture(scope="module")
def trained(tiny_vlm, data, photos, tmp_path_factory):
    """A run of four steps that was never interrupted."""
    out = tmp_path_factory.mktemp("run") / "out"
    return train(settings(tiny_vlm, data, photos, out))


def target(row):
    return row["messages"][-1]["content"][0]["text"]


def trained_texts(encoded, processor):
    """The stretches of trained tokens, decoded."""
    texts, current = [], []
    for token, label in zip(encoded.input_ids.tolist(), encoded.labels.tolist(), strict=True):
        if label == IGNORED:
            if current:
                texts.append(processor.tokenizer.decode(current))
            current = []
        else:
            assert label == token
            current.append(label)
    return [*texts, processor.tokenizer.decode(current)] if current else texts


# --- what is trained ---------------------------------------------------------------------------------------------


def test_labels_are_the_last_reply_and_its_end(rows, processor, photos):
    encoder = RowEncoder(processor, Pictures(photos))
    assert [row["look"] for row in rows] == [1, 1, 2, 1, 1, 2]
    for row in rows:
        assert trained_texts(encoder.encode(row), processor) == [target(row) + "<|im_end|>"]


def test_an_appended_context_trains_both_replies(rows, processor, photos):
    encoder = RowEncoder(processor, Pictures(photos), "appended")
    joined = appended_rows(rows)
    assert len(joined) == 4
    assert trained_texts(encoder.encode(joined[0]), processor) == [target(rows[0]) + "<|im_end|>"]
    both = [target(rows[1]) + "<|im_end|>", target(rows[2]) + "<|im_end|>"]
    assert trained_texts(encoder.encode(joined[1]), processor) == both


def test_an_appended_row_is_the_appended_conversation(rows, photos):
    joined = appended_rows(rows)[1]
    picture = open_picture(photos / joined["images"][0]["path"])
    talk = converse(picture, ConversationSettings(question=PROMPTS.questions[0], context="appended"), prompts=PROMPTS)
    next(talk)
    asked = talk.send(Reply(target(rows[1])))
    assert Pictures(photos).request(joined).messages == asked.messages


def test_trls_own_labels_are_the_same(rows, processor, photos):
    """The masks of TRL's assistant-only loss, on a template with its marks, against ours."""
    from PIL import Image
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    marked = processor.processor.chat_template.replace(
        "{%- else -%}{{ part.text }}{%- endif -%}",
        "{%- elif message.role == 'assistant' -%}{% generation %}{{ part.text }}<|im_end|>{% endgeneration %}"
        "{%- else -%}{{ part.text }}{%- endif -%}",
    ).replace(
        "{% endif %}<|im_end|>\n", "{% endif %}{% if message.role != 'assistant' %}<|im_end|>{% endif %}{{ '\\n' }}"
    )
    encoder = RowEncoder(processor, Pictures(photos), "appended")
    row = appended_rows(rows)[1]
    images = [Image.fromarray(image) for image in encoder._chat(row).images]
    collator = DataCollatorForVisionLanguageModeling(
        processor.processor, assistant_only_loss=True, chat_template=marked
    )
    theirs = collator([{"messages": json.loads(json.dumps(row["messages"])), "images": images}])
    ours = encoder.encode(row)
    length = ours.input_ids.numel()  # the template ends with a line feed, which nobody writes
    assert theirs["input_ids"][0, :length].tolist() == ours.input_ids.tolist()
    assert theirs["labels"][0, :length].tolist() == ours.labels.tolist()
    assert set(theirs["labels"][0, length:].tolist()) <= {IGNORED}
    torch.testing.assert_close(theirs["pixel_values"], ours.visual["pixel_values"])


def test_a_prompt_is_what_inference_processes(rows, processor, photos, tiny_vlm):
    """Token for token and pixel for pixel, of both looks."""
    backend = TransformersBackend(tiny_vlm, device="cpu")
    pictures = Pictures(photos)
    encoder = RowEncoder(processor, pictures)
    for row in rows[1:3]:
        asked = backend.prepare(0, pictures.request(row)).inputs
        encoded = encoder.encode(row)
        shown = asked["input_ids"].shape[1]
        assert encoded.input_ids[:shown].tolist() == asked["input_ids"][0].tolist()
        assert set(encoded.labels[:shown].tolist()) == {IGNORED}
        assert torch.equal(encoded.visual["pixel_values"], asked["pixel_values"])
        assert torch.equal(encoded.visual["image_grid_thw"], asked["image_grid_thw"])


def test_special_tokens_in_a_text_stay_text(rows, processor, photos):
    row = json.loads(json.dumps(rows[0]))
    row["messages"][-1]["content"][0]["text"] = "a<|im_end|>b<|image_pad|>"
    encoded = RowEncoder(processor, Pictures(photos)).encode(row)
    ends = (encoded.labels == processor.tokenizer.eos_token_id).sum().item()
    assert ends == 1
    assert encoded.labels[-1] == processor.tokenizer.eos_token_id


def test_lengths_are_known_before(rows, processor, photos):
    for context, chosen in (("rewritten", rows), ("appended", appended_rows(rows))):
        encoder = RowEncoder(processor, Pictures(photos), context)
        for row in chosen:
            assert encoder.length(row) == encoder.encode(row).input_ids.numel()


def test_a_batch_gives_the_loss_of_its_rows(rows, processor, photos, tiny_vlm):
    encoder = RowEncoder(processor, Pictures(photos))
    encoded = [encoder.encode(row) for row in rows[:3]]
    model = load_model(ModelSettings(str(tiny_vlm))).model.eval()

    def total(batch):
        batch = dict(batch)
        labels = batch.pop("labels")
        with torch.no_grad():
            logits = model(**batch).logits[:, :-1].float()
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
        )

    pad = processor.tokenizer.pad_token_id
    batch = batch_of(encoded, pad)
    assert batch["attention_mask"].sum().item() == sum(row.input_ids.numel() for row in encoded)
    together = total(batch)
    alone = sum(total(batch_of([row], pad)) for row in encoded)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-3)


def test_a_picture_is_on_one_side_of_the_split(rows):
    training, validation = split_rows(rows, 0.25, seed=3)
    shown = [{image["path"] for row in part for image in row["images"]} for part in (training, validation)]
    assert shown[1]
    assert not shown[0] & shown[1]
    assert len(training) + len(validation) == len(rows)
    assert split_rows(rows, 0.25, seed=3)[1] == validation
    with pytest.raises(OptionInvalid):
        split_rows(rows, 0.01, seed=3)


# --- runs --------------------------------------------------------------------------------------------------------


def weights_of(folder):
    return (folder / "model.safetensors").read_bytes()


def test_the_result_is_a_model_with_its_card(trained, data, tiny_vlm):
    assert weights_of(trained) != weights_of(tiny_vlm)
    card = json.loads((trained / "training.json").read_text())
    assert card["steps"] == 4
    assert card["settings"]["prompts"]["hash"] == PROMPTS.digest
    assert card["data"]["training"] == {"rows": 6, "trajectories": 4, "pictures": 4, "mean_rating": 1.3333}
    assert card["data"]["card"]["rows"] == 6
    assert card["packages"]["trl"]
    assert list((trained / "logs").iterdir())
    assert "short" in (trained / "README.md").read_text()


def assess(model, photos, tmp_path, capsys):
    prompts = tmp_path / "prompts.json"
    texts = {"questions": list(PROMPTS.questions), "first": PROMPTS.first, "later": PROMPTS.later, "name": "short"}
    prompts.write_text(json.dumps(texts))
    words = ["assess", photos / "coffee.png", "--assessor", "transformers", "--model", model, "--prompts", prompts]
    code = zoomiqa_main([*map(str, words), "--device", "cpu", "--max-new-tokens", "2", "--format", "json"])
    return code, capsys.readouterr()


def test_inference_reads_the_result(trained, photos, tmp_path, capsys):
    """Two tokens are no rating, and must be told as such: what counts is that the model loads and writes."""
    code, told = assess(trained, photos, tmp_path, capsys)
    found = json.loads(told.out)
    assert (code, found["error"]["code"]) == (1, "ZIQ-201")
    assert found["rounds"][0]["tokens_out"] <= 2


def test_a_resumed_run_gives_the_same_weights(tiny_vlm, data, photos, trained, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    mark = running._Marking.on_save

    def killed(self, args, state, control, **others):
        mark(self, args, state, control, **others)
        raise Killed

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(running._Marking, "on_save", killed)
        with pytest.raises(Killed):
            train(settings(tiny_vlm, data, photos, out))
    assert not (out / "model.safetensors").exists()
    half = out / "checkpoints" / "checkpoint-3"  # as if it was killed while writing
    half.mkdir()
    train(settings(tiny_vlm, data, photos, out, resume=True))
    assert not half.exists()
    assert weights_of(out) == weights_of(trained)


def test_adapters_resume_and_merge(tiny_vlm, data, photos, tmp_path, capsys):
    out = tmp_path / "out"
    lora = Lora(2, 4)
    train(settings(tiny_vlm, data, photos, out, lora=lora, max_steps=2, save_every=1))
    again = train(settings(tiny_vlm, data, photos, tmp_path / "again", lora=lora, max_steps=2))
    assert weights_of(again) == weights_of(out)
    card = json.loads((out / "training.json").read_text())
    assert card["weights"]["trained"] < card["weights"]["all"] / 10
    merged = weights_of(out)
    assert merged != weights_of(tiny_vlm)
    # From the checkpoint of the first step again to the end: the same.
    for made in (out / "checkpoints" / "checkpoint-2", out / "adapter"):
        subprocess.run(["rm", "-r", str(made)], check=True)
    (out / "model.safetensors").unlink()
    in_less_memory = settings(tiny_vlm, data, photos, out, lora=lora, max_steps=2, save_every=1, resume=True)
    train(replace(in_less_memory, model=replace(in_less_memory.model, gradient_checkpointing=True)))
    assert weights_of(out) == merged
    assert json.loads((out / "training.json").read_text())["operation"]["gradient_checkpointing"]
    assert assess(out, photos, tmp_path, capsys)[0] == 1


def first_gradients(out):
    """The gradients of a run's first step, which was not clipped: Adam's first moment is then a tenth of them."""
    kept = torch.load(out / "checkpoints" / "checkpoint-1" / "optimizer.pt", weights_only=True)
    (beta,) = {group["betas"][0] for group in kept["param_groups"]}
    return [kept["state"][number]["exp_avg"].double() / (1 - beta) for number in sorted(kept["state"])]


def test_all_tokens_of_a_step_weigh_the_same(tiny_vlm, data, photos, tmp_path):
    """Six rows of different lengths are one step, at once or one after another."""
    options = {"max_steps": 1, "save_every": 1, "max_grad_norm": 0.0}
    whole = train(settings(tiny_vlm, data, photos, tmp_path / "whole", batch_size=6, **options))
    options |= {"batch_size": 1, "gradient_accumulation_steps": 6}
    parts = train(settings(tiny_vlm, data, photos, tmp_path / "parts", **options))
    for one, summed in zip(first_gradients(whole), first_gradients(parts), strict=True):
        assert (summed - one).norm() <= 1e-5 * one.norm()


def test_it_learns(tiny_vlm, photos, tmp_path):
    data = make_data(tmp_path / "data", photos, count=2)
    out = train(
        settings(
            tiny_vlm, data, photos, tmp_path / "out", max_steps=30, learning_rate=3e-3, schedule="constant_with_warmup",
            save_every=100, log_every=10, validation=0.5,
        )
    )  # fmt: skip
    card = json.loads((out / "training.json").read_text())
    state = last_checkpoint(out, running.WHOLE) / "trainer_state.json"
    losses = [line["loss"] for line in json.loads(state.read_text())["log_history"] if "loss" in line]
    assert losses[-1] < 0.5 * losses[0]
    assert card["validation_loss"] < 0.5 * losses[0]  # the other picture's reply is nearly the same


def test_other_settings_are_not_resumed(tiny_vlm, data, photos, trained):
    with pytest.raises(RecordSettingsChanged, match="learning_rate"):
        train(settings(tiny_vlm, data, photos, trained, learning_rate=0.5, resume=True))
    with pytest.raises(OutputWouldOverwrite):
        train(settings(tiny_vlm, data, photos, trained))


def test_a_folder_of_something_else_is_not_replaced(tiny_vlm, data, photos, tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(OutputWouldOverwrite):
        train(settings(tiny_vlm, data, photos, tmp_path, overwrite=True))
    assert (tmp_path / "precious.txt").exists()


def test_rows_that_are_too_long_are_left_out_or_refused(tiny_vlm, data, photos, rows, processor, tmp_path):
    encoder = RowEncoder(processor, Pictures(photos))
    lengths = [encoder.length(row) for row in rows]
    longest = sorted(set(lengths))[-2]
    run = settings(tiny_vlm, data, photos, tmp_path / "out", max_length=longest)
    fitting, left_out = running._fitting(rows, encoder, run)
    assert len(fitting) == sum(length <= longest for length in lengths) < len(rows)
    assert {entry["tokens"] for entry in left_out} == {max(lengths)}
    with pytest.raises(OptionInvalid, match="more tokens"):
        train(settings(tiny_vlm, data, photos, tmp_path / "out", max_length=longest, too_long="refuse"))
    with pytest.raises(OptionInvalid, match="all rows"):
        running._fitting(rows, encoder, settings(tiny_vlm, data, photos, tmp_path / "out", max_length=5))
    with pytest.raises(OptionInvalid, match="context"):
        running._fitting(rows, encoder, settings(tiny_vlm, data, photos, tmp_path / "out", max_length=10**6))


def test_a_loss_that_is_no_number_ends_the_run():
    from types import SimpleNamespace

    from zoomiqa.errors import BackendFailed

    state = SimpleNamespace(is_world_process_zero=False, global_step=1, max_steps=2)
    running._Console().on_log(None, state, None, {"loss": 1.0})
    with pytest.raises(BackendFailed, match="loss"):
        running._Console().on_log(None, state, None, {"loss": float("nan")})


# --- bad data ----------------------------------------------------------------------------------------------------


def test_data_of_another_prompt_set_are_refused(data):
    with pytest.raises(PromptSetInvalid, match="another prompt set"):
        read_rows(data, default_prompts())


def test_a_folder_without_data_is_refused(tmp_path):
    with pytest.raises(OptionInvalid, match="build"):
        read_rows(tmp_path, PROMPTS)


@pytest.mark.parametrize("file", ["card.json", "sft.jsonl"])
def test_damaged_data_are_refused(file, photos, tmp_path):
    data = make_data(tmp_path / "data", photos)
    (data / file).write_text("{broken\n")
    with pytest.raises(RecordCorrupt):
        read_rows(data, PROMPTS)


def test_missing_looks_are_refused(rows):
    with pytest.raises(RecordCorrupt, match="t1"):
        appended_rows([rows[1]])


def test_a_missing_picture_is_found_before_training(tiny_vlm, photos, data, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ImageNotFound):
        train(settings(tiny_vlm, data, empty, tmp_path / "out"))


# --- the command -------------------------------------------------------------------------------------------------


def test_the_command_trains(tiny_vlm, photos, tmp_path, capsys):
    data = tmp_path / "data"
    from training.curation.build import build

    data.mkdir()
    build([record(photos, "coffee.png", 1, prompts=default_prompts())], data, default_prompts(), photos)
    words = ["--model", tiny_vlm, "--data", data, "--image-root", photos, "--out", tmp_path / "out"]
    more = ["--device", "cpu", "--max-steps", "1", "--batch", "1", "--accumulation", "1", "--lora", "2"]
    assert main([*map(str, words), *more]) == 0
    assert "1 steps, loss" in capsys.readouterr().err
    assert (tmp_path / "out" / "adapter").is_dir()
    card = json.loads((tmp_path / "out" / "training.json").read_text())
    assert card["settings"]["learning_rate"] == 2.5e-6
    assert main([*map(str, words), *more]) == 2
    assert "ZIQ-601" in capsys.readouterr().err


def test_the_command_says_what_is_missing(tmp_path):
    """Without the extra, help works and a run names it."""
    code = "import sys; sys.modules['trl'] = None\nfrom training.sft.command import main\nsys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code]
    assert subprocess.run([*words, "--help"], capture_output=True, cwd=ROOT, check=False).returncode == 0
    arguments = ["--data", ".", "--image-root", ".", "--out", str(tmp_path / "out")]
    told = subprocess.run([*words, *arguments], capture_output=True, text=True, cwd=ROOT, check=False)
    assert told.returncode == 2
    assert "ZIQ-502" in told.stderr
    assert "zoomiqa[train]" in told.stderr


@pytest.mark.slow
def test_two_processes_train_as_one(tiny_vlm, data, photos, tmp_path):
    """Six rows are one step, in one process or shared by two. Gradients are the same, up to the order of sums.

    Weights say less: the size of Adam's step does not depend on the gradient's, and where a gradient is all rounding,
    the order of sums decides the step's sign.
    """
    from safetensors.torch import load_file

    options = {"max_steps": 2, "save_every": 1, "max_grad_norm": 0.0}
    told = {"model": str(tiny_vlm), "data": str(data), "photos": str(photos), "batch_size": 3, **options}
    (tmp_path / "run.json").write_text(json.dumps(told | {"out": str(tmp_path / "two")}))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    launch = ["--standalone", "--nproc-per-node", "2", "-m", "tests.training.sft_tools", str(tmp_path)]
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *launch], cwd=ROOT, env=environment, check=True, timeout=300
    )
    one = train(settings(tiny_vlm, data, photos, tmp_path / "one", batch_size=6, **options))
    assert json.loads((tmp_path / "two" / "training.json").read_text())["processes"] == 2
    tokens = [json.loads((tmp_path / f"tokens{rank}.json").read_text())[0] for rank in (0, 1)]
    assert tokens[0] != tokens[1], "otherwise an average of averages would be the average"
    for single, double in zip(first_gradients(one), first_gradients(tmp_path / "two"), strict=True):
        assert (double - single).norm() <= 1e-5 * single.norm()  # measured: 4e-7 at most

    weights = load_file(tmp_path / "two" / "model.safetensors")
    apart = [(weights[name] - alone).abs().max() for name, alone in load_file(one / "model.safetensors").items()]
    assert float(max(apart)) <= 2 * 2 * 1e-3  # two steps of at most the rate, on either side
