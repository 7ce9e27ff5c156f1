"""DreamClear's networks at tiny size with random weights, without stored tensors of the original."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (extra diffusion)")
pytest.importorskip("diffusers", reason="diffusers is not installed (extra diffusion)")

import torch

from restore_bridge.restorers.diffusion import colour
from restore_bridge.restorers.diffusion.dreamclear import cleaner, convert, modulation, prediction, released, tiling
from restore_bridge.restorers.diffusion.dreamclear.released import Sizes
from restore_bridge.restorers.diffusion.dreamclear.transformer import DreamClearTransformer2DModel
from restore_bridge.restorers.diffusion.latent_tiling import gaussian_weights
from tests import tiny_dreamclear
from zoomiqa.errors import OptionInvalid
from zoomiqa.types import Box


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def network():
    return convert.build_transformer(tiny_dreamclear.checkpoint())


def inputs(height=8, width=8, batch=2, tokens=20, seed=5):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    lengths = torch.tensor([7, tokens])[:batch]
    return {
        "hidden_states": draw(batch, 4, height, width),
        "timestep": torch.tensor([437, 20])[:batch],
        "encoder_hidden_states": draw(batch, tokens, 32),
        "lq_latents": draw(batch, 4, height, width),
        "pre_latents": draw(batch, 4, height, width),
        "encoder_attention_mask": (torch.arange(tokens)[None] < lengths[:, None]).long(),
    }


EXPECTED = [-0.058108, 0.121313, -0.313816, 0.010353, 0.363475, 0.007075, 0.258799, -0.076324, 0.136279]
EXPECTED_RECTANGLE = 0.125419


def test_own_values_stay(network):
    """Values of this implementation, which then agreed with the original's; a change of any part moves them."""
    output = network(**inputs()).sample
    assert output.shape == (2, 8, 8, 8)
    found = [*output[0, :4, 3, 5].tolist(), *output[1, 4:, 0, 7].tolist(), float(output.abs().mean())]
    assert found == pytest.approx(EXPECTED, abs=2e-5)


def test_a_rectangular_latent(network):
    output = network(**inputs(height=6, width=14, batch=1)).sample
    assert output.shape == (1, 8, 6, 14)
    assert float(output.abs().mean()) == pytest.approx(EXPECTED_RECTANGLE, abs=2e-5)


def test_what_the_mask_hides_is_not_read(network):
    given = inputs()
    output = network(**given).sample
    given["encoder_hidden_states"][0, 7:] += 5.0
    assert torch.equal(network(**given).sample, output)
    given["encoder_hidden_states"][0, 6] += 5.0
    assert not torch.allclose(network(**given).sample, output)


def test_members_of_a_batch_are_joint_unless_kept_apart(network):
    given = inputs()
    alone = [network(**{name: value[index : index + 1] for name, value in given.items()}).sample for index in (0, 1)]
    apart = network(**given, joint_attention=False).sample
    assert torch.allclose(apart, torch.cat(alone), atol=1e-5)
    assert not torch.allclose(network(**given).sample, apart, atol=1e-3)


@pytest.mark.parametrize("name", ["lq_latents", "pre_latents", "encoder_hidden_states", "timestep"])
def test_every_input_has_a_say(network, name):
    given = inputs()
    output = network(**given).sample
    given[name] = given[name] + (1 if name == "timestep" else 0.1)
    assert not torch.allclose(network(**given).sample, output, atol=1e-4)


def test_sizes_are_read_and_default_to_the_originals(network):
    given = inputs()
    output = network(**given).sample
    same = network(**given, resolution=torch.tensor([[1024.0, 1024.0]]), aspect_ratio=torch.tensor([[1.0]])).sample
    assert torch.equal(output, same)
    assert not torch.allclose(network(**given, resolution=torch.tensor([[512.0, 768.0]])).sample, output, atol=1e-4)


def test_without_its_branches_it_is_pixart():
    """With modulators and reference silenced, the denoiser is diffusers' PixArt-alpha, weight by weight."""
    from diffusers import PixArtTransformer2DModel

    tensors = tiny_dreamclear.checkpoint()
    for name in tensors:
        if ".proj_mul." in name or ".proj_add." in name or (name.startswith("cross_de") and ".proj." in name):
            tensors[name] = torch.zeros_like(tensors[name])
    ours = convert.build_transformer(tensors)
    config = ours.config
    theirs = PixArtTransformer2DModel(
        num_attention_heads=config.num_attention_heads,
        attention_head_dim=config.attention_head_dim,
        num_layers=config.num_layers,
        cross_attention_dim=48,
        sample_size=config.sample_size,
        interpolation_scale=2,
        caption_channels=32,
        use_additional_conditions=True,
    ).eval()
    for block in theirs.transformer_blocks:  # this tiny one is narrower inside than diffusers' fixed ratio
        block.ff = type(block.ff)(48, inner_dim=96, activation_fn="gelu-approximate")
    own = {name.replace("patch_embed.", "pos_embed."): tensor for name, tensor in ours.state_dict().items()}
    theirs.load_state_dict({name: own[name] for name in theirs.state_dict()})
    given = inputs()
    expected = theirs(
        given["hidden_states"],
        encoder_hidden_states=given["encoder_hidden_states"],
        timestep=given["timestep"],
        encoder_attention_mask=given["encoder_attention_mask"],
        added_cond_kwargs={"resolution": torch.full((2, 2), 1024.0), "aspect_ratio": torch.ones(2, 1)},
        return_dict=False,
    )[0]
    assert torch.allclose(ours(**given).sample, expected, atol=1e-5)


def test_sixteen_bit_numbers_give_nearly_the_same(network):
    given = inputs()
    half = convert.build_transformer(tiny_dreamclear.checkpoint(), dtype=torch.bfloat16)
    kept = ("timestep", "encoder_attention_mask")
    output = half(**{name: value if name in kept else value.bfloat16() for name, value in given.items()}).sample
    assert output.dtype == torch.bfloat16
    full = network(**given).sample
    assert float((output.float() - full).abs().mean() / full.abs().mean()) < 0.02


@pytest.mark.slow
def test_it_compiles_as_one_graph():
    sizes = replace(tiny_dreamclear.SIZES, blocks=2, control_blocks=1, experts=1)
    network = convert.build_transformer(tiny_dreamclear.checkpoint(sizes))
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    given = inputs()
    assert torch.allclose(compiled(**given).sample, network(**given).sample, atol=1e-6)


def test_full_size_names_and_counts():
    """Against the compact table of the released model; `test_golden` holds that table to the stored list."""
    sizes = Sizes()
    with torch.device("meta"):
        network = DreamClearTransformer2DModel(**convert.configuration(sizes))
    tensors = convert.to_released(network.state_dict(), sizes)
    assert len(tensors) + 1 == released.NAMES
    assert len(list(network.parameters())) > released.PARAMETER_TENSORS, "queries, keys and values lie apart here"
    assert sum(parameter.numel() for parameter in network.parameters()) == released.PARAMETERS
    assert tensors["am_lq.27.gate.2.weight"].shape == (3, 24)
    assert network.native_positions.shape == released.positions_shape(sizes)


def test_full_size_of_the_pre_pass():
    from accelerate import init_empty_weights

    with init_empty_weights():
        network = cleaner.SwinIRModel()
    assert sum(parameter.numel() for parameter in network.parameters()) == cleaner.PARAMETERS
    names = cleaner.to_released(network.state_dict())
    assert len(names) == cleaner.NAMES
    assert names["conv_first.1.weight"].shape == (180, 192, 3, 3)


def test_the_pre_pass_keeps_size_and_range(photo):
    network = tiny_dreamclear.cleaner()
    odd = np.ascontiguousarray(photo[:50, :97])
    whole = network.clean(odd)
    assert (whole.shape, whole.dtype) == (odd.shape, np.uint8)
    planes = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    cleaned = network(planes)
    assert cleaned.shape == planes.shape
    assert 0 <= float(cleaned.min()) <= float(cleaned.max()) <= 1


def test_shares_of_experts_sum_to_one():
    torch.manual_seed(0)
    module = modulation.ModulatorMixture(12, experts=4)
    maps = torch.randn(2, 5, 12)
    assert torch.allclose(module.shares(maps).sum(-1), torch.ones(2, 5))
    gamma, beta = module(maps, maps)
    assert gamma.shape == beta.shape == (2, 5, 12)


def test_guidance_leaves_the_last_channel_and_the_variance():
    raw = torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(2))
    guided = prediction.guide(raw, 4.5, 3)
    expected = raw[1, :3] + 4.5 * (raw[0, :3] - raw[1, :3])
    assert torch.allclose(guided[0, :3], expected)
    assert torch.equal(guided[0, :3], guided[1, :3])
    assert torch.equal(guided[:, 3:], raw[:, 3:])


def test_mends_are_named():
    assert prediction.Mends.of(["all"]).to_list() == ["attention", "channels", "mask", "windows"]
    assert prediction.Mends.of([]) == prediction.NONE
    with pytest.raises(OptionInvalid, match="attention, channels, mask, windows, or all"):
        prediction.Mends.of(["colour"])


@pytest.mark.parametrize(
    ("size", "side", "overlap", "columns", "rows"),
    [
        ((128, 128), 128, 32, [0], [0]),
        ((256, 128), 128, 32, [0, 96, 128], [0]),
        ((300, 170), 128, 32, [0, 96, 172], [0, 42]),
        ((20, 12), 8, 2, [0, 6, 12], [0, 4]),
        ((20, 6), 8, 2, [0, 4, 8, 12, 14], [0]),
        ((224, 224), 128, 32, [0, 96], [0, 96]),
    ],
)
def test_windows_lie_where_the_original_puts_them(size, side, overlap, columns, rows):
    """By hand from its rule: multiples of side - overlap, the last one moved back; narrow latents shrink the window."""
    boxes = tiling.window_boxes(size, side, overlap)
    edge = min(side, *size) if max(size) > side else None
    expected = [Box(x, y, x + (edge or size[0]), y + (edge or size[1])) for x in columns for y in rows]
    assert list(boxes) == expected


def test_a_small_latent_of_any_shape_is_one_window():
    assert tiling.window_boxes((96, 112), 128, 32) == (Box(0, 0, 96, 112),)


def test_an_overlap_without_end_is_refused():
    with pytest.raises(OptionInvalid, match="less than the window"):
        tiling.window_boxes((40, 8), 16, 8)


def test_window_weights_are_half_a_pixel_low_unless_centred():
    weights = gaussian_weights(6, 6, centred=False)
    assert np.allclose(weights, weights[:, ::-1])
    assert weights[:, 2].argmax() == 3
    assert not np.allclose(weights, weights[::-1])
    centred = gaussian_weights(6, 6)
    assert np.allclose(centred, centred[::-1])
    assert np.allclose(centred, centred.T)


@pytest.mark.parametrize("centred", [False, True])
def test_windows_that_agree_blend_to_what_they_say(centred):
    whole = torch.randn(1, 2, 20, 12, generator=torch.Generator().manual_seed(3))
    boxes = tiling.window_boxes((12, 20), 8, 4)
    blended = tiling.blend_windows(
        lambda number, box: whole[..., box.y1 : box.y2, box.x1 : box.x2], boxes, whole.shape, "cpu", centred=centred
    )
    assert torch.allclose(blended, whole, atol=1e-6)


def test_colours_come_from_the_reference_and_detail_stays():
    generator = torch.Generator().manual_seed(4)
    picture = torch.rand(1, 3, 80, 96, generator=generator)
    reference = picture.flip(3) * 0.5 + torch.tensor([0.3, 0.1, 0.0])[None, :, None, None]
    fixed = colour.align_colour(picture, reference, "adain")
    assert torch.allclose(fixed.mean((2, 3)), reference.mean((2, 3)), atol=1e-4)
    assert torch.allclose(fixed.std((2, 3)), reference.std((2, 3)), atol=1e-3)
    fixed = colour.align_colour(picture, reference, "wavelet")
    assert torch.allclose(fixed.mean((2, 3)), reference.mean((2, 3)), atol=5e-3)
    assert torch.allclose(colour.split(fixed - reference)[1].abs().amax(), torch.tensor(0.0), atol=0.1)
    assert torch.allclose(colour.align_colour(picture, picture, "wavelet"), picture, atol=1e-5)
    assert colour.align_colour(picture, reference, "none") is picture
    with pytest.raises(OptionInvalid, match="wavelet, adain, none"):
        colour.align_colour(picture, reference, "lab")
