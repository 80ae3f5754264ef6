#!/usr/bin/env bash
# Set up as for serving, then check style and types, of the JavaScript too, and run every test: ./scripts/test.sh [pytest options]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./scripts/setup.sh --dev
# a PACS, a browser, a checker of DICOM files and a reverse proxy; without them their tests are skipped with a notice
missing=()
command -v Orthanc >/dev/null || missing+=(orthanc orthanc-dicomweb)
command -v chromium >/dev/null || missing+=(chromium)
command -v dciodvfy >/dev/null || missing+=(dicom3tools)
PATH=$PATH:/usr/sbin command -v nginx >/dev/null || missing+=(nginx-light)
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing ${missing[*]} for the tests …" >&2
    policy=/usr/sbin/policy-rc.d  # Debian's package would start a PACS of its own
    [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && made=$policy; }
    (apt-get update -qq && apt-get install -y -qq -o DPkg::Lock::Timeout=300 --no-install-recommends "${missing[@]}") >/dev/null 2>&1 ||
      echo "They could not be installed; the tests that need them are skipped." >&2
    rm -f ${made:-}
  else
    echo "Tests that need ${missing[*]} are skipped. Install them by: sudo apt-get install ${missing[*]}" >&2
  fi
fi
scripts/check_web.sh
.venv/bin/python -c "import ipykernel, nbclient" 2>/dev/null ||
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-tutorial.txt ||
  echo "The packages that run the tutorial could not be installed; its test is skipped." >&2
scripts/build_docs.sh || [ $? = 3 ]  # 3: its tools could not be installed
.venv/bin/ruff check .
.venv/bin/mypy
# servers, browsers and a PACS on a busy machine: what fails is tried once more; such tests are marked R
pytest() { .venv/bin/python -m pytest --reruns 1 "$@"; }
if [ $# -gt 0 ]; then
  pytest "$@"
  exit
fi
# Two halves side by side, each on one core, in the order in which one process would run them; the report of the
# servers and viewers comes last.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
log=$(mktemp)
pytest tests/server tests/viewer >"$log" 2>&1 &
servers=$!
# `|| true`: a command that fails in the trap would turn a passed run into a failed one
trap 'kill $servers 2>/dev/null || true; rm -f "$log"' EXIT
failed=0
pytest tests --ignore tests/server --ignore tests/viewer || failed=$?
wait $servers || failed=$?
cat "$log"
exit $failed
