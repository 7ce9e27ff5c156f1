#!/usr/bin/env bash
# Zoom-IQA from labelled photographs to a model of 7 B weights: the paper's two stages, with what comes before them.
#
#   KONIQ=/data/koniq TEACHER=MODEL TEACHER_URL=http://host:8000/v1 RATER=MODEL RATER_URL=http://host:8001/v1 \
#   OUT=/data/zoom-iqa bash training/recipes/zoom-iqa-7b.sh
#
# Each stage goes on where it was when the script is started again. Requests of curation that fail are made once more;
# where some fail again, the script ends with exit code 1: start it again later, or with FAILED=leave to go on without
# those trajectories (`left_out.jsonl` of the data names them). Not run by this project as a whole: 7 B weights and 8 GPUs
# were not at hand. Every option below parses, and every stage was run at small size.
set -euo pipefail
: "${KONIQ:?folder with koniq-10k.train.json, koniq-10k.test.json (zoomiqa datasets prepare) and the pictures}"
: "${TEACHER:?served model that writes trajectories; the paper: Gemini 2.5 Pro}"
: "${TEACHER_URL:?}" "${RATER:?served model that judges rationales; the paper: Qwen2.5-32B}" "${RATER_URL:?}" "${OUT:?}"
GPUS="${GPUS:-8}" # the paper names no number
ACCELERATE=training/recipes/accelerate
BASE=Qwen/Qwen2.5-VL-7B-Instruct # Sec. 4.1
mkdir -p "$OUT"
resume() { if [ -e "$1" ]; then echo --resume; fi; }

# A step of curation and the file that it writes: exit code 1 says that requests failed, any other one that it broke off.
curate() {
  local file="$1" code=1 attempt
  shift
  for attempt in 1 2; do
    if [ "$code" = 1 ]; then
      code=0
      "$@" --out "$file" $(if [ -e "$file" ]; then echo --resume --retry-failed; fi) || code=$?
    fi
  done
  if [ "$code" = 1 ] && [ "${FAILED:-}" = leave ]; then code=0; fi
  return "$code"
}

# 1. GR-IQA (Sec. 3.1.1): about 7,000 trajectories of the training part; thresholds of the filters are the defaults.
#    What training has begun with stays as it is.
if [ ! -e "$OUT/sft/settings.json" ]; then
  curate "$OUT/1.jsonl" python -m training.curation generate "$KONIQ/koniq-10k.train.json" --image-root "$KONIQ" \
    --model "$TEACHER" --base-url "$TEACHER_URL"
  curate "$OUT/2.jsonl" python -m training.curation visual-reliance "$OUT/1.jsonl" --image-root "$KONIQ" \
    --backend transformers --model "$BASE"
  curate "$OUT/3.jsonl" python -m training.curation hint-consistency "$OUT/2.jsonl" --image-root "$KONIQ" \
    --model "$RATER" --base-url "$RATER_URL"
  python -m training.curation build "$OUT/3.jsonl" --image-root "$KONIQ" --out "$OUT/data" --overwrite
fi

# 2. Cold start (Sec. 3.1.2; figures of Sec. 4.1 are the defaults, written out here): batch 2 with 8 accumulation steps,
#    learning rate 2.5e-6, warm-up ratio 0.3. Departure: one epoch and linear decay, as the paper names neither.
#    The paper's batch is read as per process; with 8 GPUs a step holds 128 rows. GPUS=1 holds 16.
accelerate launch --config_file "$ACCELERATE/zero3.yaml" --num_processes "$GPUS" -m training.sft \
  --model "$BASE" --data "$OUT/data" --image-root "$KONIQ" --out "$OUT/sft" \
  --batch 2 --accumulation 8 --lr 2.5e-6 --warmup 0.3 --epochs 1 \
  --gradient-checkpointing --workers 4 $(resume "$OUT/sft/settings.json")

# 3. GRPO (Sec. 3.2; figures of Sec. 4.1 are the defaults): batch 1 with 2 accumulation steps, 8 samples, learning rate
#    1e-6, KL-Coverage 0.04 on 2 % of the numbers, rewards 1, 1 and 2. Departures: 8 pictures per rollout,
#    which are 4 steps with 8 GPUs (KL-Coverage is zero in the first of a rollout); 2 epochs over 3 stages of
#    re-sampling. The paper names none of these.
accelerate launch --config_file "$ACCELERATE/zero3.yaml" --num_processes "$GPUS" -m training.grpo \
  --model "$OUT/sft" --labels "$KONIQ/koniq-10k.train.json" --image-root "$KONIQ" --out "$OUT/grpo" \
  --engine vllm --vllm-memory 0.3 --batch 1 --accumulation 2 --samples 8 --pictures 8 --lr 1e-6 \
  --score-weight 1 --rank-weight 2 --coverage-weight 0.04 --coverage-share 0.02 --stages 3 --epochs 2 \
  --gradient-checkpointing $(resume "$OUT/grpo/settings.json")

# 4. What came of it.
zoomiqa evaluate "$KONIQ/koniq-10k.test.json" --image-root "$KONIQ" --model "$OUT/grpo" --out "$OUT/evaluation" \
  $(if [ -e "$OUT/evaluation" ]; then echo --resume --retry-failed; fi)
