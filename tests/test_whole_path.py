"""The whole path in small, as a newcomer runs it: every stage, the report, the exported policy, and a second run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.browser import browse

ROOT = Path(__file__).resolve().parent.parent
SMALL = {
    "simulate": {
        "labelled_tasks": ["drawer-close-v3"],
        "video_only_tasks": ["drawer-open-v3"],
        "robot_episodes": 3,
        "hand_episodes": 1,
        "closeup_clips": 1,
        "closeup_seconds": 1.0,
    },
    "index": {"sources": [{"name": "simulated", "kind": "simulation"}]},
    "extract": {"episodes_per_unit": 4},
    "pack": {"val_fraction": 0.3},
    "pretrain": {"steps": 4, "batch_size": 4, "checkpoint_every": 2, "model": {"width": 32, "layers": 1, "heads": 2}},
    "align": {"steps": 4, "batch_size": 4},
    "rollout": {"tasks": ["drawer-close-v3"], "episodes": 1, "max_seconds": 1.0},
    "export": {},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    config = folder.with_suffix(".yaml")
    config.write_text(yaml.safe_dump({"run": {"out": str(folder)}, **SMALL}))
    done = pipeline("run", str(config))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def pipeline(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)


def test_every_stage_finished_and_is_on_record(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    assert [stage["name"] for stage in record["stages"]] == [*SMALL]
    assert all(stage["status"] == "done" and stage["peak_memory_mb"] > 0 for stage in record["stages"])
    assert record["versions"]["torch"] and record["seed"] == 0
    status = pipeline("status", str(run))
    assert status.returncode == 0 and status.stdout.count(" done ") == len(SMALL)


def test_the_report_shows_all_stages_in_a_silent_browser(run: Path, tmp_path: Path) -> None:
    opened = browse(run / "report.html", tmp_path / "browser")
    assert opened.console == [] and opened.requests == []
    for title in ("Extraction", "Pretraining", "Alignment", "Rollout", "Exported policy"):
        assert title in opened.dom, title


def test_the_policy_is_complete(run: Path) -> None:
    names = {path.name for path in (run / "export" / "policy").iterdir()}
    wanted = {"config.json", "model.safetensors", "normalization.json", "provenance.json", "README.md"}
    assert wanted <= names and any(name.startswith("modeling") for name in names)


def test_a_second_run_does_no_work_again_and_says_so(run: Path) -> None:
    shards = sorted((run / "extract").glob("*.tar"))
    policy = run / "export" / "policy" / "model.safetensors"
    before = [path.stat().st_mtime_ns for path in (*shards, policy)]
    again = pipeline("run", str(run / "config.yaml"))
    assert again.returncode == 0, again.stderr
    assert [path.stat().st_mtime_ns for path in (*shards, policy)] == before
    for stage in ("simulate", "extract", "pack", "pretrain", "align", "rollout", "export"):
        lines = [line for line in again.stdout.splitlines() if line.startswith(f"[{stage}]")]
        assert any("nothing to do" in line for line in lines), f"{stage}: {lines}"


def test_changed_settings_are_refused_and_name_the_stage(run: Path) -> None:
    refused = pipeline("run", str(run / "config.yaml"), "--from", "pretrain", "--set", "pretrain.steps=6")
    assert refused.returncode == 4
    assert "steps: 4 -> 6" in refused.stderr and "pretrain" in refused.stderr
