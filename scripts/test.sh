#!/usr/bin/env bash
# Set up as for serving, then check style and types and run every test: ./scripts/test.sh [pytest options]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./scripts/setup.sh
# checks DICOM files; without it those tests are skipped with a notice
if ! command -v dciodvfy >/dev/null && [ "$(id -u)" = 0 ]; then
  (apt-get update -qq && apt-get install -y -qq --no-install-recommends dicom3tools) >/dev/null 2>&1 || true
fi
.venv/bin/ruff check .
.venv/bin/mypy
exec .venv/bin/python -m pytest "$@"
