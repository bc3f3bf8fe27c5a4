"""An exported policy stands alone: it loads without this repository, acts the same, and says what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.cli import main
from align.config import ExportConfig
from align.export import export
from align.origin import export_made_from
from align.policy import load_policy
from pipeline.atomic import write_json
from pipeline.config import Config
from pipeline.fingerprint import file_sha256, mark_done
from tests.align_runs import aligned, command

FOREIGN = """
import sys
import numpy as np
for name in ("pretrain", "align", "data"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(f"{name} can be imported, so this proves nothing")
from transformers import AutoModel
policy = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
observation = dict(np.load(sys.argv[2], allow_pickle=False))
words = {name: str(observation.pop(name)) for name in ("instruction", "embodiment")}
np.save(sys.argv[3], policy.act(**observation, **words))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = aligned(tmp_path_factory.mktemp("exported"))
    export(config, export_made_from(config, config.section("export", ExportConfig)))
    return config


def observation(**changes: Any) -> dict[str, Any]:
    random = np.random.default_rng(5)
    return {
        "image_u8_HW3": random.integers(0, 256, (48, 64, 3), dtype=np.uint8),
        "instruction": "move along 2",
        "past_clouds_PN3": random.normal([0, 0, 0.7], 0.03, (4, 20, 3)).astype(np.float32),
        "past_valid": np.array([False, True, True, True]),
        "intrinsics_33": np.array([[80.0, 0, 32], [0, 80, 24], [0, 0, 1]]),
        "proprio": np.array([0.01, -0.02, 0.7], np.float32),
        "embodiment": "sawyer-gripper",
        **changes,
    }


def test_it_acts_the_same_without_this_repository(exported: Config, tmp_path: Path) -> None:
    np.savez(tmp_path / "observation.npz", **observation())
    program = tmp_path / "foreign.py"
    program.write_text(FOREIGN)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = exported.folder("export") / "policy"
    caches = {"HF_HOME": str(tmp_path / "hf"), "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    done = command(
        "-I", program, folder, tmp_path / "observation.npz", tmp_path / "actions.npy", cwd=elsewhere, **caches
    )
    assert done.returncode == 0, done.stderr
    theirs = np.load(tmp_path / "actions.npy", allow_pickle=False)
    ours = load_policy(exported.folder("align") / "model").act(**observation())
    assert theirs.shape == (4, 3)
    assert np.abs(ours).max() > 0
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proprio": np.zeros(5)}, r"proprio has shape \[5\]; expected \[3\] \(x, y, z\)"),
        ({"image_u8_HW3": np.zeros((8, 8, 3), np.float32)}, "image_u8_HW3 has dtype float32; expected uint8"),
        ({"embodiment": "octopus"}, "embodiment is 'octopus'; this policy knows: human-hand, sawyer-gripper, unknown"),
        ({"past_clouds_PN3": np.zeros((3, 20, 3))}, r"past_clouds_PN3 has shape \[3, 20, 3\]; expected \[4, any, 3\]"),
        ({"past_clouds_PN3": np.full((4, 20, 3), np.nan)}, "past_clouds_PN3 holds values that are not finite"),
        ({"intrinsics_33": np.eye(4)}, r"intrinsics_33 has shape \[4, 4\]"),
    ],
)
def test_what_does_not_fit_is_named(exported: Config, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_policy(exported.folder("align") / "model").act(**observation(**change))


def test_the_folder_tells_where_it_comes_from(exported: Config) -> None:
    folder = exported.folder("export") / "policy"
    provenance, normalization, config = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("provenance", "normalization", "config")
    )
    assert provenance["labelled"]["simulated"] is True
    assert provenance["seed"] == 3
    assert provenance["evaluation"]["align"]["errors"]["policy"]
    assert provenance["align"]["made_from"]["predictor_sha256"]
    policy = load_policy(exported.folder("align") / "model")
    for kind in ("action", "proprio"):
        for quantile in ("q01", "q99"):
            stored = policy.get_buffer(f"{kind}_{quantile}").numpy()
            np.testing.assert_array_equal(np.float32(normalization[kind][quantile]), stored)
    assert config["action_spec"]["rate_hz"] == 20
    card = (folder / "README.md").read_text()
    assert "simulated" in card
    for name in ("dx", "proprio", "past_clouds", "Limits"):
        assert name in card


def test_it_is_made_again_when_there_is_more_to_tell(
    exported: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["align", "export", "--config", str(exported.path)])
    assert main() == 0
    assert "nothing to do" in capsys.readouterr().out
    rates = {"successes": 2, "episodes": 5, "low": 0.12, "high": 0.77}
    row = {"task": "drawer-close-v3", "labelled": True, "policy": rates, "references": {}, "episodes": []}
    write_json(exported.folder("rollout") / "rollout.json", {"conditions": "Made up.", "tasks": [row]})
    for unfinished in (None, {"policy_sha256": "of another policy"}):
        if unfinished is not None:
            mark_done(exported.folder("rollout"), unfinished)
        assert main() == 0
        assert "nothing to do" in capsys.readouterr().out
    weights = exported.folder("align") / "model" / "model.safetensors"
    mark_done(exported.folder("rollout"), {"policy_sha256": file_sha256(weights)})
    assert main() == 0
    assert "nothing to do" not in capsys.readouterr().out
    assert "2 of 5 (12–77 %)" in (exported.folder("export") / "policy" / "README.md").read_text()
