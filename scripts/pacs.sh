#!/usr/bin/env bash
# A PACS for trying OHIF: a local Orthanc with the demo study: ./scripts/pacs.sh [--port N] [--folder DIR] [--empty]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if ! command -v Orthanc >/dev/null; then
  echo "Orthanc is not installed. On Debian or Ubuntu: sudo apt-get install orthanc orthanc-dicomweb" >&2
  echo "The package starts a PACS of its own on port 8042; stop it by: sudo systemctl disable --now orthanc" >&2
  exit 1
fi
"$here/setup.sh"
exec "$here/../.venv/bin/python" "$here/pacs.py" "$@"
