"""The benchmarks of the full size: what is computed without numbers is what a real step does; the command runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.benchmarks import gpu
from tests.benchmarks.full_size import computed, full_config, table
from tests.benchmarks.predictor_steps import TRAININGS, counted, gaps, made_up_window, needs
from tests.tiny_encoders import gemma_tokenizer

TINY = gpu.Setting(tiny=True)


@pytest.mark.parametrize("training", TRAININGS)
def test_what_is_computed_from_shapes_is_what_a_real_step_keeps_and_multiplies(training: str):
    config, frozen = TINY.full(), TRAININGS[training]
    real = counted(TINY.model(config, frozen), made_up_window(config, 2), bf16=True)
    found = needs(config, gemma_tokenizer(), frozen, 2)
    assert replace(found, activations=0) == replace(real, activations=0)
    assert found.activations == pytest.approx(real.activations, rel=0.005)  # kernels keep a few bytes for themselves


def test_windows_multiply_the_arithmetic_and_not_the_weights():
    config = TINY.full()
    one, two = (needs(config, gemma_tokenizer(), (), batch) for batch in (2, 4))
    assert (two.step_flop, two.forward_flop) == (2 * one.step_flop, 2 * one.forward_flop)
    assert (two.weights, two.moments) == (one.weights, one.moments) and two.activations > one.activations


def test_at_true_size_the_expert_is_pi0s_and_freezing_saves_memory_and_arithmetic():
    config = full_config()
    rows = computed(config, [1], 100.0, ["context frozen", "all trained"])
    with torch.device("meta"):
        trunk: Any = gpu.KinecloudPredictor(config).trunk
    width, mlp, heads, channels, layers = 1024, 4096, 8, 256, 18
    attention = 2 * width * heads * channels + 2 * width * channels
    expert = layers * (attention + 3 * width * mlp + 2 * width) + width
    assert sum(p.numel() for p in trunk.pi0.dit.parameters()) == expert
    by_training = {row["training"]: row for row in rows}
    frozen, all_of_it = by_training["context frozen"], by_training["all trained"]
    for name in ("learned", "step_flop", "memory", "computed_step_s"):
        assert 2 * frozen[name] < all_of_it[name], name
    assert frozen["computed_step_s"] == pytest.approx(frozen["step_flop"] / 40e12)
    assert "All computed, none measured" in table(rows, 100.0)


def test_idle_is_the_time_in_which_nothing_runs():
    assert gaps([(0, 4), (1, 3), (6, 10)]) == pytest.approx(0.2)
    assert gaps([(5, 6), (0, 5)]) == 0 and gaps([]) is None


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert "no GPU here, so nothing was measured" in capsys.readouterr().err


def test_the_whole_command_runs_on_tiny_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert gpu.main(["--tiny", "--json", str(tmp_path / "gpu.json"), "--markdown", str(tmp_path / "gpu.md")]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["training"] for row in found["full"]] == list(TRAININGS) and len(found["compact"]) == 1
    assert all(0 <= row["idle"] < 1 and row["step_s"] > 0 and row["reached"] > 0 for row in found["full"])
    assert found["latency"]["remembered_s"] > 0 and not found["left_out"]
    section = (tmp_path / "gpu.md").read_text()
    assert section.strip() == capsys.readouterr().out.strip() and "only show that the command runs" in section


def test_parts_that_do_not_fit_into_the_time_are_named():
    found = gpu.measure(TINY, budget_s=0)
    assert found["full"] == [] and "latency (no time left)" in found["left_out"]
    assert "Left out: full, " in gpu.markdown(found)


def test_a_part_that_does_not_fit_into_the_memory_does_not_take_the_others_with_it(monkeypatch: pytest.MonkeyPatch):
    def full_of_memory(*_: Any) -> Any:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(gpu, "latency", full_of_memory)
    monkeypatch.setattr(gpu, "full_steps", full_of_memory)
    found = gpu.measure(TINY, budget_s=300)
    assert "latency (out of memory)" in found["left_out"] and "latency" not in found and len(found["compact"]) == 1


def test_a_benchmark_that_hangs_or_fails_does_not_take_the_others_with_it():
    assert "took longer" in gpu.chamfer("cpu", 0.05)["failed"]
    assert gpu.chamfer("no-such-device", 60)["failed"]
