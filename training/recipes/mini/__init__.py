"""The replication in miniature: the paper's Table 3 on a model small enough to be trained from nothing.

    python -m training.recipes.mini --photos DIR --labels annotations.json --out mini/ --form short
    python -m training.recipes.mini --photos DIR --labels annotations.json --out mini/ --form long    # one GPU
    python -m training.recipes.mini ...                                         # the same again: goes on where it was

(from an installed wheel: `python -m zoomiqa.training.recipes.mini`). Stages: a seeded split of the labelled photos;
`training.synthesis` on the training part, with the measured teacher; its replies in few words (`data`); a Qwen2.5-VL of
the real classes with random weights and a tokenizer learned from those words (`model`); `training.sft`; `training.grpo`
once per arm of the ablation (`forms.ARMS`), each from the same cold start; `zoomiqa evaluate`, greedily, on the test
part; a report with plots. Every stage is the public command or function of its package, and resumes.

What this can show: that all parts work together, what each reward does to a small policy, and whether the differences
have the paper's signs. What it cannot: the paper's figures. A model of a million weights that has seen some thousand
photos perceives little, its replies are short, and one seed per arm leaves differences within their intervals open.
"""
