#!/usr/bin/env bash
# Lints the code, then runs the tests.
#
#   bash scripts/test.sh [quick] [PYTEST ARGUMENTS]
#   bash scripts/test.sh quick -k coop
#
#   quick  leaves out the tests that take longer than 5 seconds or need real data
#
# Makes .venv and installs into it first.
# Environment: COOP_DATA, an absolute path: folder of real data sets; PYTHON, which makes .venv (default: python3)

source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
source scripts/_venv.sh

install_project test
TIER=()
if [[ ${1:-} == quick ]]; then
  TIER=(-m "not slow and not real_data")
  shift
fi

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m pytest ${TIER[@]+"${TIER[@]}"} "$@"
