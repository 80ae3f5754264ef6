#!/usr/bin/env bash
# Builds the page at / into apps/segmed/web/dist; does nothing when its sources have not changed. Without it the server
# runs all the same.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
. scripts/node.sh
web=$PWD/apps/segmed/web
sources=(package.json package-lock.json build.js index.html docs.html style src)

wanted=$(cd "$web" && find "${sources[@]}" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
if [ "$(cat "$web/dist/.built" 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi

echo "Building the web page …" >&2
work=$(mktemp -d "$web/.build-XXXXXX")
trap 'rm -rf "$work"' EXIT
install() { # without the tools of developers
  npm ci --omit=dev --ignore-scripts --no-progress --loglevel=error --fetch-retries=2 --fetch-retry-mintimeout=500 >&2
}
if want_node &&
  (cd "$web" && cp -r "${sources[@]}" .npmrc "$work") &&
  (cd "$work" && install && node build.js dist) &&
  echo "$wanted" >"$work/dist/.built"; then
  rm -rf "$web/dist"
  mv "$work/dist" "$web/dist"
else
  echo "The web page was not built: it needs Node.js 18 or newer and the npm registry. 3D Slicer and OHIF work" \
    "without it; run ./scripts/build_web.sh when the network is there." >&2
fi
exit 0
