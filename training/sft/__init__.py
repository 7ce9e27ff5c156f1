"""Supervised fine-tuning: the cold start (Zoom-IQA, Sec. 3.1.2 and 4.1), on TRL's `SFTTrainer`.

    python -m training.sft --model Qwen/Qwen2.5-VL-7B-Instruct --data sft/ --image-root koniq/ --out cold/
    python -m training.sft ... --lora 64                      # low-rank adapters, merged at the end
    python -m training.sft ... --resume                       # goes on with the last whole checkpoint
    accelerate launch --config_file training/recipes/accelerate/zero3.yaml -m training.sft ...
    zoomiqa assess photo.jpg --model cold/

(from an installed wheel: `python -m zoomiqa.training.sft`). `--data` is what `training.curation build` wrote.
The result is a folder that transformers, vLLM and `zoomiqa` read, with `training.json` on how it came about.

What the paper says: base Qwen2.5-VL-7B-Instruct, batch 2 with 8 accumulation steps, learning rate 2.5e-6, warm-up
ratio 0.3, cross-entropy on the assistant's tokens. Departures and choices, said plainly:

- The paper names no number of epochs, schedule after the warm-up, optimizer, processes or precision. Here: one epoch,
  linear decay, AdamW without weight decay, gradients clipped at norm 1, one process unless launched otherwise.
- A trajectory of two looks is two rows (the released protocol rewrites the context), each with its last reply trained.
  `--context appended` makes one row of it with both replies trained, for models that are to be run so.
- The prompt of a row is tokenised as inference does it, and the reply apart from it, as a model writes it: no token
  spans the border, and special tokens in a reply are made harmless. The token that ends a turn is trained.
- All trained tokens of an optimizer step weigh the same, over its micro-batches and processes; TRL with Qwen2.5-VL
  would average over micro-batches, so that tokens of short replies weigh more.
- Nothing is ever cut: a row beyond the model's context is left out and counted, or refused (`--too-long refuse`).
- All weights are trained, the vision tower's too, as the paper says nothing else. `--lora` freezes the tower.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .run import train as train
    from .settings import SFTSettings as SFTSettings

__all__ = ["SFTSettings", "train"]


def __getattr__(name: str) -> Any:
    # Late, so that the command can print its help without torch.
    if name == "SFTSettings":
        from .settings import SFTSettings

        return SFTSettings
    if name == "train":
        from .run import train

        return train
    raise AttributeError(name)
