#!/usr/bin/env bash
# Zero-shot CLIP: tests the hand-made prompt on a data set, without training.
#
#   bash scripts/coop/zeroshot.sh DATASET CFG [KEY VALUE ...]
#   bash scripts/coop/zeroshot.sh caltech101 rn50
#
#   DATASET  configs/datasets/DATASET.yaml
#   CFG      configs/trainers/CoOp/CFG.yaml
#
# Run: output/ZeroshotCLIP/CFG/DATASET
# Environment: DATA OUTPUT PLUGIN DRY_RUN PYTHON (scripts/_common.sh);
#   TRAINER (default: ZeroshotCLIP; ZeroshotCLIP2 averages an ensemble of prompts)
#   SUBSAMPLE (base or new: only that half of the classes; its run is output/ZeroshotCLIP/CFG_base/DATASET)

source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"

usage 2 "$@"
DATASET=$1 CFG=$2
shift 2
TRAINER=${TRAINER:-ZeroshotCLIP} SUBSAMPLE=${SUBSAMPLE:-}
if [[ ! $SUBSAMPLE =~ ^(base|new)?$ ]]; then wrong_call "SUBSAMPLE is $SUBSAMPLE, expected base, new or nothing."; fi
known CFG configs/trainers/CoOp "$CFG"
known DATASET configs/datasets "$DATASET"

# Nothing is drawn; the fixed seed makes every call the same run.
train "$OUTPUT/$TRAINER/$CFG${SUBSAMPLE:+_$SUBSAMPLE}/$DATASET" \
  --seed 1 \
  --trainer "$TRAINER" \
  --dataset-config-file "configs/datasets/$DATASET.yaml" \
  --config-file "configs/trainers/CoOp/$CFG.yaml" \
  --eval-only \
  ${SUBSAMPLE:+DATASET.SUBSAMPLE_CLASSES "$SUBSAMPLE"} \
  "$@"
finish
