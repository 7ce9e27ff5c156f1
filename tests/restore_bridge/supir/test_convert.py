"""Released checkpoints to a pipeline and back: strict both ways, and the same picture afterwards."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from restore_bridge.restorers.diffusion.supir import convert, names
from restore_bridge.restorers.diffusion.supir.pipeline import SUPIRPipeline
from zoomiqa.errors import OutputWouldOverwrite, WeightsMissing, WeightsRefused, WeightsUnsuitable


def own_tensors(pipe):
    return convert.empty(convert.own_networks(pipe.unet, pipe.control, pipe.denoise_encoder))


def base_tensors(pipe):
    return convert.empty(convert.base_networks(pipe.unet, pipe.vae, pipe.text_encoder, pipe.text_encoder_2))


@pytest.fixture(scope="session")
def released(pipe, tmp_path_factory):
    """A folder with a checkpoint in the released naming, and its base as a single file and as a pipeline."""
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

    from tests.tiny_diffusion import _euler

    folder = tmp_path_factory.mktemp("released")
    save_file(own_tensors(pipe), folder / "SUPIR-v0Q.safetensors")
    torch.save({"state_dict": own_tensors(pipe)}, folder / "SUPIR-v0Q.ckpt")
    extra = {names.CLIP_G + "logit_scale": torch.ones(()), "denoiser.sigmas": torch.zeros(1000)}
    save_file({**base_tensors(pipe), **extra}, folder / "base.safetensors")
    plain = UNet2DConditionModel.from_config(pipe.unet.config)
    plain.load_state_dict({n: v for n, v in pipe.unet.state_dict().items() if not n.startswith("connectors.")})
    parts = (pipe.vae, pipe.text_encoder, pipe.text_encoder_2, pipe.tokenizer, pipe.tokenizer_2, plain, _euler())
    StableDiffusionXLPipeline(*parts, add_watermarker=False).save_pretrained(folder / "base")
    return folder


def draw(pipe):
    pipe.set_progress_bar_config(disable=True)
    picture = np.linspace(0, 1, 64 * 64 * 3, dtype=np.float32).reshape(64, 64, 3)
    options = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(3), "output_type": "np"}
    return pipe(picture, "a red cat", "blur", **options).images[0]


@pytest.fixture(scope="module")
def expected(pipe):
    return draw(pipe)


def test_names_are_the_released_ones(pipe):
    own, base = own_tensors(pipe), base_tensors(pipe)
    for name in (
        "model.control_model.input_hint_block.0.weight",
        "model.control_model.input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight",
        "model.control_model.middle_block.2.out_layers.3.bias",
        "model.diffusion_model.project_modules.0.param_free_norm.weight",
        "model.diffusion_model.project_modules.2.attn.to_out.0.bias",
        "model.diffusion_model.project_modules.5.zero_conv.weight",
        "first_stage_model.denoise_encoder.down.0.downsample.conv.weight",
        "first_stage_model.denoise_encoder.mid.attn_1.q.weight",
        "first_stage_model.denoise_encoder.norm_out.bias",
    ):
        assert name in own
    for name in (
        "model.diffusion_model.output_blocks.1.2.conv.weight",
        "model.diffusion_model.label_emb.0.2.bias",
        "model.diffusion_model.out.2.weight",
        "first_stage_model.decoder.up.3.upsample.conv.bias",
        "first_stage_model.post_quant_conv.weight",
        "conditioner.embedders.0.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight",
        "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight",
        "conditioner.embedders.1.model.transformer.resblocks.2.mlp.c_proj.bias",
        "conditioner.embedders.1.model.text_projection",
        "conditioner.embedders.1.model.positional_embedding",
    ):
        assert name in base
    assert not own.keys() & base.keys()
    assert own["first_stage_model.denoise_encoder.mid.attn_1.q.weight"].ndim == 4
    joined = base["conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"]
    layer = pipe.text_encoder_2.text_model.encoder.layers[0].self_attn
    assert torch.equal(joined, torch.cat([layer.q_proj.weight, layer.k_proj.weight, layer.v_proj.weight]))
    turned = base["conditioner.embedders.1.model.text_projection"]
    assert torch.equal(turned, pipe.text_encoder_2.text_projection.weight.T)


def test_a_checkpoint_converts_saves_reloads_and_gives_the_same_picture(released, expected, tmp_path):
    """The released naming, a single-file base, to a folder and back."""
    base, configs = released / "base.safetensors", released / "base"
    target = tmp_path / "supir"
    convert.convert(released / "SUPIR-v0Q.safetensors", base, target, configs=configs, dtype="fp32")
    again = SUPIRPipeline.from_pretrained(target)
    assert np.array_equal(draw(again), expected)
    first, second = (
        own_tensors(again),
        own_tensors(convert.assemble(released / "SUPIR-v0Q.safetensors", released / "base")),
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(OutputWouldOverwrite):
        convert.convert(released / "SUPIR-v0Q.safetensors", base, target, configs=configs)


def test_a_pickle_is_read_only_where_allowed(released, expected):
    with pytest.raises(WeightsRefused, match="pickle"):
        convert.assemble(released / "SUPIR-v0Q.ckpt", released / "base")
    made = convert.assemble(released / "SUPIR-v0Q.ckpt", released / "base", allow_pickle=True)
    assert np.array_equal(draw(made), expected)


def test_number_formats_are_as_asked(released):
    made = convert.assemble(released / "SUPIR-v0Q.safetensors", released / "base", dtype="bf16")
    assert made.unet.dtype == made.control.dtype == made.text_encoder_2.dtype == torch.bfloat16
    assert made.unet.connectors[0].scale.weight.dtype == torch.bfloat16
    assert made.vae.dtype == made.denoise_encoder.dtype == torch.float32
    assert not any(
        parameter.is_meta for part in (made.unet, made.control, made.denoise_encoder) for parameter in part.parameters()
    )


def spoil(released, tmp_path, change):
    from safetensors.torch import load_file

    tensors = load_file(released / "SUPIR-v0Q.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "spoilt.safetensors")
    return tmp_path / "spoilt.safetensors"


HINT = "model.control_model.input_hint_block.0.bias"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda tensors: tensors.pop(HINT), rf"of 237 tensors, 1 missing \({HINT}\), got"),
        (lambda tensors: tensors.update(stray=torch.zeros(1)), r"1 unknown \(stray\)"),
        (lambda tensors: tensors.update({HINT: torch.zeros(3)}), rf"1 of another shape \({HINT} \(3,\) for \(8,\)\)"),
        (
            lambda tensors: [tensors.pop(name) for name in list(tensors) if "project" in name],
            r"59 missing .* and 53 more",
        ),
    ],
)
def test_what_does_not_match_is_listed(change, match, released, tmp_path):
    with pytest.raises(WeightsUnsuitable, match=match):
        convert.assemble(spoil(released, tmp_path, change), released / "base")


def test_a_mismatch_lists_every_tensor(pipe):
    networks = convert.own_networks(pipe.unet, pipe.control, pipe.denoise_encoder)
    tensors = own_tensors(pipe)
    assert not convert.compare(tensors, networks)
    tensors["stray"] = tensors.pop(HINT)
    tensors["model.control_model.input_hint_block.0.weight"] = torch.zeros(2, 2)
    mismatch = convert.compare(tensors, networks)
    assert mismatch.lines() == [
        f"missing {HINT}",
        "unknown stray",
        "shape   model.control_model.input_hint_block.0.weight is (2, 2), should be (8, 4, 3, 3)",
    ]


def test_the_wrong_file_in_the_wrong_place_is_told(released):
    with pytest.raises(WeightsUnsuitable, match="237 missing"):
        convert.assemble(released / "base.safetensors", released / "base")
    with pytest.raises(WeightsUnsuitable, match="as base"):
        convert.assemble(
            released / "SUPIR-v0Q.safetensors", released / "SUPIR-v0Q.safetensors", configs=released / "base"
        )
    with pytest.raises(WeightsMissing):
        convert.assemble(released / "absent.safetensors", released / "base")


def test_a_base_of_another_family_is_refused(released, tmp_path):
    import json
    import shutil

    folder = Path(shutil.copytree(released / "base", tmp_path / "other"))
    config = json.loads((folder / "unet" / "config.json").read_text("utf-8"))
    (folder / "unet" / "config.json").write_text(json.dumps({**config, "use_linear_projection": False}), "utf-8")
    with pytest.raises(WeightsUnsuitable):
        convert.assemble(released / "SUPIR-v0Q.safetensors", folder)
