#!/usr/bin/env bash
# Makes .venv with everything that is pinned, and the web page; does nothing when they are already there.
#
#   ./scripts/setup.sh [--torch auto|cpu|cuda] [--dev]
#
# --torch: PyTorch without CUDA, with it, or (auto) with it where there is a driver of NVIDIA. Where the build without
#   CUDA cannot be had, the other one is taken, after a notice. The choice is kept for later calls.
# --dev: also what the checks, the tests and benchmarks on many machines need.
#
# The packages come from requirements.lock and, with --dev, requirements-dev.lock, whose hashes say that they are those
# that SegMed was tested with. Where that fails, as with mirrors that build packages themselves, the same versions are
# taken without hashes, after a notice; SEGMED_REQUIRE_HASHES=1 ends the set-up instead. SEGMED_TORCH_INDEX is where
# PyTorch without CUDA comes from.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { echo "$1 Usage: ./scripts/setup.sh [--torch auto|cpu|cuda] [--dev]" >&2; exit 2; }
stamp=.venv/.segmed-packages  # the locks and the build of PyTorch that .venv was made with
torch="" dev=""
while [ $# -gt 0 ]; do
  case $1 in
    --torch) torch=${2:-}; shift ;;
    --torch=*) torch=${1#*=} ;;
    --dev) dev=yes ;;
    *) usage "$1 is unknown." ;;
  esac
  shift || usage "--torch needs a value."
done
before=$(cat $stamp 2>/dev/null || true)
[ -n "$torch" ] || torch=$(sed -n 's/^torch //p' <<<"$before")
[ -n "$torch" ] || torch=auto
case $torch in auto | cpu | cuda) ;; *) usage "--torch $torch is unknown." ;; esac

has_gpu() { [ -d /proc/driver/nvidia ] || command -v nvidia-smi >/dev/null; }
locks=(requirements.lock)
[ -z "$dev" ] || locks+=(requirements-dev.lock)
wanted=$(for lock in "${locks[@]}" pyproject.toml; do sha256sum "$lock"; done
  echo "torch $torch"
  [ $torch != auto ] || if has_gpu; then echo "with a GPU"; else echo "without a GPU"; fi)
missing=$(grep -vxF "$before" <<<"$wanted" || true)
if [ -x .venv/bin/segmed ] && [ -z "$missing" ]; then
  exec scripts/build_web.sh
fi

build_of() { grep -E '^torch |a GPU$' || true; }
if [ -e .venv/.segmed-installed ]; then
  echo "NOTICE: .venv is of an earlier version with other packages, and is made anew." >&2
  rm -rf .venv
elif [ -n "$before" ] && [ "$(build_of <<<"$before")" != "$(build_of <<<"$wanted")" ]; then
  echo "NOTICE: .venv has another build of PyTorch, and is made anew." >&2
  rm -rf .venv
fi
python=""
for candidate in python3.11 python3.12 python3.13 python3 python; do
  if command -v $candidate >/dev/null &&
    $candidate -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ] && [ ! -x .venv/bin/python ]; then
  echo "SegMed needs Python 3.11, 3.12 or 3.13, and none of python3.11, python3.12, python3.13, python3 and python is" \
    "one. Install one and try again." >&2
  exit 1
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
rm -f $stamp

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
# On a terminal the installer's own bars; elsewhere a line now and then.
install() {
  local installer=(.venv/bin/python -m pip --disable-pip-version-check install)
  if command -v uv >/dev/null; then installer=(uv pip install --python .venv/bin/python); fi
  if [ -t 2 ]; then
    "${installer[@]}" "$@" >&2
  else
    "${installer[@]}" "$@" 2>"$work/said" | awk '
      /^(Collecting|Processing)/ { if (++n % 20 == 0) { print "  " n " packages …"; fflush() } }
      /^Installing collected/ { print "  unpacking …"; fflush() }' >&2
  fi
}
complain() { grep -v '^WARNING' "$work/said" 2>/dev/null | tail -n 12 >&2 || true; }

# --- which build of PyTorch ---
build=cuda
if [ "$(uname)" = Linux ] && { [ "$torch" = cpu ] || { [ "$torch" = auto ] && ! has_gpu; }; }; then
  index=${SEGMED_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
  sed -nE 's/^(torch|torchvision)==([^ ]+).*/\1==\2+cpu/p' requirements.txt >"$work/torch.txt"
  echo "Installing PyTorch without CUDA …" >&2
  if .venv/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --retries 1 --timeout 20 \
    --index-url "$index" -r "$work/torch.txt" 2>"$work/said"; then
    build=cpu
  else
    echo "NOTICE: PyTorch without CUDA cannot be had from $index ($(grep -m1 ^ERROR "$work/said" || echo "no answer"))." \
      "The build with CUDA is taken instead, without what only a GPU needs. It runs on CPUs just as well and takes 4 GB" \
      "more." >&2
    build=cuda-without-gpu
  fi
fi

# --- everything else ---
for lock in "${locks[@]}"; do "$PWD/.venv/bin/python" deploy/select_packages.py $build "$lock"; done >"$work/packages.txt"
case $build in cpu) size=2.2 ;; cuda) size=7 ;; *) size=5.7 ;; esac
echo "Installing $(grep -c == "$work/packages.txt") packages into .venv (about $size GB, once) …" >&2
if ! install --no-deps --require-hashes -r "$work/packages.txt"; then
  complain
  if [ "${SEGMED_REQUIRE_HASHES:-0}" = 1 ]; then
    echo "The packages could not be installed with the hashes of requirements.lock, see above. Nothing else was tried," \
      "because SEGMED_REQUIRE_HASHES is 1." >&2
    exit 1
  fi
  echo "NOTICE: the packages could not be installed with the hashes of requirements.lock, see above. The same versions" \
    "are installed without hashes now, so that they are as trustworthy as the package index of this machine. Set" \
    "SEGMED_REQUIRE_HASHES=1 to refuse that." >&2
  sed -E '/^ +--hash/d; s/ *\\$//' "$work/packages.txt" >"$work/versions.txt"
  if ! install --no-deps -r "$work/versions.txt"; then
    complain
    exit 1
  fi
fi
pip install --quiet --no-deps --no-build-isolation -e .
# MONAI Label's own start command finds what stands in for the packages that it is installed without
cp lib/segmed-monailabel.pth "$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
echo "$wanted" >$stamp
exec scripts/build_web.sh
