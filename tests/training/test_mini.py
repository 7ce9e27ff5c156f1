"""The replication in miniature, its recipes, and what the index of the paper says of the code."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from training.recipes.mini.forms import ARMS, FORMS
from zoomiqa.errors import OptionInvalid
from zoomiqa.protocol import load_prompts, parse_reply

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from training.recipes.mini import command, data, model  # noqa: E402
from training.recipes.mini.report import write_report  # noqa: E402
from training.recipes.mini.stages import Mini, grpo_settings, run  # noqa: E402

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "training" / "recipes"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Sixteen small photographs with made-up scores in two subsets."""
    from PIL import Image
    from skimage import data as pictures

    root = tmp_path_factory.mktemp("labelled")
    (root / "images").mkdir()
    entries = []
    for number in range(16):
        source = (pictures.astronaut(), pictures.coffee(), pictures.chelsea())[number % 3]
        corner = 10 * number
        Image.fromarray(source[corner : corner + 100, corner : corner + 120]).save(root / f"images/{number}.png")
        entries.append(
            {
                "id": f"p{number}",
                "image": f"images/{number}.png",
                "gt_score": 1 + number / 4,
                "subset": "ab"[number % 2],
            }
        )
    (root / "labels.json").write_text(json.dumps(entries))
    return root


@pytest.fixture(scope="module")
def replicated(labelled, tmp_path_factory):
    """All stages with two arms, in the form for tests."""
    out = tmp_path_factory.mktemp("mini") / "out"
    arms = ["sft", "full"]
    words = ["--photos", labelled, "--labels", labelled / "labels.json", "--out", out, "--form", "test"]
    assert command.main([*map(str, words), "--device", "cpu", "--arms", *arms]) == 0
    return out


def test_all_stages_leave_a_report(replicated):
    text = (replicated / "report.md").read_text()
    assert "| 1 SFT" in text
    assert "| 5 full" in text
    results = json.loads((replicated / "results.json").read_text())
    assert results["arms"]["full"]["pictures"] == 4
    assert {"sft", "grpo-full", "evaluation-full"} <= set(results["seconds"])
    for plot in ("report-curves.png", "report-scatter.png"):
        assert f"({plot})" in text
        assert (replicated / plot).read_bytes().startswith(b"\x89PNG")


def test_a_finished_replication_is_not_done_again(replicated, labelled, tmp_path):
    weights = (replicated / "grpo-full" / "model.safetensors").stat().st_mtime_ns
    arms = tuple(arm for arm in ARMS if arm.name in ("sft", "full"))
    mini = Mini(labelled, labelled / "labels.json", replicated, FORMS["test"], arms, device="cpu")
    run(mini)
    page = write_report(mini, tmp_path / "page.md")
    assert page.read_text().count("page-") == 2
    assert {path.name for path in tmp_path.iterdir()} == {"page.md", "page-curves.png", "page-scatter.png"}
    assert (replicated / "grpo-full" / "model.safetensors").stat().st_mtime_ns == weights


def test_another_replication_in_the_folder_is_refused(replicated, labelled, capsys):
    words = ["--photos", labelled, "--labels", labelled / "labels.json", "--out", replicated, "--form", "short"]
    assert command.main([*map(str, words), "--device", "cpu"]) == 2
    assert "ZIQ-301" in capsys.readouterr().err


def test_a_replication_is_of_these_labels_and_photos(labelled, tmp_path):
    def identity(root):
        return Mini(root, root / "labels.json", tmp_path / "out", FORMS["test"], ARMS).identity()

    other = shutil.copytree(labelled, tmp_path / "other")
    assert identity(other) == identity(labelled)
    entries = json.loads((other / "labels.json").read_text())
    photo = other / entries[0]["image"]
    content = photo.read_bytes()
    photo.write_bytes(content + b"x")
    assert identity(other)["photos"] != identity(labelled)["photos"]
    photo.write_bytes(content)
    entries[0]["gt_score"] = 1.23
    (other / "labels.json").write_text(json.dumps(entries))
    assert identity(other)["labels"] != identity(labelled)["labels"]
    assert identity(other)["photos"] == identity(labelled)["photos"]


def test_the_split_is_fair_and_repeatable(labelled, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        data.split(labelled / "labels.json", labelled, 4, 3, tmp_path / name)
    parts = [json.loads((tmp_path / "one" / name).read_text()) for name in (data.TRAIN, data.TEST)]
    assert [len(part) for part in parts] == [12, 4]
    assert sorted(entry["subset"] for entry in parts[1]) == ["a", "a", "b", "b"]
    assert not {entry["id"] for entry in parts[0]} & {entry["id"] for entry in parts[1]}
    assert (tmp_path / "one" / data.TEST).read_bytes() == (tmp_path / "two" / data.TEST).read_bytes()
    with pytest.raises(OptionInvalid):
        data.split(labelled / "labels.json", labelled, 16, 3, tmp_path)


def test_short_replies_keep_the_protocol(replicated):
    """Four sections, a box, a rating and a tool: what strict reading asks for; and what the teacher said."""
    prompts = load_prompts(RECIPES / "mini" / "prompts.toml")
    records, missing = data.short_trajectories(replicated / "synthesis" / "samples.jsonl", prompts)
    assert len(records) == 8 - missing
    long = {
        sample["id"]: sample["trajectory"]
        for sample in map(json.loads, (replicated / "synthesis" / "samples.jsonl").read_text().splitlines())
    }
    for record in records:
        for look, known in zip(record["rounds"], long[record["id"]]["rounds"], strict=True):
            parsed = parse_reply(look["text"], strict=True)
            assert parsed.rating == known["rating"]
            assert parsed.tool == known["tool"]
            assert all(parsed.sections.to_dict()[name] for name in ("summary", "directions", "issues", "decision"))


def test_digits_are_tokens_of_their_own(replicated):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(replicated / "start")
    text = '<answer>{"bbox_2d": [0.12, 0.34, 0.56, 0.78], "rating": 3.07, "tool": "crop"}</answer>'
    tokens = [tokenizer.decode([token]) for token in tokenizer.encode(text)]
    assert "".join(tokens) == text
    assert all(len(token) == 1 for token in tokens if any(mark.isdigit() for mark in token))
    strange = "Überraschung: 日本 <x>"
    assert tokenizer.decode(tokenizer.encode(strange)) == strange


def test_arms_differ_by_what_they_switch(labelled, tmp_path):
    prompts = load_prompts(RECIPES / "mini" / "prompts.toml")
    mini = Mini(labelled, labelled / "labels.json", tmp_path, FORMS["short"], ARMS)
    arms = {arm.name: grpo_settings(mini, arm, prompts) for arm in ARMS if arm.is_trained}
    assert set(arms) == {"rank", "score", "no-coverage", "full", "progressive"}
    assert (arms["full"].rewards.score, arms["full"].rewards.rank) == (1.0, 2.0)
    assert (arms["rank"].rewards.score, arms["rank"].rewards.rank) == (0.0, 2.0)
    assert (arms["score"].rewards.score, arms["score"].rewards.rank) == (1.0, 0.0)
    assert arms["no-coverage"].loss.coverage.weight == 0
    assert {arms[name].loss.coverage.weight for name in ("rank", "score", "full", "progressive")} == {0.04}
    assert arms["full"].stages.gammas == (0.0,)
    assert len(arms["progressive"].stages.gammas) == 3
    assert len({str(arm.batch) + str(arm.optimizer) + str(arm.rollouts) for arm in arms.values()}) == 1


def test_two_steps_per_rollout_in_every_form():
    from training.grpo.plan import make_plan

    prompts = load_prompts(RECIPES / "mini" / "prompts.toml")
    for form in FORMS.values():
        settings = grpo_settings(Mini(Path(), Path(), Path("x"), form, ARMS), ARMS[-1], prompts)
        assert make_plan(settings.batch, 1).updates == 2


def test_forms_can_be_changed():
    assert command.change(FORMS["short"], {"rollouts": 3}).rollouts == 3
    for wrong in ({"shape": 3}, {"rollouts": 0}, {"rollouts": "many"}):
        with pytest.raises(OptionInvalid):
            command.change(FORMS["short"], wrong)


def test_the_long_model_is_buildable(tmp_path):
    """Heads, sections of the positions and sizes fit together."""
    config = model.build_config(model.build_tokenizer(["a b c"], 300), FORMS["long"].shape)
    sections = config.text_config.rope_parameters["mrope_section"]
    assert 2 * sum(sections) == FORMS["long"].shape.hidden // FORMS["long"].shape.heads
    assert config.vision_config.hidden_size % config.vision_config.num_heads == 0


# --- recipes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["single", "ddp", "zero2", "zero3", "fsdp"])
def test_accelerate_reads_the_configuration(name):
    from accelerate.commands.config.config_args import ClusterConfig

    config = ClusterConfig.from_yaml_file(RECIPES / "accelerate" / f"{name}.yaml")
    kinds = {"single": "NO", "ddp": "MULTI_GPU", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED", "fsdp": "FSDP"}
    assert str(getattr(config.distributed_type, "value", config.distributed_type)) == kinds[name]
    if name.startswith("zero"):
        assert config.deepspeed_config["zero_stage"] == int(name[-1])


def test_accelerate_launches_with_it():
    """Through accelerate's own parser and checks; nothing is started."""
    from accelerate.commands.launch import launch_command_parser

    parser = launch_command_parser()
    for file in (RECIPES / "accelerate").glob("*.yaml"):
        parsed = parser.parse_args(["--config_file", str(file), "-m", "training.sft", "--data", "x"])
        assert parsed.training_script == "training.sft"


def test_fsdp_names_layers_that_there_are(tiny_vlm):
    import yaml
    from transformers import AutoModelForImageTextToText

    config = yaml.safe_load((RECIPES / "accelerate" / "fsdp.yaml").read_text())["fsdp_config"]
    named = set(config["fsdp_transformer_layer_cls_to_wrap"].split(","))
    there = {type(module).__name__ for module in AutoModelForImageTextToText.from_pretrained(tiny_vlm).modules()}
    assert named <= there


def test_deepspeeds_configuration_is_complete():
    """Every "auto" is one that transformers fills from the trainer's own figures."""
    from accelerate.utils.deepspeed import HfDeepSpeedConfig
    from transformers.integrations import deepspeed

    told = json.loads((RECIPES / "deepspeed" / "zero3-offload.json").read_text())
    assert HfDeepSpeedConfig(told).is_zero3()
    filled = Path(deepspeed.__file__).read_text()
    autos = [
        name if inner is None else f"{name}.{inner}"
        for name, value in told.items()
        for inner, setting in (value.items() if isinstance(value, dict) else [(None, value)])
        if setting == "auto"
    ]
    assert {"bf16.enabled", "train_batch_size", "gradient_clipping"} <= set(autos)
    assert all(f'"{name}"' in filled for name in autos)


def commands_of(script):
    """The commands of a shell script, as words; variables become a word, and resuming is left out.

    A step of curation names its file first and is given `--out` by the function `curate`.
    """
    text = re.sub(r"\$\((resume|if) [^)]*\)", "", script.read_text()).replace("\\\n", " ")
    text = re.sub(r"^ *curate (\S+) (.*)$", r"\2 --out \1 --resume --retry-failed", text, flags=re.MULTILINE)
    text = re.sub(r"\$\{?\w+\}?", "1", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    found = [shlex.split(line) for line in text.splitlines() if re.match(r" *(python|accelerate|zoomiqa) ", line)]
    return [words[words.index("-m") + 1 :] if "-m" in words else words for words in found]


@pytest.mark.parametrize("script", sorted(RECIPES.glob("*.sh")), ids=lambda path: path.name)
def test_every_command_of_a_recipe_parses(script):
    import importlib

    from zoomiqa.cli import build_parser as zoomiqa_parser

    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    commands = commands_of(script)
    assert len(commands) >= 2
    for name, *words in commands:
        parser = zoomiqa_parser() if name == "zoomiqa" else importlib.import_module(f"{name}.command").build_parser()
        parser.parse_args(words)


@pytest.fixture
def start(tmp_path):
    """Starts the recipe with programs in the place of the real ones: they note their words and write their files.

    Steps of curation end with the exit codes that they are given, one after the other, then with 0.
    """
    programs, notes, codes = tmp_path / "bin", tmp_path / "notes", tmp_path / "codes"
    programs.mkdir()
    acting = f"""#!/usr/bin/env bash
echo "$*" >> {notes}
case "$*" in
*"training.curation build"*) exit 0 ;;
*training.curation*) while [ "$1" != --out ]; do shift; done; touch "$2"
  code=$(head -n 1 {codes}); sed -i 1d {codes}; exit "${{code:-0}}" ;;
*training.sft*) mkdir -p {tmp_path}/out/sft; touch {tmp_path}/out/sft/settings.json ;;
esac
"""
    for name in ("python", "accelerate", "zoomiqa"):
        (programs / name).write_text(acting)
        (programs / name).chmod(0o755)
    names = ("KONIQ", "TEACHER", "TEACHER_URL", "RATER", "RATER_URL")
    known = {**dict.fromkeys(names, "x"), "OUT": str(tmp_path / "out"), "PATH": f"{programs}:{os.environ['PATH']}"}

    def start(*ends, **more):
        codes.write_text("".join(f"{code}\n" for code in ends))
        notes.write_text("")
        words = ["bash", str(RECIPES / "zoom-iqa-7b.sh")]
        code = subprocess.run(words, env=known | more, check=False, capture_output=True).returncode
        return code, [re.search(r"training\.(?:curation )?[\w-]+|evaluate", line)[0] for line in read()]

    def read():
        return notes.read_text().splitlines()

    start.words = read
    return start


STEPS = [f"training.curation {name}" for name in ("generate", "visual-reliance", "hint-consistency", "build")]
REST = ["training.sft", "training.grpo", "evaluate"]


def test_the_recipe_asks_again_for_what_failed_and_goes_on(start):
    assert start(0, 1, 0) == (0, [STEPS[0], STEPS[1], STEPS[1], *STEPS[2:], *REST])
    assert "--resume" not in start.words()[1]
    assert start.words()[2].endswith("--resume --retry-failed")


def test_the_recipe_stops_at_what_fails_for_good_until_told_to_leave_it(start):
    assert start(1, 1) == (1, [STEPS[0]] * 2)
    assert start(1, 1) == (1, [STEPS[0]] * 2)
    assert all(line.endswith("--resume --retry-failed") for line in start.words())
    assert start(1, 1, FAILED="leave") == (0, [STEPS[0], *STEPS, *REST])


def test_the_recipe_stops_at_a_step_that_broke_off(start):
    assert start(2, FAILED="leave") == (2, STEPS[:1])
    assert start(1, 130, FAILED="leave") == (130, [STEPS[0]] * 2)


def test_the_recipe_leaves_the_data_alone_once_training_has_begun(start):
    assert start()[0] == 0
    assert start(1, 1, 1) == (0, REST)


def test_the_recipe_says_the_papers_figures():
    """Written out and left out come to the same."""
    from training.grpo import command as grpo
    from training.sft import command as sft

    def read(command, words):
        return command.settings_from(command.build_parser().parse_args(words))

    commands = {name: words for name, *words in commands_of(RECIPES / "zoom-iqa-7b.sh")}
    told = read(sft, commands["training.sft"])
    plain = read(sft, ["--data", "1", "--image-root", "1", "--out", "1"])
    for name in ("batch_size", "gradient_accumulation_steps", "learning_rate", "warmup_ratio", "epochs"):
        assert getattr(told, name) == getattr(plain, name)
    told = read(grpo, commands["training.grpo"])
    plain = read(grpo, ["--labels", "1", "--out", "1"])
    told = replace(told, batch=replace(told.batch, pictures=None))  # a choice of the recipe
    for name in ("batch", "rewards", "loss", "optimizer", "stages", "epochs"):
        assert getattr(told, name) == getattr(plain, name)


# --- the index of the paper --------------------------------------------------------------------------------------

INDEX = ROOT / "training" / "PAPER_INDEX.md"
_SYMBOL = re.compile(r"`((?:training|zoomiqa)/[\w/.-]+)(?:::([\w.]+))?`(?:\s*=\s*`([^`]+)`)?")


def symbols():
    return [match.groups() for match in _SYMBOL.finditer(INDEX.read_text())]


def test_the_index_names_many_things():
    assert len(symbols()) > 60
    assert sum(value is not None for *_, value in symbols()) > 25


@pytest.mark.parametrize("place", sorted({path for path, *_ in symbols()} if INDEX.exists() else []))
def test_every_file_of_the_index_exists(place):
    assert (ROOT / place).exists()


@pytest.mark.parametrize(
    ("path", "symbol", "value"),
    [entry for entry in (symbols() if INDEX.exists() else []) if entry[1]],
    ids=lambda part: str(part).rpartition("/")[2],
)
def test_every_symbol_of_the_index_exists_and_has_its_default(path, symbol, value):
    """`file::name` is there; `file::Class.field` = `value` is the default in the code."""
    import dataclasses
    import importlib

    thing = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    *owners, last = symbol.split(".")
    for owner in owners:
        thing = getattr(thing, owner)
    if dataclasses.is_dataclass(thing):
        field = {field.name: field for field in dataclasses.fields(thing)}.get(last)
        assert field is not None or hasattr(thing, last)
        found = field and (
            field.default_factory() if field.default is dataclasses.MISSING and value is not None else field.default
        )
    else:
        found = getattr(thing, last)
    if value is not None:
        import ast

        assert found == ast.literal_eval(value)


def test_help_needs_no_torch():
    code = "import sys\nsys.modules['torch'] = None\nfrom training.recipes.mini.command import main\nmain(['--help'])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=False).returncode == 0
