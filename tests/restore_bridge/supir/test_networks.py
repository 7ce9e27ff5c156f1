"""SUPIR's networks: equal to the original's outputs, its full-size lists, and to values of our own."""

import json

import pytest

from restore_bridge.restorers.diffusion.supir import names
from restore_bridge.restorers.diffusion.supir.architecture import XL, Architecture
from restore_bridge.restorers.diffusion.supir.connectors import ZeroCrossAttn, ZeroSFT
from restore_bridge.restorers.diffusion.supir.control import SUPIRControl
from restore_bridge.restorers.diffusion.supir.convert import RELEASED, Listing
from restore_bridge.restorers.diffusion.supir.unet import SUPIRUNet
from tests.restore_bridge.supir import golden
from tests.shared import need

SMALL = Architecture((32, 64), 1, (0, 1), 1, (2, 4), text_channels=32, added_channels=64, number_channels=8)


def far(ours, theirs):
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())


@pytest.mark.shared
@pytest.mark.parametrize("stem", golden.stems("zerosft_*"))
def test_zero_sft_is_the_originals(stem):
    facts, io = golden.load(stem)
    made = facts["constructor"]
    model = ZeroSFT(made["label_nc"], made["norm_nc"], made.get("concat_channels", 0), norm=made.get("norm", True))
    golden.fill(model, facts, ("", names.Names(names.ZERO_SFT)))
    for name in facts["outputs"]:
        scale = float(name.removeprefix("out_cs"))
        assert far(model(io["c"], io["h"], io.get("h_ori"), scale), io[name]) <= 1e-5


@pytest.mark.shared
@pytest.mark.parametrize("stem", golden.stems("zerocrossattn*"))
def test_zero_cross_attention_is_the_originals(stem):
    facts, io = golden.load(stem)
    model = ZeroCrossAttn(facts["constructor"]["context_dim"], facts["constructor"]["query_dim"])
    golden.fill(model, facts, ("", names.Names(names.ZERO_CROSS)))
    for name in facts["outputs"]:
        assert far(model(io["context"], io["x"], float(name.removeprefix("out_cs"))), io[name]) <= 1e-5


def control_of(stem):
    facts, io = golden.load(stem)
    shape = Architecture.from_options(facts["constructor"])
    model = golden.fill(SUPIRControl.for_architecture(shape), facts, ("", names.control_names(shape)))
    return model, io


@pytest.mark.shared
@pytest.mark.parametrize("stem", golden.stems("*_control"))
def test_the_control_copy_is_the_originals(stem):
    model, io = control_of(stem)
    features = model(io["x"], io["timesteps"], io["xt"], io["context"], io["y"])
    assert len(features) == sum(name.startswith("out_") for name in io)
    for number, feature in enumerate(features):
        assert far(feature, io[f"out_{number}"]) <= 1e-4


@pytest.mark.shared
@pytest.mark.parametrize("stem", golden.stems("*_unet"))
def test_the_denoiser_is_the_originals(stem):
    facts, io = golden.load(stem)
    shape = Architecture.from_options(facts["constructor"])
    _, control = golden.load(stem.replace("_unet", "_control"))
    tables = (("connectors.", names.connector_names(shape)), ("", names.unet_names(shape)))
    model = golden.fill(SUPIRUNet.for_architecture(shape), facts, *tables)
    features = [control[f"out_{number}"] for number in range(len(shape.features))]
    seen = {}
    for number, connector in enumerate(model.connectors):
        connector.register_forward_hook(lambda module, given, out, number=number: seen.update({number: out}))
    scales = sorted({name.split("cs")[1] for name in io if "cs" in name})
    for scale in scales:
        result = model(io["x"], io["timesteps"], io["context"], io["y"], features, float(scale))
        assert far(result, io[f"out_cs{scale}"]) <= 2e-5
        for number, out in seen.items():
            if f"project_{number}_cs{scale}" in io:
                assert far(out, io[f"project_{number}_cs{scale}"]) <= 1e-4


@pytest.fixture(scope="module")
def full_size():
    """Lists of the released models, from ours without weights."""
    import torch

    with torch.device("meta"):
        control, unet = SUPIRControl(), SUPIRUNet.for_architecture(XL)
    parts = {
        "control": (control, "", names.control_names(XL)),
        "connectors": (unet, "connectors.", names.connector_names(XL)),
        "base": (unet, "", names.unet_names(XL)),
    }
    found = {}
    for part, (model, begin, table) in parts.items():
        own = {
            name: list(value.shape)
            for name, value in model.state_dict().items()
            if name.startswith(begin) and (begin or not name.startswith("connectors."))
        }
        pairs = names.Names(table.modules).pairs(own)
        found[part] = {released: own[name] for released, name in pairs.items()}
    return found


@pytest.mark.parametrize("part", ["control", "connectors", "base"])
def test_full_size_is_what_was_released(part, full_size):
    assert Listing.of(full_size[part]) == RELEASED[part]


@pytest.mark.shared
def test_full_size_lists_are_the_originals(full_size):
    facts = json.loads(need(f"{golden.FOLDER}/keys.json").read_text("utf-8"))
    assert full_size["control"] == facts["control_keys"]
    assert full_size["connectors"] == facts["unet_project_keys"]
    assert full_size["base"] == facts["unet_base_keys"]
    assert Architecture.from_options(facts["unet_args"]) == XL
    for place, theirs in zip(XL.connectors, facts["project_modules"], strict=True):
        if theirs["type"] == "ZeroSFT":
            ours = {
                "label_nc": place.control_channels,
                "norm_nc": place.skip_channels,
                "concat_channels": place.decoder_channels,
            }
        else:
            ours = {"context_dim": place.control_channels, "query_dim": place.decoder_channels}
        assert place.attends == (theirs["type"] == "ZeroCrossAttn")
        assert {name: theirs[name] for name in ours} == ours


def test_the_listing_notices_a_change():
    first = Listing.of({"a": (2, 3), "b": (4,)})
    assert (first.tensors, first.parameters) == (2, 10)
    assert first != Listing.of({"a": (3, 2), "b": (4,)})
    assert first != Listing.of({"a": (2, 3), "c": (4,)})


def settle(model):
    """Weights that depend on no random generator."""
    import torch

    for number, parameter in enumerate(model.parameters()):
        count = parameter.numel()
        wave = torch.sin(torch.arange(1, count + 1, dtype=torch.float64) * 12.9898 + number * 78.233) * 43758.5453
        noise = (wave - wave.floor()) * 2 - 1
        size = (3 * parameter.shape[0] / count) ** 0.5 if parameter.ndim > 1 else 0.5
        parameter.copy_((noise * size).reshape(parameter.shape) + (parameter.ndim == 1) * 0.5)
    return model.eval()


def inputs(width=6):
    import torch

    def wave(*shape):
        return torch.sin(torch.arange(float(torch.Size(shape).numel())) * 0.3).reshape(shape)

    return wave(2, 4, 8, width), torch.tensor([3, 700]), wave(2, 4, 8, width) * 2, wave(2, 5, 32), wave(2, 64)


def test_values_of_our_own_stay():
    control, unet = settle(SUPIRControl.for_architecture(SMALL)), settle(SUPIRUNet.for_architecture(SMALL))
    lq, time, noisy, text, added = inputs()
    features = control(lq, time, noisy, text, added)
    sizes = [float(feature.abs().mean()) for feature in features]
    assert sizes == pytest.approx(FEATURES, rel=1e-3)
    for scale, expected in RESULTS.items():
        result = unet(noisy, time, text, added, features, scale)
        assert [float(value) for value in result[1, :, 3, 2]] == pytest.approx(expected, abs=5e-4)


FEATURES = [1.39695, 1.71938, 1.69236, 3.07267, 4.34584]
RESULTS = {1.0: [1.14087, 0.15028, 1.04256, 0.63536], 0.4: [1.17601, 0.36848, 0.7622, 0.06206]}


def test_without_control_the_base_alone_speaks():
    """At scale 0 the denoiser is diffusers' own with the same weights."""
    import torch
    from diffusers import UNet2DConditionModel

    unet, control = settle(SUPIRUNet.for_architecture(SMALL)), settle(SUPIRControl.for_architecture(SMALL))
    plain = UNet2DConditionModel.from_config(unet.config).eval()
    plain.load_state_dict({n: v for n, v in unet.state_dict().items() if not n.startswith("connectors.")})
    lq, time, noisy, text, added = inputs()
    pooled, sizes = added[:, :16], added[:, 16:22] * 500
    theirs = plain(noisy, time, text, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes}, return_dict=False)[
        0
    ]
    full = torch.cat([pooled, plain.add_time_proj(sizes.flatten()).reshape(2, -1)], dim=1)
    features = control(lq, time, noisy, text, full)
    assert far(unet(noisy, time, text, full, features, 0.0), theirs) <= 1e-5
    assert far(unet(noisy, time, text, full, features, 0.2), theirs) > 1e-2
    assert far(unet(noisy, time, text, added, features, 0.0), theirs) > 1e-2


def test_fresh_connectors_change_nothing_but_the_norm():
    """As training starts: scales, shifts and direct paths are zero."""
    import torch

    sft = ZeroSFT(16, 32, 32)
    for name in ("scale", "shift", "direct"):
        assert not any(value.any() for value in getattr(sft, name).parameters())
    control, skip, state = torch.randn(2, 16, 4, 4), torch.randn(2, 32, 4, 4), torch.randn(2, 32, 4, 4)
    assert torch.equal(sft(control, skip, state, 0.0), torch.cat([state, skip], 1))
    assert torch.allclose(sft(control, skip, state), torch.nn.functional.group_norm(torch.cat([state, skip], 1), 32))


def test_a_state_where_none_belongs_is_refused():
    import torch

    control, skip = torch.zeros(1, 16, 2, 2), torch.zeros(1, 32, 2, 2)
    with pytest.raises(ValueError, match="a state of 0 channels"):
        ZeroSFT(16, 32)(control, skip, skip)
    with pytest.raises(ValueError, match="a state of 32 channels"):
        ZeroSFT(16, 32, 32)(control, skip)


def test_the_number_of_features_must_fit():
    unet = SUPIRUNet.for_architecture(SMALL)
    _, time, noisy, text, added = inputs()
    with pytest.raises(ValueError, match="5 control features are needed, 1 were given"):
        unet(noisy, time, text, added, [noisy])


@pytest.mark.parametrize(
    "shape",
    [
        SMALL,
        Architecture((32, 64, 128), 2, (0, 1, 2), 2, (2, 4, 8), 32, 64, 8),
        Architecture((32, 32, 64), 1, (1, 0, 1), 1, (1, 1, 2), 16, 64, 8),
        XL,
    ],
)
def test_a_shape_survives_the_base_models_configuration(shape):
    assert Architecture.from_unet(shape.unet_config()) == shape
    last = [place for place in shape.connectors if not place.attends]
    assert [place.control_index for place in last] == list(range(len(shape.features)))
    assert [place.decoder_channels == 0 for place in last] == [*[False] * (len(last) - 1), True]


@pytest.mark.parametrize("shape", [Architecture((32, 64, 128), 2, (0, 1, 2), 2, (2, 4, 8), 32, 64, 8), SMALL])
def test_every_tensor_has_one_released_name(shape):
    control, unet = SUPIRControl.for_architecture(shape), SUPIRUNet.for_architecture(shape)
    own = list(control.state_dict())
    assert len(names.control_names(shape).pairs(own)) == len(own)
    tables = {True: names.connector_names(shape), False: names.unet_names(shape)}
    released = {tables[name.startswith("connectors.")].released(name): name for name in unet.state_dict()}
    assert None not in released
    assert len(released) == len(unet.state_dict())
    assert names.unet_names(shape).released("connectors.0.norm.weight") is None
    with pytest.raises(KeyError):
        names.unet_names(shape).pairs(["up_blocks.9.norm.weight"])


def test_a_model_of_another_family_is_refused():
    config = {**SMALL.unet_config(), "addition_embed_type": None}
    with pytest.raises(ValueError, match="SDXL's family"):
        Architecture.from_unet(config)
    with pytest.raises(ValueError, match="same at every level"):
        Architecture.from_unet({**SMALL.unet_config(), "layers_per_block": (1, 2)})
    with pytest.raises(ValueError, match="same levels"):
        Architecture((32, 64), 1, (0,), 1, (1, 2))
    with pytest.raises(ValueError, match="as deep as"):
        Architecture((32, 64), 1, (0, 1), 2, (1, 2))


def test_networks_come_back_from_a_folder(tmp_path):
    import torch

    for model in (settle(SUPIRControl.for_architecture(SMALL)), settle(SUPIRUNet.for_architecture(SMALL))):
        model.save_pretrained(tmp_path / type(model).__name__)
        again = type(model).from_pretrained(tmp_path / type(model).__name__)
        mine, theirs = model.state_dict(), again.state_dict()
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
