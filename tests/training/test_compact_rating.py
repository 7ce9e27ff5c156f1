"""The recipe of the rating network: its parts by themselves, and all of them in short form."""

import json
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from skimage import data

torch = pytest.importorskip("torch", reason="the recipe needs PyTorch")

from PIL import Image  # noqa: E402

from training.compact.photos import ODD, clean_photos  # noqa: E402
from training.compact.rating import cache, card, command, corpus, losses  # noqa: E402
from training.compact.rating.backbone import EPSILON, Backbone, Convolution, load_backbone  # noqa: E402
from training.compact.rating.command import main  # noqa: E402
from training.compact.rating.learning import Pictures, describe, fit_scale, fit_spread  # noqa: E402
from training.compact.rating.network import ATTRIBUTES, CELL, DOUBTS, LOCAL, WHOLE, Heads, RatingNetwork  # noqa: E402
from training.compact.rating.scenes import scenes_of  # noqa: E402
from training.compact.scored import FOLDS, Scored, folds_of, read_scenes, read_scored, write_scenes  # noqa: E402
from zoomiqa import assess, create_assessor  # noqa: E402
from zoomiqa.assessors.compact import network as runtime  # noqa: E402
from zoomiqa.assessors.compact.features import HANDMADE_COUNT, viewing_copy  # noqa: E402
from zoomiqa.errors import OptionInvalid  # noqa: E402
from zoomiqa.imaging.distortions import DISTORTIONS  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(backbone):
    """Random weights under the names of the package's file, with a batch normalisation for each convolution."""
    state, generator = {}, torch.Generator().manual_seed(0)

    def add(layer, conv, norm):
        shape = layer.conv.weight.shape
        state[f"{conv}.weight"] = torch.randn(shape, generator=generator) / np.sqrt(np.prod(shape[1:]))
        for name, low in (("weight", 0.8), ("bias", -0.1), ("running_mean", -0.1), ("running_var", 0.8)):
            state[f"{norm}.{name}"] = low + 0.2 * torch.rand(shape[0], generator=generator)

    add(backbone.stem, "_conv_stem", "_bn0")
    for index, block in enumerate(block for stage in backbone.stages for block in stage):
        prefix = f"_blocks.{index}."
        if isinstance(block.expand, Convolution):
            add(block.expand, prefix + "_expand_conv", prefix + "_bn0")
        add(block.depthwise, prefix + "_depthwise_conv", prefix + "_bn1")
        add(block.project, prefix + "_project_conv", prefix + "_bn2")
    return state


@pytest.fixture(scope="module")
def backbone_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("backbone") / "weights.pth"
    torch.save(weights(Backbone()), path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Scored photos and clean photographs in the folders that the recipe reads."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    rows = []
    (root / "Kodak24").mkdir()
    for number in range(12):
        photo = (data.astronaut, data.coffee, data.chelsea)[number % 3]()
        y, x = rng.integers(0, photo.shape[0] - 280), rng.integers(0, photo.shape[1] - 280)
        Image.fromarray(photo[y : y + 280, x : x + 280]).save(root / f"{number}.png")
        rows.append(
            {"id": str(number), "image": f"{number}.png", "gt_score": 1 + number / 3, "subset": f"s{number % 2}"}
        )
    for number in range(2):
        Image.fromarray(data.astronaut()[: 400 + number]).save(root / "Kodak24" / f"kodim{number}.png")
    (root / "annotations.json").write_text(json.dumps(rows))
    return root


def test_batch_normalisation_is_folded_in(backbone_file):
    state = torch.load(backbone_file, weights_only=True)
    stem = load_backbone(backbone_file).stem
    pixels = torch.rand(1, 3, 32, 64)
    plain = torch.nn.functional.conv2d(
        torch.nn.functional.pad(pixels, (0, 1, 0, 1)), state["_conv_stem.weight"], None, 2
    )
    names = ("running_mean", "running_var", "weight", "bias")
    expected = torch.nn.functional.batch_norm(plain, *(state[f"_bn0.{name}"] for name in names), eps=EPSILON)
    assert torch.allclose(stem(pixels), expected.clamp(0, 6), atol=1e-5)


def test_the_rating_is_the_weighted_mean_of_the_map_at_any_size(backbone_file):
    network = RatingNetwork(load_backbone(backbone_file)).eval()
    with torch.inference_mode():
        for height, width in ((64, 96), (160, 64)):
            maps, statistics = network.trunk(torch.randint(0, 255, (2, height, width, 3), dtype=torch.uint8))
            assert network.upper.features(maps, statistics).shape == (2, LOCAL, height // CELL, width // CELL)
            out = network.upper(maps, statistics, torch.randn(2, HANDMADE_COUNT))
            assert out.quality.shape == (2, height // CELL, width // CELL)
            assert torch.allclose((out.quality * out.weight).sum((1, 2)), out.rating, atol=1e-4)
    assert ATTRIBUTES == runtime.ATTRIBUTES
    assert CELL == runtime.CELL


def test_only_the_heads_are_trained(backbone_file):
    network = RatingNetwork(load_backbone(backbone_file))
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(name.startswith("upper.heads.") for name in trained)


def test_folds_are_even_within_subsets_and_follow_the_seed():
    subsets = ["a"] * 50 + ["b"] * 23
    fold = folds_of(subsets, 3)
    assert np.array_equal(fold, folds_of(subsets, 3))
    assert not np.array_equal(fold, folds_of(subsets, 4))
    for part in (fold[:50], fold[50:]):
        counts = np.bincount(part, minlength=FOLDS)
        assert counts.max() - counts.min() <= 1


def test_photos_of_one_scene_share_a_fold():
    subsets = ["a"] * 60
    scenes = np.arange(60)
    scenes[:9], scenes[20:24] = 0, 20
    fold = folds_of(subsets, 0, scenes=scenes)
    assert len(set(fold[:9].tolist())) == len(set(fold[20:24].tolist())) == 1
    assert np.bincount(fold, minlength=FOLDS).tolist() == [12] * 5


def test_pictures_alike_in_content_are_one_scene():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((800, LOCAL, 1, 1)).astype(np.float16)
    features[7] = features[3] + np.float16(0.1) * rng.standard_normal(features[3].shape).astype(np.float16)
    scenes = scenes_of(features)
    assert scenes[7] == scenes[3]
    assert len(np.unique(scenes)) == 799


def test_chains_use_fit_photos_only_and_get_worse(pictures):
    scored = read_scored(pictures / "annotations.json", pictures)
    fit = np.arange(0, 12, 2)
    clean = clean_photos(pictures, ODD)
    assert [path.name for path in clean] == ["kodim0.png"]
    chains = corpus.plan_chains(scored, fit, clean * 30, 0, invented=0)
    assert chains == corpus.plan_chains(scored, fit, clean * 30, 0, invented=0)
    assert {chain.source for chain in chains} - {-1} <= set(fit.tolist())
    assert {chain.operation for chain in chains} <= set(corpus.AFFECTED)
    assert set(DISTORTIONS) <= set(corpus.AFFECTED)
    for chain in chains:
        assert 1 >= chain.share[0] >= chain.share[1] > 0
        assert chain.levels[0] <= chain.levels[1]
    for chain in (next(each for each in chains if each.operation == name) for name in ("unsharp", "gaussian_noise")):
        source, slight, strong = (picture.astype(int) for picture in corpus.render(replace(chain, box=None)))
        assert source.shape == (corpus.WINDOW, corpus.WINDOW, 3)
        assert np.abs(slight - source).mean() < np.abs(strong - source).mean()


@pytest.fixture
def scored(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"picture %d" % number)
    return [Scored(tmp_path / f"{number}.png", 3.0, "s") for number in range(3)]


def test_cached_looks_are_those_of_the_very_pictures(scored, tmp_path):
    """What a photo shows decides them, not what it is called or how it was rated."""
    known = cache.identity_of(scored, 0)
    assert cache.identity_of([replace(photo, score=1.0) for photo in scored], 0) == known
    assert cache.identity_of(scored, 1) != known
    other = tmp_path / "other" / "0.png"
    other.parent.mkdir()
    other.write_bytes(b"another picture")
    assert cache.identity_of([replace(scored[0], path=other), *scored[1:]], 0) != known


@pytest.mark.parametrize(
    ("changes", "looks_other"),
    [
        ({"share": (0.1, 0.05)}, False),
        ({"source": 3}, False),
        ({"source": -1}, True),
        ({"box": (0.0, 0.0, 0.5, 0.5)}, True),
        ({"is_view": True}, True),
        ({"seed": 6}, True),
        ({"operation": "haze"}, True),
    ],
)
def test_what_a_chain_shows_and_what_is_learned_from_it_are_told_apart(scored, changes, looks_other):
    chain = corpus.Chain(scored[0].path, 0, "jpeg", (1, 2), (0.9, 0.8), 5, None, False)
    other = replace(chain, **changes)
    assert (other.identity != chain.identity) == looks_other

    def trained(chains, photos):
        work = object.__new__(command._Work)
        work.settings, work.scored, work.seed, work.chains = command.SHORT, photos, 0, chains
        return work._identity()

    assert trained([other], scored) != trained([chain], scored)
    assert trained([chain], [replace(scored[0], score=1.0), *scored[1:]]) != trained([chain], scored)


def test_scenes_are_known_by_what_files_hold(scored, tmp_path):
    write_scenes(tmp_path / "scenes.json", scored, np.array([4, 7, 4]))
    assert read_scenes(tmp_path / "scenes.json", scored[::-1][:2]).tolist() == [4, 7]
    (tmp_path / "new.png").write_bytes(b"unknown")
    for file, photos in (("scenes.json", [Scored(tmp_path / "new.png", 3.0, "s")]), ("none.json", scored)):
        with pytest.raises(OptionInvalid, match="which scene"):
            read_scenes(tmp_path / file, photos)


@pytest.mark.parametrize(("invented", "told"), [(0, False), (6, True)])
def test_the_card_tells_of_invented_detail_where_there_was_some(invented, told):
    data_of = card.data_of({"photos": 3600, "invented": invented})
    assert "3,600 photos" in data_of[0]
    assert ("Real-ESRGAN" in " ".join(data_of)) == told
    shipped = json.loads((resources.files("zoomiqa.assessors.compact") / "data" / "rating_network.json").read_text())
    assert tuple(shipped["data"]) == card.data_of({"photos": shipped["photos"], "invented": 0})


def test_masks_say_which_cells_were_changed():
    chain = corpus.Chain(corpus.Path("x"), -1, "jpeg", (1, 2), (0.9, 0.8), 0, (0.25, 0.0, 0.75, 0.55))
    mask = corpus.mask_of(chain, 10)
    assert mask.shape == (10, 10)
    assert mask[0, 5] == 1
    assert mask[0, 2] == pytest.approx(0.5)
    assert mask[5, 5] == pytest.approx(0.5)
    assert mask[9].sum() == 0


def test_the_rank_loss_prefers_the_right_order_and_leaves_near_scores_open():
    score, group = torch.tensor([1.0, 3.0, 5.0]), torch.zeros(3)
    right = losses.ranking(torch.tensor([1.0, 3.0, 5.0]), score, group, other_groups=0.5)
    wrong = losses.ranking(torch.tensor([5.0, 3.0, 1.0]), score, group, other_groups=0.5)
    assert right < wrong
    rating = torch.tensor([2.0, 2.5], requires_grad=True)
    losses.ranking(rating, torch.tensor([3.0, 3.0]), group[:2], other_groups=1.0).backward()
    assert rating.grad[1] > 0 > rating.grad[0], "equal scores pull ratings together"


def test_the_rank_loss_weighs_pairs_of_two_subsets_less():
    rating, score = torch.tensor([1.0, 2.0, 4.0, 3.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    wrong_inside = losses.ranking(rating, score, torch.tensor([0, 0, 1, 1]), other_groups=0.1)
    wrong_across = losses.ranking(rating, score, torch.tensor([0, 1, 0, 1]), other_groups=0.1)
    assert wrong_inside > wrong_across


def test_the_spread_learns_the_mean_absolute_error():
    heads, rng = Heads(), np.random.default_rng(0)
    doubts = rng.uniform(-1, 1, (4000, DOUBTS)).astype(np.float32)
    expected = 0.4 + 0.2 * doubts[:, 2]
    fit_spread(heads, doubts, rng.exponential(expected).astype(np.float32))
    with torch.no_grad():
        spread = heads.spread(torch.from_numpy(doubts)).numpy()
    assert np.abs(spread - expected).mean() < 0.03


def test_the_scale_makes_scored_pictures_standard():
    heads, rng = Heads(), np.random.default_rng(0)
    pictures = Pictures(
        (3 + 2 * rng.standard_normal((80, LOCAL, 2, 3))).astype(np.float16),
        (100 + 9 * rng.standard_normal((80, HANDMADE_COUNT))).astype(np.float32),
    )
    fit_scale(heads, pictures)
    seen = describe(heads, pictures)
    assert seen.cells.shape == (80, 6, LOCAL)
    assert seen.whole.shape == (80, WHOLE)
    for part in (seen.cells.float(), seen.whole):
        assert abs(float(part.mean())) < 0.02
        assert float(part.std()) == pytest.approx(1, abs=0.03)


def test_a_change_in_one_place_must_show_in_that_place():
    source = torch.full((1, 4, 4), 4.0)
    mask = torch.zeros(1, 4, 4)
    mask[:, :2] = 1
    there, elsewhere = source - 2 * mask, source - 2 * (1 - mask)
    assert losses.inside_worse(source, there, mask) < losses.inside_worse(source, elsewhere, mask)


@pytest.mark.slow
def test_the_short_form_runs_every_part_and_goes_on_where_it_stopped(pictures, backbone_file, tmp_path, capsys):
    work, out = tmp_path / "work", tmp_path / "out" / "network.onnx"
    common = ["--annotations", pictures / "annotations.json", "--image-root", pictures, "--photos", pictures]
    common += ["--work", work, "--out", out, "--backbone", backbone_file, "--invented", 0, "--unseen", 1]
    arguments = [*map(str, common), "--limit", "10", "--short"]
    assert main(["all", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "exported network differs" in printed
    made = json.loads(out.with_suffix(".json").read_text("utf-8"))
    assert made["bytes"] == out.stat().st_size
    assert made["photos"] == made["out_of_fold"]["photos"] == 10
    assert 0 < made["validation"]["photos"] < 10
    assert made["known_changes"]["photos"] == 1
    assert made["invented"] == 0
    assert made["made_by"].startswith("python -m training.compact.rating all --annotations annotations.json")
    judge = create_assessor("compact", network=out)
    assert judge.info.version != create_assessor("compact").info.version
    rated = assess(data.coffee(), judge)
    assert 1 <= rated.rating <= 5
    assert rated.rounds[0].rating == pytest.approx(
        runtime.RatingNetwork(out).look(viewing_copy(data.coffee())).rating.value, abs=0.006
    )

    assert main(["prepare", *arguments]) == 0
    assert "photos:" not in capsys.readouterr().out, "nothing is looked at twice"
