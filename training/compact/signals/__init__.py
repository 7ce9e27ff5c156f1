"""The compact rating by measured signals: data, fit, export and card of `compact_rating.npz`.

    python -m training.compact.signals BIQ2021_train_part/annotations.json --image-root BIQ2021_train_part \\
        --clean-photos PHOTOS/Kodak24 PHOTOS/BSDS500 --repeats 2 --scenes FOLDER/scenes.json \\
        --out zoomiqa/assessors/compact/data/compact_rating.npz

(from an installed wheel: `python -m zoomiqa.training.compact.signals`). Needs the extra `train`: the trees are grown by
LightGBM, which rating does without. `--limit` uses a few photos only, to see that all parts fit together. FOLDER is
that of `training.compact.rating prepare`, which tells what photos show one scene. The shipped file is from before that:
its folds deal the photos of a burst to both sides, so that its figures are likely too good.

1. *Look*: the features of every scored photo, and of changed copies of some of them whose scores are lowered by what is
   known of the change (`looks`, `degrade`, `table`). The codebooks are learnt first, without scores.
2. *Fit*: kernel ridge regression and boosted trees for both looks, and the spread from out-of-fold errors (`members`).
   Repeated folds give the printed figures (`measure`); what is exported is fitted on all photos.
3. *Export*: one file of arrays, compared with the fitted members, and its card, with the figures of known changes on
   clean photos (`export`, `changes`, `card`).

The method and its sources stand in `zoomiqa.assessors.compact.rating`, which reads the file.
"""
