"""What tests of supervised fine-tuning share: a small curated data set.

`python -m tests.training.sft_tools FOLDER` runs one process of a run in several.
"""

import json
import sys
from pathlib import Path

from zoomiqa.imaging import open_picture
from zoomiqa.protocol import PromptSet
from zoomiqa.types import ImageInfo

PROMPTS = PromptSet("short", "Rate: {question}\n", "Closer: {question}\n", ("How good is it?",))


def reply(rating, *, crop=False, later=False):
    """A reply that keeps the format."""
    head, end = ("Crop Inspection", "Final Decision") if later else ("Image Quality", "Decision")
    box, tool = ("[0.1, 0.2, 0.6, 0.7]", "crop") if crop else ("[0, 0, 0, 0]", "final")
    return (
        f"<think>\n{head} Summary: s{rating}\nDirections for Improvement: d\nIssues to Avoid: i\n{end} & Rationale: r\n"
        f'</think>\n<answer>{{"bbox_2d": {box}, "rating": {rating:.2f}, "tool": "{tool}"}}</answer>'
    )


def record(photos, name, number, *, looks=1, prompts=PROMPTS):
    """One kept trajectory about a photo."""
    from training.curation.trajectories import replay, trajectory_record

    picture = open_picture(photos / name)
    texts = [reply(1 + number / 10, crop=looks == 2)]
    if looks == 2:
        texts.append(reply(1.5 + number / 10, later=True))
    assessment, _ = replay(texts, picture.size, prompts.questions[0], prompts=prompts)
    from dataclasses import replace

    info = ImageInfo(name, None, picture.width, picture.height)
    return trajectory_record(replace(assessment, image=info), f"t{number}", ground_truth=2.5, dataset="test")


def make_data(folder, photos, *, count=4, prompts=PROMPTS):
    """A curated data set about `photos`; every second trajectory has two looks."""
    from training.curation.build import build

    names = sorted(path.name for path in photos.iterdir())
    records = [
        record(photos, names[number % len(names)], number, looks=1 + number % 2, prompts=prompts)
        for number in range(count)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    build(records, folder, prompts, photos)
    return folder


def settings(model, data, photos, out, **changes):
    """A run of a few steps on the CPU."""
    from training.models import ModelSettings
    from training.sft import SFTSettings

    lora = changes.pop("lora", None)
    known = {
        "model": ModelSettings(str(model), device="cpu", lora=lora),
        "data": data,
        "image_root": photos,
        "out": out,
        "prompts": PROMPTS,
        "learning_rate": 1e-3,
        "batch_size": 2,
        "gradient_accumulation_steps": 1,
        "warmup_ratio": 0.0,
        "max_steps": 4,
        "save_every": 2,
    }
    return SFTSettings(**known | changes)


def run_one_process(folder):
    """One of the processes of a run: what `train` does, with the trained tokens of each batch written down."""
    import torch

    from training.runs import process_rank
    from training.sft import run
    from training.sft.encoding import IGNORED, batch_of

    torch.set_num_threads(1)
    told = json.loads((folder / "run.json").read_text())
    paths = {name: Path(told.pop(name)) for name in ("model", "data", "photos", "out")}
    tokens = []

    def counted(*arguments):
        batch = batch_of(*arguments)
        tokens.append(int((batch["labels"] != IGNORED).sum()))
        return batch

    run.batch_of = counted
    run.train(settings(**paths, **told))
    (folder / f"tokens{process_rank()}.json").write_text(json.dumps(tokens))


if __name__ == "__main__":
    run_one_process(Path(sys.argv[1]))
