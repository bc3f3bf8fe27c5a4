#!/usr/bin/env bash
# Builds the wheel of lerobot_policy_kinecloud:
#   bash align/lerobot_plugin/build.sh [FOLDER]      FOLDER defaults to runs/lerobot_plugin
# PYTHON names another interpreter than that of .venv; it needs setuptools. No network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

out=$(realpath -m "${1:-runs/lerobot_plugin}")
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT

"$python" -m align.lerobot_plugin.assemble "$source"
mkdir -p "$out"
cd "$source"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-315532800}
# setuptools itself, not pip: the wheel is for lerobot's Python, which need not be this one
"$python" -c 'import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])' "$out" \
    >build.log 2>&1 || { cat build.log >&2; exit 1; }
ls "$out"/lerobot_policy_kinecloud-*.whl
