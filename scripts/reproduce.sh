#!/usr/bin/env bash
# Runs what tables of the papers need, skipping what is done, then prints them beside the papers' numbers.
#
#   bash scripts/reproduce.sh TABLE [TABLE ...]
#   bash scripts/reproduce.sh shapes
#   DRY_RUN=1 bash scripts/reproduce.sh base_to_new
#
#   TABLE  the name of a table, as `python report.py --help` lists them, or a group of them: coop, cocoop, methods, or in
#          miniature shapes, shapes_methods
#
# Calling it again does only what is left. DRY_RUN=1 lists the commands and how many runs are left.
# Environment: DATA SEEDS OUTPUT DRY_RUN PYTHON (scripts/_common.sh);
#   JOBS, runs side by side (default: one for each GPU, else for each core, at most 4);
#   OMP_NUM_THREADS, threads of each (default: the cores divided by JOBS)

source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

if (($# == 0)); then wrong_call "there are 0 arguments, expected a TABLE."; fi
export DATA SEEDS
FLAGS=(--output-dir "$OUTPUT" ${JOBS:+--jobs "$JOBS"})
if [[ ${DRY_RUN:-0} == 1 ]]; then FLAGS+=(--dry-run); fi
exec "$PYTHON" reproduce.py "${FLAGS[@]}" "$@"
