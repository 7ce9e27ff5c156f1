"""From labelled photos to supervised training data: generate, filter, look at it, build (Zoom-IQA, Sec. 3.1.1).

    python -m training.curation generate koniq.json --image-root koniq/ --out 1.jsonl --model MODEL --base-url URL
    python -m training.curation visual-reliance 1.jsonl --image-root koniq/ --out 2.jsonl \\
        --backend transformers --model MODEL
    python -m training.curation hint-consistency 2.jsonl --image-root koniq/ --out 3.jsonl --model RATER --base-url URL
    python -m training.curation report 3.jsonl --image-root koniq/ --out report.html
    python -m training.curation build 3.jsonl --image-root koniq/ --out sft/

(from an installed wheel: `python -m zoomiqa.training.curation`). Every step reads the file of the one before and writes
all of its rows, each with the step's verdict and reasons: nothing is lost, and every file can be reported on. Steps can
be interrupted and gone on with (`--resume`, `--retry-failed`); one that goes on takes over what the steps before have
decided meanwhile, and asks again only about trajectories that are others now.

Departures and choices, said plainly:

- The paper's teacher is Gemini 2.5 Pro on KonIQ-10k; here it is whatever answers. Its prompts are not public: ours ask
  for the same structure (supplement, tables 4 and 5), with three worked cases in our words (downgrade, upgrade,
  confirm) as data of this package. Every record names prompt set and hash.
- Nothing in the paper says that the teacher is told the mean opinion score; its table 6 shows a teacher that was 1.55
  points off. So it is not told by default; `--tell-mos` tells it. The consistency filter is told, as in the paper.
- Visual reliance: the three thresholds are the paper's (.05, .5, .01), how they combine is not said: any one that
  applies drops (`--combine all`: all that apply). What the "partial rationale" leaves out is not said either: here the
  decision, which states the answer (`--rationale full` keeps it). The paper's teacher gave no log-probabilities and yet
  there is a threshold on entropy; here it is the mean entropy of the numbers' tokens on a local model, and that of a
  normal distribution fitted to sampled ratings on a served one. The first look is compared, as only it has a box.
- Hint consistency: the formula gives the rater the picture, though Qwen2.5-32B, the rater named, sees none. The picture
  is sent by default; `--no-image` is for raters without sight. KonIQ++ scores (artefacts, blur) are hints where the
  annotation file has them as `attributes`.
"""
