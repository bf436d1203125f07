# Sourced by the scripts beside it: the virtual environment in the repository root, made with $PYTHON
# or else the newest Python that is found.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
environment="$root/.venv"

fail() {
  echo "$1" >&2
  exit 1
}

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3 python; do
    if "$candidate" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' \
      2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "No Python 3.11 or newer with venv and pip was found: install one and run this again."
}

# What an environment is made from; when it changes, the environment is made anew.
fingerprint() {
  "$1" - "$root" <<'PYTHON'
import hashlib, pathlib, sys

root = pathlib.Path(sys.argv[1])
digest = hashlib.sha256(f"{root} {sys.version}".encode())
for name in ("pyproject.toml", "constraints.txt"):
    digest.update((root / name).read_bytes())
print(digest.hexdigest())
PYTHON
}

# use_environment [EXTRAS]: make .venv hold the package, with EXTRAS such as "torch,eval,dev".
# A file .venv/.clp_jax marks it as ours and, once all is installed, lists what it holds.
use_environment() {
  local extras="${1:-}" python wanted marker="$environment/.clp_jax"
  python="$(find_python)"
  wanted="$(fingerprint "$python")"
  if [[ -e $environment && ! -e $marker ]]; then
    fail "$environment was not made by this script: move it away and run this again."
  fi
  if ! grep -qs "^$wanted " "$marker"; then
    echo "Making a virtual environment in .venv with $("$python" --version) ..."
    rm -rf "$environment"
    mkdir "$environment"
    : >"$marker"
    "$python" -m venv "$environment"
  elif grep -q "^$wanted extras=$extras" "$marker"; then
    return
  fi
  echo "Installing clp_jax${extras:+ with $extras} (one to five minutes, once) ..."
  # What is imported is compiled then; of most packages that is little.
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile \
    --constraint "$root/constraints.txt" --editable "$root${extras:+[$extras]}"
  echo "$wanted extras=$extras" >>"$marker"
}
