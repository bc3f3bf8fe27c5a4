"""The plugin of LeRobot: its history, features, errors, data sets; its own commands where lerobot is installed."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from align.config import RolloutConfig
from align.lerobot_plugin.assemble import CARRIED, OURS, PACKAGE, assemble
from align.lerobot_plugin.data_set import rename
from align.lerobot_plugin.fits import data_set_problems, embodiment_problems, feature_problems, input_shapes
from align.lerobot_plugin.names import CAMERA, CONVERTED, INTRINSICS, OPENING, PAD, POINTS, STATE, TIME
from align.lerobot_plugin.rows import rows_of
from align.lerobot_plugin.windows import window_of
from align.moments import History, Moments, past_of
from align.origin import rollout_made_from
from align.rollout import rollout
from data.clips import Clip
from data.config import WindowConfig
from data.convert.to_lerobot import to_lerobot
from data.loader import motion
from pipeline.errors import UserError
from pretrain.model.policy_kinecloud import KinecloudPolicy
from tests.align_runs import simulated_run
from tests.convert_clips import ROOMY, Make, info_of, write_shards
from tests.serve_policies import tiny_policy

ROOT = Path(__file__).resolve().parent.parent
LEROBOT = "KINECLOUD_LEROBOT"
SPEC = {"unit": "m", "frame": "camera", "mode": "delta", "rate_hz": 20.0}
PAST_S = (-0.15, -0.1, -0.05, 0.0)
ARGUMENTS = {
    "past_clouds_PN3": "past",
    "past_visible_PN": "past_visible",
    "past_valid": "past_valid",
    "past_opening_P": "past_opening",
    "past_grasp_P3": "past_grasp",
}


def moments_of(clip: Clip, first: int, end: int) -> Moments:
    """Frames of a clip; its camera goes where the clip says."""
    arrays = {name: array[first:end] for name, array in clip.arrays.items()}
    grasp_T3 = np.full((end - first, 3), np.nan, np.float32)
    grasp_T3 = arrays.get("grasp", grasp_T3)
    times_T, points_TN3, visible_TN, opening_T = (arrays[n] for n in ("timestamps", "points", "visible", "opening"))
    return Moments(times_T, points_TN3, visible_TN, opening_T, grasp_T3, arrays["world_from_camera"])


def moving(clip: Clip) -> Clip:
    """The clip, seen by a camera that moves and turns."""
    poses = np.tile(np.eye(4, dtype=np.float32), (clip.frames, 1, 1))
    angle = np.linspace(0, 0.5, clip.frames)
    poses[:, 0, 0] = poses[:, 1, 1] = np.cos(angle)
    poses[:, 0, 1], poses[:, 1, 0] = -np.sin(angle), np.sin(angle)
    poses[:, 2, 3] = np.linspace(0, 0.1, clip.frames)
    return dataclasses.replace(clip, arrays=clip.arrays | {"world_from_camera": poses})


def batch_of(seed: int = 0, size: int = 2, count: int = 20) -> dict[str, Any]:
    """A batch as lerobot hands it to a policy, a frame of each of ``size`` environments."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (size, 3, 48, 64)).astype(np.float32) / 255
    arrays = {
        CAMERA: image,
        POINTS: random.normal([0, 0, 0.7], 0.03, (size, count, 3)).astype(np.float32),
        STATE: random.normal(size=(size, 3)).astype(np.float32),
        OPENING: random.uniform(0, 0.1, (size, 1)).astype(np.float32),
        INTRINSICS: np.tile(np.array([[80, 0, 32], [0, 80, 24], [0, 0, 1]], np.float32), (size, 1, 1)),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()} | {"task": ["go on"] * size}


def exported(folder: Path) -> KinecloudPolicy:
    """A policy that has learned nothing, for the made-up clips, in ``folder``."""
    torch.manual_seed(0)
    config = tiny_policy().config
    told = {"action_names": ["dx", "dy", "dz", "gripper"], "proprio_names": ["x", "y", "z"], "action_spec": SPEC}
    policy = KinecloudPolicy(type(config).from_dict(config.to_dict() | told)).eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.normal_(0, 0.2)
        policy.get_buffer("action_q99").fill_(0.01)
    policy.save_pretrained(folder)
    return policy


def renamed_set(make_clip: Make, folder: Path) -> Path:
    """Two labelled clips as a data set of lerobot under the names of the plugin."""
    paths = write_shards(folder / "shards", [make_clip(number, frames=12, labelled=True) for number in (0, 2)])
    to_lerobot(paths, folder / "sets", ROOMY)
    (source,) = (path.parent.parent for path in (folder / "sets").glob("*/meta/info.json"))
    rename(source, folder / "set")
    return folder / "set"


@pytest.mark.parametrize("change", [lambda clip: clip, moving])
def test_the_past_is_that_of_a_training_window(make_clip: Make, change: Callable[[Clip], Clip]) -> None:
    clip = change(make_clip(3, frames=12))
    for now in (1, 7):
        window = motion(clip.arrays, now, np.arange(24), WindowConfig(past_s=tuple(PAST_S)))
        found = past_of(moments_of(clip, max(0, now - 4), now + 1), PAST_S).arguments()
        for argument, name in ARGUMENTS.items():
            np.testing.assert_allclose(found[argument], window[name], atol=1e-6, err_msg=f"{now} {name}")


def test_a_history_tells_what_all_frames_at_once_tell(make_clip: Make) -> None:
    clip = make_clip(5, frames=15)
    for _ in range(2):
        history = History(PAST_S)  # as after a reset
        for now in range(clip.frames):
            found = history.add(moments_of(clip, now, now + 1)).arguments()
            for name, array in past_of(moments_of(clip, 0, now + 1), PAST_S).arguments().items():
                np.testing.assert_allclose(found[name], array, atol=1e-6, err_msg=f"{now} {name}")


def test_a_history_refuses_what_cannot_follow(make_clip: Make) -> None:
    clip, other = make_clip(0), make_clip(1, points=7)
    history = History(PAST_S)
    history.add(moments_of(clip, 5, 6))
    with pytest.raises(ValueError, match=r"found 0\.25 s; expected more than the last, 0\.25 s.*reset\(\)"):
        history.add(moments_of(clip, 5, 6))
    with pytest.raises(ValueError, match=r"points: found 7; expected 24"):
        history.add(moments_of(other, 6, 7))


def test_a_picture_arrives_as_it_was_and_rows_keep_apart() -> None:
    batch = batch_of()
    rows = rows_of(batch, tiny_policy().config, CAMERA, 0.05, 1.0)
    for number, row in enumerate(rows):
        pixels = (batch[CAMERA][number].permute(1, 2, 0) * 255).round().numpy()
        np.testing.assert_array_equal(row.image_u8_HW3, pixels)
        np.testing.assert_array_equal(row.moments.points_TN3[0], batch[POINTS][number])
        assert row.moments.times_T.tolist() == [1.0] and row.moments.opening_T[0] == batch[OPENING][number]


def test_times_keep_their_digits_however_large_they_are() -> None:
    config, now = tiny_policy().config, 1_763_800_000.0  # seconds since 1970
    batches = [batch_of() | {TIME: torch.tensor([[now + 0.05 * step]] * 2, dtype=torch.float64)} for step in range(3)]
    times = [rows_of(batch, config, CAMERA, 0.05, 0.0)[0].moments.times_T[0] for batch in batches]
    np.testing.assert_allclose(np.diff(times), 0.05, atol=1e-6)


def test_moments_beyond_the_beginning_of_an_episode_do_not_count() -> None:
    batch = batch_of()
    over_time = {name: torch.stack([value] * 3, 1) for name, value in batch.items() if name != "task"}
    padded = {POINTS + PAD: torch.tensor([[True, True, False], [False, False, False]])}
    first, second = rows_of({**over_time, **padded, "task": batch["task"]}, tiny_policy().config, CAMERA, 0.05, 0.0)
    assert first.moments.times_T.tolist() == [0.0] and second.moments.times_T.tolist() == pytest.approx(
        [-0.1, -0.05, 0]
    )


def test_a_window_gives_the_actions_of_act() -> None:
    policy = tiny_policy()
    rows = rows_of(batch_of(size=3), policy.config, CAMERA, 0.05, 0.0)
    with torch.no_grad():
        prediction = policy(**window_of(rows, policy.config, "sawyer-gripper", "cpu"))
    together_BKA = policy.denormalize(prediction.actions, "action").numpy()
    for number, row in enumerate(rows):
        alone_KA = policy.act(
            image_u8_HW3=row.image_u8_HW3, instruction=row.instruction, intrinsics_33=row.intrinsics_33,
            proprio=row.proprio, embodiment="sawyer-gripper",
            **past_of(row.moments, policy.config.past_times).arguments(),
        )  # fmt: skip
        np.testing.assert_allclose(together_BKA[number], alone_KA, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (POINTS, None, "observation.kinecloud.points.*nothing.*The batch holds: observation.images.camera"),
        (POINTS, torch.zeros(2, 20, 2), r"found \[2, 20, 2\]; expected \[B, N, 3\]"),
        (STATE, torch.zeros(2, 5), r"found \[2, 5\]; expected \[2, 3\]"),
        (INTRINSICS, torch.zeros(2, 4), r"found \[2, 4\]; expected \[2, 3, 3\]"),
        (CAMERA, torch.full((2, 3, 8, 8), 2.0), "values 2 to 2; expected 0 to 1"),
        (CAMERA, torch.zeros(2, 8, 8, 3), r"found \[2, 8, 8, 3\]; expected \[B, 3, H, W\]"),
        ("task", ["one"], "1 texts; expected 2"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(name: str, value: Any, message: str) -> None:
    batch = {**batch_of(), name: value}
    if value is None:
        del batch[name]
    with pytest.raises(ValueError, match=message):
        rows_of(batch, tiny_policy().config, CAMERA, 0.05, 0.0)


def test_features_are_held_against_the_policy() -> None:
    config = tiny_policy().config
    inputs = input_shapes(config, CAMERA) | {CAMERA: (3, 480, 640), POINTS: (64, 3)}
    assert not feature_problems(inputs, {"action": (3,)}, config, CAMERA)
    (line,) = feature_problems(inputs, {"action": (7,)}, config, CAMERA)
    assert "found [7]; expected [3] (dx, dy, dz)" in line
    (line,) = feature_problems({**inputs, STATE: (8,)}, {"action": (3,)}, config, CAMERA)
    assert "found [8]; expected [3] (x, y, z)" in line
    (line,) = feature_problems({CAMERA: (3, 8, 8), STATE: (3,), INTRINSICS: (3, 3)}, {"action": (3,)}, config, CAMERA)
    assert POINTS in line and CAMERA in line
    (line,) = embodiment_problems("dog", config)
    assert "'dog'" in line and "sawyer-gripper" in line
    assert not embodiment_problems("unknown", config)


def test_data_sets_are_held_against_the_policy() -> None:
    config = tiny_policy().config
    spec = {**SPEC, "names": ["dx", "dy", "dz"]}
    action, state = {"names": ["dx", "dy", "dz"], "info": {"action_spec": spec}}, {"names": ["x", "y", "z"]}
    assert not data_set_problems({"action": action, STATE: state}, 20, 20.0, config)
    swapped = {"action": {**action, "names": ["dy", "dx", "dz"]}, STATE: state}
    (line,) = data_set_problems(swapped, 20, 20.0, config)
    assert "['dy', 'dx', 'dz']" in line and "['dx', 'dy', 'dz']" in line
    other = {"action": {**action, "info": {"action_spec": {**spec, "frame": "base"}}}, STATE: state}
    first, second = data_set_problems(other, 30, 20.0, config)
    assert "frame 'base'" in first and "frame 'camera'" in first and "30" in second and "20" in second


def test_a_converted_data_set_gets_the_names_of_the_policy(make_clip: Make, tmp_path: Path) -> None:
    root = renamed_set(make_clip, tmp_path)
    (source,) = (path.parent.parent for path in (tmp_path / "sets").glob("*/meta/info.json"))
    before, after = info_of(source)["features"], info_of(root)["features"]
    assert after.keys() == {CONVERTED.get(name, name) for name in before} and after[TIME]["dtype"] == "float32"
    (path,) = (root / "data").rglob("*.parquet")
    (original,) = (source / "data").rglob("*.parquet")
    file, table, old = pq.ParquetFile(path), pq.read_table(path), pq.read_table(original)
    assert file.num_row_groups == 2
    assert table[POINTS].equals(old["points"]) and table[CAMERA].equals(old[CAMERA])
    times_T = table[TIME].to_numpy().reshape(2, 12)
    np.testing.assert_allclose(times_T, np.tile(np.arange(12) / 20, (2, 1)), atol=1e-6)
    with pytest.raises(UserError, match="exists already"):
        rename(source, root)
    with pytest.raises(UserError, match=r"found no feature points.*expected a labelled data set"):
        rename(root, tmp_path / "again")


def test_the_distribution_carries_all_it_imports_under_its_own_name(tmp_path: Path) -> None:
    files = assemble(tmp_path)
    modules = {".".join(path.relative_to(tmp_path).with_suffix("").parts) for path in files}
    packages = {module.removesuffix(".__init__") for module in modules if module.endswith(".__init__")}
    assert f"{PACKAGE}.modeling_kinecloud" in modules and f"{PACKAGE}.{CARRIED}.pretrain.model.heads" in modules
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level:
                module = node.module or ""
                assert module.split(".")[0] not in OURS, (path, module)
                assert not module.startswith(PACKAGE) or module in modules | packages, (path, module)


def test_the_distribution_declares_what_it_imports(tmp_path: Path) -> None:
    files = assemble(tmp_path)
    declared = tomllib.loads((ROOT / "align/lerobot_plugin/pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[<>=~]", line)[0].lower().replace("pyyaml", "yaml") for line in declared}
    brought = {"gymnasium", "triton"}  # by lerobot; where a GPU compiles kernels
    for path in files:
        for node in ast.parse(path.read_text()).body:
            found = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            found += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for top in {module.split(".")[0] for module in found} - sys.stdlib_module_names - {PACKAGE}:
                assert top in names | brought, f"{path.name} imports {top}, which is not declared"


@pytest.fixture(scope="module")
def with_lerobot(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs a script with its words where lerobot and the plugin are; what it said.

    KINECLOUD_LEROBOT names a Python with lerobot, its extras dataset and training, and transformers.
    """
    python = os.environ.get(LEROBOT)
    if not python:
        pytest.skip(f"{LEROBOT} names no Python that lerobot is installed for")
    folder = tmp_path_factory.mktemp("plugin")
    build = ["bash", ROOT / "align/lerobot_plugin/build.sh", folder / "wheels"]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (folder / "wheels").glob("*.whl")
    subprocess.run([python, "-m", "zipfile", "-e", wheel, folder / "site"], check=True)
    environment = {**os.environ, "PYTHONPATH": str(folder / "site"), "HF_HUB_OFFLINE": "1"}
    environment["HF_HOME"] = str(folder / "hub")

    def run(script: str, *words: str | Path) -> str:
        command = [python, ROOT / "tests" / script, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr[-4000:]
        return done.stdout

    return run


def test_lerobot_runs_and_trains_a_policy_through_the_plugin(
    with_lerobot: Callable[..., str], make_clip: Make, tmp_path: Path
) -> None:
    exported(tmp_path / "policy")
    root = renamed_set(make_clip, tmp_path)
    (tmp_path / "work").mkdir()
    said = with_lerobot("lerobot_plays.py", tmp_path / "policy", root, tmp_path / "work")
    for line in ("discovered", "saved and loaded", "KinecloudPolicy.act", "with gradients", "refuses", "lerobot-train"):
        assert line in said


def test_lerobot_evaluates_in_the_simulator_as_rollouts_do(with_lerobot: Callable[..., str], tmp_path: Path) -> None:
    config = simulated_run(tmp_path, ("drawer-close-v3", "button-press-v3"))
    rollout(config, rollout_made_from(config, config.section("rollout", RolloutConfig)))
    words = (config.run.out, "--config", config.path, "--python", sys.executable)
    said = with_lerobot("lerobot_evaluates.py", *words)
    assert said.endswith("2 episodes: 2 end alike, 2 after as many frames\n"), said
