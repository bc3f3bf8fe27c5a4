"""The benchmark of pretraining: its intervals, what it takes away, what it keeps, and what its page claims."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from data.config import IndexConfig, WindowConfig
from data.loader import WindowDataset, collate
from data.simulation.write import encode_depth, write_episode
from pretrain.config import PretrainConfig
from pretrain.model.configuration_kinecloud import KinecloudConfig
from pretrain.scores import MODEL
from tests.benchmarks import pretraining
from tests.benchmarks.pretraining_cell import Deprived, _at
from tests.benchmarks.pretraining_cells import (
    BASELINES,
    CELLS,
    DEFAULT,
    HORIZONS_S,
    LEARNING_RATES,
    OBJECTIVES,
    SUBSETS,
    TUNING_SEED,
    settings_of,
)
from tests.benchmarks.pretraining_data import GRID, Data, grid_clip, grid_pixels
from tests.benchmarks.pretraining_figures import MEASURES, PLANE, VELOCITIES, figures_of
from tests.benchmarks.pretraining_intervals import Board, Row, difference, figure, ratio
from tests.benchmarks.pretraining_page import page
from tests.benchmarks.train_step import BLOCK, SETTLE, WARM_UP, Clock, Moment, lines_of, section_of
from tests.benchmarks.train_step import figures_of as step_figures
from tests.indexed import indexed
from tests.pretrain_clips import moving_clip, write_clips


def test_an_interval_holds_the_mean_and_knows_of_episodes_and_of_seeds() -> None:
    random = np.random.default_rng(0)
    alike = np.tile(random.normal(100, 10, 40), (3, 1))
    row = figure(Row("a", alike))
    assert row["low"] < row["mean"] < row["high"] and row["mean"] == pytest.approx(alike.mean(), abs=1e-3)
    # the standard error over 40 episodes, known in closed form, when seeds do not differ
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * alike[0].std() / np.sqrt(40), rel=0.15)
    by_seed = figure(Row("a", alike + np.array([[-20.0], [0], [20]])))
    assert by_seed["high"] - by_seed["low"] > 3 * (row["high"] - row["low"])
    constant = figure(Row("a", np.full((2, 5), 3.0)))
    assert (constant["low"], constant["high"]) == (3.0, 3.0)


def test_episodes_without_a_value_do_not_count() -> None:
    values = np.array([[1.0, np.nan, 3.0], [2.0, np.nan, 4.0]])
    with_gap, without = Row("a", values), Row("a", values[:, [0, 2]])
    assert figure(with_gap)["mean"] == figure(without)["mean"] == 2.5


def test_rows_are_compared_on_the_same_episodes() -> None:
    hard = np.random.default_rng(1).uniform(10, 500, (1, 30))  # episodes differ far more than rows do
    apart = difference(Row("a", hard + 5), Row("b", hard))
    assert apart == {"mean": 5.0, "low": 5.0, "high": 5.0}
    assert ratio(Row("a", 2 * hard), Row("b", hard)) == {"mean": 2.0, "low": 2.0, "high": 2.0}


def test_every_row_is_a_valid_configuration_with_the_same_budget() -> None:
    parsed = {name: PretrainConfig.model_validate(settings_of(cell, 100, 1e-3)) for name, cell in CELLS.items()}
    budget = {(p.steps, p.batch_size, p.window.horizons_s, p.model.width, p.model.layers) for p in parsed.values()}
    assert len(budget) == 1
    assert parsed["no-text"].augment.drop_text == 1 and parsed[DEFAULT].augment.drop_text < 1
    assert all(cell.tuned_as in CELLS for cell in CELLS.values())


@pytest.mark.parametrize("removed", ["image", "text", "history"])
def test_a_deprived_predictor_does_not_see_what_was_removed(tmp_path: Path, removed: str) -> None:
    window_settings = WindowConfig(horizons_s=(0.1, 0.2), points=16, image_size=32)  # pyright: ignore[reportCallIssue]
    dataset = WindowDataset(list(write_clips(tmp_path)), window_settings)
    window = collate([dataset[(number, number)] for number in (6, 25)])
    torch.manual_seed(0)
    model = Deprived(KinecloudConfig(image_size=32, width=32, layers=1, heads=2, horizons=(0.1, 0.2))).eval()
    for parameter in model.parameters():  # outputs start at zero, so every input would seem removed
        torch.nn.init.normal_(parameter, std=0.1)
    past = window["past"].clone()
    past[:, :-1] += 0.05
    changed = {
        "image": {"image": 255 - window["image"]},
        "text": {"text": ["something else", "entirely"]},
        "history": {"past": past},
    }
    with torch.no_grad():
        seen = model(**window).points, model(**(window | changed[removed])).points
        assert not torch.allclose(*seen, atol=1e-6)
        model.removed = (removed,)
        torch.testing.assert_close(model(**window).points, model(**(window | changed[removed])).points)


def test_errors_in_the_plane_forgive_depth_alone() -> None:
    points = torch.rand(2, 3, 10, 3) + torch.tensor([0.0, 0.0, 0.5])
    depth_BN1 = points[:, 0, :, 2:]
    torch.testing.assert_close(_at(points, depth_BN1)[:, 0], points[:, 0])
    torch.testing.assert_close(_at(1.3 * points, depth_BN1), _at(points, depth_BN1))
    aside = points + torch.tensor([0.01, 0.0, 0.0])
    moved = (_at(aside, depth_BN1) - _at(points, depth_BN1)).norm(dim=-1)
    torch.testing.assert_close(moved, 0.01 * depth_BN1[:, None, :, 0] / points[..., 2])


def test_grid_points_lie_all_over_the_picture_and_follow_what_is_there(tmp_path: Path) -> None:
    random, frames, size = np.random.default_rng(3), 6, 128
    smooth = gaussian_filter(random.uniform(-900, 1100, (size, size + 24, 3)), (3, 3, 0)).clip(0, 255).astype(np.uint8)
    images = [smooth[:, 2 * t : 2 * t + size] for t in range(frames)]  # the scene moves left by 2 pixels a frame
    arrays = {"depth": encode_depth(np.full((frames, size, size), 1.0)), "mask": np.zeros((frames, size, size), bool)}
    arrays["mask"][:, :, : size // 2] = True
    intrinsics = [[100.0, 0, size / 2], [0, 100.0, size / 2], [0, 0, 1]]
    sidecar = {"effector": "mask", "intrinsics": intrinsics, "instruction": "", "embodiment": "x", "simulated": True}
    write_episode(tmp_path / "videos", "scene", images, 20, arrays, sidecar)
    config = IndexConfig.model_validate({"sources": [{"name": "made-up", "path": tmp_path / "videos"}]})
    (episode,), _ = indexed(config, tmp_path / "index", tmp_path)
    clip = grid_clip(moving_clip(0, frames=frames), episode)
    assert not clip.problems() and clip.arrays["points"].shape == (frames, GRID * GRID, 3)
    assert clip.meta.quality["grid_on_effector"] == GRID * GRID / 2
    middle = grid_pixels(size, size)
    assert np.allclose(clip.arrays["points"][frames // 2, :, :2] * 100 + size / 2, middle, atol=0.5)
    inner = (np.abs(middle - size / 2) < size / 4).all(1)
    moved_N2 = (clip.arrays["points"][-1] - clip.arrays["points"][0])[inner, :2]
    assert np.allclose(np.median(moved_N2, 0), [-0.02 * (frames - 1), 0], atol=0.003)


def make_bench(folder: Path, steps: int = 10) -> pretraining.Bench:
    train, val = write_clips(folder / "clips", 2, 1)
    return pretraining.Bench(Data([train], [val], [val], [train], {}), folder, 1, steps)


def test_a_finished_row_is_never_measured_again_and_a_changed_one_is(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    job = bench.job("chamfer", 0)
    assert job.name == make_bench(tmp_path).job("chamfer", 0).name
    others = [bench.job("chamfer", 1), bench.job("tracked", 0), bench.job("chamfer", 0, 5e-4)]
    others += [bench.job("chamfer", 0, tuning=True), make_bench(tmp_path, 11).job("chamfer", 0)]
    assert len({job.name, *(other.name for other in others)}) == 6
    bench.folder.mkdir()
    (bench.folder / f"{job.name}.json").write_text('{"cell": "chamfer"}')
    assert bench.results([job]) == [{"cell": "chamfer"}]  # training would have taken long, and given more


def test_the_learning_rate_with_the_least_error_is_taken_and_never_one_of_another_objective(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    bench.folder.mkdir()
    for number, rate in enumerate(LEARNING_RATES):
        job = bench.job("chamfer", TUNING_SEED, rate, tuning=True)
        errors = {"ade_mm": [[None, 9.0], [None, 5.0 - number]]}
        result = {"readings": {MODEL: {"all": {"errors": errors}}}}
        (bench.folder / f"{job.name}.json").write_text(json.dumps(result))
    found = bench.tuned(["chamfer", "tracked"], choose=False)
    assert list(found) == ["chamfer"] and found["chamfer"]["chosen"] == LEARNING_RATES[-1]


def test_a_row_is_measured_again_when_a_default_of_the_settings_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make_bench(tmp_path).job("chamfer", 0).name
    identity = PretrainConfig.identity
    monkeypatch.setattr(PretrainConfig, "identity", lambda self: identity(self) | {"weight_decay": 0.123})
    assert make_bench(tmp_path).job("chamfer", 0).name != before


def test_all_code_that_decides_figures_is_there() -> None:
    for pattern in pretraining.DECIDES:
        assert list(pretraining.ROOT.glob(pattern)), pattern


def made_up_board(default_ade: float) -> Board:
    """Rows of constant errors: constant velocity 100 mm, the default as given, all others 60 mm."""

    def reading(value: float) -> dict[str, Any]:
        errors = {name: [[value + episode] * len(HORIZONS_S) for episode in range(4)] for name in MEASURES}
        return {subset: {"episodes": list("abcd"), "errors": errors} for subset in SUBSETS}

    names = ("no motion", *VELOCITIES, "nearest neighbour")
    readings = {name: reading(100) for name in names} | {f"{name}{PLANE}": reading(90) for name in names[:3]}
    chosen = {"neighbours": 2, "windows": 9}
    results = [{"cell": BASELINES, "seed": 0, "readings": readings, "windows": 9, "neighbour": chosen}]
    for cell in CELLS.values():
        own = reading(default_ade if cell.name == DEFAULT else 60)
        readings = {MODEL: own, f"{MODEL}{PLANE}": own, f"{MODEL}, mean of {cell.samples} samples": own}
        facts = {"parameters": 1_000_000, "learning_rate": 1e-3, "train_s": 1.0}
        results += [{"cell": cell.name, "seed": seed, "readings": readings, **facts} for seed in (0, 1)]
    return Board(results)


def made_up_figures(default_ade: float) -> dict[str, Any]:
    part = {"clips": 4, "motions": 4, "robot_clips": 2, "hand_clips": 2, "frames": 99}
    data = {name: part for name in ("train", "val", "test")} | {"grid_on_effector": 3.2}
    facts = {"date": "2026-01-01", "minutes": 1, "steps": 10, "seeds": [0, 1], "jobs": 1, "cores": 2}
    facts["versions"] = {"python": "3", "kinecloud": "abc"}  # pyright: ignore[reportArgumentType]
    return figures_of(made_up_board(default_ade), tuning={}, data=data, facts=facts)


def test_the_page_has_every_row_and_its_verdict_is_that_of_the_figures() -> None:
    good, bad = made_up_figures(40), made_up_figures(60)
    assert good["verdict"]["met"] is True and bad["verdict"]["met"] is False
    assert good["verdict"]["times"]["mean"] == pytest.approx(101.5 / 41.5, abs=1e-3)
    text = page(good)
    assert "**Met**" in text and "**Not met**" in page(bad)
    for cell in CELLS.values():
        assert f"| {cell.title}" in text or f"| **{cell.title}**" in text, cell.title
    # the same errors are not called worse, larger ones are
    assert "Not told apart from the default" in page(bad) and "Worse than the default" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 120
    assert all(cell.title in text for cell in OBJECTIVES)


def test_a_row_without_its_seeds_on_the_same_episodes_is_refused() -> None:
    board = made_up_board(40)
    board.of("chamfer")[1]["readings"] = {MODEL: {"all": {"episodes": ["z"], "errors": {}}}}
    with pytest.raises(ValueError, match="different episodes"):
        board.row("chamfer", MODEL, "all", "ade_mm")


def test_the_speed_of_a_step_leaves_out_pauses_and_what_the_loader_did_in_them() -> None:
    clock, at = Clock("cpu"), 0.0
    moments = ("start", "augmented", "forward", "loss", "optimizer begins", "optimizer ends", "next batch")
    for number in range(WARM_UP + 2 * BLOCK):
        if number >= WARM_UP and (number - WARM_UP) % BLOCK == 0:
            clock.paused.add(number)
        slow = 1.0 if number < WARM_UP or any(number - s in clock.paused for s in range(SETTLE)) else 0.01
        clock.steps.append({name: Moment(at + slow * i, at + slow * i / 2) for i, name in enumerate(moments)})
        at += 10
    clock.products = [(2e9, 4e9)] * 3
    figures = step_figures(clock, flops=6e7, loader={"warm": 5000.0}, batch=30)
    assert figures["steps"] == 2 * (BLOCK - SETTLE)
    assert figures["wall"]["step_ms"] == pytest.approx(60) and figures["wall"]["share"] == pytest.approx(0.5)
    assert figures["processor"]["step_ms"] == pytest.approx(30) and figures["processor"]["share"] == pytest.approx(0.5)
    assert list(figures["wall"]["parts_ms"].values()) == pytest.approx([10] * 6)
    assert figures["loader_times_step"]["warm"] == pytest.approx(5.0) and figures["met"]["loader"]
    told = figures | {"threads": 1, "cores": 2, "device": "cpu", "torch": "2"}
    assert "| wall | 60.0 |" in section_of(told) and "50.0 %" in "".join(lines_of(told))
