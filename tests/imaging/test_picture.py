"""The contract of a decoded picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from zoomiqa.errors import ImageValuesInvalid
from zoomiqa.imaging.picture import Picture, composite_on_white, crop, picture_from_array, render
from zoomiqa.types import Box, ImageInfo, ImagePart


def rising(height: int, width: int) -> np.ndarray:
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)


def test_pixels_cannot_be_written() -> None:
    picture = picture_from_array(np.zeros((4, 5, 4), np.uint8))
    assert picture.alpha is not None
    for array in (picture.pixels, picture.alpha, crop(picture, Box(0, 0, 2, 2))):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1


def test_the_callers_array_stays_his() -> None:
    array = rising(4, 5)
    picture = picture_from_array(array)
    array[:] = 0
    assert picture.pixels.any()


def test_depths_agree() -> None:
    """The same picture in uint8, uint16 and float is the same picture."""
    eight = rising(5, 7)
    sixteen = picture_from_array(eight.astype(np.uint16) * 257)
    real = picture_from_array(eight / 255)
    assert (sixteen.pixels == eight).all()
    assert (real.pixels == eight).all()


def test_sixteen_bits_are_rounded_and_not_cut_off() -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels = picture_from_array(ramp).pixels[:, :, 0]
    assert np.abs(pixels - ramp / 257).max() <= 0.5
    assert pixels.max() == 255


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((3, 4, 4, 3), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((4, 4), np.int32),
        np.zeros((4, 4), bool),
        np.zeros((4, 4), complex),
        np.full((4, 4), np.nan),
        np.full((4, 4), np.inf),
        np.full((4, 4), 1.1),
        np.full((4, 4), -0.1),
        np.array([["a", "b"]]),
    ],
)
def test_what_is_no_picture_is_refused(array: np.ndarray) -> None:
    with pytest.raises(ImageValuesInvalid):
        picture_from_array(array)


@settings(max_examples=150, deadline=None)
@given(
    arrays.arrays(
        dtype=st.one_of(
            arrays.integer_dtypes(), arrays.unsigned_integer_dtypes(), arrays.floating_dtypes(), arrays.boolean_dtypes()
        ),
        shape=arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    )
)
def test_any_array_is_a_picture_or_our_error(array: np.ndarray) -> None:
    try:
        picture = picture_from_array(array)
    except ImageValuesInvalid:
        return
    assert picture.pixels.shape == (*array.shape[:2], 3)
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.flags.c_contiguous
    assert picture.size == (picture.info.width, picture.info.height)


@settings(max_examples=50, deadline=None)
@given(
    arrays.arrays(np.uint8, (3, 4, 3)),
    arrays.arrays(np.uint8, (3, 4), elements=st.sampled_from([0, 1, 127, 128, 254, 255])),
)
def test_compositing_is_right_and_hides(rgb: np.ndarray, alpha: np.ndarray) -> None:
    exact = (rgb * (alpha[:, :, None] / 255)) + 255 * (1 - alpha[:, :, None] / 255)
    result = composite_on_white(rgb, alpha)
    assert np.abs(result - exact).max() <= 0.51
    assert (result[alpha == 0] == 255).all()
    assert (result[alpha == 255] == rgb[alpha == 255]).all()


def test_with_pixels_keeps_alpha_only_where_it_fits() -> None:
    picture = picture_from_array(np.full((4, 5, 4), 100, np.uint8), name="a.png")
    same, larger = picture.with_pixels(rising(4, 5)), picture.with_pixels(rising(8, 10))
    assert same.alpha is picture.alpha
    assert larger.alpha is None
    assert (larger.info.path, larger.info.width, larger.info.height, larger.size) == ("a.png", 10, 8, (10, 8))


def test_pixels_of_another_form_are_refused() -> None:
    info = ImageInfo(path=None, sha256=None, width=2, height=2)
    for pixels in (np.zeros((2, 2), np.uint8), np.zeros((2, 2, 3), np.float32), np.zeros((0, 2, 3), np.uint8)):
        with pytest.raises(ImageValuesInvalid, match="non-empty uint8"):
            Picture(pixels=pixels, info=info)  # type: ignore[arg-type]


def test_render() -> None:
    picture = picture_from_array(rising(20, 30))
    assert render(picture, ImagePart()) is picture.pixels
    box = Box(3, 4, 13, 10)
    assert (render(picture, ImagePart(box)) == picture.pixels[4:10, 3:13]).all()
    assert render(picture, ImagePart(box, (10, 6))).base is not None
    assert render(picture, ImagePart(box, (20, 12))).shape == (12, 20, 3)
    flat = picture_from_array(np.full((20, 30, 3), 77, np.uint8))
    assert (render(flat, ImagePart(None, (7, 5))) == 77).all()
