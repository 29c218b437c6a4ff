# Sourced by every experiment's script: where things are; `train`, which runs train.py once and remembers failures;
# which model a test loads.
#
# Environment:
#   DATA     folder that holds the data sets' folders; unset: the data set's default (`shapes`: data/)
#   SEEDS    seeds, one run each (default: "1 2 3")
#   OUTPUT   folder of all runs (default: output)
#   PLUGIN   a trainer or data set that is not ours: a .py file, or a module; PLUGIN_CONFIG: the YAML of its options
#   DRY_RUN  1: print the commands instead of running them
#   PYTHON   the interpreter (default: .venv/bin/python where it is there, else python3)
# DATA, OUTPUT and these files are relative to the caller's folder; all else is relative to the repository's root.
# A run that is done already says so and costs seconds; an unfinished one goes on where it was.
# Ctrl-C and SIGTERM end the run that goes, which saves where it stands, and then the script, with 130 or 143.
# shellcheck shell=bash

set -euo pipefail

# absolute PATH: prints it as a path that does not depend on the current folder.
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
N_HEARD=0 SIGNAL= # how many signals came, and the exit code after the last one
trap 'interrupted INT 130' INT
trap 'interrupted TERM 143' TERM

# usage COUNT ARGUMENTS...: ends the script with its header as help, unless there are COUNT arguments and then pairs.
usage() {
  local count=$1 given=$(($# - 1))
  if ((given >= count && (given - count) % 2 == 0)); then return; fi
  wrong_call "there are $given arguments, expected $count and then KEY VALUE pairs."
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

if [[ ! $SEEDS =~ ^[-0-9[:space:]]+$ ]]; then fail "SEEDS is $SEEDS, expected whole numbers such as SEEDS=\"1 2 3\"."; fi

# interrupted NAME CODE: passes a signal on to what runs, which ends the script when it has ended.
interrupted() {
  N_HEARD=$((N_HEARD + 1)) SIGNAL=$2
  if [[ -z $CHILD ]]; then exit "$SIGNAL"; fi
  kill -s "$1" "$CHILD" 2>/dev/null || true
}

# run COMMAND...: runs it beside the script, since bash hears no signal while it waits for what runs in it.
run() {
  local code n_heard
  "$@" &
  CHILD=$!
  while true; do
    n_heard=$N_HEARD code=0
    wait "$CHILD" || code=$?
    if ((n_heard == N_HEARD)); then break; fi # else the wait has ended, and not what is waited for
  done
  CHILD=
  if [[ -n $SIGNAL ]]; then exit "$SIGNAL"; fi
  if ((code == 130 || code == 143)); then exit "$code"; fi
  return "$code"
}

# train FOLDER ARGUMENTS...: one call of train.py whose run lies in FOLDER.
train() {
  local folder=$1
  shift
  local command=("$PYTHON" train.py ${DATA:+--root "$DATA"} --output-dir "$folder")
  command+=(${PLUGIN:+--plugin "$PLUGIN"} ${PLUGIN_CONFIG:+--plugin-config "$PLUGIN_CONFIG"} "$@")
  if [[ ${DRY_RUN:-0} == 1 ]]; then
    printf '%q' "${command[0]}"
    printf ' %q' "${command[@]:1}"
    echo
    return
  fi
  if run "${command[@]}"; then return; fi
  FAILED+=("$folder")
  # It failed before it started, so what is wrong is not the seed: the others would fail alike.
  if [[ ! -f $folder/config.yaml ]]; then finish; fi
}

# needs_run FOLDER COMMAND: fails unless FOLDER holds a trained run, and names the COMMAND that trains it.
needs_run() {
  local folder=$1 problem="does not exist" environment=${DATA:+DATA=$(printf '%q' "$DATA") }
  if [[ ${DRY_RUN:-0} == 1 || -f $folder/results.json ]]; then return; fi # a dry run shows the command anyway
  if [[ -f $folder/config.yaml ]]; then
    problem="was begun and is not finished"
  elif compgen -G "$folder/*/model*.pth.tar*" >/dev/null; then
    return # the original's runs: checkpoints without config.yaml and results.json
  fi
  environment+=${PLUGIN:+PLUGIN=$(printf '%q' "$PLUGIN") }
  environment+=${PLUGIN_CONFIG:+PLUGIN_CONFIG=$(printf '%q' "$PLUGIN_CONFIG") }
  if [[ $OUTPUT != output ]]; then environment+="OUTPUT=$(printf '%q' "$OUTPUT") "; fi
  echo "Error: The run $folder $problem, expected a finished one to test. Train it first: $environment$2" >&2
  FAILED+=("$folder")
  return 1
}

# evaluate FOLDER MODEL PAIRS...: tests the run in MODEL, of TRAINER with CFG and SEED, on DATASET.
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

# last_epoch FOLDER: prints the epoch to load from FOLDER, where TRAINER is or will be trained with CFG.
last_epoch() {
  local yaml=$1/config.yaml
  if [[ $TRAINER == LinearProbe ]]; then return; fi # it saves its best model only
  if [[ ! -f $yaml ]]; then yaml=configs/trainers/$TRAINER/$CFG.yaml; fi
  if [[ -f $yaml ]]; then max_epoch "$yaml"; fi
}

# max_epoch YAML: prints the MAX_EPOCH of a config, or of the one that it is based on.
max_epoch() {
  local epoch base
  epoch=$(sed -n 's/^ *MAX_EPOCH: *\([0-9]*\).*/\1/p' "$1")
  base=$(sed -n "s/^_BASE_: *[\"']\{0,1\}\([^\"' ]*\).*/\1/p" "$1")
  if [[ -z $epoch && -n $base ]]; then max_epoch "$(dirname "$1")/$base"; else echo "$epoch"; fi
}

# finish: the last line of a script; says which runs failed, and fails if one did.
finish() {
  if ((${#FAILED[@]} == 0)); then return; fi
  printf 'Failed: %s\n' "${FAILED[@]}" >&2
  echo "Finished runs are kept: the same command does only what is left." >&2
  exit 1
}
