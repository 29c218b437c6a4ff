# Sourced by every experiment's script: the settings, `train` (calls train.py once) and `evaluate` (tests a trained run).
#
# Environment:
#   DATA     folder of the data sets' folders; unset: the data set's default (`shapes`: data/)
#   SEEDS    the seeds; one run for each (default: "1 2 3")
#   OUTPUT   folder of all runs (default: output)
#   PLUGIN   a trainer or data set of your own: a .py file or a module; PLUGIN_CONFIG: the YAML of its options
#   DRY_RUN  1: print the commands instead of running them
#   PYTHON   the interpreter (default: .venv/bin/python if it exists, else python3)
# DATA, OUTPUT and the PLUGIN files are relative to the caller's folder, everything else to the repository's root.
# Finished runs are skipped, which takes seconds. Unfinished runs are resumed.
# Ctrl-C and SIGTERM stop the current run, which saves its state, and then the script, with exit code 130 or 143.
# shellcheck shell=bash

set -euo pipefail

# absolute PATH: prints the absolute path.
absolute() {
  if [[ $1 == [/~]* ]]; then echo "$1"; else echo "$PWD/$1"; fi
}

SCRIPT=$(absolute "$0")
DATA=${DATA:+$(absolute "$DATA")}
OUTPUT=${OUTPUT:+$(absolute "$OUTPUT")}
OUTPUT=${OUTPUT:-output}
if [[ ${PLUGIN:-} == *.py ]]; then PLUGIN=$(absolute "$PLUGIN"); fi
PLUGIN_CONFIG=${PLUGIN_CONFIG:+$(absolute "$PLUGIN_CONFIG")}
SEEDS=${SEEDS:-1 2 3}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ -z ${PYTHON:-} ]]; then
  if [[ -x .venv/bin/python ]]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi
FAILED=()
CHILD=            # the process that `run` waits for
N_HEARD=0 SIGNAL= # number of signals so far, and the exit code of the last one
trap 'interrupted INT 130' INT
trap 'interrupted TERM 143' TERM

# usage COUNT ARGUMENTS...: ends the script with its header as help unless it has COUNT arguments and then pairs.
usage() {
  local count=$1 found=$(($# - 1))
  shift
  no_flags "$@"
  if ((found >= count && (found - count) % 2 == 0)); then return; fi
  wrong_call "there are $found arguments, expected $count and then KEY VALUE pairs."
}

# no_flags WORDS...: ends the script with its header as help if one of them is a flag.
no_flags() {
  local word
  for word in "$@"; do
    if [[ $word == --* ]]; then wrong_call "$word is a flag; a script takes none. Set the environment instead."; fi
  done
}

# wrong_call MESSAGE: ends the script with its header as help.
wrong_call() {
  echo "Error: $1" >&2
  sed -n '2,/^$/s/^# \{0,1\}//p' "$SCRIPT" >&2
  exit 2
}

fail() {
  echo "Error: $1" >&2
  exit 1
}

# known WHAT FOLDER NAME: fails unless FOLDER holds NAME.yaml; the message lists what is there and names a near one.
known() {
  local what=$1 folder=$2 name=$3 there
  if [[ -f $folder/$name.yaml ]]; then return; fi
  there=$(names "$folder"/*.yaml)
  fail "$what is $name, expected one of $folder/: $there.$(near "$name" "$there")"
}

# known_trainer: fails unless TRAINER has YAML files.
known_trainer() {
  local there
  if [[ -d configs/trainers/$TRAINER ]]; then return; fi
  there=$(names configs/trainers/*)
  fail "TRAINER is $TRAINER, expected one of: $there.$(near "$TRAINER" "$there")\
 Another method, such as a PLUGIN's, needs its YAML files in configs/trainers/$TRAINER/."
}

# context_node: prints the group of options that has N_CTX, CSC and CLASS_TOKEN_POSITION: TRAINER_NODE, or TRAINER's own.
context_node() {
  local node=COOP
  case $TRAINER in
    KgCoOp) node=KGCOOP ;;
    ProGrad) node=PROGRAD ;;
  esac
  echo "TRAINER.${TRAINER_NODE:-$node}"
}

# needs_training DATASET [SUBSAMPLE]: fails if TRAINER learns nothing; the message names the call that tests it.
needs_training() {
  local cfg=vit_b16 environment=${2:+SUBSAMPLE=$2 }
  if [[ $TRAINER != ZeroshotCLIP* && $TRAINER != TPT ]]; then return; fi
  if [[ $TRAINER != ZeroshotCLIP ]]; then environment="TRAINER=$TRAINER $environment"; fi
  if [[ $1 == shapes* ]]; then cfg=tiny; fi
  fail "TRAINER is $TRAINER, which learns nothing.\
 Test it without training: ${environment}bash scripts/coop/zeroshot.sh $1 $cfg"
}

# names PATHS...: prints the file names on one line, without .yaml.
names() {
  local path list=
  for path in "$@"; do
    path=${path##*/}
    list+=" ${path%.yaml}"
  done
  echo "${list# }"
}

# near NAME NAMES: prints " Did you mean X?" if one of NAMES, words in one string, is close to NAME.
near() {
  "$PYTHON" - "$1" "$2" 2>/dev/null <<<'import sys
from engine.registry import near_name
print(near_name(sys.argv[1], sys.argv[2].split()))' || true
}

if [[ ! $SEEDS =~ ^[-0-9[:space:]]+$ ]]; then fail "SEEDS is $SEEDS, expected whole numbers such as SEEDS=\"1 2 3\"."; fi

# interrupted NAME CODE: passes the signal on to the current run; the script ends when that has ended.
interrupted() {
  N_HEARD=$((N_HEARD + 1)) SIGNAL=$2
  if [[ -z $CHILD ]]; then exit "$SIGNAL"; fi
  kill -s "$1" "$CHILD" 2>/dev/null || true
}

# run COMMAND...: runs it in the background and waits: bash handles no signal while a command runs in the foreground.
run() {
  local code n_heard
  "$@" &
  CHILD=$!
  while true; do
    n_heard=$N_HEARD code=0
    wait "$CHILD" || code=$?
    if ((n_heard == N_HEARD)); then break; fi # else a signal ended the wait, not the command
  done
  CHILD=
  if [[ -n $SIGNAL ]]; then exit "$SIGNAL"; fi
  if ((code == 130 || code == 143)); then exit "$code"; fi
  return "$code"
}

# perform COMMAND...: runs it; a dry run prints it.
perform() {
  if [[ ${DRY_RUN:-0} != 1 ]]; then
    run "$@"
    return
  fi
  printf '%q' "$1"
  printf ' %q' "${@:2}"
  echo
}

# train FOLDER ARGUMENTS...: calls train.py once, with FOLDER as the run folder; remembers a failure.
train() {
  local folder=$1
  shift
  local command=("$PYTHON" train.py ${DATA:+--root "$DATA"} --output-dir "$folder")
  command+=(${PLUGIN:+--plugin "$PLUGIN"} ${PLUGIN_CONFIG:+--plugin-config "$PLUGIN_CONFIG"} "$@")
  if perform "${command[@]}"; then return; fi
  FAILED+=("$folder")
  # It failed before the run started: another seed would fail in the same way.
  if [[ ! -f $folder/config.yaml ]]; then finish; fi
}

# needs_run FOLDER COMMAND: fails unless FOLDER holds a finished run; the message names the COMMAND that trains it.
needs_run() {
  local folder=$1 problem="does not exist" environment=${DATA:+DATA=$(printf '%q' "$DATA") }
  if [[ ${DRY_RUN:-0} == 1 || -f $folder/results.json ]]; then return; fi # a dry run shows the command anyway
  if [[ -f $folder/config.yaml ]]; then
    problem="was begun and is not finished"
  elif compgen -G "$folder/*/model*.pth.tar*" >/dev/null; then
    return # a run of the original code: checkpoints without config.yaml and results.json
  fi
  environment+=${PLUGIN:+PLUGIN=$(printf '%q' "$PLUGIN") }
  environment+=${PLUGIN_CONFIG:+PLUGIN_CONFIG=$(printf '%q' "$PLUGIN_CONFIG") }${TRAINER_NODE:+TRAINER_NODE=$TRAINER_NODE }
  if [[ $OUTPUT != output ]]; then environment+="OUTPUT=$(printf '%q' "$OUTPUT") "; fi
  echo "Error: The run $folder $problem. Train it first: $environment$2" >&2
  FAILED+=("$folder")
  return 1
}

# evaluate FOLDER MODEL PAIRS...: tests the run in MODEL (of TRAINER, CFG, SEED) on DATASET; FOLDER is the run folder.
evaluate() {
  local folder=$1 model=$2 epoch
  shift 2
  epoch=$(last_epoch "$model")
  train "$folder" \
    --seed "$SEED" \
    --trainer "$TRAINER" \
    --dataset-config-file "configs/datasets/$DATASET.yaml" \
    --config-file "configs/trainers/$TRAINER/$CFG.yaml" \
    --model-dir "$model" \
    ${epoch:+--load-epoch "$epoch"} \
    --eval-only \
    "$@"
}

# last_epoch FOLDER: prints the epoch to load from FOLDER: the MAX_EPOCH of its run, or of CFG if it has none yet.
# Nothing where the run tested its best epoch, or has one model: that is what is loaded then.
last_epoch() {
  local yaml=$1/config.yaml
  case $TRAINER in
    LinearProbe | TipAdapter | GDA) return ;;
  esac
  if [[ ! -f $yaml ]]; then yaml=configs/trainers/$TRAINER/$CFG.yaml; fi
  if [[ -f $yaml && $(setting FINAL_MODEL "$yaml") != best_* ]]; then setting MAX_EPOCH "$yaml"; fi
}

# setting KEY YAML: prints what a config, or its _BASE_, has under KEY.
setting() {
  local value base
  value=$(sed -n "s/^ *$1: *[\"']\{0,1\}\([A-Za-z0-9_]*\).*/\1/p" "$2")
  base=$(sed -n "s/^_BASE_: *[\"']\{0,1\}\([^\"' ]*\).*/\1/p" "$2")
  if [[ -z $value && -n $base ]]; then setting "$1" "$(dirname "$2")/$base"; else echo "$value"; fi
}

# finish: the last line of a script; lists the runs that failed, and fails if there are any.
finish() {
  if ((${#FAILED[@]} == 0)); then return; fi
  printf 'Failed: %s\n' "${FAILED[@]}" >&2
  echo "First do what the error says. Finished runs are kept: called again, the command does only what is left." >&2
  exit 1
}
