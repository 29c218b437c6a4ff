#!/usr/bin/env bash
# CoOp: trains and tests on a data set, once for each seed.
#
#   bash scripts/coop/main.sh DATASET CFG CTP NCTX SHOTS CSC [KEY VALUE ...]
#   bash scripts/coop/main.sh caltech101 rn50_ep50 end 16 1 False
#
#   DATASET  configs/datasets/DATASET.yaml
#   CFG      configs/trainers/TRAINER/CFG.yaml
#   CTP      position of the class token: end, middle or front
#   NCTX     number of context vectors
#   SHOTS    training images per class
#   CSC      True: a context for each class; False: one context for all
#
# Runs: output/DATASET/TRAINER/CFG_SHOTSshots/nctxNCTX_cscCSC_ctpCTP/seedSEED
# Environment: DATA SEEDS OUTPUT PLUGIN DRY_RUN PYTHON (scripts/_common.sh);
#   TRAINER (default: CoOp), a method that learns contexts; another one is trained by scripts/cocoop/xd_train.sh
#   TRAINER_NODE (default: that of CoOp, KgCoOp, ProGrad; else COOP), the group of its options: CTP, NCTX and CSC are
#     CLASS_TOKEN_POSITION, N_CTX and CSC of TRAINER.COOP

source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"

usage 6 "$@"
DATASET=$1 CFG=$2 CTP=$3 NCTX=$4 SHOTS=$5 CSC=$6
shift 6
TRAINER=${TRAINER:-CoOp}
needs_training "$DATASET"
case $TRAINER in
  CoCoOp | LinearProbe) fail "TRAINER is $TRAINER, which has no CTP, NCTX and CSC.\
 Train it with: TRAINER=$TRAINER SOURCE=$DATASET SHOTS=$SHOTS bash scripts/cocoop/xd_train.sh SEED $CFG" ;;
esac
known_trainer
NODE=$(context_node)
known CFG "configs/trainers/$TRAINER" "$CFG"
known DATASET configs/datasets "$DATASET"

for SEED in $SEEDS; do
  train "$OUTPUT/$DATASET/$TRAINER/${CFG}_${SHOTS}shots/nctx${NCTX}_csc${CSC}_ctp$CTP/seed$SEED" \
    --seed "$SEED" \
    --trainer "$TRAINER" \
    --dataset-config-file "configs/datasets/$DATASET.yaml" \
    --config-file "configs/trainers/$TRAINER/$CFG.yaml" \
    "$NODE.N_CTX" "$NCTX" \
    "$NODE.CSC" "$CSC" \
    "$NODE.CLASS_TOKEN_POSITION" "$CTP" \
    DATASET.NUM_SHOTS "$SHOTS" \
    "$@"
done
finish
