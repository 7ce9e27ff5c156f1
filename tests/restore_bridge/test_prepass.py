"""The SwinIR pre-pass: real models with random weights, so every property but their looks is held here."""

from __future__ import annotations

import json
import sys
import threading
import warnings

import numpy as np
import pytest
from skimage import data

from restore_bridge.bridge import RestoreBridge
from restore_bridge.cli import main
from restore_bridge.prepass import describe_prepass, load_prepass, swinir
from restore_bridge.restorers import Restored
from restore_bridge.settings import BridgeSettings
from restore_bridge.weights import sha256_of
from tests.restore_bridge.test_bridge import Brighten, judge
from zoomiqa.devices import choose_device, memory_errors
from zoomiqa.errors import (
    BackendFailed,
    ExtraMissing,
    OptionInvalid,
    WeightsDamaged,
    WeightsMissing,
    WeightsRefused,
    WeightsUnsuitable,
)
from zoomiqa.imaging import picture_from_array

torch = pytest.importorskip("torch", reason="extra diffusion")
spandrel = pytest.importorskip("spandrel", reason="extra diffusion")
safetensors_torch = pytest.importorskip("safetensors.torch", reason="extra diffusion")

SMALL = {"embed_dim": 12, "depths": [2, 2], "num_heads": [2, 2]}


def model_tensors(kind, **size):
    """The state dict of a SwinIR with random weights, under the names that its trainers use."""
    from spandrel.architectures.SwinIR import SwinIR

    options = {
        "general": {"upscale": 8, "start_unshuffle": 8, "upsampler": "nearest+conv", "mlp_ratio": 2.0},
        "real x2": {"upscale": 2, "upsampler": "nearest+conv", "mlp_ratio": 2.0},
        "real x4": {"upscale": 4, "upsampler": "nearest+conv", "mlp_ratio": 2.0},
        "real x4 large": {"upscale": 4, "upsampler": "nearest+conv", "mlp_ratio": 2.0, "resi_connection": "3conv"},
        "denoise": {"upscale": 1, "upsampler": "", "mlp_ratio": 2.0},
        "grey": {"upscale": 1, "upsampler": "", "mlp_ratio": 2.0, "in_chans": 1},
    }[kind]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.meshgrid")
        model = SwinIR(img_size=64, window_size=8, **options, **(size or SMALL))
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    if kind == "general":
        # DiffBIR's SwinIR puts the reduction into the first layer, which therefore is the second of a sequence.
        tensors = {name.replace("conv_first.", "conv_first.1."): value for name, value in tensors.items()}
    return tensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for kind in ("general", "real x2", "real x4", "real x4 large", "denoise", "grey"):
        safetensors_torch.save_file(model_tensors(kind), folder / f"{kind}.safetensors")
    return folder


@pytest.fixture(scope="module")
def photo():
    alpha = np.linspace(0, 255, 60 * 150).reshape(60, 150).astype(np.uint8)
    return picture_from_array(np.dstack([data.astronaut()[:60, :150], alpha]))


@pytest.mark.parametrize("kind", ["general", "real x2", "real x4", "real x4 large", "denoise"])
def test_every_kind_of_model_keeps_size_input_and_alpha(folder, photo, kind):
    before = photo.pixels.copy()
    prepass = load_prepass("swinir", weights=folder / f"{kind}.safetensors", tile_px=64, overlap_px=0)
    cleaned = prepass.clean(photo)
    assert cleaned.size == photo.size
    assert np.array_equal(cleaned.alpha, photo.alpha)
    assert not cleaned.pixels.flags.writeable
    assert np.array_equal(photo.pixels, before)
    assert cleaned.notes == photo.notes


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (63, 64), (65, 7)])
@pytest.mark.parametrize("kind", ["general", "real x2"])
def test_every_size_passes(folder, size, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    prepass = load_prepass("swinir", weights=folder / f"{kind}.safetensors")
    assert prepass.clean(picture_from_array(pixels)).pixels.shape == pixels.shape


def test_what_comes_out_is_what_spandrel_gives(folder):
    """On a picture that needs neither padding nor tiles."""
    pixels = np.ascontiguousarray(data.astronaut()[:128, :192])
    for kind in ("general", "denoise"):
        path = folder / f"{kind}.safetensors"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.meshgrid")
            model = spandrel.ModelLoader("cpu").load_from_file(path).eval()
        expected = model(torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None])
        expected = np.rint(expected[0].permute(1, 2, 0).numpy() * 255)
        assert np.array_equal(load_prepass("swinir", weights=path).clean(picture_from_array(pixels)).pixels, expected)


@pytest.mark.parametrize("scale", [2, 4])
def test_an_enlarging_model_is_averaged_back(scale):
    """Each pixel becomes a square of pixels that differ but have its value as their mean."""
    pixels = np.random.default_rng(0).integers(40, 200, (70, 90, 3), dtype=np.uint8)

    def network(planes):
        large = planes.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
        large[..., ::2] += 0.1
        large[..., 1::2] -= 0.1
        return large

    assert np.array_equal(swinir.clean_pixels(pixels, network, 64, 0), pixels)


def convolutions(reach):
    """A network of convolutions that sees `reach` pixels around each, with zeros beyond the edges."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU()]
    for _ in range(reach - 2):
        layers += [torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Conv2d(8, 3, 3, padding=1), torch.nn.Sigmoid()).requires_grad_(False)


def contrasty(network):
    """Stretch a network's small differences over the whole range, so that a wrong pixel shows."""
    flat = network(torch.from_numpy(data.astronaut()[:128, :128].astype(np.float32) / 255).permute(2, 0, 1)[None])
    low, high = flat.min(), flat.max()
    return lambda planes: ((network(planes) - low) / (high - low)).clamp(0, 1)


@pytest.mark.parametrize(("tile", "overlap"), [(128, 64), (192, 64)])
def test_tiled_equals_untiled_for_convolutions(tile, overlap):
    """C8 68: at most 1/255."""
    pixels = data.astronaut()[:200, :300]
    network = contrasty(convolutions(reach=overlap // 4))
    whole = swinir.clean_pixels(pixels, network, 512, 0).astype(int)
    tiled = swinir.clean_pixels(pixels, network, tile, overlap).astype(int)
    assert np.abs(tiled - whole).max() <= 1
    assert whole.std() > 20, "the network gives a picture, not a flat field"
    seams = swinir.clean_pixels(pixels, network, 64, 0).astype(int)
    assert np.abs(seams - whole).max() > 1, "without overlap the tiles show, so this test can fail"


def test_tiled_is_close_to_untiled_for_swinir(folder):
    """A SwinIR looks further than a margin; 1/255 was measured here, and 29/255 without overlap."""
    pixels = data.astronaut()[:256, :320]
    network = contrasty(load_prepass("swinir", weights=folder / "general.safetensors")._loaded().network)
    whole = swinir.clean_pixels(pixels, network, 512, 0).astype(int)
    assert whole.std() > 20
    assert np.abs(swinir.clean_pixels(pixels, network, 256, 128) - whole).max() <= 2


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: {"params_ema": inner, "params": {"x": torch.ones(1)}},
        lambda inner: {"state_dict": {f"module.{name}": value for name, value in inner.items()}, "epoch": 3},
    ],
)
def test_trainers_checkpoints_load_with_the_flag(tmp_path, folder, photo, wrap):
    path = tmp_path / "model.ckpt"
    torch.save(wrap(model_tensors("general")), path)
    with pytest.raises(WeightsRefused, match="weights convert"):
        load_prepass("swinir", weights=path)
    small = picture_from_array(photo.pixels[:64, :64])
    cleaned = load_prepass("swinir", weights=path, allow_pickle=True).clean(small)
    expected = load_prepass("swinir", weights=folder / "general.safetensors").clean(small)
    assert np.array_equal(cleaned.pixels, expected.pixels)


def test_half_precision_weights_are_worked_with_in_32_bits(tmp_path, photo):
    path = tmp_path / "half.safetensors"
    halves = {
        name: value.half() if value.is_floating_point() else value for name, value in model_tensors("general").items()
    }
    safetensors_torch.save_file(halves, path)
    prepass = load_prepass("swinir", weights=path)
    prepass.clean(picture_from_array(photo.pixels[:64, :64]))
    assert prepass.describe()["dtype"] == "float32"
    assert {value.dtype for value in swinir.read_model(path).model.parameters()} == {torch.float32}


# What is said when it cannot work


def test_without_weights_the_way_to_get_them_is_said():
    with pytest.raises(WeightsMissing) as caught:
        load_prepass("swinir")
    assert "weights convert lxq007/DiffBIR:general_swinir_v1.ckpt general_swinir_v1.safetensors" in str(caught.value)
    assert "--prepass-weights general_swinir_v1.safetensors" in str(caught.value)


def test_a_local_file_is_looked_at_at_once_and_a_hub_file_is_not(tmp_path):
    with pytest.raises(WeightsMissing, match="no weights file"):
        load_prepass("swinir", weights=str(tmp_path / "no.safetensors"))
    page = tmp_path / "page.safetensors"
    page.write_text("<!doctype html>")
    with pytest.raises(WeightsDamaged, match="web page"):
        load_prepass("swinir", weights=page)
    assert load_prepass("swinir", weights="some/where:model.safetensors").weights == "some/where:model.safetensors"


def save_esrgan(path):
    from spandrel.architectures.ESRGAN import ESRGAN

    safetensors_torch.save_file(ESRGAN(num_filters=8, num_blocks=1).state_dict(), path)


def save_others(path):
    safetensors_torch.save_file({"unet.down.weight": torch.ones(2), "unet.up.weight": torch.ones(2)}, path)


def save_incomplete(path):
    tensors = model_tensors("general")
    del tensors["layers.0.residual_group.blocks.1.norm1.weight"]
    safetensors_torch.save_file(tensors, path)


def save_misshapen(path):
    tensors = model_tensors("general")
    tensors["conv_last.weight"] = torch.ones(3, 7, 3, 3)
    safetensors_torch.save_file(tensors, path)


def save_grey(path):
    safetensors_torch.save_file(model_tensors("grey"), path)


@pytest.mark.parametrize(
    ("save", "said"),
    [
        (save_esrgan, "weights of ESRGAN .*not of SwinIR"),
        (save_others, r"2 tensors \(unet.down.weight and others\) belong to no model"),
        (save_incomplete, "do not fit together"),
        (save_misshapen, "do not fit together"),
        (save_grey, "takes 1 and gives 1 channels"),
    ],
)
def test_weights_of_another_model_are_named(tmp_path, photo, save, said):
    path = tmp_path / "model.safetensors"
    save(path)
    prepass = load_prepass("swinir", weights=path)
    for call in (prepass.describe, lambda: prepass.clean(photo)):
        with pytest.raises(WeightsUnsuitable, match=said):
            call()


def test_a_model_that_gives_no_numbers_is_a_failure(tmp_path, photo):
    tensors = model_tensors("general")
    tensors["conv_last.bias"] = torch.full((3,), float("nan"))
    safetensors_torch.save_file(tensors, tmp_path / "nan.safetensors")
    with pytest.raises(BackendFailed, match="NaN"):
        load_prepass("swinir", weights=tmp_path / "nan.safetensors").clean(photo)


@pytest.mark.parametrize(
    "options", [{"tile_px": 0}, {"tile_px": 100}, {"overlap_px": -1}, {"tile_px": 128, "overlap_px": 65}]
)
def test_tiles_that_do_not_fit_the_model_are_refused(folder, options):
    with pytest.raises(OptionInvalid):
        load_prepass("swinir", weights=folder / "general.safetensors", **options)


def test_missing_spandrel_names_the_install(folder, photo, monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(ExtraMissing, match=r'pip install "zoomiqa\[diffusion\]"'):
        load_prepass("swinir", weights=folder / "general.safetensors").clean(photo)


# Memory, device, life


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_when_memory_runs_out_tiles_are_halved_once(folder, photo, error):
    """C8 71."""
    prepass = load_prepass("swinir", weights=folder / "general.safetensors", tile_px=192, overlap_px=64)
    loaded, sides = prepass._loaded(), []
    network = loaded.network

    def scarce(limit):
        def run(planes):
            sides.append(max(planes.shape[-2:]))
            if sides[-1] > limit:
                raise error
            return network(planes)

        return run

    loaded.network = scarce(128)
    cleaned = prepass.clean(photo)
    assert [note.code for note in cleaned.notes] == ["tiles-halved"]
    assert sides[0] == 192
    assert set(sides[1:]) == {64}, "a third of the side, as sides are multiples of 64"
    loaded.network = scarce(0)
    with pytest.raises(BackendFailed, match="memory ran out"):
        prepass.clean(photo)


def test_other_errors_of_torch_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes"), memory_errors():
        raise RuntimeError("shapes do not match")


def test_the_device_is_chosen_with_a_reason(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device().value == "cpu"
    assert "no GPU" in choose_device().reason
    assert choose_device("cpu").reason == "asked for"
    for wrong in ("cuda", "cuda:7", "mps", "cpu:3", "warp", "meta"):
        with pytest.raises(OptionInvalid):
            choose_device(wrong)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device().value == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Some GPU")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device().to_dict() == {"value": "cuda", "reason": f"torch {torch.__version__} sees Some GPU"}
    assert choose_device("cuda:1").value == "cuda:1"


def test_the_model_is_loaded_once_by_many_threads_and_can_be_unloaded(folder, photo, monkeypatch):
    loads = []
    read = swinir.read_model
    monkeypatch.setattr(swinir, "read_model", lambda *args, **options: loads.append(1) or read(*args, **options))
    prepass = load_prepass("swinir", weights=folder / "general.safetensors")
    results = []
    threads = [threading.Thread(target=lambda: results.append(prepass.clean(photo).pixels)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(results) == 4
    assert all(np.array_equal(item, results[0]) for item in results)
    prepass.unload()
    assert np.array_equal(prepass.clean(photo).pixels, results[0])
    assert len(loads) == 2


# In the pipeline


def test_the_record_says_which_model_ran(folder, photo):
    path = folder / "general.safetensors"
    settings = BridgeSettings(prepass="swinir", prepass_weights=str(path), candidates=1)
    bridge = RestoreBridge(judge(2.0, 3.0), settings, restorer=Brighten())
    record = json.loads(json.dumps(bridge.run(photo).to_dict(), allow_nan=False))
    assert record["prepass"]["name"] == "swinir"
    assert record["prepass"]["architecture"].startswith("SwinIR")
    assert record["prepass"]["model_scale"] == 1
    assert record["prepass"]["weights"] == {"file": "general.safetensors", "sha256": sha256_of(path)}
    assert (record["prepass"]["tile_px"], record["prepass"]["overlap_px"]) == (512, 128)
    assert record["prepass"]["device"].keys() == {"value", "reason"}
    assert record["settings"]["prepass_weights"] == str(path)
    assert str(folder) not in json.dumps(record["prepass"]), "a file's name, not where it lies"


def test_the_restorer_gets_the_cleaned_picture_and_a_note_reaches_the_record(folder, photo):
    seen = []

    class Looker(Brighten):
        def restore(self, picture, guidance, *, prompts=None, settings=None):
            seen.append(picture)
            return Restored(picture)

    prepass = load_prepass("swinir", weights=folder / "general.safetensors", tile_px=128, overlap_px=0)
    loaded = prepass._loaded()
    network = loaded.network

    def scarce(planes):
        if planes.shape[-1] > 64:
            raise MemoryError
        return network(planes)

    loaded.network = scarce
    settings = BridgeSettings(candidates=1)
    result = RestoreBridge(judge(2.0, 3.0), settings, restorer=Looker(), prepass=prepass).run(photo)
    assert np.array_equal(seen[0].pixels, prepass.clean(photo).pixels)
    assert "tiles-halved" in [note.code for note in result.notes]
    assert result.prepass["name"] == "swinir"


def test_whatever_a_prepass_raises_is_a_value(photo):
    class Broken:
        name = "broken"

        def clean(self, picture):
            raise RuntimeError("boom")

    restorer = Brighten()
    result = RestoreBridge(judge(2.0), restorer=restorer, prepass=Broken()).run(photo)
    assert (result.kept, result.picture) == ("original", photo)
    assert result.error["code"] == "ZIQ-401"
    assert "pre-pass 'broken' raised RuntimeError" in result.reason
    assert restorer.settings == []


def test_prepasses_without_a_model_say_their_name():
    assert describe_prepass(load_prepass("classical")) == {"name": "classical"}
    with pytest.raises(OptionInvalid, match="it has: none"):
        RestoreBridge(judge(2.0), BridgeSettings(prepass="classical", prepass_weights="x.safetensors"))


def test_the_command_runs_it(folder, tmp_path, photos, capsys):
    weights = tmp_path / "general.safetensors"
    weights.write_bytes((folder / "general.safetensors").read_bytes())
    photo = photos / "chelsea.png"
    command = ["run", str(photo), "--out", str(tmp_path / "out"), "--prepass", "swinir", "--candidates", "1"]
    assert main(command) == 2
    assert "pre-pass 'swinir' needs weights" in capsys.readouterr().err
    assert main([*command, "--prepass-weights", str(weights)]) == 0
    record = json.loads((tmp_path / "out" / "records.jsonl").read_text().splitlines()[-1])
    assert record["prepass"]["weights"]["file"] == "general.safetensors"
    capsys.readouterr()
    changed = model_tensors("general")
    changed["conv_last.bias"] += 1
    safetensors_torch.save_file(changed, weights)
    assert main([*command, "--prepass-weights", str(weights)]) == 2
    assert "ZIQ-301" in capsys.readouterr().err, "other weights under the same name are other settings"


def test_unsuitable_weights_stop_the_command_before_it_writes(tmp_path, photos, capsys):
    weights = tmp_path / "other.safetensors"
    save_others(weights)
    out = tmp_path / "out"
    command = ["run", str(photos), "--out", str(out), "--prepass", "swinir", "--prepass-weights", str(weights)]
    assert main(command) == 2
    assert "WeightsUnsuitable[ZIQ-704]" in capsys.readouterr().err
    assert not out.exists()


def test_the_general_model_at_its_real_size(tmp_path):
    """15.8 million parameters: DiffBIR's configuration, with random weights, in the checkpoint form of its release."""
    tensors = model_tensors("general", embed_dim=180, depths=[6] * 8, num_heads=[6] * 8)
    assert len(tensors) == 732
    path = tmp_path / "general_swinir_v1.ckpt"
    torch.save({"state_dict": {f"module.{name}": value for name, value in tensors.items()}}, path)
    target = path.with_suffix(".safetensors")
    assert main(["weights", "convert", str(path), str(target), "--allow-pickle"]) == 0
    prepass = load_prepass("swinir", weights=target)
    assert prepass.describe()["architecture"] == "SwinIR medium s64w8 64nf 180dim 1conv 8unshuf"
    picture = picture_from_array(data.astronaut()[:250, :130])
    assert prepass.clean(picture).size == picture.size
