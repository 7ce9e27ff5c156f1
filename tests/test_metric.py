"""The assessor as a metric: tensors, arrays and files in, ratings out."""

import numpy as np
import pytest
import torch

from zoomiqa import QualityMetric, assess
from zoomiqa.assessors import ConversationalAssessor
from zoomiqa.backends import ScriptedBackend
from zoomiqa.errors import BackendFailed, ImageValuesInvalid, OptionInvalid


@pytest.fixture(scope="module")
def metric():
    return QualityMetric()


def test_it_says_which_way_is_up(metric):
    assert metric.lower_better is False
    assert (metric.metric_mode, metric.score_range, metric.metric_name) == ("NR", "1, 5", "compact")


def test_a_tensor_is_rated_like_the_picture_it_holds(metric, photos):
    from zoomiqa import open_picture

    pixels = open_picture(photos / "coffee.png").pixels
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    expected = assess(photos / "coffee.png").rating
    for form in (tensor[None], tensor, tensor[None].float() / 255):
        ratings = metric(form)
        assert ratings.shape == (1,)
        assert ratings.dtype == torch.float32
        assert float(ratings[0]) == pytest.approx(expected)
    both = metric(torch.stack([tensor, tensor.flip(-1)]))
    assert float(both[0]) == pytest.approx(expected)


def test_files_and_arrays_give_arrays(metric, photos):
    paths = [photos / "coffee.png", photos / "chelsea.png"]
    ratings = metric(paths)
    assert isinstance(ratings, np.ndarray)
    assert ratings.tolist() == [assess(path).rating for path in paths]
    assert metric(str(paths[0])).shape == (1,)


def test_a_better_picture_has_the_higher_rating(metric, photos):
    from scipy.ndimage import gaussian_filter

    from zoomiqa import open_picture

    pixels = open_picture(photos / "astronaut.png").pixels
    sharp, soft = metric(np.stack([pixels, gaussian_filter(pixels, (4, 4, 0))]))
    assert sharp > soft


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (torch.rand(2, 1, 8, 8), OptionInvalid),
        (torch.rand(1, 3, 8, 8) * 255, ImageValuesInvalid),
        (torch.full((1, 3, 8, 8), torch.nan), ImageValuesInvalid),
    ],
)
def test_values_without_a_meaning_are_refused(metric, value, error):
    with pytest.raises(error):
        metric(value)


def test_a_failure_is_never_a_number():
    metric = QualityMetric(ConversationalAssessor(ScriptedBackend(lambda _: "no idea")))
    with pytest.raises(BackendFailed, match="picture 0 could not be rated"):
        metric(np.zeros((8, 8, 3), np.uint8))
