#!/usr/bin/env bash
# Creates .venv in the checkout with everything Kinecloud needs; does nothing when that is already there.
#   bash pipeline/install.sh [--dev]      --dev adds the test tools and headless Chromium
set -euo pipefail
unset CDPATH # with it, cd may go elsewhere
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { echo "install: $*" >&2; exit 2; }

dev=0
[ "${1:-}" = --dev ] && dev=1

# Debian names of the shared libraries that the wheels load: OpenCV, MediaPipe and MuJoCo's off-screen renderer.
libraries=(libGL.so.1:libgl1 libEGL.so.1:libegl1 libGLESv2.so.2:libgles2 libglib-2.0.so.0:libglib2.0-0)

system_packages() {
    local known missing=() entry
    known=$(ldconfig -p 2>/dev/null || /sbin/ldconfig -p)
    for entry in "${libraries[@]}"; do
        grep -q "${entry%%:*} " <<<"$known" || missing+=("${entry##*:}")
    done
    if [ "$dev" = 1 ] && ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null \
        && ! command -v google-chrome >/dev/null; then
        missing+=(chromium)
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null \
        || missing+=("$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')")
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "install: system packages ${missing[*]}"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    else
        die "system packages are missing: ${missing[*]}. Install them (Debian: sudo apt-get install ${missing[*]}) and run this again."
    fi
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null \
            && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
            && { echo "$candidate"; return; }
    done
    die "Python 3.11 or newer was not found. Install it, or name it: PYTHON=/path/to/python3.11 bash pipeline/install.sh"
}

python=$(find_python)
wanted=$(cat requirements.txt pipeline/install.sh | sha256sum | cut -c1-16)
wanted_dev=$(cat requirements-dev.txt pipeline/install.sh | sha256sum | cut -c1-16)
mark=.venv/kinecloud-installed
mark_dev=.venv/kinecloud-installed-dev

if [ "$(cat $mark 2>/dev/null)" != "$wanted" ]; then
    system_packages
    echo "install: Python environment .venv ($("$python" --version)); about a minute, more on a slow network"
    "$python" -m venv .venv
    .venv/bin/python -m pip install -qq --disable-pip-version-check "$(grep '^torch==' requirements.txt)"
    .venv/bin/python -m pip install -qq --disable-pip-version-check -r requirements.txt
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps myo-sim==0.2.3
    echo "$wanted" >$mark
fi
if [ "$dev" = 1 ] && [ "$(cat $mark_dev 2>/dev/null)" != "$wanted_dev" ]; then
    system_packages
    .venv/bin/python -m pip install -qq --disable-pip-version-check -r requirements-dev.txt
    # RAFT's network, for its test: in a folder of its own (tests/beside_torchvision.py says why)
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --upgrade --target .venv/torchvision torchvision==0.28.0
    # Triton, for the tests of its kernels: torch for the CPU comes without, and would use it elsewhere if it were there
    .venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --upgrade --target .venv/triton triton==3.9.0
    echo "$wanted_dev" >$mark_dev
fi
