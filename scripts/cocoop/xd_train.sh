#!/usr/bin/env bash
# Cross-data-set transfer and domain generalisation, first half: trains on all classes of the source data set.
#
#   bash scripts/cocoop/xd_train.sh SEED [CFG] [KEY VALUE ...]
#   bash scripts/cocoop/xd_train.sh 1
#   SOURCE=shapes bash scripts/cocoop/xd_train.sh 1
#
#   SEED  of the run
#   CFG   configs/trainers/TRAINER/CFG.yaml (default: the authors' for TRAINER and SOURCE, such as CoCoOp's
#         vit_b16_c4_ep10_batch1_ctxv1, from shapes tiny; scripts/cocoop/_protocol.sh lists them)
#
# Run: output/SOURCE/TRAINER/CFG_16shots/seedSEED
# Environment: DATA OUTPUT PLUGIN DRY_RUN PYTHON (scripts/_common.sh);
#   SOURCE TRAINER SHOTS (default: imagenet CoCoOp 16)

source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"
source scripts/cocoop/_protocol.sh

check_arguments SEED "$@"
SEED=$1 SOURCE=${SOURCE:-imagenet}
shift
needs_training "$SOURCE"
choose_cfg "$SOURCE" "$@"
known SOURCE configs/datasets "$SOURCE"

train "$OUTPUT/$SOURCE/$TRAINER/${CFG}_${SHOTS}shots/seed$SEED" \
  --seed "$SEED" \
  --trainer "$TRAINER" \
  --dataset-config-file "configs/datasets/$SOURCE.yaml" \
  --config-file "configs/trainers/$TRAINER/$CFG.yaml" \
  DATASET.NUM_SHOTS "$SHOTS" \
  ${PAIRS[@]+"${PAIRS[@]}"}
finish
