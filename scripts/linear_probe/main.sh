#!/usr/bin/env bash
# Linear probe: fits a logistic regression on CLIP's image features of a data set and tests it, once for each seed.
#
#   bash scripts/linear_probe/main.sh DATASET CFG SHOTS [KEY VALUE ...]
#   bash scripts/linear_probe/main.sh caltech101 rn50 16
#
#   DATASET  configs/datasets/DATASET.yaml
#   CFG      configs/trainers/LinearProbe/CFG.yaml
#   SHOTS    training images per class
#
# Runs: output/DATASET/LinearProbe/CFG_SHOTSshots/seedSEED
# Environment: DATA SEEDS OUTPUT DRY_RUN PYTHON (scripts/_common.sh)

source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"

usage 3 "$@"
TRAINER=LinearProbe exec bash scripts/few_shot.sh "$@"
