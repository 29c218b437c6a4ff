#!/usr/bin/env bash
# Zero-shot CLIP, or another method that trains nothing: tests it on a data set.
#
#   bash scripts/coop/zeroshot.sh DATASET CFG [KEY VALUE ...]
#   bash scripts/coop/zeroshot.sh caltech101 rn50
#   TRAINER=TPT bash scripts/coop/zeroshot.sh caltech101 rn50
#
#   DATASET  configs/datasets/DATASET.yaml
#   CFG      configs/trainers/CoOp/CFG.yaml, of TPT configs/trainers/TPT/CFG.yaml
#
# Run: output/TRAINER/CFG/DATASET
# Environment: DATA OUTPUT PLUGIN DRY_RUN PYTHON (scripts/_common.sh);
#   TRAINER (default: ZeroshotCLIP; ZeroshotCLIP2 averages an ensemble of prompts, TPT tunes one for each image)
#   SUBSAMPLE (base or new: only that half of the classes; its run is output/ZeroshotCLIP/CFG_base/DATASET)

source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"

usage 2 "$@"
DATASET=$1 CFG=$2
shift 2
TRAINER=${TRAINER:-ZeroshotCLIP} SUBSAMPLE=${SUBSAMPLE:-}
if [[ ! $SUBSAMPLE =~ ^(base|new)?$ ]]; then wrong_call "SUBSAMPLE is $SUBSAMPLE, expected base, new or nothing."; fi
FOLDER=configs/trainers/CoOp
if [[ $TRAINER == TPT ]]; then FOLDER=configs/trainers/TPT; fi
known CFG "$FOLDER" "$CFG"
known DATASET configs/datasets "$DATASET"

# Nothing is drawn but TPT's views; the fixed seed makes every call the same run.
train "$OUTPUT/$TRAINER/$CFG${SUBSAMPLE:+_$SUBSAMPLE}/$DATASET" \
  --seed 1 \
  --trainer "$TRAINER" \
  --dataset-config-file "configs/datasets/$DATASET.yaml" \
  --config-file "$FOLDER/$CFG.yaml" \
  --eval-only \
  ${SUBSAMPLE:+DATASET.SUBSAMPLE_CLASSES "$SUBSAMPLE"} \
  "$@"
finish
