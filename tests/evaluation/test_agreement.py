"""The statistics against scipy and scikit-learn, and against the inflation that a fit on the test set is known for."""

import json
import time

import numpy as np
import pytest
from scipy import optimize, stats

from zoomiqa.errors import OptionInvalid
from zoomiqa.evaluation.agreement import (
    agreement,
    bootstrap,
    fit_logistic,
    isotonic_on_test_set,
    logistic,
    unique_ratio,
)


def related(count, noise, seed=0, places=2):
    """(predictions, labels) on 1..5, the predictions with two decimals as a model writes them."""
    generator = np.random.default_rng(seed)
    labels = 1 + 4 * generator.random(count)
    return np.round(np.clip(labels + noise * generator.normal(size=count), 1, 5), places), labels


def test_raw_figures_are_scipys():
    left, right = related(300, 0.8)
    found = agreement(left, right)
    assert found.count == 300
    assert found.srcc == pytest.approx(stats.spearmanr(left, right).statistic)
    assert found.plcc == pytest.approx(stats.pearsonr(left, right).statistic)
    assert found.krcc == pytest.approx(stats.kendalltau(left, right).statistic)
    assert found.rmse == pytest.approx(np.sqrt(np.mean((left - right) ** 2)))


@pytest.mark.parametrize(
    ("left", "right", "reason"),
    [
        ([3.0] * 9, range(9), "all predictions are equal"),
        ([3.1, 3.1 + 1e-15, 3.1] * 3, range(9), "all predictions are equal"),
        (range(9), [2.5] * 9, "all labels are equal"),
    ],
)
def test_what_is_not_defined_is_none_with_a_reason(left, right, reason):
    left, right = np.array(left, float), np.array(right, float)
    raw, fit, steps = agreement(left, right), fit_logistic(left, right), isotonic_on_test_set(left, right)
    assert (raw.srcc, raw.plcc, raw.krcc) == (None, None, None)
    assert raw.undefined == fit.undefined == steps.undefined == reason
    assert fit.plcc is steps.plcc is steps.srcc is None
    assert bootstrap(left, right) == {"plcc": None, "srcc": None}
    for value in (raw, fit, steps):
        json.dumps(value.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("left", "right"),
    [([1, 2], [1, 2]), ([1, 2, 3], [1, 2]), ([1, 2, np.nan], [1, 2, 3]), ([1, 2, 3], [1, 2, np.inf]), ([], [])],
)
@pytest.mark.parametrize("function", [agreement, bootstrap, fit_logistic, isotonic_on_test_set])
def test_failures_are_never_numbers(function, left, right):
    with pytest.raises(OptionInvalid):
        function(left, right)


@pytest.mark.parametrize(("count", "noise", "places"), [(40, 0.7, 2), (200, 1.5, 0), (500, 0.3, 1)])
def test_intervals_are_those_of_resampled_images(count, noise, places):
    """Against the plain way: draw images, rank them anew, take percentiles. Ties included."""
    left, right = related(count, noise, places=places)
    right = np.round(right, 1)
    generator = np.random.default_rng(7)
    plain = {"srcc": [], "plcc": []}
    for _ in range(2_000):
        drawn = generator.integers(0, count, count)
        one, other = left[drawn], right[drawn]
        plain["srcc"].append(np.corrcoef(stats.rankdata(one), stats.rankdata(other))[0, 1])
        plain["plcc"].append(np.corrcoef(one, other)[0, 1])
    found = bootstrap(left, right, resamples=2_000, seed=1)
    for name, values in plain.items():
        low, high = np.quantile(values, (0.025, 0.975))
        assert found[name].resamples == 2_000
        assert found[name].low == pytest.approx(low, abs=0.12 * (high - low))
        assert found[name].high == pytest.approx(high, abs=0.12 * (high - low))


def test_one_seed_gives_one_interval():
    pair = related(100, 0.5)
    assert bootstrap(*pair, seed=3) == bootstrap(*pair, seed=3)
    assert bootstrap(*pair, seed=3) != bootstrap(*pair, seed=4)
    with pytest.raises(OptionInvalid):
        bootstrap(*pair, resamples=0)


def test_resamples_without_a_correlation_are_left_out_and_counted():
    left, right = np.array([1.0, 1, 1, 1, 2]), np.array([1.0, 2, 3, 4, 5])
    found = bootstrap(left, right, resamples=500)["srcc"]
    assert 250 < found.resamples < 450, "a third of the resamples lack the one picture that differs"


def test_a_thousand_resamples_of_ten_thousand_images_are_quick():
    pair = related(10_000, 0.5)
    start = time.process_time()
    bootstrap(*pair, resamples=1_000)
    assert time.process_time() - start < 15, "seconds of one processor core; about one on an idle machine"


def test_the_logistic_fit_is_the_conventional_one():
    left, right = related(400, 0.6)
    right = logistic(right, 4.5, 1.5, 3.0, 0.5) + 0.1 * np.random.default_rng(1).normal(size=400)
    start = [right.max(), right.min(), left.mean(), left.std() / 4]
    wanted, _ = optimize.curve_fit(logistic, left, right, p0=start, maxfev=20_000)
    found = fit_logistic(left, right)
    assert found.is_rising
    assert found.undefined is None
    assert found.parameters == pytest.approx([*wanted[:3], abs(wanted[3])], rel=1e-3)
    curve = logistic(left, *wanted)
    assert found.plcc == pytest.approx(stats.pearsonr(curve, right).statistic, abs=1e-5)
    assert found.rmse == pytest.approx(np.sqrt(np.mean((curve - right) ** 2)), abs=1e-5)
    assert found.plcc >= agreement(left, right).plcc, "labels that bend with the ratings are fitted better"
    assert stats.spearmanr(curve, right).statistic == pytest.approx(agreement(left, right).srcc), "SRCC cannot change"


def test_a_falling_curve_is_told():
    left, right = related(200, 0.4)
    found = fit_logistic(left, 6 - right)
    assert found.is_rising is False
    assert found.plcc > 0.8, "which hides that the ratings are the wrong way round"
    assert agreement(left, 6 - right).plcc < -0.8


def test_too_few_for_four_parameters():
    found = fit_logistic([1, 2, 3, 4], [1, 2, 3, 4])
    assert found.parameters is None
    assert "five pairs" in found.undefined


def test_a_fit_that_does_not_converge_is_a_value(monkeypatch):
    real = optimize.least_squares
    monkeypatch.setattr(optimize, "least_squares", lambda *args, **kwargs: real(*args, **{**kwargs, "max_nfev": 6}))
    found = fit_logistic(*related(200, 0.6))
    assert (found.parameters, found.plcc, found.rmse) == (None, None, None)
    assert found.undefined == "the fit did not converge"


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_fits_survive_any_scale(scale):
    left, right = related(60, 0.5)
    found = fit_logistic(left * scale, right / scale)
    assert found.plcc is None or -1 <= found.plcc <= 1
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("seed", range(5))
def test_the_isotonic_fit_is_scikit_learns(seed):
    isotonic = pytest.importorskip("sklearn.isotonic")
    left, right = related(150, 1.0, seed, places=1)
    left, right = left.astype(np.float32), right.astype(np.float32)
    fitted = isotonic.IsotonicRegression(out_of_bounds="clip").fit(left, right).predict(left).astype(np.float32)
    found = isotonic_on_test_set(left, right)
    assert found.plcc == pytest.approx(stats.pearsonr(fitted, right).statistic, abs=1e-5)
    assert found.srcc == pytest.approx(stats.spearmanr(fitted, right).statistic, abs=1e-5)


def test_a_flat_isotonic_fit_is_told():
    found = isotonic_on_test_set(range(10), range(10, 0, -1))
    assert (found.plcc, found.srcc, found.undefined) == (None, None, "the best rising curve is flat")


def test_fits_on_the_test_set_inflate_and_the_isotonic_one_most():
    """Noise alone gains; real agreement gains a little in PLCC, and in SRCC by the isotonic fit alone."""
    gains = []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        noise, labels = np.round(1 + 4 * generator.random(200), 2), 1 + 4 * generator.random(200)
        found = isotonic_on_test_set(noise, labels)
        if found.srcc is not None:
            gains.append(found.srcc - abs(agreement(noise, labels).srcc))
    assert len(gains) > 6
    assert np.mean(gains) > 0.05
    for count, least in ((2_000, 0.002), (100, 0.01)):
        pair = related(count, 1.2)
        raw, curve, steps = agreement(*pair), fit_logistic(*pair), isotonic_on_test_set(*pair)
        assert raw.plcc <= curve.plcc < steps.plcc
        assert steps.srcc > raw.srcc
        assert steps.plcc - raw.plcc > least


def test_the_share_of_different_scores():
    assert unique_ratio([3.2, 3.2, 3.2, 4.0]) == 0.5
    assert unique_ratio([3.201, 3.199, 3.204]) == pytest.approx(1 / 3)
    assert unique_ratio([1.0, 2.0]) == 1.0
    with pytest.raises(OptionInvalid):
        unique_ratio([])
