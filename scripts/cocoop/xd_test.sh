#!/usr/bin/env bash
# Cross-data-set transfer and domain generalisation, second half: tests the model of xd_train.sh on another data set.
#
#   bash scripts/cocoop/xd_test.sh DATASET SEED [CFG] [KEY VALUE ...]
#   bash scripts/cocoop/xd_test.sh caltech101 1
#   SOURCE=shapes bash scripts/cocoop/xd_test.sh shapes_sketch 1
#
#   DATASET   configs/datasets/DATASET.yaml, the data set to test on
#   SEED CFG  as in training
#
# Run: output/evaluation/TRAINER/CFG_16shots/DATASET/seedSEED
# Environment: DATA OUTPUT PLUGIN DRY_RUN PYTHON (scripts/_common.sh); SOURCE TRAINER SHOTS, as in training
#   (default: imagenet CoCoOp 16)

source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"
source scripts/cocoop/_protocol.sh

check_arguments "DATASET SEED" "$@"
DATASET=$1 SEED=$2 SOURCE=${SOURCE:-imagenet}
shift 2
needs_training "$DATASET"
choose_cfg "$SOURCE" "$@"
known DATASET configs/datasets "$DATASET"

MODEL=$OUTPUT/$SOURCE/$TRAINER/${CFG}_${SHOTS}shots/seed$SEED
TRAINING="SOURCE=$SOURCE TRAINER=$TRAINER SHOTS=$SHOTS bash scripts/cocoop/xd_train.sh $SEED $CFG"
needs_run "$MODEL" "$TRAINING" || exit 1

evaluate "$OUTPUT/evaluation/$TRAINER/${CFG}_${SHOTS}shots/$DATASET/seed$SEED" "$MODEL" \
  ${PAIRS[@]+"${PAIRS[@]}"}
finish
