"""The rating network: any size, one rating from its map, no bias against crops, soft backgrounds or true sharpness."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from importlib import resources

import cv2
import numpy as np
import pytest
from skimage import data

from zoomiqa import assess, create_assessor, picture_from_array
from zoomiqa.assessors import AssessorSpec
from zoomiqa.assessors.compact.features import crop_copy, viewing_copy
from zoomiqa.assessors.compact.network import ATTRIBUTES, WEIGHTS, shipped_network
from zoomiqa.assessors.compact.raters import NetworkRater
from zoomiqa.imaging.distortions import distort, soft_mask
from zoomiqa.vocabulary import Flaw

DATA = resources.files("zoomiqa.assessors.compact") / "data"
PHOTOS = {name: np.ascontiguousarray(getattr(data, name)()) for name in ("astronaut", "coffee", "chelsea", "rocket")}
PHOTO = PHOTOS["astronaut"]
RATER = NetworkRater()


@pytest.fixture(scope="module")
def network():
    return shipped_network()


def rate(pixels):
    """The rating after both looks."""
    first = RATER.first(viewing_copy(pixels))
    return RATER.second(first, pixels, first.region.box_fraction)[0].value


def soft_behind(pixels):
    """The picture with a sharp subject in the middle before a soft background."""
    soft = distort(pixels, "gaussian_blur", 4).pixels
    mask = soft_mask(pixels.shape[:2], (0.2, 0.1, 0.8, 0.8))[..., None]
    return np.round(pixels * mask + soft * (1 - mask)).astype(np.uint8), soft


def test_the_shipped_network_is_that_of_its_card():
    card = json.loads((DATA / "rating_network.json").read_text("utf-8"))
    model = (DATA / WEIGHTS).read_bytes()
    assert hashlib.sha256(model).hexdigest() == card["sha256"]
    assert len(model) == card["bytes"]
    assert card["start"]["licence"] == "Apache-2.0"
    assert card["settings"]["seed"] == 0
    assert card["limits"]

    signals = json.loads((DATA / "compact_rating.json").read_text("utf-8"))["cross_validation"]["runs"][0]["second"]
    assert card["out_of_fold"]["last"]["all"]["srcc"] >= signals["all"]["srcc"] + 0.03, "else the regressor would do"
    assert abs(card["out_of_fold"]["mean_crop_minus_view"]) < 0.05, "a crop must not look worse for being a crop"
    true = card["known_changes"]["true_preferred"]
    assert np.mean([share for change, share in true.items() if change.startswith("unsharp")]) >= 0.85


def test_both_networks_together_are_small():
    restorer = resources.files("restore_bridge.restorers.compact") / "data"
    sizes = [len(path.read_bytes()) for folder in (DATA, restorer) for path in folder.iterdir() if ".onnx" in path.name]
    assert sum(sizes) <= 12e6


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (33, 64), (100, 101), (240, 320), (417, 300)])
def test_any_size_gives_one_rating_that_is_the_weighted_mean_of_its_map(network, shape):
    pixels = cv2.resize(PHOTO, shape[::-1], interpolation=cv2.INTER_AREA)
    look = network.look(pixels)
    assert 1 <= look.rating.value <= 5
    assert look.rating.spread > 0
    assert look.quality.shape == look.weight.shape
    assert float(look.weight.sum()) == pytest.approx(1, abs=1e-4)
    assert float((look.quality * look.weight).sum()) == pytest.approx(look.rating.value, abs=0.02)
    assert set(look.attributes) == set(ATTRIBUTES)
    assert all(1 <= value <= 5 for value in look.attributes.values())
    if min(shape) >= 64:
        assert look.quality.shape == tuple(-(-side // 32) for side in shape)


def test_the_same_pixels_give_the_same_numbers_in_every_thread(network):
    with ThreadPoolExecutor(4) as pool:
        looks = list(pool.map(lambda _: network.look(PHOTO[:256, :320].copy()), range(8)))
    for look in looks[1:]:
        assert look.rating == looks[0].rating
        assert np.array_equal(look.quality, looks[0].quality)


def test_a_crop_is_not_worse_for_being_a_crop(network):
    differences = []
    for pixels in PHOTOS.values():
        whole = network.look(viewing_copy(pixels)).rating.value
        boxes = ((0, 0, 0.67, 0.67), (0.33, 0.33, 1, 1), (0.165, 0.165, 0.835, 0.835))
        differences += [network.look(crop_copy(pixels, box)).rating.value - whole for box in boxes]
    assert abs(np.mean(differences)) < 0.35


def test_an_unsharp_background_costs_less_than_an_unsharp_picture():
    fell_behind, fell_whole = [], []
    for pixels in (PHOTO, PHOTOS["chelsea"]):
        bokeh, soft = soft_behind(pixels)
        sharp = rate(pixels)
        fell_behind.append(sharp - rate(bokeh))
        fell_whole.append(sharp - rate(soft))
    assert np.mean(fell_behind) < 0.5 * np.mean(fell_whole)


def test_an_unsharp_background_is_not_called_blur():
    bokeh, soft = soft_behind(PHOTO)
    for pixels, is_blurred in ((bokeh, False), (soft, True)):
        stated = {finding.flaw for finding in assess(pixels).rounds[-1].findings}
        assert (Flaw.BLUR in stated) is is_blurred


@pytest.mark.parametrize("operation", ["gaussian_blur", "gaussian_noise", "jpeg"])
def test_the_map_falls_most_where_the_picture_was_damaged(network, operation):
    box = (0.25, 0.25, 0.75, 0.75)
    fall = network.look(PHOTO).quality - network.look(distort(PHOTO, operation, 5, 1, box).pixels).quality
    inside = np.zeros(fall.shape, bool)
    inside[4:12, 4:12] = True
    assert fall[inside].mean() > fall[~inside].mean()


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("amount", [3.0, 6.0])
def test_a_true_photo_is_preferred_to_its_oversharpened_copy(name, amount):
    pixels = PHOTOS[name].astype(np.float32)
    sharpened = pixels + amount * (pixels - cv2.GaussianBlur(pixels, (0, 0), 1.5))
    assert rate(PHOTOS[name]) > rate(np.clip(np.round(sharpened), 0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("attribute", "operation"),
    [
        ("sharpness", "gaussian_blur"),
        ("noise", "gaussian_noise"),
        ("color_fidelity", "color_cast"),
        ("exposure", "low_light"),
    ],
)
def test_each_attribute_falls_with_its_own_flaw(network, attribute, operation):
    falls = []
    for pixels in PHOTOS.values():
        before = network.look(viewing_copy(pixels)).attributes
        after = network.look(viewing_copy(distort(pixels, operation, 4, 3).pixels)).attributes
        falls.append({name: before[name] - after[name] for name in ATTRIBUTES})
    mean = {name: np.mean([fall[name] for fall in falls]) for name in ATTRIBUTES}
    assert mean[attribute] > 0.3


def test_attributes_are_rated_where_they_are_asked_for():
    asked = create_assessor(AssessorSpec(attributes=True))
    (assessment,) = asked.assess([picture_from_array(PHOTO)])
    assert {"sharpness", "color_fidelity", "noise"} <= set(assessment.rounds[-1].attributes)
    assert not assess(PHOTO).rounds[-1].attributes


def test_the_signals_still_rate_under_their_own_name():
    signals = create_assessor("signals")
    assert signals.info.name == "signals"
    assert signals.info.version != create_assessor().info.version
    assert 1 <= assess(PHOTO, signals).rating <= 5
