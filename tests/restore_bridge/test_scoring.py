"""Figures are finite, directed, and refuse what cannot be compared."""

from __future__ import annotations

import importlib.util
import json

import cv2
import numpy as np
import pytest
from skimage import data

from restore_bridge.scoring import BUILT_IN, PSNR_CAP, load_metric, score
from zoomiqa.errors import BackendUnknown, ExtraMissing, OptionInvalid

PHOTO = np.ascontiguousarray(data.astronaut()[:200, :240])


def test_known_values():
    brighter = np.clip(PHOTO.astype(int) + 0, 0, 255).astype(np.uint8)
    brighter[..., :] = np.where(PHOTO < 250, PHOTO + 5, PHOTO - 5)
    assert score("psnr", brighter, PHOTO).value == pytest.approx(20 * np.log10(255 / 5))
    assert score("ssim", PHOTO, PHOTO).value == pytest.approx(1.0)
    assert score("consistency", PHOTO, PHOTO).value == pytest.approx(1.0)


def test_equal_pictures_are_json_safe():
    result = score("psnr", PHOTO, PHOTO)
    assert result.value == PSNR_CAP
    assert [note.code for note in result.notes] == ["psnr-capped"]
    json.dumps(result.to_dict(), allow_nan=False)


def test_consistency_forgives_repair_and_sees_invention():
    blurred = cv2.GaussianBlur(PHOTO, (0, 0), 1.0)
    noisy = np.clip(PHOTO + np.random.default_rng(0).normal(0, 8, PHOTO.shape), 0, 255).astype(np.uint8)
    invented = PHOTO.copy()
    invented[40:140, 60:180] = PHOTO[100:200, 100:220]
    lifted = np.clip((PHOTO / 255) ** 0.7 * 255, 0, 255).astype(np.uint8)
    values = {
        name: score("consistency", picture, PHOTO).value
        for name, picture in (("blurred", blurred), ("noisy", noisy), ("lifted", lifted), ("invented", invented))
    }
    assert min(values["blurred"], values["noisy"], values["lifted"]) > 0.85
    assert values["invented"] < min(values["blurred"], values["noisy"], values["lifted"]) - 0.05
    assert score("consistency", PHOTO.repeat(2, 0).repeat(2, 1), PHOTO).value > 0.99


def test_unlike_sizes_and_missing_references_are_refused():
    with pytest.raises(OptionInvalid, match="one size"):
        score("psnr", PHOTO, PHOTO[:100])
    with pytest.raises(OptionInvalid, match="reference"):
        score("ssim", PHOTO)
    with pytest.raises(OptionInvalid, match="11"):
        score("ssim", PHOTO[:5, :5], PHOTO[:5, :5])


def test_metrics_are_described():
    for metric in BUILT_IN.values():
        described = metric.to_dict()
        assert described["description"]
        assert described["higher_is_better"] is True
        json.dumps(described, allow_nan=False)


def test_unknown_and_missing_metrics():
    with pytest.raises(BackendUnknown):
        load_metric("psnrr")
    if importlib.util.find_spec("pyiqa"):
        pytest.skip("pyiqa is installed")
    with pytest.raises(ExtraMissing, match="metrics"):
        load_metric("pyiqa:niqe")
