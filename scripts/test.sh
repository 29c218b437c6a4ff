#!/usr/bin/env bash
# Lints the code, then runs the tests, one process for each core.
#
#   bash scripts/test.sh [quick | robust] [PYTEST ARGUMENTS]
#   bash scripts/test.sh quick -k coop
#   bash scripts/test.sh -n 0 --pdb tests/engine
#
#   quick   leaves out the tests that take seconds each or need real data
#   robust  runs only the long forms: hostile, broken and dirty files, full disks, kills. No other call runs them.
#
# Makes .venv and installs into it first.
# Environment: COOP_DATA, an absolute path: folder of real data sets; PYTHON, which makes .venv (default: python3)

source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
source scripts/_venv.sh

DRY_RUN=0 install_project test
TIER=()
case ${1:-} in
  quick) TIER=(-m "not slow and not real_data and not robust") ;;
  robust) TIER=(-m robust) ;;
esac
if [[ ${#TIER[@]} -gt 0 ]]; then shift; fi

export OMP_NUM_THREADS=1 # the tests share the cores
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile ${TIER[@]+"${TIER[@]}"} "$@"
