"""Models made ready to be trained, and written so that inference reads them."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from tests.training.sft_tools import PROMPTS, make_data  # noqa: E402
from training.models import (  # noqa: E402
    Lora,
    ModelSettings,
    choose_weights,
    load_model,
    lora_targets,
    part_of,
    save_model,
)
from training.pictures import Pictures, row_messages  # noqa: E402
from zoomiqa.backends.transformers import TransformersBackend  # noqa: E402
from zoomiqa.batch import OpenOptions  # noqa: E402
from zoomiqa.errors import ExtraMissing, ImageError, OptionInvalid, RecordCorrupt, WeightsUnsuitable  # noqa: E402
from zoomiqa.limits import Limits  # noqa: E402
from zoomiqa.protocol import ConversationSettings, converse  # noqa: E402
from zoomiqa.types import Reply  # noqa: E402


def parts_trained(model):
    return {part_of(name) for name, weight in model.named_parameters() if weight.requires_grad}


def test_all_weights_are_trained_unless_frozen(tiny_vlm):
    whole = load_model(ModelSettings(str(tiny_vlm)))
    assert whole.trained == whole.size
    assert parts_trained(whole.model) == {"vision", "projector", "language", "head"}
    without = load_model(ModelSettings(str(tiny_vlm), freeze_vision=True))
    assert parts_trained(without.model) == {"language", "head"}
    projector = load_model(ModelSettings(str(tiny_vlm), freeze_vision=True, freeze_projector=False))
    assert parts_trained(projector.model) == {"projector", "language", "head"}


def test_adapters_are_on_the_language_layers_only(tiny_vlm):
    loaded = load_model(ModelSettings(str(tiny_vlm), lora=Lora(2, 4)))
    trained = [name for name, weight in loaded.model.named_parameters() if weight.requires_grad]
    assert trained
    assert all("lora_" in name and "language_model" in name for name in trained)
    # Two layers with seven projections each, two matrices per adapter.
    assert len(trained) == 2 * 7 * 2
    with_vision = load_model(ModelSettings(str(tiny_vlm), lora=Lora(2, 4, vision=True)))
    names = [name for name, weight in with_vision.model.named_parameters() if weight.requires_grad]
    assert {part_of(name) for name in names} == {"language", "vision"}
    assert not any("lm_head" in name or "merger" in name for name in names)


def test_a_model_without_language_layers_takes_no_adapters():
    with pytest.raises(WeightsUnsuitable, match="LoRA"):
        lora_targets(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_what_inference_never_draws_is_suppressed_in_training_as_well(tiny_vlm):
    loaded = load_model(ModelSettings(str(tiny_vlm)))
    decoder = TransformersBackend(tiny_vlm, device="cpu").decoder(1)
    assert list(loaded.suppressed) == decoder._suppressed.tolist()
    special = loaded.processor.special_tokens
    assert special["<|video_pad|>"] in loaded.suppressed
    assert special["<|vision_start|>"] in loaded.suppressed
    assert loaded.ends == (special["<|im_end|>"],)
    assert not set(loaded.ends) & set(loaded.suppressed)


def test_small_steps_are_kept_somewhere_in_32_bits(monkeypatch):
    settings = ModelSettings("x")
    assert choose_weights(settings, "fp32").value == "fp32"
    assert choose_weights(settings, "bf16").value == "fp32"
    assert choose_weights(replace(settings, lora=Lora()), "bf16").value == "bf16"
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert choose_weights(settings, "bf16").value == "bf16"
    assert choose_weights(replace(settings, weights="fp32"), "bf16").reason == "asked for"


def test_a_merged_adapter_gives_what_the_adapted_model_gives(tiny_vlm, tmp_path):
    settings = ModelSettings(str(tiny_vlm), lora=Lora(2, 4, dropout=0.0))
    loaded = load_model(settings)
    with torch.no_grad():
        for name, weight in loaded.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.2)
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        wanted = loaded.model.eval()(input_ids=ids).logits
        base = load_model(ModelSettings(str(tiny_vlm))).model.eval()(input_ids=ids).logits
    assert save_model(loaded.model, loaded.processor, settings, tmp_path / "out") == tmp_path / "out"
    merged = TransformersBackend(tmp_path / "out", device="cpu").load()
    with torch.no_grad():
        found = merged(input_ids=ids).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert (found - base).abs().max() > 0.1
    assert (tmp_path / "out" / "adapter" / "adapter_config.json").exists()
    alone = save_model(loaded.model, loaded.processor, settings, tmp_path / "alone", merge=False)
    assert alone == tmp_path / "alone" / "adapter"
    assert not (tmp_path / "alone" / "config.json").exists()


def test_peft_is_needed_for_adapters_only(tiny_vlm, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    assert load_model(ModelSettings(str(tiny_vlm))).trained
    with pytest.raises(ExtraMissing, match=r"zoomiqa\[train\]"):
        load_model(ModelSettings(str(tiny_vlm), lora=Lora()))


@pytest.mark.parametrize(
    "wrong",
    [{"dtype": "int8"}, {"attention": "fast"}, {"max_pixels": 0}, {"freeze_vision": True, "lora": Lora(vision=True)}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(OptionInvalid):
        ModelSettings("x", **wrong)


def test_a_model_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(OptionInvalid, match="model"):
        load_model(ModelSettings(str(tmp_path / "none")))


# --- pictures ----------------------------------------------------------------------------------------------------


def rows_of(folder):
    return [json.loads(line) for line in (folder / "sft.jsonl").read_text().splitlines()]


def test_a_row_is_what_inference_is_asked(photos, tmp_path):
    """The request of a row has the messages of the conversation, and its picture the pixels."""
    rows = rows_of(make_data(tmp_path / "data", photos))
    pictures = Pictures(photos)
    first, second = rows[1], rows[2]
    assert (first["looks"], second["look"]) == (2, 2)
    picture = pictures.open(first["images"][0]["path"])
    settings = ConversationSettings(question=PROMPTS.questions[0])
    talk = converse(picture, settings, prompts=PROMPTS)
    asked = next(talk)
    assert pictures.request(first).messages == asked.messages
    asked = talk.send(Reply(row_messages(first)[0][-1].text))
    request = pictures.request(second)
    assert request.messages == asked.messages
    assert request.round_index == 1
    assert np.array_equal(request.picture.pixels, picture.pixels)


def test_pictures_stay_open_and_few(photos):
    pictures = Pictures(photos, cached=2)
    names = sorted(path.name for path in photos.iterdir())[:3]
    first = pictures.open(names[0])
    assert pictures.open(names[0]) is first
    pictures.open(names[1])
    pictures.open(names[2])
    assert pictures.open(names[0]) is not first


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "none.png", "", "a\0b"])
def test_no_picture_outside_the_root_is_opened(path, photos, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes((photos / "coffee.png").read_bytes())
    with pytest.raises(ImageError):
        Pictures(root).open(path)


def test_limits_hold(photos):
    with pytest.raises(ImageError):
        Pictures(photos, OpenOptions(limits=Limits(pixels=100))).open("coffee.png")


def test_a_root_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(OptionInvalid):
        Pictures(tmp_path / "none")


def spoil(row, how):
    row = json.loads(json.dumps(row))
    if how == "more pictures":
        row["images"].append(row["images"][0])
    elif how == "fewer pictures":
        row["images"] = []
    elif how == "another file":
        row["images"][-1]["path"] = "other.png"
    elif how == "box of words":
        row["images"][-1]["box"] = ["a", 0, 1, 1]
    elif how == "empty box":
        row["images"][-1]["box"] = [5, 5, 5, 9]
    elif how == "size of one number":
        row["images"][-1]["size"] = [9]
    elif how == "unknown part":
        row["messages"][0]["content"][0]["type"] = "video"
    elif how == "no reply":
        row["messages"].pop()
    else:
        del row["messages"]
    return row


@pytest.mark.parametrize(
    "how",
    [
        "more pictures", "fewer pictures", "another file", "box of words", "empty box", "size of one number",
        "unknown part", "no reply", "no messages",
    ],
)  # fmt: skip
def test_a_spoilt_row_is_refused(how, photos, tmp_path):
    row = rows_of(make_data(tmp_path / "data", photos))[2]
    row_messages(row)
    with pytest.raises(RecordCorrupt, match="t1/2"):
        row_messages(spoil(row, how))


@pytest.mark.parametrize("change", [{"box": [0, 0, 5000, 10]}, {"size": [5000, 10]}])
def test_a_crop_larger_than_its_picture_is_refused(change, photos, tmp_path):
    row = rows_of(make_data(tmp_path / "data", photos))[2]
    row["images"][-1] |= change
    with pytest.raises(RecordCorrupt, match="more than its picture"):
        Pictures(photos).request(row)
