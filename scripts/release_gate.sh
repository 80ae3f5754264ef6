#!/usr/bin/env bash
# Long campaigns before a release; the suite runs a short part of each: ./scripts/release_gate.sh [FIRST SEED]
# The soak takes SOAK_MINUTES, 10 by default.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
first=${1:-1000}
python=.venv/bin/python
echo "6,000 mutated files from seed $first …"
SEGMED_MUTATIONS=6000 SEGMED_FIRST_MUTATION=$first $python -m pytest -q tests/gate/test_mutated_files.py
echo "Kills at every change of the disk, full disks, damaged lists, two servers on one folder …"
$python -m pytest -q tests/server/datastores/test_label_safety.py tests/active/test_killed.py tests/gate/test_full_disk.py \
  tests/server/datastores/test_two_servers.py
echo "Requests that no viewer sends, and bursts …"
$python -m pytest -q tests/server/http/test_hostile_requests.py tests/server/http/test_client_json.py tests/server/http/test_turns.py
echo "5,000 odd prompts from seed $first …"
SEGMED_INFER_REQUESTS=5000 SEGMED_FIRST_INFER=$first $python -m pytest -q tests/gate/test_infer_fuzz.py
echo "200 sequences of prompts and edits from seed $first …"
SEGMED_SEQUENCES=200 SEGMED_FIRST_SEQUENCE=$first $python -m pytest -q tests/server/workspace/test_prompt_sequences.py
echo "200 requests to each endpoint, made from the description of the interface, from seed $first …"
SEGMED_OPENAPI_EXAMPLES=200 SEGMED_OPENAPI_SEED=$first $python -m pytest -q tests/gate/test_openapi.py
echo "A PACS that is silent, or that answers every other time …"
$python -m pytest -q tests/server/http/test_threads.py tests/server/datastores/test_flapping_pacs.py
echo "Sixteen clients for ${SOAK_MINUTES:-10} minutes …"
$python scripts/soak.py --minutes "${SOAK_MINUTES:-10}" --seed "$first"
echo "An archive of 100,000 items, in which workers and runs are killed; kills at every change of a manifest …"
$python scripts/bench_batch.py archive
SEGMED_KILL_STEP=1 $python -m pytest -q tests/batch/test_batch_killed.py
echo "Memory after 10,000 requests, and waiting times of many …"
$python scripts/bench_memory.py
$python scripts/bench_crowd.py
