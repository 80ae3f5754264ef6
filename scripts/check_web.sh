#!/usr/bin/env bash
# Checks the JavaScript of the page and of the additions to OHIF: ESLint, Prettier, types, unit tests. Installs these
# tools into apps/segmed/web/node_modules; where that cannot be done, they are skipped with a notice.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/node.sh
if ! want_node || ! node -e 'process.exit(parseInt(process.version.slice(1)) < 20 ? 1 : 0)'; then
  echo "The JavaScript is not checked: that needs Node.js 20 or newer." >&2
  exit 0
fi
cd apps/segmed/web
stamp=node_modules/.installed
wanted=$(cat package.json package-lock.json | sha256sum | cut -d' ' -f1)
if [ "$(cat $stamp 2>/dev/null)" != "$wanted" ]; then
  if ! npm ci --ignore-scripts --no-progress --loglevel=error --fetch-retries=2 --fetch-retry-mintimeout=500 >&2; then
    echo "The JavaScript is not checked: its tools could not be fetched from the npm registry." >&2
    exit 0
  fi
  echo "$wanted" >$stamp
fi
npm run --silent check
npm test --silent
