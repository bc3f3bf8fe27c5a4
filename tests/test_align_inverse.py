"""The inverse-dynamics head: fitted to what labelled clips recorded, and answering for the motion that it is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from align.inverse import Fit, fit
from align.policy import load_policy
from align.recorded import Recorded
from align.run import AlignRun
from align.train import align
from data.loader import collate
from pipeline.config import Config, load
from pipeline.errors import UserError
from pretrain.model.heads import NEAR_S, InverseDynamics, explained
from pretrain.model.modeling_kinecloud import KinecloudPrediction
from tests.align_runs import aligned, config_file

HEAD: dict[str, Any] = {"head": "inverse_dynamics", "action_chunk": 2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return aligned(tmp_path_factory.mktemp("whole"), **HEAD)


def recorded(windows: int = 240) -> Recorded:
    """Two numbers: the first is told by motion, the second by whether the opening shrinks."""
    random = torch.Generator().manual_seed(0)
    motion = torch.randn(windows, 5, generator=random)
    openings = torch.rand(windows, 2, generator=random)
    told = motion @ torch.tensor([0.0, 0.4, 0.0, -0.7, 0.2])
    actions = torch.stack([told, torch.sign(openings[:, 1] - openings[:, 0])], 1)
    clips = [f"clip-{number // 20}" for number in range(windows)]
    tasks = [f"task-{number // 80}" for number in range(windows)]
    return Recorded({"motion": motion, "openings": openings}, actions, clips, tasks)


def fitted(told: Recorded, **readings: list[bool]) -> Fit:
    everything = [True] * told.read["motion"].shape[1]
    return fit(told, {name: torch.tensor(part) for name, part in (readings or {"all": everything}).items()})


def test_motion_and_openings_answer_for_what_each_tells() -> None:
    found = fitted(recorded())
    assert found.by_opening_V.tolist() == [False, True]
    expected = torch.tensor([0.0, 0.4, 0.0, -0.7, 0.2])
    torch.testing.assert_close(found.moved.map_FV[:, 0], expected, atol=1e-3, rtol=0)
    assert found.moved.errors_V[0] < 1e-3 and found.held_V[1] < 0.3 < found.moved.errors_V[1]


def test_an_effort_is_told_by_what_it_does_on_average_and_not_by_the_window_that_looks_most_alike() -> None:
    stay, squeezed, closing = [0.88] * 5, [0.88, 0.88, 0.80, 0.70, 0.62], [0.88, 0.88, 0.75, 0.45, 0.25]
    openings = torch.tensor([stay] * 60 + [squeezed] * 3 + [closing] * 6)
    effort = torch.tensor([[0.0]] * 63 + [[1.0]] * 6)
    flatter = [0.88, 0.88, 0.77, 0.61, 0.47]  # than closing ever is, as plans are; nearest to squeezed
    told = explained(torch.tensor([flatter, stay, closing]), openings, effort)[:, 0]
    assert told[0] > 0.5 and abs(told[1]) < 0.05 and told[2] > 0.9
    assert torch.equal(explained(torch.tensor([stay]), openings[:0], effort[:0]), torch.zeros(1, 1))


def test_a_map_that_holds_for_one_task_alone_is_not_trusted() -> None:
    told = recorded()
    noise = torch.randn(told.actions_WV.shape, generator=torch.Generator().manual_seed(1))
    of_task = torch.tensor([3.0 * (int(task[-1]) - 1) for task in told.left_out])  # means another thing in each task
    motion = told.read["motion"].clone()
    motion[:, 0] = 0.02 * told.actions_WV[:, 0] * of_task
    misled = replace(told, read=told.read | {"motion": motion}, actions_WV=told.actions_WV + 0.3 * noise)
    assert fitted(misled).moved.ridge_V[0] > fitted(told).moved.ridge_V[0]


def test_no_more_of_the_plan_is_read_than_serves_other_tasks() -> None:
    """Here the near future is what the action did, the far one what the rest of its task did, and each task goes on in
    its own way."""
    torch.manual_seed(0)
    told, action = recorded(), torch.randn(240, 1)
    later = torch.tensor([[4.0 * (int(task[-1]) - 1)] for task in told.left_out]) * action
    motion = torch.cat([torch.ones(240, 1), action + 0.3 * torch.randn(240, 1), later], 1)
    changed = replace(told, read=told.read | {"motion": motion}, actions_WV=action)
    found = fitted(changed, far=[True, True, True], near=[True, True, False]).moved
    assert found.reading_V == ["near"] and found.map_FV[2] == 0
    assert found.map_FV[1] == pytest.approx(1 / 1.09, abs=0.05)


def test_motion_is_read_up_to_each_near_horizon_with_and_without_turns(whole: Config) -> None:
    head = load_policy(whole.folder("align") / "model").head
    assert isinstance(head, InverseDynamics)
    readings = head.readings()
    near = [f"{seconds:g} s" for seconds in head.horizons if seconds <= NEAR_S]
    assert list(readings) == [*near, *(f"{name} with turns" for name in near)]
    assert [int(part.sum()) for part in readings.values()] == [
        7 + width * number for width in (3, 6) for number in range(1, len(near) + 1)
    ]
    last = readings[f"{near[-1]} with turns"]
    assert last.all() and len(last) == len(head.get_buffer("linear"))


def test_the_head_tells_the_actions_of_the_motion_that_it_is_given(whole: Config) -> None:
    run, policy = AlignRun(whole), load_policy(whole.folder("align") / "model")
    assert policy.config.remembered == len(policy.get_buffer("head.openings")) > 50
    window = collate([run.val_windows[(n, n)] for n in range(0, len(run.val_windows), 3)])
    known = window["future_valid"].all(1) & window["actions_valid"].all(1)
    truth = KinecloudPrediction(points=window["future"], opening=window["future_opening"], grasp=window["future_grasp"])
    with torch.no_grad():
        told = policy.denormalize(policy(**window, follow=truth).actions, "action")[known]
        without = policy.denormalize(policy(**window).actions, "action")[known]
    true = window["actions"][known]
    assert (told - true).abs().mean() < 0.2 * (true - true.mean((0, 1))).abs().mean()
    assert not torch.allclose(told, without)


def test_the_predictor_stays_as_it_is_and_no_step_is_taken(whole: Config) -> None:
    before = load_file(whole.folder("pretrain") / "model" / "model.safetensors")
    after = load_file(whole.folder("align") / "model" / "model.safetensors")
    assert all(torch.equal(before[name], after[f"predictor.{name}"]) for name in before)
    assert not (whole.folder("align") / "checkpoints").exists()
    weights = (whole.folder("align") / "model" / "model.safetensors").read_bytes()
    align(whole, resume=False)
    assert (whole.folder("align") / "model" / "model.safetensors").read_bytes() == weights


def test_clips_that_are_too_short_are_named(whole: Config, tmp_path: Path) -> None:
    clips = whole.run.out.parent / "clips"
    path = config_file(
        tmp_path, (clips / "train-00000.tar", clips / "val-00000.tar"), head="inverse_dynamics", action_chunk=40,
        predictor=str(whole.folder("pretrain") / "model"),
    )  # fmt: skip
    with pytest.raises(UserError, match=r"no labelled clip is as long as the near future \(0.3 s\) and a chunk"):
        align(load(path), resume=True)
