#!/usr/bin/env bash
# All checks and tests from a bare clone: makes the environment, then ruff, pyright and pytest.
#   bash tests/run.sh [pytest arguments]
# KINECLOUD_FOOTAGE names a folder of real footage; without it those tests are skipped by name. So is, without
# KINECLOUD_OPENPI, a Python that openpi-client is installed for, the test with that client (docs/serving.md), and without
# KINECLOUD_LEROBOT, a Python that lerobot is installed for, those with lerobot (docs/lerobot.md,
# docs/lerobot_policy.md).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash pipeline/install.sh --dev

# files of tests are shared out over the cores, so each process has one
export LP_NUM_THREADS=1 OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
.venv/bin/ruff check --quiet .
.venv/bin/ruff format --check --quiet .
.venv/bin/pyright
exec .venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile "$@"
