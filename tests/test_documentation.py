"""Documentation that runs: the README's commands and code, the examples, and the generated pages."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def desk(tmp_path_factory, photos):
    """A folder as the README assumes it: photo.jpg, before.jpg, after.jpg and photos/."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(photos, folder / "photos")
    for name in ("photo.jpg", "before.jpg"):
        shutil.copy(photos / "coffee-part.jpg", folder / name)
    shutil.copy(photos / "coffee-part.jpg", folder / "after.jpg")
    shutil.copytree(photos, folder / "koniq")
    rows = [{"image": path.name, "gt_score": 2.0 + index / 2} for index, path in enumerate(sorted(photos.iterdir()))]
    (folder / "koniq.json").write_text(json.dumps(rows))
    return folder


def run(command, folder, **options):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, **options)


COMMANDS = [
    line.split("#")[0].strip()
    for block in blocks("console")
    for line in block.splitlines()
    if line.startswith(("zoomiqa ", "restore-bridge "))
]


MODEL = "Ethanliang99/Zoom-IQA-7B"


@pytest.mark.parametrize("command", [command for command in COMMANDS if MODEL in command])
def test_commands_with_a_model(command, desk, tiny_vlm):
    """The released weights are not here: a tiny model of the same class is asked, whose random words hold no rating."""
    done = run([*command.replace(MODEL, str(tiny_vlm)).split(), "--max-new-tokens", "8"], desk)
    assert done.returncode == 1, done.stderr
    record = json.loads(done.stdout)
    assert record["error"]["code"] == "ZIQ-201"
    assert record["assessor"]["name"] == "transformers"


@pytest.mark.parametrize("command", [command for command in COMMANDS if MODEL not in command])
def test_commands_of_the_readme(command, desk):
    """C8 78."""
    done = run(command.split(), desk)
    assert done.returncode == 0, done.stderr
    assert done.stdout or "--out" in command


def test_there_are_commands_to_test():
    assert len(COMMANDS) >= 5
    assert len(blocks("python")) >= 4


def test_code_of_the_readme(desk):
    """All blocks in one process, as a reader would try them one after the other."""
    done = run([sys.executable, "-c", "\n".join(blocks("python"))], desk)
    assert done.returncode == 0, done.stderr
    assert "rating:" in done.stdout


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("assess.py", ["photo.jpg"]),
        ("split_prompts.py", ["photo.jpg"]),
        ("restore.py", ["photo.jpg", "example.png"]),
        ("score.py", ["before.jpg", "after.jpg"]),
    ],
)
def test_examples(name, arguments, desk):
    done = run([sys.executable, str(ROOT / "examples" / name), *arguments], desk)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_every_example_is_tested():
    names = {path.name for path in (ROOT / "examples").glob("*.py")}
    in_test_pipelines = "diffusers_pipeline.py"
    assert names == {"assess.py", "split_prompts.py", "restore.py", "score.py", "demo.py", in_test_pipelines}


@pytest.mark.slow
def test_the_demo(tmp_path):
    done = run([sys.executable, str(ROOT / "examples" / "demo.py"), "--out", str(tmp_path / "demo")], tmp_path)
    assert done.returncode == 0, done.stderr
    report = tmp_path / "demo" / "report.html"
    assert str(report) in done.stdout.splitlines()[-1], "it ends by naming the report"
    assert report.stat().st_size > 100_000


def test_generated_pages_are_in_step():
    """C8 79."""
    done = run([sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], ROOT)
    assert done.returncode == 0, done.stdout


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_tree_in_the_readme_is_true():
    tree = README[README.index("zoomiqa/\n  api.py") : README.index("Extension points")]
    package = ""
    for line in tree.splitlines():
        if re.match(r"\w+/", line):
            package = line.split("/")[0]
            assert (ROOT / package).is_dir(), package
        for name in re.findall(r"^  ((?:[\w.]+/? )*[\w.]+(?:\.py|/))  ", line + "  "):
            for part in name.split():
                assert (ROOT / package / part).exists(), f"{package}/{part}"
