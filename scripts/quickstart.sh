#!/usr/bin/env bash
# The whole way in minutes, offline once installed: zero-shot CLIP, then CoOp with 16 shots, on the drawn `shapes`.
#
#   bash scripts/quickstart.sh
#
# Makes .venv and installs into it first. Calling it again does only what is left.
# Environment: DATA SEEDS OUTPUT DRY_RUN (scripts/_common.sh); PYTHON, which makes .venv (default: python3);
#   OMP_NUM_THREADS (default: 1)

source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"
source scripts/_venv.sh

usage 0 "$@"
install_project
export PYTHON
# The matrices are so small that waiting for a second thread costs more than the thread gives.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
zeroshot=$OUTPUT/ZeroshotCLIP/tiny/shapes
coop=$OUTPUT/shapes/CoOp/tiny_16shots/nctx16_cscFalse_ctpend

run bash scripts/coop/zeroshot.sh shapes tiny
run bash scripts/coop/main.sh shapes tiny end 16 16 False
if [[ ${DRY_RUN:-0} == 1 ]]; then exit; fi
"$PYTHON" parse_test_res.py "$coop"

"$PYTHON" - "$zeroshot" "$coop" <<'EOS'
import sys
from pathlib import Path

from parse_test_res import END_OF_TEST, parse_experiment, parse_run, summarise

zero_shot = parse_run(Path(sys.argv[1]), end_signal=END_OF_TEST).value
accuracies = [run.value for run in parse_experiment(Path(sys.argv[2])) if run.value is not None]
mean, std = summarise(accuracies)
print("\nAccuracy on shapes, 96 classes, 16 shots (%)")
print(f"zero-shot CLIP  {zero_shot:6.2f}")
print(f"CoOp            {mean:6.2f} +- {std:.2f}   ({len(accuracies)} seeds)")
print(f"gain            {mean - zero_shot:+6.2f}")
EOS
echo "Time: $((SECONDS / 60)) min $((SECONDS % 60)) s"
