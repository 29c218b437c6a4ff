# Sourced after _common.sh by the scripts of this folder: the method to train or test, and its config.
#
# Environment, besides that of _common.sh:
#   TRAINER  the method: CoCoOp (default), or another one with YAML files in configs/trainers/TRAINER/
#   SHOTS    training images per class (default: 16)
#
# `default_cfg`, at the end, is the list of the CFG that each method has unless one is named.
# shellcheck shell=bash

TRAINER=${TRAINER:-CoCoOp} SHOTS=${SHOTS:-16}

# check_arguments NAMES WORDS...: ends the script with its help unless there is a word for each of NAMES, SEED the last.
check_arguments() {
  local count
  count=$(wc -w <<<"$1")
  no_flags "$@"
  if (($# - 1 < count)); then wrong_call "there are $(($# - 1)) arguments, expected $1, then [CFG] [KEY VALUE ...]."; fi
  shift "$count"
  if [[ ! $1 =~ ^-?[0-9]+$ ]]; then wrong_call "SEED is $1, expected a whole number."; fi
}

# choose_cfg DATASET WORDS...: sets CFG to the first word if it names a config, else to the papers' choice for training
# on DATASET; sets PAIRS to the other words.
choose_cfg() {
  local dataset=$1 folder=configs/trainers/$TRAINER there
  shift
  known_trainer
  if (($#)) && [[ -f $folder/$1.yaml ]]; then
    CFG=$1
    shift
  elif (($#)) && [[ ! $1 =~ ^[A-Z][A-Z0-9_.]*$ ]]; then
    there=$(names "$folder"/*.yaml)
    fail "CFG is $1, expected one of $folder/ or KEY VALUE pairs. There are: $there.$(near "$1" "$there")"
  else
    CFG=$(default_cfg "$dataset")
  fi
  if (($# % 2)); then wrong_call "${!#} has no value, expected KEY VALUE pairs after CFG $CFG."; fi
  PAIRS=("$@")
}

# default_cfg DATASET: prints the CFG of TRAINER for training on DATASET: its authors' for 16 shots, with ViT-B/16, and
# for the protocol of the script.
default_cfg() {
  case $TRAINER,$1,${SCRIPT##*/} in
    *,shapes,*) echo tiny ;;
    CoCoOp,*) echo vit_b16_c4_ep10_batch1_ctxv1 ;;
    CoOp,imagenet,*) echo vit_b16_ep50_ctxv1 ;;
    CoOp,*) echo vit_b16_ctxv1 ;;
    KgCoOp,*) echo vit_b16_ep100_ctxv1 ;;
    ProGrad,imagenet,*) echo vit_b16_ep50 ;;
    ProGrad,*) echo vit_b16_ep100 ;;
    MaPLe,*,xd_*) echo vit_b16_c2_ep5_batch4_2ctx_cross_datasets ;;
    MaPLe,*) echo vit_b16_c2_ep5_batch4_2ctx ;;
    IVLP,*) echo vit_b16_c2_ep5_batch4_2+2ctx ;;
    VPT,*) echo vit_b16_c2_ep5_batch4_4 ;;
    DeepLanguage,*) echo vit_b16_c2_ep5_batch4_4ctx ;;
    PromptSRC,*,xd_*) echo vit_b16_c2_ep20_batch4_4+4ctx_cross_datasets ;;
    PromptSRC,*) echo vit_b16_c2_ep20_batch4_4+4ctx ;;
    GDA,imagenet,*) echo vit_b16_new_classes ;;
    TaskRes,imagenet,* | LPPlusPlus,imagenet,* | CLIPLoRA,imagenet,* | LayerNormTuning,imagenet,* | \
      TwoStage,imagenet,*) echo vit_b16_imagenet ;;
    LinearProbe,* | TaskRes,* | CLIPAdapter,* | TipAdapter,* | TipAdapterF,* | ZSLP,* | CLAP,* | CrossModal,* | \
      LPPlusPlus,* | GDA,* | TCP,* | CLIPLoRA,* | LayerNormTuning,* | TwoStage,*) echo vit_b16 ;;
    *) fail "$TRAINER has no default CFG, expected one of: $(names configs/trainers/"$TRAINER"/*)." ;;
  esac
}
