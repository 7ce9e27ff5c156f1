"""Ablation: what each arm says, that arms are compared on the same restorations, and that a run can be continued."""

import json

import numpy as np
import pytest
from skimage import data

from restore_bridge.ablation import ARMS, Ablation, summarise
from restore_bridge.cli import main
from restore_bridge.restorers import REGISTRY, Capabilities, Restored
from restore_bridge.settings import BridgeSettings
from tests.restore_bridge.test_bridge import judge
from zoomiqa.errors import OptionInvalid
from zoomiqa.imaging import open_picture, picture_from_array, save_picture
from zoomiqa.imaging.distortions import distort


class Listener:
    """Takes text and adds a suffix of its own, as diffusion restorers do; draws from the seed; notes what it got."""

    loaded, said = [], []

    def __init__(self, *, quality_suffix="masterpiece", negative_suffix="ugly"):
        self.capabilities = Capabilities("listener", "A test double.", True, False, encoder="clip", generative=True)
        self.suffixes = (quality_suffix, negative_suffix)
        self.is_loaded = False

    def restore(self, picture, guidance, *, prompts=None, settings=None):
        self.is_loaded = True
        Listener.loaded.append(self.suffixes)
        Listener.said.append((prompts.positive, self.suffixes[0], prompts.negative, self.suffixes[1]))
        if settings.seed == 13:
            raise RuntimeError("unlucky")
        words = sum(map(len, (prompts.positive, *self.suffixes)))
        noise = np.random.default_rng(settings.seed).integers(0, 3, picture.pixels.shape)
        changed = np.clip(picture.pixels + noise + words // 20, 0, 255).astype(np.uint8)
        return Restored(picture.with_pixels(changed))

    def unload(self):
        self.is_loaded = False


class Plain(Listener):
    """The same without suffixes that could be switched off."""

    def __init__(self):
        super().__init__(quality_suffix="", negative_suffix="")


@pytest.fixture(autouse=True)
def doubles(monkeypatch):
    monkeypatch.setitem(REGISTRY.built_in, "listener", Listener)
    monkeypatch.setitem(REGISTRY.built_in, "plain", Plain)
    Listener.loaded.clear()
    Listener.said.clear()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("ablation")
    for name, pixels in (("a", data.astronaut()), ("b", data.coffee())):
        pristine = np.ascontiguousarray(pixels[40:200, 60:260])
        for place, shown in (("ref", pristine), ("photos", distort(pristine, "gaussian_noise", 4, seed=1).pixels)):
            (root / place).mkdir(exist_ok=True)
            save_picture(shown, root / place / f"{name}.png")
    return root


def command(folder, out, *options):
    return ["ablate", str(folder / "photos"), "--out", str(out), "--format", "json", *options]


def records(out):
    return [json.loads(line) for line in (out / "ablation.jsonl").read_text().splitlines()]


def test_each_arm_says_what_it_should(folder, tmp_path, capsys):
    assert main(command(folder, tmp_path, "--restorer", "listener", "--seeds", "3,4")) == 0
    by_arm = {}
    for record, said in zip(records(tmp_path), Listener.said, strict=True):
        by_arm.setdefault(record["arm"], []).append(said)
    assert set(by_arm) == set(ARMS)
    assert set(by_arm["none"]) == {("", "", "", "")}
    assert set(by_arm["generic"]) == {("", "masterpiece", "", "ugly")}
    assert all("clean" in said[0] and said[1::2] == ("", "") and "noise" in said[2] for said in by_arm["iqa"])
    assert [said[::2] for said in by_arm["both"]] == [said[::2] for said in by_arm["iqa"]]
    assert all(said[1::2] == ("masterpiece", "ugly") for said in by_arm["both"])
    assert not any("high-resolution" in word for said in Listener.said for word in said), "no second generic text"
    switches = sum(one != other for one, other in zip(Listener.loaded, Listener.loaded[1:], strict=False))
    assert switches == 1, "weights are loaded once for the arms without suffixes and once for those with them"
    capsys.readouterr()


def test_only_one_of_two_restorers_holds_weights(folder):
    photo = open_picture(folder / "photos/a.png")
    ablation = Ablation(judge(*[2.0] * 5), BridgeSettings(restorer="listener", seeds=(0,)))
    subject = ablation.subject(photo, next(iter(ablation.bridge.assessor.assess([photo]))))
    for name in ("none", "generic", "iqa", "both"):
        ablation.restore(ARMS[name], ablation.trials[0], subject)
        assert [ablation._without.restorer.is_loaded, ablation.bridge.restorer.is_loaded] == (
            [True, False] if name in ("none", "iqa") else [False, True]
        )


def test_a_restorer_without_suffixes_gets_our_general_tail_as_the_generic_text(folder, tmp_path, capsys):
    assert main(command(folder, tmp_path, "--restorer", "plain")) == 0
    said = {record["arm"]: words[0] for record, words in zip(records(tmp_path), Listener.said, strict=True)}
    assert said["none"] == ""
    assert said["generic"].startswith("high-resolution photograph")
    assert "high-resolution" not in said["iqa"]
    assert said["both"].startswith(said["iqa"])
    assert said["both"].endswith(said["generic"])
    capsys.readouterr()


def test_the_embedded_restorer_does_nothing_without_words(folder, tmp_path, capsys):
    options = ("--restorer", "classical", "--seeds", "0,1", "--reference", str(folder / "ref"))
    assert main(command(folder, tmp_path, *options)) == 0
    out, err = capsys.readouterr()
    assert "whatever the seed" in err
    for record in records(tmp_path):
        assert record["seed"] == 0
        before = open_picture(folder / "photos" / record["image"]["path"].rsplit("/", 1)[-1]).pixels
        after = open_picture(tmp_path / record["output"]["path"]).pixels
        assert np.array_equal(before, after) == (record["arm"] in ("none", "generic"))
    summary = json.loads(out)
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert summary["arms"]["none"]["standing_change"]["mean"] == 0
    assert summary["arms"]["none"]["consistency"]["mean"] == 1
    assert summary["differences"]["iqa - generic"]["psnr"]["low"] > 1
    assert summary["differences"]["both - iqa"]["psnr"] == {
        **summary["differences"]["both - iqa"]["psnr"],
        "mean": 0.0,
        "low": 0.0,
        "high": 0.0,
        "photos": 2,
        "pairs": 2,
    }
    assert main([*command(folder, tmp_path, *options), "--format", "text"]) == 0
    table = capsys.readouterr().out
    assert "iqa - generic" in table
    assert "standing_change" in table


def test_a_restorer_that_takes_no_text_is_refused(folder, tmp_path, capsys):
    assert main(command(folder, tmp_path / "out", "--restorer", "identity")) == 2
    assert "takes no text" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(OptionInvalid, match="takes no text"):
        Ablation(judge(2.0), BridgeSettings(restorer="identity"))


def test_a_run_goes_on_where_it_was_cut_and_refuses_other_settings(folder, tmp_path, capsys):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options = ("--restorer", "listener", "--seeds", "1,2")
    assert main(command(folder, whole, *options)) == 0
    assert main(command(folder, cut, *options)) == 0
    lines = (cut / "ablation.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "ablation.jsonl").write_bytes(b"".join(lines[:5]) + lines[5][:40])
    Listener.said.clear()
    assert main(command(folder, cut, *options)) == 0
    assert len(Listener.said) == len(lines) - 5
    for name in ("ablation.jsonl", "summary.json"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    pictures = sorted(path.relative_to(whole) for path in whole.rglob("*.png"))
    assert len(pictures) == 2 * 2 * 4
    assert all((cut / path).read_bytes() == (whole / path).read_bytes() for path in pictures)
    capsys.readouterr()
    assert main(command(folder, cut, "--restorer", "listener", "--seeds", "1,3")) == 2
    assert "ZIQ-301" in capsys.readouterr().err
    assert main(command(folder, cut, "--restorer", "listener", "--seeds", "1,3", "--overwrite")) == 0
    capsys.readouterr()


def test_what_fails_is_left_out_in_every_arm_alike(folder, tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "broken.png").write_bytes(b"no picture")
    save_picture(open_picture(folder / "photos/a.png").pixels, photos / "a.png")
    run = ["ablate", str(photos), "--out", str(tmp_path / "out"), "--restorer", "listener", "--seeds", "13,5"]
    assert main([*run, "--format", "json"]) == 1
    summary = json.loads(capsys.readouterr().out)
    assert summary["records"]["iqa"] == {**summary["records"]["iqa"], "done": 1, "failed": 3}
    assert summary["arms"]["iqa"]["consistency"]["pairs"] == 1
    failed = [record for record in records(tmp_path / "out") if record["error"]]
    assert {record["error"]["code"] for record in failed} == {"ZIQ-101", "ZIQ-401"}
    assert all(record["output"] is None for record in failed)


def row(arm, photo, seed, gain, **changes):
    return {
        "image": {"path": photo, "sha256": photo},
        "arm": arm,
        "seed": seed,
        "strength": 1.0,
        "change": {"rating": gain, "standing": gain},
        "consistency": 1.0,
        "accepted": False,
        "scores": [{"metric": "niqe", "after": gain, "direction": "lower"}],
        "error": None,
        **changes,
    }


def test_differences_are_paired_by_photo_and_seed():
    """Photographs differ by far more than the arms; only a paired interval sees the difference."""
    rows = []
    for number in range(12):
        for seed in (0, 1):
            level = 10.0 * number + seed
            steps = {"none": 0.0, "generic": 0.1, "iqa": 0.3, "both": 0.3 + 0.01 * (number % 3)}
            rows += [row(arm, f"p{number}", seed, level + step) for arm, step in steps.items()]
    summary = summarise(rows)
    found = summary["differences"]["iqa - generic"]["standing_change"]
    assert found["mean"] == pytest.approx(0.2)
    assert (found["low"], found["high"]) == (pytest.approx(0.2), pytest.approx(0.2))
    assert (found["photos"], found["pairs"]) == (12, 24)
    both = summary["differences"]["both - iqa"]["standing_change"]
    assert both["mean"] == pytest.approx(0.01)
    assert 0 < both["low"] < both["mean"] < both["high"] < 0.02
    arm = summary["arms"]["iqa"]["standing_change"]
    assert arm["low"] < 40 < 70 < arm["high"]
    assert summary["better"] == {
        "rating_change": "higher",
        "standing_change": "higher",
        "consistency": "higher",
        "niqe": "lower",
    }
    assert summarise(rows) == summary
    assert summarise(rows, seed=1) != summary


def test_seeds_of_a_photo_are_averaged_before_photos_are_and_gaps_count_nowhere():
    rows = []
    for arm in ARMS:
        rows += [row(arm, "many", seed, 1.0) for seed in range(9)] + [row(arm, "one", 0, 0.0)]
    assert summarise(rows)["arms"]["iqa"]["rating_change"]["mean"] == 0.5
    rows[-1] = row("both", "one", 0, 0.0, error={"code": "ZIQ-401", "message": "x"})
    summary = summarise(rows)["arms"]["none"]["rating_change"]
    assert (summary["mean"], summary["photos"], summary["low"]) == (1.0, 1, None)
    empty = summarise([])
    assert empty["arms"] == {name: {} for name in ARMS}
    assert empty["differences"] == {}


def test_the_arms_reach_a_diffusion_restorer_s_encoder(folder, tmp_path, tiny, capsys):
    pytest.importorskip("diffusers")
    options = ("--restorer", "sdxl-tile", "--weights", tiny("sdxl-tile"), "--steps", "3", "--device", "cpu")
    photo = tmp_path / "a.png"
    save_picture(picture_from_array(open_picture(folder / "photos/a.png").pixels[:64, :64]).pixels, photo)
    run = ["ablate", str(photo), "--out", str(tmp_path / "out"), *options, "--restorer-option", "min-side=64"]
    assert main([*run, "--format", "json"]) == 0
    capsys.readouterr()
    found = {record["arm"]: record for record in records(tmp_path / "out")}
    sent = {arm: json.dumps(record["steps"][0]["sent"]) for arm, record in found.items()}
    assert len(set(sent.values())) == 4
    assert len({(tmp_path / "out" / record["output"]["path"]).read_bytes() for record in found.values()}) == 4
    suffix = REGISTRY.find("sdxl-tile").quality_suffix.split(",")[0]
    assert [arm for arm in ARMS if suffix in sent[arm]] == ["generic", "both"]
