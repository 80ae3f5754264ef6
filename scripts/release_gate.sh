#!/usr/bin/env bash
# Long campaigns before a release; the suite runs a short part of each: ./scripts/release_gate.sh [FIRST SEED]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
first=${1:-1000}
echo "6,000 mutated files from seed $first …"
SEGMED_MUTATIONS=6000 SEGMED_FIRST_MUTATION=$first .venv/bin/python -m pytest -q tests/gate/test_mutated_files.py
echo "Kills at every change of the disk, full disks, damaged lists …"
.venv/bin/python -m pytest -q tests/server/test_label_safety.py tests/active/test_killed.py
echo "Requests that no viewer sends, and bursts …"
.venv/bin/python -m pytest -q tests/server/test_hostile_requests.py tests/server/test_client_json.py tests/server/test_turns.py
