#!/usr/bin/env bash
# The whole path on simulated robot and hand video, on your own videos as well, or on a robot's labelled data set with or
# without videos beside it; --set changes any value of the configuration:
#   bash pipeline/quickstart.sh [--data-set DIR] [--videos DIR] [--out DIR] [--set a.b=value]...
# DIR of videos or of a data set may be a URL: s3://bucket/videos, hf://datasets/owner/name (docs/sources.md).
# Makes its own environment, runs every stage, and ends with the paths of the report and the exported policy.
# Running it again does only what is missing.
set -euo pipefail
unset CDPATH # with it, cd may go elsewhere
started=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

data_set="" videos="" out="" settings=()
while [ $# -gt 0 ]; do
    case "$1" in
        --data-set) data_set=${2:?--data-set needs a folder}; shift 2 ;;
        --videos) videos=${2:?--videos needs a folder}; shift 2 ;;
        --out) out=${2:?--out needs a folder}; shift 2 ;;
        --set) # run.out has an option of its own, which the last line below needs
            case "${2-}" in run.out=*) echo "quickstart: --set $2: say --out ${2#run.out=}" >&2; exit 2 ;; esac
            settings+=(--set "${2:?--set needs a.b=value}"); shift 2 ;;
        -h | --help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *) echo "quickstart: unknown option $1 (see --help)" >&2; exit 2 ;;
    esac
done

folder() { # OPTION FOLDER: its absolute path; a URL as it is
    case "$2" in *://*) echo "$2"; return ;; esac
    (cd "$started" && cd "$2" 2>/dev/null && pwd) || { echo "quickstart: $1 $2 is not a folder" >&2; exit 2; }
}

quoted() { printf "'%s'" "${1//\'/\'\'}"; } # as YAML, in which "#" and ": " have a meaning

config=quickstart sources=()
if [ -n "$data_set" ]; then
    config=data_set
    data_set=$(folder --data-set "$data_set")
    sources+=(--set "index.sources.0.path=$(quoted "$data_set")")
    case "${settings[*]-}" in
        *index.sources.0.actions*) ;;
        *) echo "quickstart: actions are taken for changes of the end effector's pose in m and rad, in the base's frame;" \
            "where they mean something else, say so: --set 'index.sources.0.actions={unit: rad, frame: joints, mode: absolute}'" ;;
    esac
fi
if [ -n "$videos" ]; then
    if [ -n "$data_set" ]; then config=data_set_and_videos; else config=videos; fi
    videos=$(folder --videos "$videos")
    sources+=(--set "index.sources.1.path=$(quoted "$videos")")
fi
case "$out" in
    "") out=runs/$config ;;
    /*) ;;
    *) out=$started/$out ;;
esac

bash pipeline/install.sh
export LP_NUM_THREADS=1
.venv/bin/python -m pipeline run "pipeline/configs/$config.yaml" --set "run.out=$(quoted "$out")" "${sources[@]}" "${settings[@]}"
echo "policy: $(cd "$out" && pwd)/export/policy"
