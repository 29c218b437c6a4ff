#!/usr/bin/env bash
# Base to new, first half: trains on the base classes of a data set and tests on them.
#
#   bash scripts/cocoop/base2new_train.sh DATASET SEED [CFG] [KEY VALUE ...]
#   bash scripts/cocoop/base2new_train.sh caltech101 1
#   TRAINER=CoOp bash scripts/cocoop/base2new_train.sh caltech101 1 vit_b16_ctxv1
#
#   DATASET  configs/datasets/DATASET.yaml
#   SEED     of the run
#   CFG      configs/trainers/TRAINER/CFG.yaml (default: the authors' for TRAINER and DATASET, such as CoCoOp's
#            vit_b16_c4_ep10_batch1_ctxv1, on shapes tiny; scripts/cocoop/_protocol.sh lists them)
#
# Run: output/base2new/train_base/DATASET/shots_16/TRAINER/CFG/seedSEED
# Environment: DATA OUTPUT PLUGIN DRY_RUN PYTHON (scripts/_common.sh); TRAINER SHOTS (default: CoCoOp 16)

source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"
source scripts/cocoop/_protocol.sh

check_arguments "DATASET SEED" "$@"
DATASET=$1 SEED=$2
shift 2
needs_training "$DATASET" base
choose_cfg "$DATASET" "$@"
known DATASET configs/datasets "$DATASET"

train "$OUTPUT/base2new/train_base/$DATASET/shots_$SHOTS/$TRAINER/$CFG/seed$SEED" \
  --seed "$SEED" \
  --trainer "$TRAINER" \
  --dataset-config-file "configs/datasets/$DATASET.yaml" \
  --config-file "configs/trainers/$TRAINER/$CFG.yaml" \
  DATASET.NUM_SHOTS "$SHOTS" \
  DATASET.SUBSAMPLE_CLASSES base \
  ${PAIRS[@]+"${PAIRS[@]}"}
finish
