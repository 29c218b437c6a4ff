#!/usr/bin/env bash
# Base to new, second half: tests the model of base2new_train.sh on the classes that it was not trained on.
#
#   bash scripts/cocoop/base2new_test.sh DATASET SEED [CFG] [KEY VALUE ...]
#   bash scripts/cocoop/base2new_test.sh caltech101 1
#
#   DATASET SEED CFG  as in training
#
# Run: output/base2new/test_new/DATASET/shots_16/TRAINER/CFG/seedSEED
# Environment: DATA OUTPUT PLUGIN DRY_RUN PYTHON (scripts/_common.sh);
#   TRAINER SHOTS, as in training (default: CoCoOp 16);
#   SUBSAMPLE=all tests on the base and new classes together; the run is in base2new/test_all

source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"
source scripts/cocoop/_protocol.sh

check_arguments "DATASET SEED" "$@"
DATASET=$1 SEED=$2
shift 2
SUBSAMPLE=${SUBSAMPLE:-new}
needs_training "$DATASET" "$SUBSAMPLE"
choose_cfg "$DATASET" "$@"
known DATASET configs/datasets "$DATASET"

RUN=$DATASET/shots_$SHOTS/$TRAINER/$CFG/seed$SEED
MODEL=$OUTPUT/base2new/train_base/$RUN
TRAINING="TRAINER=$TRAINER SHOTS=$SHOTS bash scripts/cocoop/base2new_train.sh $DATASET $SEED $CFG"
needs_run "$MODEL" "$TRAINING" || exit 1

evaluate "$OUTPUT/base2new/test_$SUBSAMPLE/$RUN" "$MODEL" \
  DATASET.NUM_SHOTS "$SHOTS" \
  DATASET.SUBSAMPLE_CLASSES "$SUBSAMPLE" \
  ${PAIRS[@]+"${PAIRS[@]}"}
finish
