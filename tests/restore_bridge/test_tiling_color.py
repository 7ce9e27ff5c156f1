"""Tiles cover and sum to one; the colour fix keeps means."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restore_bridge.color import fix_color
from restore_bridge.tiling import halving_on_memory_error, pad_to_multiple, plan_tiles, run_tiled, tile_weights
from zoomiqa.errors import OptionInvalid


def normalised_weights(plan, blend, scale=1):
    """Weights of every tile as a share of all that meet there, which is how tiles are blended."""
    total = np.zeros((plan.size[1] * scale, plan.size[0] * scale))
    weights = [tile_weights(plan, box, blend, scale) for box in plan.boxes]
    places = [np.s_[box.y1 * scale : box.y2 * scale, box.x1 * scale : box.x2 * scale] for box in plan.boxes]
    for place, weight in zip(places, weights, strict=True):
        total[place] += weight
    assert (total > 0).all()
    return [weight / total[place] for place, weight in zip(places, weights, strict=True)]


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


@settings(max_examples=120, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(0, 32),
    st.integers(0, 16),
    st.sampled_from(["linear", "gaussian"]),
    st.booleans(),
)
def test_aligned_tiles_cover_overlap_and_leave_their_margins_out(columns, rows, tiles, overlap, margin, blend, is_snug):
    align, tile = 8, 8 * tiles
    overlap = min(overlap, tile - align)
    margin = min(margin, overlap // 2)
    size = (columns * align, rows * align)
    plan = plan_tiles(size, tile, overlap, margin=margin, align=align, is_snug=is_snug)
    loose = plan_tiles(size, tile, overlap, margin=margin, align=align)
    assert len(plan.boxes) == len(loose.boxes)
    assert plan.boxes[0].width <= loose.boxes[0].width
    assert plan.boxes[0].height <= loose.boxes[0].height
    assert all(box.x1 % align == box.y1 % align == 0 for box in plan.boxes)
    for low, high in (("x1", "x2"), ("y1", "y2")):
        spans = sorted({(getattr(box, low), getattr(box, high)) for box in plan.boxes})
        assert all(before[1] - after[0] >= overlap for before, after in pairwise(spans))
    total = np.zeros((rows * align, columns * align))
    for box, weight in zip(plan.boxes, normalised_weights(plan, blend), strict=True):
        total[box.y1 : box.y2, box.x1 : box.x2] += weight
        if box.x1 > 0:
            assert not weight[:, :margin].any()
        if box.y2 < plan.size[1] and margin:
            assert not weight[-margin:].any()
    assert np.allclose(total, 1, atol=1e-5)


def blurred(pixels, reach):
    """A mean over (2·reach+1)² pixels, with black beyond the edges: wrong near every edge of a tile."""
    padded = np.pad(pixels.astype(float), ((reach, reach), (reach, reach), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1), axis=(0, 1))
    return windows.mean(axis=(-2, -1))


@pytest.mark.parametrize("blend", ["linear", "gaussian"])
def test_a_margin_as_wide_as_the_reach_makes_tiles_exact(blend):
    """C8 68."""
    pixels = np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    whole = np.rint(blurred(pixels, 3))
    options = {"tile": 32, "overlap": 12, "blend": blend}
    tiled = run_tiled(pixels, lambda part: blurred(part, 3), **options, margin=3)
    assert np.abs(tiled - whole).max() <= 1
    seams = run_tiled(pixels, lambda part: blurred(part, 3), **options)
    assert np.abs(seams - whole).max() > 1, "without a margin the edges of tiles show, so this test can fail"


@pytest.mark.parametrize(
    ("size", "tile", "overlap", "options"),
    [
        ((64, 64), 32, 8, {"margin": 5}),
        ((64, 64), 32, 8, {"margin": -1}),
        ((60, 64), 32, 8, {"align": 8}),
        ((64, 64), 30, 8, {"align": 8}),
        ((64, 64), 32, 28, {"align": 8}),
        ((64, 64), 32, 8, {"align": 0}),
    ],
)
def test_plans_that_cannot_be_are_refused(size, tile, overlap, options):
    with pytest.raises(OptionInvalid):
        plan_tiles(size, tile, overlap, **options)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 9))
def test_padding_reaches_the_multiple_and_keeps_the_picture(height, width, multiple):
    pixels = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    padded = pad_to_multiple(pixels, multiple)
    assert padded.shape[0] % multiple == padded.shape[1] % multiple == 0
    assert padded.shape[0] - height < multiple
    assert padded.shape[1] - width < multiple
    assert np.array_equal(padded[:height, :width], pixels)


def test_padding_mirrors_and_repeats_where_there_is_too_little_to_mirror():
    row = np.arange(5, dtype=np.uint8)[None, :, None]
    assert pad_to_multiple(row, 1) is row
    assert pad_to_multiple(row, 4)[0, :, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    assert pad_to_multiple(row, 16)[3, :, 0].tolist() == [0, 1, 2, 3, 4, *[4] * 11]


def out_of_memory_until(tile_that_fits, calls):
    def work(tile, overlap):
        calls.append((tile, overlap))
        if tile > tile_that_fits:
            raise MemoryError
        return tile

    return work


def test_tiles_are_halved_once():
    """C8 71."""
    assert halving_on_memory_error(out_of_memory_until(512, calls := []), 512, 128) == (512, ())
    assert calls == [(512, 128)]
    result, notes = halving_on_memory_error(out_of_memory_until(256, calls := []), 512, 128)
    assert (result, calls) == (256, [(512, 128), (256, 64)])
    assert [note.code for note in notes] == ["tiles-halved"]
    assert "256" in notes[0].message
    with pytest.raises(MemoryError):
        halving_on_memory_error(out_of_memory_until(128, calls := []), 512, 128)
    assert len(calls) == 2


def test_halved_tiles_keep_to_their_multiple():
    halving_on_memory_error(out_of_memory_until(64, calls := []), 192, 128, least=64)
    assert calls == [(192, 128), (64, 0)]
    with pytest.raises(MemoryError):
        halving_on_memory_error(out_of_memory_until(0, calls := []), 64, 0, least=64)
    assert calls == [(64, 0)], "a tile that cannot be smaller is not tried again"


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


def test_snug_tiles_compute_less_twice():
    loose, snug = (plan_tiles((1152, 872), 1024, 96, align=8, is_snug=is_snug) for is_snug in (False, True))
    areas = [sum(box.width * box.height for box in plan.boxes) for plan in (loose, snug)]
    assert areas[1] < 1.1 * 1152 * 872 < areas[0]
