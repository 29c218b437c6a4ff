#!/usr/bin/env bash
# CoOp: tests contexts that were learned on one data set (ImageNet in the paper) on another, once for each seed.
#
#   bash scripts/coop/eval.sh DATASET CFG [KEY VALUE ...]
#   SOURCE=caltech101 bash scripts/coop/eval.sh folder rn50_ep50
#
#   DATASET  configs/datasets/DATASET.yaml, the data set to test on
#   CFG      configs/trainers/TRAINER/CFG.yaml, as in training; if only CFG with _ep50 was trained, that is used
#
# Runs: output/evaluation/TRAINER/CFG_16shots/nctx16_cscFalse_ctpend/DATASET/seedSEED
# Environment: DATA SEEDS OUTPUT PLUGIN DRY_RUN PYTHON (scripts/_common.sh);
#   TRAINER TRAINER_NODE, as in training (default: CoOp, and its group of options);
#   SOURCE SHOTS NCTX CSC CTP: the run to test (default: imagenet 16 16 False end)

source "$(dirname "${BASH_SOURCE[0]}")/../_common.sh"

usage 2 "$@"
DATASET=$1 CFG=$2
shift 2
TRAINER=${TRAINER:-CoOp} SOURCE=${SOURCE:-imagenet}
SHOTS=${SHOTS:-16} NCTX=${NCTX:-16} CSC=${CSC:-False} CTP=${CTP:-end}
known_trainer
NODE=$(context_node)
known CFG "configs/trainers/$TRAINER" "$CFG"
known DATASET configs/datasets "$DATASET"

# model_folder CFG: prints the folder of the training runs.
model_folder() {
  echo "$OUTPUT/$SOURCE/$TRAINER/$1_${SHOTS}shots/nctx${NCTX}_csc${CSC}_ctp$CTP"
}

short=${CFG%_ctxv1}_ep50${CFG#"${CFG%_ctxv1}"}
if [[ ! -d $(model_folder "$CFG") && -d $(model_folder "$short") ]]; then
  echo "$(model_folder "$CFG") does not exist, so $short is tested instead of $CFG" >&2
  CFG=$short
fi

for SEED in $SEEDS; do
  MODEL=$(model_folder "$CFG")/seed$SEED
  TRAINING="SEEDS=$SEED TRAINER=$TRAINER bash scripts/coop/main.sh $SOURCE $CFG $CTP $NCTX $SHOTS $CSC"
  needs_run "$MODEL" "$TRAINING" || continue
  RUN=${CFG}_${SHOTS}shots/nctx${NCTX}_csc${CSC}_ctp$CTP/$DATASET/seed$SEED
  evaluate "$OUTPUT/evaluation/$TRAINER/$RUN" "$MODEL" \
    "$NODE.N_CTX" "$NCTX" \
    "$NODE.CSC" "$CSC" \
    "$NODE.CLASS_TOKEN_POSITION" "$CTP" \
    "$@"
done
finish
