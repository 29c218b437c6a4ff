#!/usr/bin/env bash
# Linear probe: tests a classifier that was fitted on one data set (ImageNet in CoOp's Table 1) on another with the same
# classes or some of them, once for each seed.
#
#   bash scripts/linear_probe/eval.sh DATASET CFG [KEY VALUE ...]
#   SOURCE=shapes bash scripts/linear_probe/eval.sh shapes_sketch tiny
#
#   DATASET  configs/datasets/DATASET.yaml, the data set to test on
#   CFG      configs/trainers/LinearProbe/CFG.yaml, as in training
#
# Runs: output/evaluation/LinearProbe/CFG_16shots/DATASET/seedSEED
# Environment: DATA SEEDS OUTPUT DRY_RUN PYTHON (scripts/_common.sh);
#   SOURCE SHOTS: the run to test (default: imagenet 16)

source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"

usage 2 "$@"
DATASET=$1 CFG=$2
shift 2
TRAINER=LinearProbe SOURCE=${SOURCE:-imagenet} SHOTS=${SHOTS:-16}
known CFG configs/trainers/LinearProbe "$CFG"
known DATASET configs/datasets "$DATASET"

for SEED in $SEEDS; do
  MODEL=$OUTPUT/$SOURCE/LinearProbe/${CFG}_${SHOTS}shots/seed$SEED
  needs_run "$MODEL" "SEEDS=$SEED bash scripts/linear_probe/main.sh $SOURCE $CFG $SHOTS" || continue
  evaluate "$OUTPUT/evaluation/LinearProbe/${CFG}_${SHOTS}shots/$DATASET/seed$SEED" "$MODEL" "$@"
done
finish
