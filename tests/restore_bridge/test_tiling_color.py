"""Tiles cover and sum to one; the colour fix keeps means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restore_bridge.color import fix_color
from restore_bridge.tiling import normalised_weights, plan_tiles, run_tiled
from zoomiqa.errors import OptionInvalid


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 40),
    st.integers(0, 39),
    st.sampled_from(["linear", "gaussian"]),
    st.sampled_from([1, 2]),
)
def test_weights_sum_to_one(width, height, tile, overlap, blend, scale):
    plan = plan_tiles((width, height), tile, min(overlap, tile - 1, tile // 2))
    total = np.zeros((height * scale, width * scale))
    for box, weight in zip(plan.boxes, normalised_weights(plan, blend, scale), strict=True):
        total[box.y1 * scale : box.y2 * scale, box.x1 * scale : box.x2 * scale] += weight
    assert np.allclose(total, 1, atol=1e-5)


@pytest.mark.parametrize("blend", ["linear", "gaussian"])
@pytest.mark.parametrize(("tile", "overlap"), [(16, 4), (25, 0), (64, 32), (500, 10)])
def test_tiled_identity_is_exact(blend, tile, overlap):
    pixels = np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    assert np.array_equal(run_tiled(pixels, lambda part: part, tile=tile, overlap=overlap, blend=blend), pixels)
    doubled = run_tiled(
        pixels, lambda part: part.repeat(2, 0).repeat(2, 1), tile=tile, overlap=overlap, scale=2, blend=blend
    )
    assert np.array_equal(doubled, pixels.repeat(2, 0).repeat(2, 1))


def test_wrong_tile_shape_is_refused():
    with pytest.raises(OptionInvalid, match="shape"):
        run_tiled(np.zeros((8, 8, 3), np.uint8), lambda part: part[:4], tile=8, overlap=0)


def test_bad_plan_is_refused():
    with pytest.raises(OptionInvalid):
        plan_tiles((10, 10), 4, 4)


@pytest.mark.parametrize("method", ["adain", "wavelet"])
@pytest.mark.parametrize("reference_size", [(48, 64), (24, 32)])
def test_colour_fix_keeps_the_mean(method, reference_size):
    generator = np.random.default_rng(0)
    pixels = generator.integers(60, 250, (48, 64, 3), dtype=np.uint8)
    reference = generator.integers(20, 180, (*reference_size, 3), dtype=np.uint8)
    fixed = fix_color(pixels, reference, method)
    assert np.abs(fixed.mean(axis=(0, 1)) - reference.mean(axis=(0, 1))).max() <= 1.0


def test_colour_fix_none_and_unknown():
    pixels = np.zeros((4, 4, 3), np.uint8)
    assert fix_color(pixels, pixels, "none") is pixels
    with pytest.raises(OptionInvalid, match="wavelet"):
        fix_color(pixels, pixels, "wavlet")
