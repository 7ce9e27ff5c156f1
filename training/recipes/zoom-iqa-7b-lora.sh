#!/usr/bin/env bash
# The two training stages on one GPU of 48 GB or more, with low-rank adapters. A departure from the paper as a whole: it
# trains all weights. Learning rates are ten times the paper's, which is usual for adapters and not tuned here.
#
#   KONIQ=/data/koniq DATA=/data/sft OUT=/data/zoom-iqa-lora bash training/recipes/zoom-iqa-7b-lora.sh
set -euo pipefail
: "${KONIQ:?folder with koniq-10k.train.json and the pictures}" "${DATA:?what curation build wrote}" "${OUT:?}"
resume() { if [ -e "$1" ]; then echo --resume; fi; }

python -m training.sft --model Qwen/Qwen2.5-VL-7B-Instruct --data "$DATA" --image-root "$KONIQ" --out "$OUT/sft" \
  --lora 64 --lr 2.5e-5 --gradient-checkpointing --workers 4 $(resume "$OUT/sft/settings.json")

# 602112 pixels are 768 picture tokens.
python -m training.grpo --model "$OUT/sft" --labels "$KONIQ/koniq-10k.train.json" --image-root "$KONIQ" \
  --out "$OUT/grpo" --lora 64 --lr 1e-5 --max-pixels 602112 --pictures 4 --gradient-checkpointing $(resume "$OUT/grpo/settings.json")
