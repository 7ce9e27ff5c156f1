"""Figures are finite, directed, and refuse what cannot be compared."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import pickle
import socket
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from restore_bridge import pyiqa_metrics
from restore_bridge.cli import main
from restore_bridge.comparison import compare
from restore_bridge.scoring import BUILT_IN, PSNR_CAP, load_metric, score
from zoomiqa.errors import BackendFailed, BackendUnknown, ExtraMissing, OptionInvalid, WeightsMissing, WeightsRefused
from zoomiqa.imaging import picture_from_array, save_picture

PHOTO = np.ascontiguousarray(data.astronaut()[:200, :240])
NOISY = np.clip(PHOTO + np.random.default_rng(0).normal(0, 12, PHOTO.shape), 0, 255).astype(np.uint8)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(pixels, path)


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


def test_unknown_metrics():
    with pytest.raises(BackendUnknown):
        load_metric("psnrr")


def test_a_comparison_names_who_computed_it_and_its_range():
    rows = {row.metric: row.to_dict() for row in compare(picture_from_array(NOISY), picture_from_array(PHOTO))}
    assert rows["ssim"]["version"].startswith("scikit-image ")
    assert rows["psnr"]["version"].startswith("zoomiqa ")
    assert rows["consistency"]["range"] == [0.0, 1.0]
    assert "by zoomiqa" in str(compare(picture_from_array(NOISY), picture_from_array(PHOTO))[0])


FAKE = """
import pickle, urllib.request
import numpy as np, torch
__version__ = "9.9"
made = []

class Model:
    def __init__(self, name, configuration):
        self.name, self.metric_mode = name, configuration["metric_mode"]
        self.lower_better = configuration.get("lower_better", False)

    def __call__(self, target, ref=None):
        print("talk on stdout")
        for given in (target, ref):
            if given is not None:
                assert given.dim() == 4 and given.shape[1] == 3 and 0 <= given.min() and given.max() <= 1
        if self.name == "psnr":
            return -10 * torch.log10(torch.mean((target - ref) ** 2) + 1e-8)[None]
        if self.name == "crops":
            return torch.rand(1) + np.random.rand()
        if min(target.shape[-2:]) < 32:
            raise AssertionError("too small\\nsecond line")
        return target.mean()[None] if self.name == "entropy" else torch.tensor([float("nan")])

def create_metric(name, as_loss=False, device=None):
    from pyiqa.default_model_configs import DEFAULT_CONFIGS
    print("loading")
    made.append(name)
    if name == "niqe":
        urllib.request.urlopen(weights)
    if name == "pickled":
        torch.load(weights, weights_only=False)
    if name == "broken":
        raise KeyError("no such part")
    return Model(name, DEFAULT_CONFIGS[name])
"""
FAKE_CONFIGURATIONS = """
DEFAULT_CONFIGS = {
    "psnr": {"metric_mode": "FR", "score_range": "~0, ~40"},
    "entropy": {"metric_mode": "NR", "score_range": "0, 8"},
    "niqe": {"metric_mode": "NR", "lower_better": True, "score_range": "~0, ~100"},
    "crops": {"metric_mode": "NR", "score_range": "~, 2"},
    "silent": {"metric_mode": "NR"},
    "pickled": {"metric_mode": "NR", "score_range": "quality: 0, 1; rank: 0, 2"},
    "broken": {"metric_mode": "NR"},
    "fid": {"metric_mode": "FR"},
    "qalign_4bit": {"metric_mode": "NR"},
}
"""


@pytest.fixture
def fake_pyiqa(tmp_path, monkeypatch):
    """A small package with the parts of pyiqa that are used here: same names, same types, same habits."""
    pytest.importorskip("torch")
    folder = tmp_path / "packages" / "pyiqa"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(FAKE)
    (folder / "default_model_configs.py").write_text(FAKE_CONFIGURATIONS)
    monkeypatch.syspath_prepend(folder.parent)
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "pyiqa"}
    for function in (pyiqa_metrics.load, pyiqa_metrics.hub_answers):
        function.cache_clear()
    monkeypatch.setattr(pyiqa_metrics, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(pyiqa_metrics, "REACH_SECONDS", 0.5)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    yield importlib.import_module("pyiqa")
    for name in list(sys.modules):
        if name.split(".")[0] == "pyiqa":
            del sys.modules[name]
    sys.modules.update(hidden)
    pyiqa_metrics.load.cache_clear()
    pyiqa_metrics.hub_answers.cache_clear()


@pytest.fixture
def silent_server():
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/weights"


def test_a_metric_of_pyiqa_is_described_and_computed(fake_pyiqa, capsys):
    metric = load_metric("pyiqa:psnr")
    assert (metric.kind, metric.higher_is_better) == ("full-reference", True)
    assert (metric.range, metric.is_range_rough, metric.version) == ((0.0, 40.0), True, "pyiqa 9.9")
    assert "Noncommercial" in metric.licence
    assert score("pyiqa:psnr", NOISY, PHOTO).value == pytest.approx(score("psnr", NOISY, PHOTO).value, abs=1e-3)
    assert fake_pyiqa.made == ["psnr"], "loaded once, however often it is asked for"
    assert capsys.readouterr().out == "", "stdout belongs to records"
    with pytest.raises(OptionInvalid, match="reference"):
        score("pyiqa:psnr", NOISY)
    with pytest.raises(OptionInvalid, match="one size"):
        score("pyiqa:psnr", NOISY[:100], PHOTO)


def test_against_a_pristine_picture_and_between_the_two(fake_pyiqa):
    before, after, pristine = map(picture_from_array, (NOISY, cv2.GaussianBlur(NOISY, (0, 0), 0.7), PHOTO))
    names = ("pyiqa:psnr", "pyiqa:entropy", "pyiqa:silent")
    full, single, undefined = compare(before, after, reference=pristine, metrics=names)
    assert full.after > full.before
    assert (single.kind, single.direction, single.version) == ("no-reference", "higher", "pyiqa 9.9")
    assert undefined.after is None
    assert [note.code for note in undefined.notes] == ["metric-not-applicable"], "NaN is never a figure"
    (between,) = compare(before, after, metrics=("pyiqa:psnr",))
    assert (between.kind, between.before) == ("against the picture before", None)


def test_what_pyiqa_cannot_judge_is_a_note_of_one_line(fake_pyiqa):
    (row,) = compare(*[picture_from_array(PHOTO[:20, :20])] * 2, metrics=("pyiqa:entropy",))
    assert row.after is None
    assert "too small" in row.notes[0].message
    assert "second line" not in row.notes[0].message


def test_random_crops_are_the_same_each_time_and_leave_the_global_draws_alone(fake_pyiqa):
    import torch

    np.random.seed(1)
    torch.manual_seed(1)
    expected = np.random.rand(), torch.rand(1).item()
    np.random.seed(1)
    torch.manual_seed(1)
    first = score("pyiqa:crops", PHOTO).value
    assert (np.random.rand(), torch.rand(1).item()) == expected
    assert score("pyiqa:crops", PHOTO).value == first


def test_weights_that_cannot_be_fetched_are_an_error_in_bounded_time(fake_pyiqa, silent_server, monkeypatch):
    fake_pyiqa.weights = silent_server
    monkeypatch.setenv("HF_ENDPOINT", silent_server)
    before = socket.getdefaulttimeout()
    start = time.monotonic()
    with pytest.raises(WeightsMissing, match=r"weights of pyiqa:niqe are not on this machine.*psnr, psnry") as caught:
        load_metric("pyiqa:niqe")
    assert time.monotonic() - start < 5
    assert "TORCH_HOME" in str(caught.value)
    assert socket.getdefaulttimeout() == before
    fake_pyiqa.weights = "http://127.0.0.1:9/weights"
    with pytest.raises(WeightsMissing):
        load_metric("pyiqa:niqe")


def test_what_needs_no_weights_never_asks_the_network(fake_pyiqa, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("the network was asked"))
    assert score("pyiqa:entropy", PHOTO).value > 0


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def test_weights_that_hold_code_are_refused(fake_pyiqa, tmp_path, monkeypatch):
    """C8 31: pyiqa asks torch for its unsafe reader, and does not get it."""
    fake_pyiqa.weights = tmp_path / "evil.pth"
    fake_pyiqa.weights.write_bytes(pickle.dumps(Evil(tmp_path / "marker")))
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    with pytest.raises(WeightsRefused, match="hold more than tensors"):
        load_metric("pyiqa:pickled")
    assert not (tmp_path / "marker").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("entropyy", BackendUnknown, "did you mean entropy"),
        ("fid", OptionInvalid, "sets of pictures"),
        ("qalign_4bit", OptionInvalid, "code from the hub"),
        ("broken", BackendFailed, "KeyError"),
    ],
)
def test_metrics_of_pyiqa_that_cannot_be_had(fake_pyiqa, name, error, words):
    with pytest.raises(error, match=words):
        load_metric(f"pyiqa:{name}")


def test_all_usable_metrics_are_listed_without_loading_any(fake_pyiqa, capsys):
    assert main(["score", "--list"]) == 0
    listed = {item["name"]: item for item in json.loads(capsys.readouterr().out)}
    assert fake_pyiqa.made == []
    assert listed["pyiqa:crops"]["range"] == [None, 2.0]
    assert listed["pyiqa:pickled"]["range"] == [None, None]
    assert not listed["pyiqa:niqe"]["higher_is_better"]
    assert "pyiqa:fid" not in listed
    assert all(item["version"] for item in listed.values())


def test_ranges_of_pyiqa():
    texts = ("0, 1", "~0, ~10", "~, 2", "0, ~", None, "", "quality: 0, 1; rank: 0, 2", "5")
    pairs = [(0, 1), (0, 10), (None, 2), (0, None), (None, None), (None, None), (None, None), (None, None)]
    assert [pyiqa_metrics.read_range(text) for text in texts] == pairs


def test_without_pyiqa_the_licence_and_the_way_out_are_named(monkeypatch, capsys):
    monkeypatch.setattr(pyiqa_metrics, "is_installed", lambda: False)
    pyiqa_metrics.load.cache_clear()
    with pytest.raises(ExtraMissing, match=r"Noncommercial.*zoomiqa\[metrics\]"):
        load_metric("pyiqa:niqe")
    assert main(["score", "--list"]) == 0
    assert "Noncommercial" in capsys.readouterr().err
    assert main(["plugins"]) == 0
    assert "Noncommercial" in capsys.readouterr().out
    assert main(["plugins", "--json"]) == 0
    (optional,) = json.loads(capsys.readouterr().out)["optional_metrics"]
    assert (optional["name"], optional["is_installed"]) == ("pyiqa:NAME", False)
    with pytest.raises(SystemExit):
        main(["score", "--help"])
    assert "PolyForm Noncommercial" in capsys.readouterr().out


def test_folders_are_paired_by_path_then_stem_and_given_as_csv(tmp_path, capsys):
    for place in ("before/x/a.png", "before/y/a.png", "before/z/b.png", "before/=c.png"):
        write(tmp_path / place, NOISY)
    for place in ("after/x/a.jpg", "after/y/a.png", "after/b.png", "after/=c.png", "reference/y/a.png"):
        write(tmp_path / place, PHOTO)
    write(tmp_path / "before/lonely.png", NOISY)
    command = ["score", *(str(tmp_path / name) for name in ("before", "after")), "--metric", "psnr"]
    assert main([*command, "--metric", "ssim,psnr", "--reference", str(tmp_path / "reference"), "--format", "csv"]) == 0
    out, err = capsys.readouterr()
    assert "lonely.png has no partner" in err
    lines = list(csv.DictReader(io.StringIO(out)))
    pairs = {(Path(line["before"]).relative_to(tmp_path / "before").as_posix(), line["after"]) for line in lines}
    expected = {"x/a.png": "x/a.jpg", "y/a.png": "y/a.png", "z/b.png": "b.png", "=c.png": "=c.png"}
    assert pairs == {(name, str(tmp_path / "after" / partner)) for name, partner in expected.items()}
    assert [line["metric"] for line in lines[:3]] == ["rating", "psnr", "ssim"]
    (judged,) = [line for line in lines if line["reference"] and line["metric"] == "psnr"]
    assert float(judged["value_after"]) == PSNR_CAP
    assert float(judged["value_before"]) < 40
    assert "infinite" in judged["note"]
    assert main([*command, "--format", "text"]) == 0
    assert "mean of 4" in capsys.readouterr().out


def test_csv_gives_no_formula_and_errors_a_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "=b/a.png", NOISY)
    (tmp_path / "=b/broken.png").write_bytes(b"no picture")
    assert main(["score", "=b", "=b", "--metric", "psnr", "--format", "csv"]) == 1
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert all(line["before"].startswith("'=b") for line in lines)
    assert [line["error"][:5] for line in lines] == ["", "", "ZIQ-1"]


def test_a_metric_that_cannot_be_had_is_said_once_before_any_picture(fake_pyiqa, tmp_path, capsys):
    for name in ("a.png", "b.png"):
        write(tmp_path / "p" / name, PHOTO)
    command = ["score", str(tmp_path / "p"), str(tmp_path / "p"), "--metric"]
    fake_pyiqa.weights = "http://127.0.0.1:9/weights"
    assert main([*command, "pyiqa:niqe"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("ZIQ-701")) == ("", 1)
    assert main([*command, "pyiqa:entropy", "--format", "json"]) == 0
    rows = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert [row["scores"][1]["version"] for row in rows] == ["pyiqa 9.9"] * 2


def test_references_must_fit_what_is_compared(tmp_path, capsys):
    write(tmp_path / "p/a.png", PHOTO)
    photo, folder = str(tmp_path / "p/a.png"), str(tmp_path / "p")
    assert main(["score", photo, photo, "--reference", folder]) == 2
    assert main(["score", folder, folder, "--reference", photo]) == 2
    assert capsys.readouterr().err.count("ZIQ-501") == 2


@pytest.fixture
def real_pyiqa(monkeypatch, tmp_path):
    if not pyiqa_metrics.is_installed():
        pytest.skip("pyiqa is not installed (its licence is non-commercial); pip install zoomiqa[metrics]")
    monkeypatch.setattr(pyiqa_metrics, "REACH_SECONDS", 0.5)
    monkeypatch.setattr(pyiqa_metrics, "STALL_SECONDS", 1.0)
    pyiqa_metrics.load.cache_clear()
    pyiqa_metrics.hub_answers.cache_clear()
    yield importlib.import_module("pyiqa")
    pyiqa_metrics.load.cache_clear()


def test_the_real_pyiqa_agrees_with_our_own_figures(real_pyiqa, capsys):
    assert score("pyiqa:psnr", NOISY, PHOTO).value == pytest.approx(score("psnr", NOISY, PHOTO).value, abs=0.01)
    assert 0.5 < score("pyiqa:ssim", NOISY, PHOTO).value < 1
    assert score("pyiqa:gmsd", NOISY, PHOTO).value > score("pyiqa:gmsd", PHOTO, PHOTO).value
    assert not load_metric("pyiqa:gmsd").higher_is_better
    assert score("pyiqa:piqe", NOISY).value > score("pyiqa:piqe", PHOTO).value
    assert load_metric("pyiqa:piqe").version == f"pyiqa {real_pyiqa.__version__}"
    assert capsys.readouterr().out == ""
    assert len(pyiqa_metrics.describe_all()) > 80


def test_the_real_pyiqa_without_weights_is_a_clear_error(real_pyiqa, silent_server, tmp_path, monkeypatch):
    from pyiqa.archs import niqe_arch
    from pyiqa.utils import download_util

    monkeypatch.setattr(download_util, "DEFAULT_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(niqe_arch.default_model_urls, "niqe", silent_server)
    monkeypatch.setitem(niqe_arch.default_model_urls, "url", silent_server)
    monkeypatch.setenv("HF_ENDPOINT", silent_server)
    start = time.monotonic()
    with pytest.raises(WeightsMissing, match="pyiqa:niqe"):
        load_metric("pyiqa:niqe")
    assert time.monotonic() - start < 20


def test_the_real_pyiqa_does_not_unpickle(real_pyiqa, tmp_path, monkeypatch):
    from pyiqa.archs import cnniqa_arch
    from pyiqa.utils import download_util

    monkeypatch.setattr(download_util, "DEFAULT_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for address in cnniqa_arch.default_model_urls.values():
        (tmp_path / address.rsplit("/", 1)[-1]).write_bytes(pickle.dumps(Evil(tmp_path / "marker")))
    with pytest.raises(WeightsRefused):
        load_metric("pyiqa:cnniqa")
    assert not (tmp_path / "marker").exists()
