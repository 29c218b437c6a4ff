# Sourced after _common.sh: `install_project`, which puts the project and what it needs into .venv.
# shellcheck shell=bash

# install_project [EXTRA]: makes .venv where there is none, installs unless this setup.py was installed; sets PYTHON.
install_project() {
  local extra=${1:+[$1]} stamp
  if [[ ! -x .venv/bin/python ]]; then make_venv; fi
  PYTHON=.venv/bin/python
  for stamp in ".venv/setup.py$extra" ".venv/setup.py[test]"; do
    if cmp -s setup.py "$stamp"; then return; fi
  done
  if [[ ${DRY_RUN:-0} == 1 ]]; then
    perform "$PYTHON" -m pip install --editable ".$extra"
    return
  fi
  "$PYTHON" -m pip --version >/dev/null 2>&1 ||
    fail "$PWD/.venv has no pip. Delete .venv, then call this script again."
  echo "Installing into .venv: the first time takes minutes, mostly for torch"
  "$PYTHON" -m pip install --editable ".$extra"
  cp setup.py ".venv/setup.py$extra"
}

make_venv() {
  local found
  found=$("$PYTHON" --version 2>&1) || found="not there"
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
    fail "$PYTHON is $found; Python 3.10 or newer is needed. Install one and name it: PYTHON=python3.12 bash $SCRIPT"
  "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$PYTHON has no venv, which makes .venv. On Debian and Ubuntu: sudo apt install python3-venv"
  if [[ ${DRY_RUN:-0} != 1 ]]; then echo "Making .venv with $found"; fi
  perform "$PYTHON" -m venv .venv
}
