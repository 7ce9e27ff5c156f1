"""What tests of GRPO share: a tiny world to train in, and a policy whose texts are given but whose digits are free.

`python -m tests.training.grpo_tools FOLDER ...` runs one process of a run in several.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from zoomiqa.protocol import ConversationSettings, PromptSet
from zoomiqa.types import Sampling

PROMPTS = PromptSet("short", "Rate: {question}\n", "Closer: {question}\n", ("How good is it?", "How does it look?"))

DIGITS = "0123456789"


def reply(rating="#", *, crop=False, later=False):
    """A reply that keeps the format; `#` stands for a digit that the policy chooses, the first one of 1 to 4."""
    rating = "^.##" if rating == "#" else f"{rating:.2f}"
    head, end = ("Crop Inspection", "Final Decision") if later else ("Image Quality", "Decision")
    box, tool = ("[0.1, 0.2, 0.6, 0.7]", "crop") if crop else ("[0, 0, 0, 0]", "final")
    return (
        f"<think>{head} Summary: s\nDirections for Improvement: d\nIssues to Avoid: i\n{end} & Rationale: r</think>"
        f'<answer>{{"bbox_2d": {box}, "rating": {rating}, "tool": "{tool}"}}</answer>'
    )


def free_digits(request, share=0.5):
    """Half of the conversations take a closer look; every rating is the policy's."""
    first = request.round_index == 0
    return reply(crop=first and np.random.default_rng(request.sampling.seed).random() < share, later=not first)


def planned_policy(script=free_digits):
    """A `PolicyBackend` that writes what `script` says of each request, but draws `#` and `^` from its own logits."""
    from training.grpo.policy import PolicyBackend
    from zoomiqa.backends.decoding import draw_rows

    class Planned(PolicyBackend):
        def prepare(self, ticket, request):
            row = super().prepare(ticket, request)
            encode = self._tokenizer.encode
            plan = []
            for part in _parts(script(request)):
                plan += [part] if part in "#^" else encode(part, add_special_tokens=False)
            self.plans = getattr(self, "plans", {})
            self.plans[ticket] = [*plan, self._tokenizer.eos_token_id]
            self.free = {
                mark: [encode(digit, add_special_tokens=False)[0] for digit in digits]
                for mark, digits in (("#", DIGITS), ("^", DIGITS[1:5]))
            }
            return row

        def choose(self, rows, logits):
            import torch

            wanted = [self.plans[row.ticket][len(row.tokens)] for row in rows]
            masked = torch.full_like(logits, -torch.inf)
            for number, token in enumerate(wanted):
                allowed = self.free[token] if isinstance(token, str) else [token]
                masked[number, allowed] = logits[number, allowed].clamp(min=-1e4)
            return draw_rows(rows, masked)

    return Planned


def _parts(text):
    part = ""
    for character in text:
        if character in "#^":
            yield from (part, character) if part else (character,)
            part = ""
        else:
            part += character
    if part:
        yield part


def build_world(folder, *, pictures=6, ratings=None):
    """Six small pictures, brighter ones rated higher, and their annotation file; returns that."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    ratings = ratings or [1.3 + 0.6 * number for number in range(pictures)]
    labels = []
    for number, rating in enumerate(ratings):
        pixels = rng.integers(0, 30, (56, 84, 3)) + round(50 * (rating - 1))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        labels.append({"id": f"p{number}", "image": f"{number}.png", "gt_score": rating})
    (folder / "labels.json").write_text(json.dumps(labels))
    return folder / "labels.json"


def build_doubtful_vlm(folder, *, seed=0):
    """A tiny model that takes all tokens for about equally likely, so that samples differ; returns its folder."""
    from transformers import AutoModelForImageTextToText

    from tests.tiny_vlm import build_tiny_vlm

    build_tiny_vlm(folder, seed=seed)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    model.lm_head.weight.data.mul_(0.05)
    model.save_pretrained(folder)
    return folder


def tiny_settings(model, labels, out, **changes):
    """Two pictures with four samples in a rollout that gives two optimizer steps."""
    from training.grpo import GRPOSettings
    from training.grpo.plan import BatchSettings
    from training.grpo.settings import EngineSettings, OptimizerSettings, Source
    from training.models import ModelSettings

    settings = GRPOSettings(
        model=ModelSettings(str(model), device="cpu"),
        labels=(Source(labels, labels.parent),),
        out=out,
        prompts=PROMPTS,
        conversation=ConversationSettings(sampling=Sampling(1.0, 1.0, 0, 200)),
        batch=BatchSettings(batch_size=2, gradient_accumulation_steps=4, group_size=4, pictures=2),
        optimizer=OptimizerSettings(learning_rate=1e-3),
        engine=EngineSettings(slots=16),
        rollouts=2,
        save_every=1,
        show_every=1,
    )
    return replace(settings, **changes)


class Watch:
    """Notes what a trainer does: the gradients before every optimizer step."""

    def __init__(self):
        from transformers import TrainerCallback

        watch = self
        self.gradients = []

        class Callback(TrainerCallback):
            def on_pre_optimizer_step(self, args, state, control, model=None, **_):
                watch.gradients.append(
                    {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
                )

        self.callback = Callback()


def run_one_process(folder):
    """One of the processes of a run: what `train` does, with gradients written down."""
    import torch

    from training.grpo import run, trainer
    from training.runs import process_rank

    torch.set_num_threads(1)
    options = json.loads((folder / "options.json").read_text())
    trainer.PolicyBackend = planned_policy()
    settings = tiny_settings(Path(options["model"]), Path(options["labels"]), folder / "out")
    settings = replace(settings, batch=replace(settings.batch, gradient_accumulation_steps=options["accumulation"]))
    settings = replace(settings, rollouts=1, optimizer=replace(settings.optimizer, max_grad_norm=0.0))
    watch = Watch()
    make = run.make_trainer

    def watched(*arguments):
        made = make(*arguments)
        made.add_callback(watch.callback)
        return made

    run.make_trainer = watched
    result = run.train(settings)
    torch.save({"gradients": watch.gradients, "history": list(result.history)}, folder / f"rank{process_rank()}.pt")


if __name__ == "__main__":
    run_one_process(Path(sys.argv[1]))
