"""Training of the compact restorer: cases, the loss, the loop and what is exported."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from restore_bridge.actions import Operation, plan_actions
from restore_bridge.guidance import split_text
from restore_bridge.restorers import load_restorer
from restore_bridge.restorers.compact.condition import CHANNELS, DETAIL, first_guess
from restore_bridge.restorers.compact.tone import THUMBNAIL, apply_curve, quantiles_of
from training.compact.restorer import cases, photos
from training.compact.restorer.cases import KINDS, LARGEST, Damage
from zoomiqa.errors import OptionInvalid, RecordSettingsChanged
from zoomiqa.imaging.picture import picture_from_array
from zoomiqa.vocabulary import REGIONS

torch = pytest.importorskip("torch", reason="torch is not installed (extra train)")

from training.compact.restorer import export, fit_detail, fit_tone, network, pool  # noqa: E402
from training.compact.restorer.command import main  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def noise_like(height, width, seed=0):
    import cv2

    rng = np.random.default_rng(seed)
    field = cv2.GaussianBlur(rng.normal(128, 220, (height, width, 3)).astype(np.float32), (0, 0), 2.0)
    return np.clip(field, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def clean():
    return noise_like(80, 96)


SMALL = pool.PoolSettings(cases=3, renewal=2, patch=64, batch=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("photos")
    for number in range(4):
        Image.fromarray(noise_like(140, 150, number)).save(made / f"{number}.png")
    return made


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.distortion)
def test_the_parser_reads_what_is_said(kind):
    plane = {"light": "dark"}.get(kind.family, kind.family)
    for name in kind.names:
        for place in (None, *sorted(set(REGIONS) - {"whole frame"})):
            (action,) = cases.plan_of(cases.statement(name, "severe", place))
            assert CHANNELS[DETAIL[action.operation]] == plane
            assert action.strength == 1.0
            if " and " not in name:  # a place that two names share is not read as theirs
                assert action.box_fraction == (REGIONS[place] if place else None)


def test_cases_are_drawn_from_the_seed(clean):
    first, second = (cases.draw_case(clean, np.random.default_rng(4)) for _ in range(2))
    other = cases.draw_case(clean, np.random.default_rng(5))
    assert first.given.shape == first.guess.shape == first.wanted.shape == (3, 80, 96)
    assert first.condition.shape == (len(CHANNELS), 80, 96)
    assert np.array_equal(first.given, second.given)
    assert first.text == second.text
    assert not np.array_equal(first.given, other.given)


def test_every_case_says_something(clean):
    rng = np.random.default_rng(0)
    for _ in range(60):
        case = cases.draw_case(clean, rng)
        assert case.text
        assert 0 <= case.given.min() <= case.given.max() <= 1
        assert case.condition.max() <= 1


def test_the_first_guess_is_that_of_use(clean, monkeypatch):
    blur = next(kind for kind in KINDS if kind.distortion == "gaussian_blur")
    monkeypatch.setattr(cases, "draw_damages", lambda rng: [(Damage(blur, 1.5, 1, None), 0.5)])
    monkeypatch.setattr(cases, "WRONG", 0.0)
    case = cases.draw_case(clean, np.random.default_rng(0))
    given = np.ascontiguousarray(case.given.transpose(1, 2, 0))
    assert np.array_equal(
        case.guess.transpose(1, 2, 0), first_guess(given, plan_actions(split_text(None, case.text)))[0]
    )
    assert np.abs(np.diff(case.guess)).mean() > 1.5 * np.abs(np.diff(case.given)).mean()


def test_views_are_bounded_and_large_enough():
    rng = np.random.default_rng(0)
    for size in ((photos.LEAST_SIDE, 500), (800, 600)):
        for _ in range(20):
            view = cases.view_from(noise_like(*size), rng)
            assert photos.LEAST_SIDE <= min(view.shape[:2]) <= max(view.shape[:2]) <= LARGEST


def test_a_pool_follows_from_seed_and_step(folder):
    found = photos.load(photos.split(folder, "train"))
    whole = pool.Pool(found, SMALL, seed=1)
    drawn = [whole.draw(step) for step in range(9)]
    again = pool.Pool(found, SMALL, seed=1, step=6)
    for step in (6, 7, 8):
        for first, second in zip(drawn[step], again.draw(step), strict=True):
            assert torch.equal(first, second)
    assert drawn[0].given.shape == drawn[0].guess.shape == (2, 3, 64, 64)
    assert drawn[0].condition.shape == (2, len(CHANNELS), 64, 64)
    assert not torch.equal(drawn[0].given, drawn[1].given)
    assert not torch.equal(drawn[0].given, pool.Pool(found, SMALL, seed=2).draw(0).given)


def test_what_is_not_named_is_to_stay(clean, monkeypatch):
    noise, blur = (
        next(kind for kind in KINDS if kind.distortion == name) for name in ("gaussian_noise", "gaussian_blur")
    )
    drawn = [(Damage(blur, 1.5, 1, None), 0.5), (Damage(noise, 20.0, 2, None), 0.5)]
    monkeypatch.setattr(cases, "draw_damages", lambda rng: drawn)
    monkeypatch.setattr(cases, "WRONG", 0.0)
    monkeypatch.setattr(cases, "NAMED", -1.0)
    unnamed = cases.draw_case(clean, np.random.default_rng(0))
    assert np.array_equal(unnamed.given, unnamed.wanted)
    monkeypatch.setattr(cases, "NAMED", 2.0)
    named = cases.draw_case(clean, np.random.default_rng(0))
    assert np.abs(named.given - named.wanted).mean() > 0.02
    assert {action.operation for action in cases.plan_of(named.text)} == {Operation.DEBLUR, Operation.DENOISE}


def test_the_right_lift_brings_a_dark_patch_back(clean):
    light = next(kind for kind in KINDS if kind.family == "light")
    dark = cases.spoil(clean, [Damage(replace(light, distortion="low_light"), 0.2, 1, None)])
    curve = np.array([-np.log(0.2) / cases.DEEPEN, -np.log(cases.DEEPEN)], np.float32)
    lifted = apply_curve(dark.astype(np.float32) / 255, curve)
    assert np.abs(lifted - clean / 255).mean() < 0.35 * np.abs(dark / 255 - clean / 255).mean()


def test_the_curve_is_the_same_for_training_and_use():
    pixels = np.random.default_rng(0).random((2, 5, 6, 3), np.float32)
    curves = np.array([[0.7, -0.1], [0.0, 0.0]], np.float32)
    used = np.stack([apply_curve(picture, curve) for picture, curve in zip(pixels, curves, strict=True)])
    trained = fit_tone.curved(torch.from_numpy(pixels.transpose(0, 3, 1, 2)), torch.from_numpy(curves))
    assert np.allclose(trained.numpy().transpose(0, 2, 3, 1), used, atol=2e-4)
    assert np.allclose(used[1], pixels[1], atol=1e-5)


def test_untouched_patches_weigh_little():
    given, condition = torch.rand(2, 3, 8, 8), torch.ones(2, len(CHANNELS), 8, 8)
    wanted = given.clone()
    wanted[0] += 0.1
    loss, gain = fit_detail.loss_of(given, given, wanted, condition)
    expected = (np.log(0.01 * 192 / 193 + fit_detail.EPSILON) + fit_detail.UNTOUCHED * np.log(fit_detail.EPSILON)) / 2
    assert loss.item() == pytest.approx(expected, abs=0.01)
    assert gain.item() == pytest.approx(0)
    _, better = fit_detail.loss_of(wanted, given, wanted, condition)
    assert better.item() > 15


def test_detail_network_is_told():
    torch.manual_seed(0)
    net = network.DetailNet().eval()
    pixels, condition = torch.rand(1, 3, 32, 40), torch.zeros(1, len(CHANNELS), 32, 40)
    with torch.no_grad():
        assert torch.equal(net(pixels, pixels, condition), pixels)
        condition[:, 0, :, :16] = 0.7
        made = net(pixels, pixels, condition)
        guessed = net(pixels, pixels + 0.1, condition)
    assert torch.equal(made[..., 16:], pixels[..., 16:])
    assert not torch.allclose(made[..., :16], pixels[..., :16])
    assert torch.equal(guessed[..., 16:], pixels[..., 16:] + 0.1)
    assert not torch.allclose(guessed[..., :16], made[..., :16] + 0.1, atol=1e-4)


def test_a_run_that_was_cut_off_goes_on(folder, tmp_path):
    found = photos.load(photos.split(folder, "train"))
    settings = fit_detail.FitSettings(steps=3, warm_up=1, pool=SMALL)
    whole = fit_detail.fit_detail(found, settings, tmp_path / "whole", report=lambda line: None)

    class CutOffError(Exception):
        pass

    def cut(line: str) -> None:
        raise CutOffError

    with pytest.raises(CutOffError):
        fit_detail.fit_detail(found, settings, tmp_path / "cut", report=cut, save_every=1, report_every=2)
    assert (tmp_path / "cut" / "detail.json").exists()
    again = fit_detail.fit_detail(found, settings, tmp_path / "cut", report=lambda line: None)
    for first, second in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.allclose(first, second, atol=1e-6)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"steps": 9}, {"pool": replace(SMALL, cases=4)}, {"photos": 1}])
def test_a_fit_does_not_go_on_from_another_one(folder, tmp_path, changes):
    found = photos.load(photos.split(folder, "train"))
    settings = fit_detail.FitSettings(steps=2, warm_up=1, pool=SMALL)
    fit_detail.fit_detail(found, settings, tmp_path, report=lambda line: None, until=1)
    other = found[:1] if "photos" in changes else found
    settings = replace(settings, **{name: value for name, value in changes.items() if name != "photos"})
    with pytest.raises(RecordSettingsChanged, match=next(iter(changes))):
        fit_detail.fit_detail(other, settings, tmp_path, report=lambda line: None)


def test_a_fit_goes_on_from_an_exported_network(folder, tmp_path):
    torch.manual_seed(3)
    exported, still = network.DetailNet(), replace(fit_detail.FitSettings(), steps=1, rate=0.0, pool=SMALL)
    export.export_detail(exported, tmp_path / "detail.onnx")
    found = photos.load(photos.split(folder, "train"))
    run, start = tmp_path / "run", tmp_path / "detail.onnx"
    made = fit_detail.fit_detail(found, still, run, start=start, report=lambda line: None)
    for first, second in zip(exported.state_dict().values(), made.state_dict().values(), strict=True):
        assert torch.allclose(first, second, rtol=1e-3, atol=1e-6), "but for the 16 bits that it was stored in"
    assert len(json.loads((run / "detail.json").read_text("utf-8"))["start"]) == 64
    with pytest.raises(RecordSettingsChanged, match="start"):
        fit_detail.fit_detail(found, still, run, report=lambda line: None)


def test_export_keeps_the_networks(tmp_path):
    import onnxruntime

    torch.manual_seed(1)
    detail, tone = network.DetailNet().eval(), network.ToneNet().eval()
    export.export_detail(detail, tmp_path / "detail.onnx")
    export.export_tone(tone, tmp_path / "tone.onnx")
    (pixels, guess), condition = torch.rand(2, 1, 3, 24, 64), torch.rand(1, len(CHANNELS), 24, 64)
    thumbnail, told = torch.rand(1, 3, THUMBNAIL, THUMBNAIL), torch.full((1, 1), 0.7)
    quantiles = torch.from_numpy(quantiles_of(thumbnail.numpy()))
    with torch.no_grad():
        expected = detail(pixels, guess, condition).numpy(), tone(thumbnail, quantiles, told).numpy()
    made = [
        onnxruntime.InferenceSession(tmp_path / name).run(None, {key: value.numpy() for key, value in inputs.items()})[
            0
        ]
        for name, inputs in (
            ("detail.onnx", {"pixels": pixels, "guess": guess, "condition": condition}),
            ("tone.onnx", {"thumbnail": thumbnail, "quantiles": quantiles, "told": told}),
        )
    ]
    for found, wanted in zip(made, expected, strict=True):
        assert np.allclose(found, wanted, atol=2e-3)


def test_the_short_form_of_every_task(folder, tmp_path, capsys):
    common = ["--photos", str(folder), "--run", str(tmp_path / "run")]
    assert main(["detail", *common, "--short"]) == 0
    assert main(["tone", *common, "--short"]) == 0
    rows = [{"family": "noise", **{key: [20.0, 0.5, 0.3] for key in ("input", "own right", "classical right")}}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    out = tmp_path / "out"
    assert main(["export", *common, "--out", str(out), "--figures", str(tmp_path / "rows.json")]) == 0
    assert "step 2: gain" in capsys.readouterr().out
    card = json.loads((out / "card.json").read_text())
    assert card["settings"]["detail"]["steps"] == 2
    assert card["held_back"] == ["0.png", "1.png"]
    assert set(card["files"]) == {"detail.onnx", "tone.onnx"}
    assert card["made_by"].startswith("python -m training.compact.restorer export --photos")
    assert str(tmp_path) not in card["made_by"]
    assert f"mean rating of {photos.TONE_RATING} or better" in (out / "README.md").read_text()
    assert card["files"]["detail.onnx"]["sha256"] in (out / "README.md").read_text()
    picture = picture_from_array(noise_like(40, 50))
    result = load_restorer("compact", folder=out).restore(picture, split_text(None, "Noise and underexposure."))
    assert result.picture.size == (50, 40)


def test_held_back_photographs_are_not_trained_on(tmp_path):
    for number in range(20):
        Image.fromarray(noise_like(8, 8)).save(tmp_path / f"{number:02}.png")
    parts = {part: {path.stem for path in photos.split(tmp_path, part)} for part in ("train", "choose", "test")}
    assert parts["test"] == {"00", "01", "18", "19"}
    assert parts["choose"] == {"09"}
    assert len(parts["train"]) == 15
    with pytest.raises(OptionInvalid):
        photos.load(photos.split(tmp_path, "test"))
