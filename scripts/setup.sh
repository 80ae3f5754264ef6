#!/usr/bin/env bash
# Makes .venv with everything that is pinned, and the web page; does nothing when they are already there.
# The packages come from requirements.lock, whose hashes say that they are those that SegMed was tested with. Where that
# fails, as with mirrors that build packages themselves, the same versions are taken without hashes, after a notice;
# SEGMED_REQUIRE_HASHES=1 ends the set-up instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stamp=.venv/.segmed-installed
lists=(requirements.txt requirements-baselines.txt requirements-cluster.txt requirements-dev.txt)
wanted=$(cat "${lists[@]}" requirements.lock pyproject.toml | sha256sum | cut -d' ' -f1)
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
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
# packages of earlier versions that would lie in the way: opencv-python has the files of opencv-python-headless
pip show --quiet opencv-python 2>/dev/null && pip uninstall --quiet --yes opencv-python opencv-python-headless
pip uninstall --quiet --yes dcmqi 2>/dev/null || true

said=$(mktemp)
trap 'rm -f "$said"' EXIT
if ! pip install --quiet --require-hashes -r requirements.lock 2>"$said"; then
  grep -v '^WARNING' "$said" | tail -n 12 >&2 || true
  if [ "${SEGMED_REQUIRE_HASHES:-0}" = 1 ]; then
    echo "The packages could not be installed with the hashes of requirements.lock, see above. Nothing else was tried," \
      "because SEGMED_REQUIRE_HASHES is 1." >&2
    exit 1
  fi
  echo "NOTICE: the packages could not be installed with the hashes of requirements.lock, see above. The same versions" \
    "are installed without hashes now, so that they are as trustworthy as the package index of this machine. Set" \
    "SEGMED_REQUIRE_HASHES=1 to refuse that." >&2
  options=()
  for list in "${lists[@]}"; do options+=(-r "$list"); done
  pip install --quiet "${options[@]}"
fi
pip install --quiet --no-deps --no-build-isolation -e .
echo "$wanted" >$stamp
exec scripts/build_web.sh
