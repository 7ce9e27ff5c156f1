"""Training objectives on plain tensors: what any engine (TRL, verl, a loop of one's own) adds up and differentiates.

- `advantages`: rewards to advantages within a group (Zoom-IQA Sec. 10.2).
- `grpo`: the clipped objective with validity mask, Eq. 7.
- `coverage`: the KL-Coverage regulariser, Eq. 1 and 2.
- `tokens`: which tokens of a reply are the numbers of its answer.
- `gathering`: one-dimensional tensors of all processes, for what must be decided over the whole batch.

Everything that is decided over a batch is decided over the **optimizer batch**: all micro-batches of all processes
between two optimizer steps. The losses of the parts therefore add up to the loss of the whole, however it was split. An
engine that averages n parts (accumulation steps, processes) instead of adding them multiplies each by n.

None of it knows models, replies' meaning, rewards' origin, or an engine. Import the modules: this one needs no torch.
"""
