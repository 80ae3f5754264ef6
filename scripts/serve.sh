#!/usr/bin/env bash
# Start the SegMed server: ./scripts/serve.sh [--studies DIR_OR_DICOMWEB_URL] [--port N] [--conf K V …]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/setup.sh"
exec "$here/../.venv/bin/segmed" serve "$@"
