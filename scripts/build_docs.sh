#!/usr/bin/env bash
# Builds the documentation site into build/site, and fails on links that lead nowhere: ./scripts/build_docs.sh [--serve]
# Its tools are in .venv-docs, apart from what SegMed runs with. `--serve` shows the site while you edit it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools=.venv-docs
stamp=$tools/.installed
wanted=$(sha256sum requirements-docs.txt | cut -d' ' -f1)
if [ "$(cat $stamp 2>/dev/null)" != "$wanted" ]; then
  echo "Installing the tools of the documentation into $tools …" >&2
  python=$(command -v python3.11 || command -v python3 || echo .venv/bin/python)
  [ -x $tools/bin/python ] || "$python" -m venv $tools
  if ! $tools/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt; then
    echo "They could not be installed, so the documentation was not built and its links were not checked." >&2
    exit 3
  fi
  echo "$wanted" >$stamp
fi
export NO_MKDOCS_2_WARNING=1 # of the theme about its successor; versions are pinned
if [ "${1:-}" = --serve ]; then
  exec $tools/bin/mkdocs serve
fi
# not --quiet: strict mode counts only the warnings that are shown
said=$(mktemp)
trap 'rm -f "$said"' EXIT
if ! $tools/bin/mkdocs build --strict >"$said" 2>&1; then
  cat "$said" >&2
  exit 1
fi
echo "The documentation is in build/site/index.html." >&2
