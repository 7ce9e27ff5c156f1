"""What the embedded assessors' ratings are made of: two looks joined, files checked, two assessors side by side."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import data

from zoomiqa import create_assessor
from zoomiqa.assessors.compact.features import choose_region, viewing_copy
from zoomiqa.assessors.compact.network import RatingNetwork, combined
from zoomiqa.assessors.compact.rating import Rating
from zoomiqa.errors import OptionInvalid

PHOTO = np.ascontiguousarray(data.astronaut())

spreads, values = st.floats(0.05, 1.5), st.floats(1, 5)


@given(values, spreads, values, spreads)
def test_two_looks_agree_between_them(first, open_first, second, open_second):
    joined = combined(Rating(first, open_first), Rating(second, open_second))
    low, high = sorted((first, second))
    assert low - 1e-9 <= joined.value <= high + 1e-9
    assert abs(joined.value - first) <= 2 * open_first + 1e-9, "one region cannot overturn a sure rating"
    assert 0 < joined.spread <= open_first


@given(values, values, spreads)
def test_an_open_first_look_moves_further(first, second, spread):
    sure = combined(Rating(first, 0.1), Rating(second, spread))
    unsure = combined(Rating(first, 0.6), Rating(second, spread))
    assert abs(unsure.value - first) >= abs(sure.value - first) - 1e-9


@pytest.mark.parametrize("place", [(0, 0), (0, 4), (4, 0), (4, 4)])
def test_doubt_about_a_place_draws_the_closer_look_there(place):
    doubt = np.zeros((5, 5), np.float32)
    doubt[place] = 50.0
    x1, y1, x2, y2 = choose_region(viewing_copy(PHOTO), doubt).box_fraction
    assert x1 <= (place[1] + 0.5) / 5 <= x2
    assert y1 <= (place[0] + 0.5) / 5 <= y2


@pytest.mark.parametrize("content", [b"", b"no model", bytes(2000)])
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        RatingNetwork(path)
    with pytest.raises(OptionInvalid, match="cannot be used"):
        create_assessor("compact", network=path)


def test_another_model_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx builds the other model")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "other",
        [value("x", onnx.TensorProto.FLOAT, [1])],
        [value("y", onnx.TensorProto.FLOAT, [1])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "other.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="another kind"):
        RatingNetwork(path)
