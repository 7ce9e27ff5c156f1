"""DreamClear's parts against tensors that the original code gave, module by module.

The tensors are not in this repository; each test names what it needs and skips where it is absent. The bound of each
output is a few times what the original itself differs by between 32 and 64 bits.
"""

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (extra diffusion)")
pytest.importorskip("diffusers", reason="diffusers is not installed (extra diffusion)")

import torch
from safetensors.torch import load_file

from restore_bridge.restorers.diffusion import colour
from restore_bridge.restorers.diffusion.dreamclear import cleaner, convert, modulation, prediction, released, tiling
from restore_bridge.restorers.diffusion.dreamclear.released import Sizes
from restore_bridge.restorers.diffusion.dreamclear.scheduler import IDDPMScheduler, Table, spread_steps
from restore_bridge.restorers.diffusion.dreamclear.transformer import DreamClearTransformer2DModel, positions
from restore_bridge.restorers.diffusion.latent_tiling import gaussian_weights
from tests.shared import need

pytestmark = pytest.mark.shared


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


TINY = Sizes(width=48, inner=192, blocks=2, control_blocks=2, text_width=32, text_length=12, grid=4)
HEADS = 4


def golden(name):
    """(inputs, outputs, weights, description) of a stored case."""
    tensors = {}
    for part in (name, f"{name}.weights", f"{name}.io"):
        path = need("golden/dreamclear") / f"{part}.safetensors"
        if path.exists():
            tensors.update(load_file(path))
    assert tensors, name
    about = need("golden/dreamclear") / f"{name}.json"
    split = [
        {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        for prefix in ("in.", "out.", "sd.")
    ]
    return *split, json.loads(about.read_text("utf-8")) if about.exists() else {}


def near(ours, theirs, about=None, name="", floor=2e-6, times=4):
    """Within a few times the original's own rounding."""
    rounding = (about or {}).get("f32_vs_f64_max_abs", {}).get(name, 0.0)
    bound = max(times * rounding, floor)
    worst = float((ours.double() - theirs.double()).abs().max())
    assert ours.shape == theirs.shape
    assert worst <= bound, f"{name}: {worst:.2e} > {bound:.2e}"


def own(rows, weights, sizes=TINY):
    """A module's weights under our names."""
    entries = [entry for row in rows for entry in released.entries(row, sizes)]
    assert {entry.there for entry in entries} == weights.keys()
    return convert.from_entries(weights, entries)


def test_adaptive_modulator():
    given, wanted, weights, about = golden("adaptive_modulator")
    module = modulation.AdaptiveModulator(48)
    module.load_state_dict(own(released.MODULATOR, weights))
    for ours, name in zip(module(given["c"]), ("gamma", "beta"), strict=True):
        near(ours, wanted[name], about, name)


def test_mixture_of_modulators():
    given, wanted, weights, about = golden("moam")
    module = modulation.ModulatorMixture(48)
    module.load_state_dict(weights)
    near(module.shares(given["de_map"]), wanted["gate"], about, "gate")
    for ours, name in zip(module(given["c"], given["de_map"]), ("gamma", "beta"), strict=True):
        near(ours, wanted[name], about, name)


@pytest.mark.parametrize("case", ["b1", "b2"])
def test_reference_attention(case):
    given, wanted, weights, about = golden("cross_de")
    module = modulation.ReferenceAttention(48, HEADS)
    module.load_state_dict(own(released.REFERENCE, weights))
    pair = (given[f"{case}.c_lq"], given[f"{case}.c_pre"])
    for ours, name in zip(module(*pair), ("ref", "de_map"), strict=True):
        near(ours, wanted[f"{case}.{name}"], about, f"{case}.{name}")
    apart = module(*pair, joint=False)[0]
    assert torch.allclose(apart, module(*pair)[0], atol=1e-5) == (case == "b1")


def block(weights):
    """A block with weights in the released naming."""
    module = DreamClearTransformer2DModel(**convert.configuration(TINY, HEADS)).transformer_blocks[0].eval()
    module.load_state_dict(own(released.BLOCK, weights))
    return module


def padded(packed, lengths):
    """Packed texts (1, all tokens, d) as (b, most tokens, d) with what is added to the scores of filling."""
    texts = packed[0].split(lengths.tolist())
    full = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    seen = torch.arange(full.shape[1])[None] < lengths[:, None]
    return full, (~seen).float()[:, None] * -10_000.0


def test_block():
    given, wanted, weights, about = golden("pixart_block")
    module = block(weights)
    text, mask = padded(given["y"], given["y_lens"])
    x, modulators = given["x"], given["t0"]
    ours = module(x, encoder_hidden_states=text, encoder_attention_mask=mask, timestep=modulators)
    near(ours, wanted["x"], about, "x")
    near(module.attn1(x), wanted["self_attn"], about, "self_attn")
    near(module.attn2(x, encoder_hidden_states=text, attention_mask=mask), wanted["cross_attn"], about, "cross_attn")
    near(module.ff(x), wanted["mlp"], about, "mlp")
    everything = given["y_full"].expand(2, -1, -1)
    near(module(x, encoder_hidden_states=everything, timestep=modulators), wanted["nomask"], about, "nomask")


def test_control_block():
    given, wanted, weights, about = golden("control_block_0")
    module = block({name.removeprefix("copied_block."): tensor for name, tensor in weights.items()})
    text, mask = padded(given["y"], given["y_lens"])
    start = given["x"] + given["c"]
    ours = module(start, encoder_hidden_states=text, encoder_attention_mask=mask, timestep=given["t0"])
    near(ours, wanted["c"], about, "c")


def test_embedders_and_last_layer():
    given, wanted, weights, about = golden("embedders")
    config = {**convert.configuration(TINY, HEADS), "num_layers": 1, "num_control_layers": 1}
    model = DreamClearTransformer2DModel(**config).eval()
    loaded = model.load_state_dict(own(released.BASE, weights), strict=False)
    assert not loaded.unexpected_keys
    emb, steps = model.adaln_single.emb, given["timestep"]
    # Builds of torch differ in the last bit of an exponential, which a timestep of 437 makes 437 times larger.
    near(emb.time_proj(steps), wanted["t_freq"], about, "t_freq", floor=437 * 2**-23)
    near(emb.timestep_embedder(emb.time_proj(steps)), wanted["t"], about, "t", floor=1e-5)
    sizes = emb.resolution_embedder(emb.additional_condition_proj(given["img_hw"].flatten())).reshape(2, -1)
    near(sizes, wanted["csize"], about, "csize")
    ratios = emb.aspect_ratio_embedder(emb.additional_condition_proj(given["aspect_ratio"].flatten()))
    near(ratios, wanted["ar"], about, "ar")
    modulators, summed = model.adaln_single(
        steps,
        {"resolution": given["img_hw"], "aspect_ratio": given["aspect_ratio"]},
        batch_size=2,
        hidden_dtype=torch.float32,
    )
    near(summed, wanted["t_sum"], about, "t_sum", floor=1e-5)
    near(modulators, wanted["t0"], about, "t0", floor=1e-5)
    near(model.caption_projection(given["y"]), wanted["y"], about, "y")
    near(model.patch_embed(given["x"]), wanted["x"], about, "x")
    shift, scale = (model.scale_shift_table[None] + summed[:, None]).chunk(2, dim=1)
    near(
        model.proj_out(model.norm_out(given["tokens"]) * (1 + scale) + shift),
        wanted["final"],
        about,
        "final",
        floor=2e-5,
    )


def test_positions():
    _, wanted, _, _ = golden("pos_embed")
    for name, theirs in wanted.items():
        width, rows, columns, scale, base = (
            float(part.lstrip("abcdefghijklmnopqrstuvwxyz")) for part in name.split("_")
        )
        ours = positions(int(width), (int(rows), int(columns)), int(base), scale)
        near(ours[0], theirs, floor=1e-6)


@pytest.fixture(scope="module")
def model():
    """The whole tiny model, through the converter."""
    weights = golden("model_d2c2")[2]
    return convert.build_transformer(weights, heads=HEADS)


def words_of(given, sides=None):
    mask = given.get("mask")
    hidden = given["y"][:, 0]
    if mask is not None:
        mask = mask[:, 0].expand(sides or len(mask), -1)
    return prediction.Words(hidden, mask)


def case_of(name):
    given, wanted, _, about = golden("model_d2c2")
    inputs = {key.removeprefix(f"{name}."): value for key, value in given.items() if key.startswith(f"{name}.")}
    outputs = {key.removeprefix(f"{name}."): value for key, value in wanted.items() if key.startswith(f"{name}.")}
    return inputs, outputs, about["f32_vs_f64_max_abs"][f"{name}.out"]


@pytest.mark.parametrize("name", ["fwd_b1", "fwd_b2rect", "fwd_b2nomask"])
def test_whole_model(model, name):
    given, wanted, rounding = case_of(name)
    words = words_of(given)
    ours = model(
        given["x"],
        given["timestep"],
        words.hidden,
        given["c_lq"],
        given["c_pre"],
        encoder_attention_mask=words.mask,
        resolution=given["img_hw"],
        aspect_ratio=given["aspect_ratio"],
    ).sample
    near(ours, wanted["out"], {"f32_vs_f64_max_abs": {name: rounding}}, name, times=8)


TRACED = {
    "block": "transformer_blocks",
    "c_lq": "control_lq.blocks",
    "c_pre": "control_pre.blocks",
    "am_pre": "modulators_pre",
    "am_lq": "modulators_lq",
    "cross": "reference",
}


def guided(model, given, mends=prediction.NONE):
    words = words_of(given, sides=2)
    sizes = {"resolution": given["img_hw"], "aspect_ratio": given["aspect_ratio"]}
    conditions = prediction.Conditions(given["c_lq"], given["c_pre"])
    common = (model, given["x"][:1], given["timestep"][0])
    if "tile" not in given:
        return prediction.predict(*common, words, conditions, float(given["cfg_scale"]), mends, **sizes)
    boxes = tiling.window_boxes(given["x"].shape[:1:-1], int(given["tile"]), int(given["overlap"]))
    return prediction.predict_windows(
        *common, [words] * len(boxes), conditions, float(given["cfg_scale"]), mends, boxes, **sizes
    )


@pytest.mark.parametrize("name", ["fwd_b1", "cfg"])
def test_every_step_inside(model, name):
    """Blocks, branches, reference attention and modulators, as they come in the middle of a forward pass."""
    given, wanted, _ = case_of(name)
    seen = {}
    modules = dict(model.named_modules())
    hooks = [
        modules[f"{path}.{number}"].register_forward_hook(
            lambda module, inputs, output, key=f"{label}{number}": seen.update({key: output})
        )
        for label, path in TRACED.items()
        for number in range(2)
    ]
    hooks += [
        model.adaln_single.register_forward_hook(lambda *call: seen.update(t0=call[2][0])),
        model.caption_projection.register_forward_hook(lambda *call: seen.update(y_emb=call[2][:, None])),
    ]
    words = words_of(given)
    if name == "cfg":
        guided(model, given)
    else:
        model(
            given["x"],
            given["timestep"],
            words.hidden,
            given["c_lq"],
            given["c_pre"],
            encoder_attention_mask=words.mask,
        )
    for hook in hooks:
        hook.remove()
    parts = {"cross": ("ref", "de_map"), "am_pre": ("gamma", "beta"), "am_lq": ("gamma", "beta")}
    flat = {}
    for key, output in seen.items():
        names = parts.get(key.rstrip("01"))
        found = zip((f".{part}" for part in names), output, strict=True) if names else [("", output)]
        flat.update({f"trace.{key}{part}": value for part, value in found})
    expected = {key: value for key, value in wanted.items() if key.startswith("trace.")}
    assert flat.keys() == expected.keys()
    for key, theirs in expected.items():
        near(flat[key], theirs, floor=2e-5, name=key)


@pytest.mark.parametrize("name", ["cfg", "tile_12x20", "tile_20x8"])
def test_guided_prediction(model, name):
    given, wanted, rounding = case_of(name)
    near(guided(model, given), wanted["out"], {"f32_vs_f64_max_abs": {name: rounding}}, name, times=8)


def test_what_is_mended_is_what_the_original_does_not_do(model):
    """Both sides change each other by 0.34 before they are guided, as was measured on the original."""
    given, wanted, _ = case_of("cfg")
    words, conditions = words_of(given, 2), prediction.Conditions(given["c_lq"], given["c_pre"])
    joint, apart = (
        prediction.predict(model, given["x"][:1], 437, words, conditions, 1.0, mends)
        for mends in (prediction.NONE, prediction.Mends(attention=True))
    )
    assert float((joint - apart).abs().max()) == pytest.approx(0.34, abs=0.01)
    channels = guided(model, given, prediction.Mends(channels=True))
    assert torch.equal(channels[:, [0, 1, 2, 4, 5, 6, 7]], guided(model, given)[:, [0, 1, 2, 4, 5, 6, 7]])
    assert not torch.allclose(channels[:, 3], wanted["out"][:, 3], atol=1e-3)


def test_window_weights():
    _, wanted, _, _ = golden("gaussian_weights")
    for name, theirs in wanted.items():
        width, height = (int(part[1:]) for part in name.split("_"))
        ours = torch.from_numpy(gaussian_weights(width, height, centred=False))
        assert torch.allclose(ours.expand_as(theirs[0]), theirs[0], rtol=1e-13, atol=0)


def test_schedule():
    stored = load_file(need("golden/dreamclear/schedule.safetensors"))
    for steps in (4, 50, 1000):
        schedule = IDDPMScheduler()
        schedule.set_timesteps(steps)
        for name in Table.__dataclass_fields__:
            ours, theirs = getattr(schedule.table, name), stored[f"s{steps}.{name}"].numpy()
            assert np.allclose(ours, theirs, rtol=1e-12, atol=1e-15), (steps, name)
        assert schedule.timestep_map == stored[f"s{steps}.timestep_map"].tolist()
    about = json.loads(need("golden/dreamclear/schedule.json").read_text("utf-8"))
    for steps, theirs in about["timestep_map"].items():
        assert spread_steps(int(steps), 1000) == theirs


@pytest.mark.parametrize("case", ["var0", "vartanh", "var0_clip"])
def test_trajectory(case):
    given, wanted, _, _ = golden("trajectory")
    schedule = IDDPMScheduler(clip_sample=case.endswith("clip"))
    schedule.set_timesteps(4)
    assert [[step] * 2 for step in schedule.timesteps.tolist()] == wanted[f"{case}.timesteps"].tolist()
    latent = given["x"]
    for number, timestep in enumerate(schedule.timesteps):
        variance = torch.tanh(0.02 * latent) if case == "vartanh" else torch.zeros_like(latent)
        output = torch.cat([0.1 * latent, variance], dim=1)
        step = schedule.step(output, timestep, latent, noise=given[f"noise{number}"])
        latent = step.prev_sample
        scale = float(wanted[f"{case}.sample{number}"].abs().max())
        near(latent, wanted[f"{case}.sample{number}"], floor=2e-7 * scale)
        clean = wanted[f"{case}.pred_xstart{number}"]
        near(step.pred_original_sample, clean, floor=2e-7 * float(clean.abs().max()))


def test_noised_start():
    given, wanted, _, _ = golden("trajectory")
    near(IDDPMScheduler().add_noise(given["q_x0"], given["q_noise"], given["q_t"]), wanted["q_sample"], floor=5e-7)


def test_colour_fix():
    given, wanted, _, _ = golden("colorfix")
    content, style = given["content"], given["style"]
    near(colour.align_colour(content, style, "wavelet"), wanted["wavelet"], floor=1e-6)
    near(colour.align_colour(content, style, "adain"), wanted["adain"], floor=2e-6)
    for ours, name in zip(colour.split(content), ("content_high", "content_low"), strict=True):
        near(ours, wanted[name], floor=1e-6)
    near(colour.blur(content, 4), wanted["blur_r4"], floor=1e-6)
    for ours, name in zip(colour.statistics(style), ("style_mean", "style_std"), strict=True):
        near(ours, wanted[name], floor=1e-6)


def test_names_shapes_and_counts_of_the_released_model():
    """At full size, without memory: our model's tensors are the released ones, name by name."""
    stored = json.loads(need("golden/dreamclear/keys.json").read_text("utf-8"))
    sizes = Sizes()
    with torch.device("meta"):
        network = DreamClearTransformer2DModel(**convert.configuration(sizes))
    tensors = convert.to_released(network.state_dict(), sizes)
    tensors[released.POSITIONS] = network.native_positions
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == stored["keys"]
    assert sum(parameter.numel() for parameter in network.parameters()) == stored["n_parameters"]
    assert convert.sizes_of(tensors) == sizes
    groups = {}
    buffers = stored["buffers_in_state_dict"]
    for name in tensors.keys() - set(buffers):
        groups.setdefault(name.split(".")[0], []).append(tensors[name].numel())
    assert {name: {"tensors": len(group), "numel": sum(group)} for name, group in groups.items()} == stored[
        "parameter_groups"
    ]


def test_names_and_shapes_of_the_released_pre_pass():
    from accelerate import init_empty_weights

    stored = json.loads(need("golden/dreamclear/swinir_keys.json").read_text("utf-8"))
    with init_empty_weights():
        network = cleaner.SwinIRModel()
    tensors = cleaner.to_released(network.state_dict())
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == stored["keys"]
    assert sum(parameter.numel() for parameter in network.parameters()) == stored["n_parameters"]
