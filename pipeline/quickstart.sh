#!/usr/bin/env bash
# The whole path on simulated robot and hand video, or on your own videos as well:
#   bash pipeline/quickstart.sh [--videos DIR] [--out DIR]
# Makes its own environment, runs every stage, and ends with the paths of the report and the exported policy.
# Running it again does only what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

videos="" out=""
while [ $# -gt 0 ]; do
    case "$1" in
        --videos) videos=${2:?--videos needs a folder}; shift 2 ;;
        --out) out=${2:?--out needs a folder}; shift 2 ;;
        -h | --help) sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) echo "quickstart: unknown option $1 (see --help)" >&2; exit 2 ;;
    esac
done

config=pipeline/configs/quickstart.yaml
overrides=()
if [ -n "$videos" ]; then
    [ -d "$videos" ] || { echo "quickstart: --videos $videos is not a folder" >&2; exit 2; }
    config=pipeline/configs/videos.yaml
    overrides+=(--set "index.sources.1.path=$(cd "$videos" && pwd)")
fi
[ -n "$out" ] || out=runs/$(basename "$config" .yaml)
overrides+=(--set "run.out=$out")

bash pipeline/install.sh
export MUJOCO_GL=osmesa LP_NUM_THREADS=1 HF_HUB_OFFLINE=1
.venv/bin/python -m pipeline run "$config" "${overrides[@]}"
echo "policy: $(cd "$out" && pwd)/export/policy"
