"""GRPO of Zoom-IQA on a cluster: a thin adapter for verl 0.9.1 (Ray, FSDP, vLLM). README.md beside this file says how.

    python -m training.cluster --config zoom_iqa_7b data.image_root=koniq data.train_files=train.json ...

- `settings`: what is read from the run's configuration, and what is refused before a GPU is touched.
- `data`: labelled pictures and perception tasks, in the order of the re-sampling stages.
- `looks`: verl's agent loop around the one conversation generator; one output per look.
- `updates`: rewards over the global batch, advantages, and the choice of KL-Coverage, as row tensors.
- `loss`: what a worker makes of those tensors.
- `controller`: verl's trainer and task runner, with the places where `updates` and `loss` come in.

Conversations, rewards, advantages, order, figures and formulas are `training.grpo`'s and `training.objectives`', the
same as on one machine; here they are only carried to verl and back. `settings`, `data`, `updates` and the sum in `loss`
need no verl; `looks` and `controller` do. verl is pinned exactly, as what is overridden here is not its public
interface.
"""
