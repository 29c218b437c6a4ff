#!/usr/bin/env bash
# Zero-shot CLIP: tests the hand-made prompt on a data set; nothing is trained.
#
#   bash scripts/coop/zeroshot.sh DATASET CFG [KEY VALUE ...]
#   bash scripts/coop/zeroshot.sh caltech101 rn50
#
#   DATASET  configs/datasets/DATASET.yaml
#   CFG      configs/trainers/CoOp/CFG.yaml
#
# Run: output/ZeroshotCLIP/CFG/DATASET
# Environment: DATA OUTPUT DRY_RUN PYTHON (scripts/_common.sh);
#   TRAINER (default: ZeroshotCLIP; ZeroshotCLIP2 averages an ensemble of prompts)

source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"

usage 2 "$@"
DATASET=$1 CFG=$2
shift 2
TRAINER=${TRAINER:-ZeroshotCLIP}

# Nothing is drawn: the seed only makes two calls the same run.
train "$OUTPUT/$TRAINER/$CFG/$DATASET" \
  --seed 1 \
  --trainer "$TRAINER" \
  --dataset-config-file "configs/datasets/$DATASET.yaml" \
  --config-file "configs/trainers/CoOp/$CFG.yaml" \
  --eval-only \
  "$@"
finish
