"""SUPIR's noise levels, walks and windows: the original's values, and what must hold of any walk."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from restore_bridge.restorers.diffusion.sampling import Ramp
from restore_bridge.restorers.diffusion.supir.sampling import Walk, restore, sigmas_of, start
from restore_bridge.restorers.diffusion.supir.schedule import RELEASED_MAXIMUM, SUPIRSchedule
from restore_bridge.restorers.diffusion.supir.windows import blended, sliding_boxes
from tests.restore_bridge.supir import golden
from zoomiqa.errors import BackendFailed, OptionInvalid

LEVELS = SUPIRSchedule()


def one_window(latent):
    size = (latent.shape[-1], latent.shape[-2])
    return blended(sliding_boxes(size, 128, 64), size)


def analytic(cond, uncond=None):
    """The golden files' denoiser: x / (1 + σ²) + 0.1 · scale · condition."""

    def denoise(part, number, sigma, control):
        both, sides = (part, cond) if uncond is None else (torch.cat([part, part]), torch.cat([uncond, cond]))
        return both / (1 + sigma**2) + 0.1 * control * sides

    return denoise


def walked(walk, io, denoise, steps=None):
    queue = iter(range(99))
    return restore(
        LEVELS,
        start(io["noise0"], sigmas_of(LEVELS, walk)),
        io["x_center"],
        denoise,
        one_window(io["noise0"]),
        walk,
        draw=lambda: io[f"eps_{next(queue)}"],
        on_step=None if steps is None else lambda number, sigma, latent: steps.append(latent) or latent,
    )


@pytest.mark.shared
def test_noise_levels_are_the_originals():
    _, io = golden.load("sampler")
    for name in io:
        if name.startswith("sigmas_"):
            expected = io[name]
            assert torch.allclose(LEVELS.sigmas(len(expected) - 1), expected, rtol=2e-7, atol=1e-6)
    assert torch.allclose(LEVELS.levels, io["denoiser_sigmas_1000_ascending"], rtol=2e-7, atol=1e-6)
    asked = io["sigmas_50"][:-1]
    assert torch.equal(LEVELS.index_of(asked), io["sigma_to_idx_of_sigmas_50"].long())
    assert torch.allclose(LEVELS.levels[LEVELS.index_of(asked)], io["quantized_sigma_of_sigmas_50"], atol=1e-6)


@pytest.mark.shared
def test_linear_guidance_is_the_originals():
    _, io = golden.load("sampler")
    for name in io:
        if name.startswith("linearcfg_scale"):
            begin, end = map(float, name.removeprefix("linearcfg_scale").split("_min"))
            ours = [Ramp(begin, end).at(float(sigma) / RELEASED_MAXIMUM) for sigma in io["linearcfg_sigma"]]
            assert np.allclose(ours, io[name].numpy(), atol=2e-6)


@pytest.mark.shared
def test_the_walk_is_the_originals():
    facts, io = golden.load("sampler")
    for name, case in facts["cases"].items():
        made, call = case["sampler"], case["call"]
        guider = made["guider_config"].get("params")
        scale = call["control_scale"]
        walk = Walk(
            steps=made["num_steps"],
            guidance=None if guider is None else Ramp(guider["scale"], guider.get("scale_min", guider["scale"])),
            control=Ramp(
                call.get("control_scale_start", 0.0) if call.get("use_linear_control_scale") else scale, scale
            ),
            churn=made["s_churn"],
            churn_from=made.get("s_tmin", 0.0),
            churn_to=made.get("s_tmax", float("inf")),
            noise_scale=made["s_noise"],
            pull=made["restore_cfg"],
            pull_ends_below=made["restore_cfg_s_tmin"],
        )
        steps = []
        final = walked(walk, io, analytic(io["cond"], None if guider is None else io["uncond"]), steps)
        assert torch.allclose(final, io[f"{name}.x_final"], rtol=0, atol=4e-6), name
        for number, latent in enumerate(steps):
            assert torch.allclose(latent, io[f"{name}.x_step{number}"], rtol=0, atol=2e-5), (name, number)


@pytest.fixture
def io():
    """Tensors of our own under the golden files' names."""
    generator = torch.Generator().manual_seed(5)
    shape = (1, 4, 6, 8)
    found = {f"eps_{number}": torch.randn(shape, generator=generator) for number in range(60)}
    for name in ("noise0", "x_center", "cond", "uncond"):
        found[name] = torch.randn(shape, generator=generator)
    return found


def test_levels_and_walk_keep_values_of_our_own(io):
    assert [round(float(level), 4) for level in LEVELS.sigmas(4)] == [14.6146, 4.0817, 1.6129, 0.6932, 0.0]
    assert [round(float(level), 3) for level in LEVELS.karras_sigmas(4)] == [14.615, 6.084, 2.233, 0.693, 0.0]
    assert LEVELS.maximum == pytest.approx(14.614641, abs=2e-6)
    walk = Walk(steps=4, guidance=Ramp(1, 4), control=Ramp(0.2, 1), pull=4.0)
    result = walked(walk, io, analytic(io["cond"], io["uncond"]))
    expected = EDM
    assert [float(value) for value in result[0, :, 2, 3]] == pytest.approx(expected, abs=1e-4)
    result = walked(replace(walk, sampler="dpmpp-2m", steps=8), io, analytic(io["cond"], io["uncond"]))
    assert [float(value) for value in result[0, :, 2, 3]] == pytest.approx(DPM, abs=1e-4)


EDM = [-0.43838, 0.54338, 0.66254, 0.69812]
DPM = [-0.09971, 0.80915, 0.50385, -1.50063]


def test_all_thousand_levels_can_be_walked():
    assert len(LEVELS.sigmas(1000)) == 1001
    assert torch.equal(LEVELS.sigmas(1000)[:-1], LEVELS.levels.flip(0))
    for steps in (0, 1001):
        with pytest.raises(OptionInvalid, match=r"1\.\.1000"):
            LEVELS.sigmas(steps)


def test_a_level_beyond_the_highest_is_the_highest_to_the_network():
    seen = []

    def predict(noisy, index):
        seen.append((float(noisy.mean()), index.tolist()))
        return torch.ones_like(noisy)

    noisy = torch.full((2, 4, 2, 2), 30.0)
    clean = LEVELS.denoised(predict, noisy, torch.tensor(20.0))
    assert seen == [(pytest.approx(30 / (1 + LEVELS.maximum**2) ** 0.5, rel=1e-5), [999, 999])]
    assert float(clean.mean()) == pytest.approx(30 - LEVELS.maximum, rel=1e-5)


def test_schedules_come_back_from_a_folder(tmp_path):
    SUPIRSchedule(num_train_timesteps=500).save_pretrained(tmp_path)
    assert len(SUPIRSchedule.from_pretrained(tmp_path).levels) == 500


@pytest.mark.parametrize("sampler", ["edm", "dpmpp-2m"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_sure_denoiser_is_believed(sampler, eta, io):
    """Whatever the noise, a denoiser that always says the same gets its way."""
    answer = io["cond"]
    walk = Walk(steps=6, guidance=None, churn=3.0, sampler=sampler, eta=eta)
    result = walked(walk, io, lambda part, number, sigma, control: answer)
    assert torch.allclose(result, answer, atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_the_second_walk_is_dpm_solver(io):
    """Without noise, against diffusers' own solver on the same levels and the same denoiser."""
    from diffusers import DPMSolverMultistepScheduler

    walk = Walk(steps=8, guidance=None, eta=0.0, sampler="dpmpp-2m")
    ours = walked(walk, io, analytic(io["cond"]))
    solver = DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", lower_order_final=True, solver_order=2
    )
    sigmas = sigmas_of(LEVELS, walk)
    solver.set_timesteps(8)
    solver.sigmas = sigmas
    solver.timesteps = torch.arange(8)
    latent = start(io["noise0"], sigmas)
    latent = latent / (sigmas[0] ** 2 + 1) ** 0.5  # diffusers scales the latent by ᾱ, the walk does not
    for number, sigma in enumerate(sigmas[:-1]):
        plain = latent * (sigma**2 + 1) ** 0.5
        clean = analytic(io["cond"])(plain, 0, sigma, 1.0)
        latent = solver.step((plain - clean) / sigma, number, latent, return_dict=False)[0]
    assert torch.allclose(ours, latent, atol=2e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"churn": 0.0},
        {"churn_to": 1.0},
        {"noise_scale": 1.2},
        {"pull": 2.0},
        {"guidance": Ramp(4.0, 4.0)},
        {"guidance": Ramp(1.0, 3.0)},
        {"control": Ramp(0.5, 0.5)},
        {"control": Ramp(0.0, 1.0)},
        {"sampler": "dpmpp-2m"},
    ],
)
def test_every_setting_has_an_effect(change, io):
    walk = Walk(steps=5, guidance=Ramp(1.0, 4.0))
    denoise = analytic(io["cond"], io["uncond"])
    assert not torch.allclose(walked(walk, io, denoise), walked(replace(walk, **change), io, denoise), atol=1e-3)


def test_a_stronger_pull_ends_nearer_to_the_first_stage(io):
    far = []
    for pull in (-1.0, 4.0, 0.25):
        result = walked(Walk(steps=12, guidance=None, pull=pull), io, analytic(io["cond"]))
        far.append(float((result - io["x_center"]).norm()))
    assert far[0] > far[1] > far[2]


def test_what_looks_like_a_mistake_can_be_mended(io):
    denoise = analytic(io["cond"], io["uncond"])
    edm = Walk(steps=5, guidance=Ramp(9.0, 1.0), pull=1.0)
    apart = (walked(edm, io, denoise) - walked(replace(edm, faithful=False), io, denoise)).abs().max()
    assert 0 < apart < 1e-3, "the schedule's maximum in the fifth digit"
    dpm = Walk(steps=5, guidance=Ramp(1.0, 1.0), sampler="dpmpp-2m", control=Ramp(0.0, 1.0), pull=1.0)
    plain = walked(replace(dpm, pull=-1.0, control=Ramp(1.0, 1.0)), io, denoise)
    assert torch.equal(walked(dpm, io, denoise), plain), "pull and control's ramp are ignored"
    for change in ({"pull": -1.0}, {"control": Ramp(1.0, 1.0)}):
        mended = replace(dpm, faithful=False)
        assert not torch.allclose(
            walked(mended, io, denoise), walked(replace(mended, **change), io, denoise), atol=1e-3
        )


def test_noise_is_drawn_for_every_step_that_adds_some(io):
    def draws(**settings):
        count = []
        walk = Walk(steps=6, guidance=None, **settings)
        restore(
            LEVELS,
            start(io["noise0"], sigmas_of(LEVELS, walk)),
            None,
            analytic(io["cond"]),
            one_window(io["noise0"]),
            walk,
            draw=lambda: count.append(1) or io["eps_0"],
        )
        return len(count)

    assert draws() == 6
    assert draws(churn=0.0) == 0
    assert draws(begin=4) == 2
    assert draws(churn_from=1.0) < 6
    assert draws(sampler="dpmpp-2m") == 4, "neither after the first step nor the last"
    assert draws(sampler="dpmpp-2m", faithful=False) == 5


def test_a_later_start_stays_nearer_to_the_picture(io):
    centre, far = io["x_center"], []
    for begin in (0, 3, 5):
        walk = Walk(steps=6, begin=begin, guidance=None, churn=0.0)
        first = start(io["noise0"], sigmas_of(LEVELS, walk), centre)
        result = restore(
            LEVELS, first, None, lambda part, *rest: part * 0.9, one_window(first), walk, draw=lambda: io["eps_0"]
        )
        far.append(float((result - centre).norm()))
    assert far[0] > far[1] > far[2]


def test_nan_is_an_error(io):
    with pytest.raises(BackendFailed, match="step 1 of 5"):
        walked(Walk(steps=5, guidance=None), io, lambda part, *rest: part * float("nan"))


@pytest.mark.parametrize(("size", "count"), [((128, 128), 1), ((192, 128), 2), ((200, 130), 6), ((50, 300), 4)])
def test_windows_cover_the_latent(size, count):
    boxes = sliding_boxes(size, 128, 64)
    assert len(boxes) == count
    windows = blended(boxes, size)
    whole = torch.randn(1, 2, size[1], size[0])
    assert torch.allclose(windows.blend(lambda part, number: part, whole), whole, atol=1e-5)
    assert all((box.width, box.height) == (min(128, size[0]), min(128, size[1])) for box in boxes)


def test_windows_go_row_by_row_and_the_last_moves_back():
    assert [(box.x1, box.y1) for box in sliding_boxes((20, 13), 8, 4)] == [
        (x, y) for y in (0, 4, 5) for x in (0, 4, 8, 12)
    ]


def test_the_originals_weights_lean_down():
    """Two windows above each other: in the middle of what they share, the upper one weighs more."""
    boxes = sliding_boxes((8, 12), 8, 4)
    upper, lower = (weight[:, 0] for weight in blended(boxes, (8, 12)).weights)
    mended = [weight[:, 0] for weight in blended(boxes, (8, 12), centred=True).weights]
    assert torch.allclose(mended[0][4:8], mended[1][:4].flip(0), atol=1e-6)
    assert float(upper[5] - lower[1]) > float(mended[0][5] - mended[1][1])
    assert not torch.allclose(upper[4:8], lower[:4].flip(0), atol=1e-3)
    assert torch.equal(blended(boxes[:1], (8, 8)).weights[0], torch.ones(8, 8))


def test_a_pointwise_denoiser_sees_no_windows(io):
    """Blending windows that agree is doing without them."""
    latent = torch.randn(1, 4, 20, 28, generator=torch.Generator().manual_seed(2))
    walk = Walk(steps=4, guidance=None, pull=2.0)

    def run(windows):
        queue = iter(range(9))
        return restore(
            LEVELS, start(latent, sigmas_of(LEVELS, walk)), latent, lambda part, n, sigma, c: part / (1 + sigma**2),
            windows, walk, draw=lambda: torch.full_like(latent, 0.1 * next(queue)),
        )  # fmt: skip

    size = (28, 20)
    whole, tiled = (run(blended(sliding_boxes(size, tile, 8), size)) for tile in (64, 12))
    assert torch.allclose(whole, tiled, atol=1e-5)
