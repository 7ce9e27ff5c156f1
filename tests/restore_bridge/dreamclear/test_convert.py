"""A checkpoint in the released naming: read, converted, saved, and refused where anything does not match."""

import pytest

pytest.importorskip("torch", reason="torch is not installed (extra diffusion)")
pytest.importorskip("diffusers", reason="diffusers is not installed (extra diffusion)")

import torch

from restore_bridge.restorers.diffusion.dreamclear import cleaner, convert, released
from restore_bridge.restorers.diffusion.dreamclear.pipeline import DreamClearPipeline
from restore_bridge.restorers.diffusion.loading import quiet
from tests import tiny_dreamclear
from zoomiqa.errors import OptionInvalid, OutputWouldOverwrite, WeightsRefused, WeightsUnsuitable


def test_there_and_back_is_the_same():
    tensors = tiny_dreamclear.checkpoint()
    network = convert.build_transformer(tensors)
    back = convert.to_released(network.state_dict(), tiny_dreamclear.SIZES)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_sizes_are_read_off_the_shapes():
    assert convert.sizes_of({**tiny_dreamclear.checkpoint(), **positions()}) == tiny_dreamclear.SIZES


def positions():
    shape = released.positions_shape(tiny_dreamclear.SIZES)
    return {released.POSITIONS: torch.zeros(shape)}


def test_stored_positions_are_known_and_left_out():
    found = convert.from_released({**tiny_dreamclear.checkpoint(), **positions()}, tiny_dreamclear.SIZES)
    assert found.keys() == convert.from_released(tiny_dreamclear.checkpoint(), tiny_dreamclear.SIZES).keys()


def test_what_does_not_match_is_listed_by_name():
    tensors = tiny_dreamclear.checkpoint()
    del tensors["cross_de.1.de_proj.bias"]
    tensors["am_pre.0.proj_mul.weight"] = torch.zeros(48, 25)
    tensors["lora.0.up"] = torch.zeros(2)
    with pytest.raises(WeightsUnsuitable) as caught:
        convert.build_transformer(tensors)
    text = str(caught.value)
    assert "1 missing: cross_de.1.de_proj.bias" in text
    assert "1 unknown: lora.0.up" in text
    assert "1 of another shape: am_pre.0.proj_mul.weight 48x25 instead of 48x24" in text


def test_long_lists_are_cut():
    tensors = {name: value for name, value in tiny_dreamclear.checkpoint().items() if "controlnet_pre" not in name}
    with pytest.raises(WeightsUnsuitable, match=r"30 missing: controlnet_pre\.0.* and 24 more"):
        convert.build_transformer(tensors)


def test_other_checkpoints_are_refused_by_what_they_lack():
    with pytest.raises(
        WeightsUnsuitable, match=r"no checkpoint of DreamClear: base_model\.x_embedder\.proj\.weight is mis"
    ):
        convert.build_transformer({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(4)})
    tensors = {**tiny_dreamclear.checkpoint(), "base_model.x_embedder.proj.weight": torch.zeros(48, 4)}
    with pytest.raises(WeightsUnsuitable, match="has 2 axes, not 4"):
        convert.build_transformer(tensors)
    with pytest.raises(OptionInvalid, match="heads must divide the width of a token, 48"):
        convert.build_transformer(tiny_dreamclear.checkpoint(), heads=5)


def test_a_missing_half_in_our_own_naming_is_listed():
    own = convert.build_transformer(tiny_dreamclear.checkpoint()).state_dict()
    del own["control_lq.blocks.0.attn1.to_k.weight"]
    with pytest.raises(WeightsUnsuitable, match=r"1 missing: control_lq\.blocks\.0\.attn1\.to_k\.weight"):
        convert.to_released(own, tiny_dreamclear.SIZES)


def test_pickles_need_permission_and_hold_nothing_but_tensors(folders, tmp_path):
    with pytest.raises(WeightsRefused, match="weights convert"):
        convert.read_transformer(folders["pickle"])
    ours = convert.read_transformer(folders["pickle"], allow_pickle=True)
    assert torch.equal(ours.null_embedding, tiny_dreamclear.checkpoint()["base_model.y_embedder.y_embedding"])
    marker = tmp_path / "ran"
    trap = tmp_path / "DreamClear-1024.pth"

    class Trap:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    torch.save({"state_dict": {"base_model.x_embedder.proj.weight": Trap()}}, trap)
    with pytest.raises(WeightsRefused):
        convert.read_transformer(trap, allow_pickle=True)
    assert not marker.exists()


def test_a_converted_checkpoint_gives_the_same_picture_when_loaded_again(folders, photo, tmp_path):
    """Released naming → pipeline → folder → pipeline."""
    pipe = convert.assemble(folders["checkpoint"], folders["base"], swinir=folders["swinir"])
    target = tmp_path / "converted"
    convert.convert(folders["checkpoint"], target, folders["base"], swinir=folders["swinir"], dtype="fp32")
    with quiet():
        again = DreamClearPipeline.from_pretrained(target)
    pictures = []
    for one in (pipe, again):
        one.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(2)
        done = one(photo, "a red cat", upscale=1, min_size=64, num_inference_steps=4, generator=generator)
        pictures.append(done.images[0].tobytes())
    assert pictures[0] == pictures[1]
    with pytest.raises(OutputWouldOverwrite, match="the target exists"):
        convert.convert(folders["checkpoint"], target, folders["base"])


def test_number_formats_are_those_that_each_part_can_bear(folders):
    with quiet():
        pipe = DreamClearPipeline.from_pretrained(
            folders["saved"], dtype={"default": torch.bfloat16, "vae": torch.float32}
        )
    kinds = {name: getattr(pipe, name).dtype for name in ("transformer", "text_encoder", "vae", "cleaner")}
    assert kinds == {
        "transformer": torch.bfloat16,
        "text_encoder": torch.bfloat16,
        "vae": torch.float32,
        "cleaner": torch.float32,
    }


def test_the_pre_pass_is_read_from_the_released_naming(folders, photo, tmp_path):
    ours = cleaner.read_cleaner(folders["swinir"])
    assert (ours.clean(photo) == tiny_dreamclear.cleaner().clean(photo)).all()
    ours.save_pretrained(tmp_path)
    again = cleaner.SwinIRModel.from_pretrained(tmp_path)
    assert (again.clean(photo) == ours.clean(photo)).all()


def test_a_pre_pass_that_enlarges_is_refused(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = cleaner.SwinIRModel(img_size=16, embed_dim=12, depths=(2,), num_heads=(2,), upscale=4, start_unshuffle=1)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.network.state_dict().items()}, tmp_path / "x4.safetensors"
    )
    with pytest.raises(WeightsUnsuitable, match="enlarges 4 times"):
        cleaner.read_cleaner(tmp_path / "x4.safetensors")
