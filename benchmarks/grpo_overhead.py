"""What our GRPO trainer adds to a step, against TRL's own step on the same tiny model.

    python benchmarks/grpo_overhead.py [--rollouts 4]

Both sides take the same numbers of pictures, samples, generated tokens (one look each), micro-batches and passes over a
rollout, in one process on one core. From our steps all time is taken off that goes into generation (the engine's
session: prompts, pictures, forward passes, draws), into forward passes of training (old log-probabilities, the pass for
KL-Coverage, the loss) and into the backward pass. What is left (conversations, reading replies, rewards, rows, masks,
selection, formulas, figures) is shown as a share of TRL's whole step. On a tiny model that is the worst case: all that
is left does not grow with the model, and TRL's step does.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from PIL import Image

from tests.training.grpo_tools import PROMPTS, build_doubtful_vlm, build_world, planned_policy, reply, tiny_settings
from training.grpo import run, trainer
from training.grpo.plan import BatchSettings
from zoomiqa.backends.processor import load_processor

SHAPE = BatchSettings(batch_size=4, accumulation_steps=4, group_size=8, pictures=2)


class Clock:
    """Seconds by name, of calls that do not nest."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[name] += time.perf_counter() - started

        return wrapped


def watch(made: Any, clock: Clock, names: tuple[str, ...]) -> None:
    """Time these methods of a trainer, and its backward pass."""
    for name in names:
        setattr(made, name, clock.timed(name, getattr(made, name)))
    made.accelerator.backward = clock.timed("backward", made.accelerator.backward)


def measure_ours(model: Path, labels: Path, folder: Path, rollouts: int) -> tuple[Clock, int]:
    """Our trainer; replies are planned, so that their length is known. Returns the times and tokens per reply."""
    clock = Clock()
    base = planned_policy(lambda _: reply())

    class Timed(base):  # type: ignore[misc, valid-type]
        def open_session(self, batch_size: int | None = None) -> Any:
            session = super().open_session(batch_size)
            session._session.collect = clock.timed("generation", session._session.collect)
            session._session.submit = clock.timed("generation", session._session.submit)
            return session

    trainer.PolicyBackend = Timed  # type: ignore[misc]
    make = run.make_trainer

    def watched(*arguments: Any) -> Any:
        made = make(*arguments)
        watch(made, clock, ("training_step", "_read"))
        return made

    run.make_trainer = watched
    settings = tiny_settings(
        model, labels, folder, rollouts=rollouts, save_every=10_000, show_every=10_000, batch=SHAPE
    )
    result = run.train(settings)
    tokens = next(line["rollout/tokens_per_look"] for line in result.history if "rollout/tokens_per_look" in line)
    return clock, round(tokens)


def measure_trl(model: Path, labels: Path, folder: Path, rollouts: int, tokens: int) -> Clock:
    """TRL's trainer as it stands, with the same text, pictures and sizes; every reply is as long as ours."""
    from datasets import Dataset
    from transformers import AutoModelForImageTextToText, PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    rows = json.loads(labels.read_text())
    data = Dataset.from_list([{"place": place} for place in range(len(rows))])
    pictures = [Image.open(labels.parent / row["image"]).convert("RGB") for row in rows]
    text = PROMPTS.first_text(PROMPTS.questions[0])

    def filled(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        prompts = [[{"role": "user", "content": text}] for _ in batch["place"]]
        return {"prompt": prompts, "images": [[pictures[place]] for place in batch["place"]]}

    per_rollout = SHAPE.pictures * SHAPE.group_size // SHAPE.batch_size
    arguments = GRPOConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, gradient_checkpointing=False,
        per_device_train_batch_size=SHAPE.batch_size, gradient_accumulation_steps=SHAPE.accumulation_steps,
        steps_per_generation=per_rollout, num_generations=SHAPE.group_size, num_iterations=2,
        max_steps=rollouts * 2 * per_rollout // SHAPE.accumulation_steps, max_completion_length=tokens,
        generation_kwargs={"min_new_tokens": tokens}, learning_rate=1e-3, report_to="none", disable_tqdm=True,
        save_strategy="no", logging_steps=1, remove_unused_columns=False,
    )  # fmt: skip
    made = GRPOTrainer(
        AutoModelForImageTextToText.from_pretrained(model),
        reward_funcs=lambda completions, **_: [float(len(str(reply)) % 7) for reply in completions],
        args=arguments,
        train_dataset=data.with_transform(filled),
        processing_class=load_processor(str(model)).processor,
    )
    made.remove_callback(PrinterCallback)
    clock = Clock()
    watch(made, clock, ("training_step",))
    made.train()
    return clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=4, metavar="N", help="of each side (default: 4)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, labels = build_doubtful_vlm(folder / "vlm"), build_world(folder / "world")
        ours, tokens = measure_ours(model, labels, folder / "ours", arguments.rollouts)
        theirs = measure_trl(model, labels, folder / "trl", arguments.rollouts, tokens)
    steps = arguments.rollouts * 2
    whole, trl = ours.seconds["training_step"] / steps, theirs.seconds["training_step"] / steps
    spent = {name: ours.seconds[name] / steps for name in ("generation", "_read", "backward")}
    rest = whole - sum(spent.values())
    print(
        f"{SHAPE.pictures} pictures x {SHAPE.group_size} samples, {tokens} tokens each, {arguments.rollouts} rollouts"
    )
    print(f"TRL's step          {trl * 1e3:8.1f} ms")
    print(f"our step            {whole * 1e3:8.1f} ms")
    for key, word in (("generation", "generation"), ("_read", "forward"), ("backward", "backward")):
        print(f"  {word:<17} {spent[key] * 1e3:8.1f} ms")
    print(f"  the rest          {rest * 1e3:8.1f} ms")
    print(f"overhead: {rest / trl:.1%} of TRL's step (target: at most 10 %)")


if __name__ == "__main__":
    main()
