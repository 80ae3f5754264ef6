#!/usr/bin/env bash
# Makes .venv with everything in requirements.txt, and the web page; does nothing when they are already there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stamp=.venv/.segmed-installed
wanted=$(cat requirements.txt pyproject.toml | sha256sum | cut -d' ' -f1)
if [ -x .venv/bin/segmed ] && [ "$(cat $stamp 2>/dev/null)" = "$wanted" ]; then
  exec scripts/build_web.sh
fi

python=""
for candidate in python3.11 python3 python; do
  if command -v $candidate >/dev/null && $candidate -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "SegMed needs Python 3.11, and none of python3.11, python3 and python is one. Install it and try again." >&2
  exit 1
fi

echo "Installing SegMed into .venv (about 9 GB with PyTorch, once) …" >&2
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . 
echo "$wanted" >$stamp
exec scripts/build_web.sh
