"""DreamClear's schedule against diffusers' own DDPM, which computes the same with 32 bits, and at its edges."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (extra diffusion)")
pytest.importorskip("diffusers", reason="diffusers is not installed (extra diffusion)")

import torch

from restore_bridge.restorers.diffusion.dreamclear.scheduler import IDDPMScheduler, spread_steps
from zoomiqa.errors import OptionInvalid


def draw(seed, channels=4):
    return torch.randn(1, channels, 6, 5, generator=torch.Generator().manual_seed(seed))


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
@pytest.mark.parametrize("steps", [2, 7, 50])
def test_a_walk_is_that_of_diffusers(steps):
    """Same timesteps, mean and variance; the noise is drawn from the same generator in the same order."""
    from diffusers import DDPMScheduler

    ours = IDDPMScheduler()
    theirs = DDPMScheduler(
        beta_start=1e-4, beta_end=0.02, variance_type="learned_range", clip_sample=False, timestep_spacing="linspace"
    )
    ours.set_timesteps(steps)
    theirs.set_timesteps(steps)
    assert ours.timesteps.tolist() == theirs.timesteps.tolist()
    first = second = draw(0)
    generators = [torch.Generator().manual_seed(9) for _ in range(2)]
    for timestep in ours.timesteps[:-1]:
        output = torch.cat([0.3 * first + 0.1, torch.tanh(first / 50)], dim=1)
        first = ours.step(output, timestep, first, generators[0]).prev_sample
        second = theirs.step(output, timestep, second, generator=generators[1]).prev_sample
        assert torch.allclose(first, second, rtol=2e-4, atol=2e-4)
    assert torch.isfinite(ours.step(output, ours.timesteps[-1], first).prev_sample).all()


def test_own_values_stay():
    schedule = IDDPMScheduler()
    schedule.set_timesteps(50)
    table = schedule.table
    found = [table.betas[1], table.posterior_variance[20], table.posterior_mean_coef1[49], table.log_betas[3]]
    assert found == pytest.approx([0.00616518795, 0.14936008857, 0.00255945361, -3.804136662], rel=1e-8)


def test_the_last_step_adds_no_noise():
    schedule = IDDPMScheduler()
    schedule.set_timesteps(3)
    output = draw(1, 8)
    results = [schedule.step(output, 0, draw(2), torch.Generator().manual_seed(seed)).prev_sample for seed in (0, 1)]
    assert torch.equal(*results)


@pytest.mark.parametrize("steps", [1, 3, 29, 75, 612, 1000])
def test_steps_are_spread_over_the_whole_schedule(steps):
    found = spread_steps(steps, 1000)
    assert (len(found), found[0], found[-1]) == (steps, 0, 0 if steps == 1 else 999)
    assert found == sorted(set(found))
    if steps > 1:
        gaps = np.diff(found)
        assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("steps", [0, 1001])
def test_more_steps_than_there_are_is_refused(steps):
    with pytest.raises(OptionInvalid, match=r"1\.\.1000"):
        IDDPMScheduler().set_timesteps(steps)


def test_what_it_cannot_do_is_said():
    schedule = IDDPMScheduler()
    schedule.set_timesteps(4)
    with pytest.raises(OptionInvalid, match="8 channels"):
        schedule.step(draw(0), 999, draw(1))
    with pytest.raises(OptionInvalid, match="not walked"):
        schedule.step(draw(0, 8), 500, draw(1))
    with pytest.raises(OptionInvalid, match="prediction_type=epsilon"):
        IDDPMScheduler(prediction_type="v_prediction")


def test_noise_grows_with_the_timestep():
    schedule = IDDPMScheduler()
    clean, noise = draw(0).expand(2, -1, -1, -1), draw(1).expand(2, -1, -1, -1)
    noised = schedule.add_noise(clean, noise, torch.tensor([0, 999]))
    assert torch.allclose(noised[0], clean[0], atol=0.05)
    assert torch.allclose(noised[1], noise[1], atol=0.05)


def test_it_is_saved_and_loaded(tmp_path):
    IDDPMScheduler(clip_sample=True).save_pretrained(tmp_path)
    again = IDDPMScheduler.from_pretrained(tmp_path)
    assert again.config.clip_sample
    assert len(again) == 1000
