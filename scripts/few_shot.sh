#!/usr/bin/env bash
# Few-shot classification with any method whose settings stand in its YAML: trains and tests on all classes, once for
# each seed. CoOp, KgCoOp and ProGrad have scripts/coop/main.sh, whose arguments are theirs.
#
#   bash scripts/few_shot.sh DATASET CFG SHOTS [KEY VALUE ...]
#   TRAINER=TaskRes bash scripts/few_shot.sh caltech101 rn50 16
#
#   DATASET  configs/datasets/DATASET.yaml
#   CFG      configs/trainers/TRAINER/CFG.yaml
#   SHOTS    training images per class
#
# Runs: output/DATASET/TRAINER/CFG_SHOTSshots/seedSEED
# Environment: DATA SEEDS OUTPUT PLUGIN DRY_RUN PYTHON (scripts/_common.sh);
#   TRAINER, the method: TaskRes CLIPAdapter TipAdapter TipAdapterF ZSLP CLAP CrossModal GDA LPPlusPlus LinearProbe TCP
#   MaPLe PromptSRC CLIPLoRA LayerNormTuning TwoStage, or another with YAML of its own

source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

usage 3 "$@"
DATASET=$1 CFG=$2 SHOTS=$3
shift 3
if [[ -z ${TRAINER:-} ]]; then wrong_call "TRAINER is not set; it must name the method."; fi
known_trainer
needs_training "$DATASET"
known CFG "configs/trainers/$TRAINER" "$CFG"
known DATASET configs/datasets "$DATASET"

for SEED in $SEEDS; do
  train "$OUTPUT/$DATASET/$TRAINER/${CFG}_${SHOTS}shots/seed$SEED" \
    --seed "$SEED" \
    --trainer "$TRAINER" \
    --dataset-config-file "configs/datasets/$DATASET.yaml" \
    --config-file "configs/trainers/$TRAINER/$CFG.yaml" \
    DATASET.NUM_SHOTS "$SHOTS" \
    "$@"
done
finish
