"""The evaluation reads what it says it reads, averages as it says, and shows what it found."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from data.clips import Clip, write_shard
from data.config import WindowConfig
from data.loader import WindowDataset
from pipeline.config import Config, load
from pipeline.errors import KinecloudError, UserError
from pretrain import evaluate as evaluation
from pretrain.evaluate import evaluate, evaluate_model, validation_chamfer_mm, window_of
from pretrain.metrics import MEASURES, NO_MOTION, baselines, errors_of
from pretrain.model.configuration_kinecloud import KinecloudConfig
from pretrain.model.modeling_kinecloud import KinecloudPredictor
from pretrain.neighbour import NAME as NEIGHBOUR
from pretrain.neighbour import Choices, NearestNeighbour
from pretrain.neighbour_choice import fitted
from pretrain.prediction import predict
from pretrain.reading import MAX_POINTS, clip_windows, in_batches
from tests.pretrain_clips import write_clips
from tests.test_pretrain_model import trained_like

IMAGE, POINTS = 32, 12
WINDOW = WindowConfig(points=POINTS, image_size=IMAGE)


def small_model(**changes: Any) -> KinecloudPredictor:
    torch.manual_seed(0)
    config = KinecloudConfig(image_size=IMAGE, width=32, layers=1, heads=2, slots=2, **changes)
    model = trained_like(KinecloudPredictor(config))
    assert isinstance(model, KinecloudPredictor)
    return model


@pytest.fixture(scope="module")
def model() -> KinecloudPredictor:
    return small_model()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_clips(tmp_path_factory.mktemp("clips"), train=24, val=8)


@pytest.fixture(scope="module")
def training(shards: tuple[Path, Path]) -> WindowDataset:
    return WindowDataset([shards[0]], WINDOW, all_points=True)


@pytest.fixture(scope="module")
def held_out(shards: tuple[Path, Path]) -> WindowDataset:
    return WindowDataset([shards[1]], WINDOW, all_points=True)


@pytest.fixture(scope="module")
def neighbour(training: WindowDataset) -> NearestNeighbour:
    found = fitted(training)
    assert found is not None
    return found


def batch_of(dataset: WindowDataset, numbers: Sequence[int]) -> dict[str, Any]:
    [(_, window)] = in_batches(dataset, numbers)
    return window


def test_clip_windows_cover_everything_once_and_never_mix_clips(make_clip: Callable[..., Clip], tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [make_clip(number, frames=12 + 20 * number) for number in range(3)])
    dataset = WindowDataset([tmp_path / "a.tar"], WindowConfig(points=16, image_size=64), all_points=True)
    read = []
    for clip, batch in clip_windows(dataset, stride=1):
        assert set(batch["key"]) == {clip.key}
        read += [(key, time) for key, time in zip(batch["key"], batch["time"].tolist(), strict=True)]
    assert len(read) == len(set(read)) == len(dataset)


def test_batches_hold_clouds_of_one_size_in_order_and_in_bounded_memory(
    make_clip: Callable[..., Clip], tmp_path: Path
) -> None:
    write_shard(tmp_path / "a.tar", [make_clip(n, frames=14, points=p) for n, p in enumerate((20, 20, 3000))])
    dataset = WindowDataset([tmp_path / "a.tar"], WINDOW, all_points=True)
    read = []
    for numbers, window in in_batches(dataset, range(len(dataset))):
        batch, _, points, _ = window["past"].shape
        assert batch == len(numbers) and batch * points <= MAX_POINTS
        assert window["key"] == [dataset.windows[number].key for number in numbers]
        read += numbers
    assert read == list(range(len(dataset)))


def test_figures_are_means_over_windows_then_clips_then_episodes(
    model: KinecloudPredictor, make_clip: Callable[..., Clip], tmp_path: Path
) -> None:
    groups = ["a", "a", "b", "c"]
    clips = [make_clip(n, frames=(13, 17, 15, 20)[n], group=group) for n, group in enumerate(groups)]
    write_shard(tmp_path / "a.tar", clips)
    dataset = WindowDataset([tmp_path / "a.tar"], WINDOW, all_points=True)
    document = evaluate_model(model, dataset, stride=2)
    values: dict[str, dict[str, dict[int, list[Any]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for number in range(0, len(dataset), 2):
        window = batch_of(dataset, [number])
        meta = dataset.meta_of(number)
        points, opening = predict(model, window)
        still = baselines(window, WINDOW.horizons_s, WINDOW.past_s)[NO_MOTION]
        for method, errors in (
            ("predictor", errors_of(points, window, WINDOW.horizons_s, opening)),
            (NO_MOTION, errors_of(still, window, WINDOW.horizons_s)),
        ):
            for name in ("ade_mm", "chamfer_mm", "within_2cm"):
                place = int(meta.episode_id[-4:])
                values[f"{method} {name}"][meta.group][place].append(errors[name][0].numpy())
    for label, by_group in values.items():
        method, _, name = label.rpartition(" ")
        for h in range(5):
            means = []
            for clips_of in by_group.values():
                inner = [
                    np.nanmean(np.stack(e)[:, h]) for e in clips_of.values() if np.isfinite(np.stack(e)[:, h]).any()
                ]
                means += [np.mean(inner)] if inner else []
            found = document["results"]["all"][name][method][h]
            assert found["mean"] == pytest.approx(np.mean(means), abs=2e-3), (label, h)
            assert found["episodes"] == len(means) == 3
    assert document["counts"]["all"] == {"clips": 4, "episodes": 3, "windows": len(range(0, len(dataset), 2))}
    assert document["counts"]["human-hand"]["clips"] == 2 and "simulated" not in document["counts"]


def test_the_same_model_and_clips_give_the_same_document(
    model: KinecloudPredictor, held_out: WindowDataset, neighbour: NearestNeighbour
) -> None:
    first, second = (json.dumps(evaluate_model(model, held_out, 2, neighbour), allow_nan=False) for _ in range(2))
    assert first == second


def test_nothing_of_the_future_reaches_the_model_or_the_neighbours(
    model: KinecloudPredictor, held_out: WindowDataset, neighbour: NearestNeighbour
) -> None:
    window = batch_of(held_out, range(0, len(held_out), 9))
    before = *predict(model, window), *neighbour.predict(window)
    for name in ("future", "future_opening"):
        window[name] = torch.full_like(window[name], math.nan)
    for name in ("future_visible", "future_valid"):
        window[name] = ~window[name]
    window["image_later"] = 255 - window["image"]
    for one, other in zip(before, (*predict(model, window), *neighbour.predict(window)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_a_model_is_judged_by_what_it_makes_of_the_present_alone(held_out: WindowDataset) -> None:
    handed: set[str] = set()

    class Watched(KinecloudPredictor):
        def forward(self, **window: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            handed.update(window)
            return super().forward(**window)

    evaluate_model(Watched(small_model().config), held_out, 7)
    assert handed == {
        "image", "intrinsics", "past", "past_visible", "past_valid", "past_opening", "past_grasp", "text", "embodiment",
        "seed",
    }  # fmt: skip


def test_a_prediction_that_is_not_finite_is_named(held_out: WindowDataset) -> None:
    broken = small_model()
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.fill_(math.nan)
    window = batch_of(held_out, [0])
    with pytest.raises(KinecloudError, match=window["key"][0]):
        predict(broken, window)


def test_the_nearest_neighbour_of_a_training_window_is_itself_unless_its_episode_is_left_out(
    make_clip: Callable[..., Clip], tmp_path: Path
) -> None:
    write_shard(tmp_path / "a.tar", [make_clip(number, frames=14) for number in range(6)])
    dataset = WindowDataset([tmp_path / "a.tar"], WINDOW, all_points=True)
    neighbour = fitted(dataset, choices=Choices(neighbours=1, rotate=True))
    assert neighbour is not None
    whole = [number for number in range(len(dataset)) if dataset[(number, 0)]["future_valid"].all()]
    window = batch_of(dataset, whole)
    points, opening = neighbour.predict(window)
    assert len(whole) == neighbour.describe()["windows"] == 24
    assert errors_of(points, window, WINDOW.horizons_s, opening)["displacement_mm"].max() < 0.05
    torch.testing.assert_close(opening, window["future_opening"])
    elsewhere, _ = neighbour.predict(window, [dataset.meta_of(number).group for number in whole])
    assert errors_of(elsewhere, window, WINDOW.horizons_s)["ade_mm"][:, -1].min() > 1


def test_a_replayed_motion_turns_and_shifts_another_cloud(make_clip: Callable[..., Clip], tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [make_clip(0, frames=11)])  # one window whose future is whole, and it turns
    dataset = WindowDataset([tmp_path / "a.tar"], WINDOW, all_points=True)
    neighbour = fitted(dataset, choices=Choices(rotate=True))
    assert neighbour is not None and neighbour.describe()["windows"] == 1
    window = batch_of(dataset, [0])
    shift = torch.tensor([0.1, -0.2, 0.3])
    moved = window | {name: (window[name] + shift)[:, :, ::2] for name in ("past", "future")}
    moved["past"] = moved["past"] - moved["past"].mean(2, keepdim=True) + window["past"].mean(2, keepdim=True) + shift
    points, _ = neighbour.predict(moved)
    true = window["future"] + shift
    assert (points - true[:, :, ::2]).norm(dim=-1).max() < 0.02  # half of the points have nearly the same centroid
    lengths = [(p[..., :1, :] - p).norm(dim=-1) for p in (points, moved["past"][:, -1:].expand_as(points))]
    torch.testing.assert_close(*lengths, rtol=1e-4, atol=1e-6)


def test_the_choice_of_neighbours_uses_what_tells_motions_apart(
    model: KinecloudPredictor, held_out: WindowDataset, neighbour: NearestNeighbour
) -> None:
    # colour and instruction say where the cloud speeds up to, which neither standing still nor coasting knows
    document = evaluate_model(model, held_out, 1, neighbour)
    ade = {method: values[-1]["mean"] for method, values in document["results"]["all"]["ade_mm"].items()}
    assert ade[NEIGHBOUR] < 0.5 * min(ade[name] for name in ("no motion", "constant velocity"))
    assert document["nearest_neighbour"]["episodes"] == 24 and neighbour.choices != Choices()


def test_samples_are_judged_by_their_mean_error_and_the_best_of_them(held_out: WindowDataset) -> None:
    generative = small_model(generative=True, flow_steps=2, delta_scale=[0.3] * 5)
    document = evaluate_model(generative, held_out, 5, samples=3)
    again = evaluate_model(generative, held_out, 5, samples=3)
    assert document == again and document["samples"] == 3
    for name in ("ade_mm", "displacement_mm"):
        by_method = {m: values[-1]["mean"] for m, values in document["results"]["all"][name].items()}
        best, mean = by_method["predictor, best of 3 samples"], by_method["predictor, mean of 3 samples"]
        assert best < by_method["predictor"] and mean < by_method["predictor"], name
    window = batch_of(held_out, [0, 1])
    drawn = [predict(generative, window, sample)[0] for sample in (0, 1, 0)]
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])
    assert evaluate_model(small_model(), held_out, 5, samples=3)["samples"] == 1


def test_windows_of_other_times_than_the_model_s_are_refused(
    model: KinecloudPredictor, shards: tuple[Path, Path]
) -> None:
    other = WindowConfig(points=POINTS, image_size=64, horizons_s=(0.1, 0.2))
    with pytest.raises(UserError, match=r"horizons_s.*\[0\.1, 0\.2\]"):
        evaluate_model(model, WindowDataset([shards[1]], other, all_points=True))
    with pytest.raises(UserError, match="all_points"):
        evaluate_model(model, WindowDataset([shards[1]], WINDOW))
    assert window_of(model, other) == WINDOW


def test_validation_reads_no_more_than_it_may(
    model: KinecloudPredictor, make_clip: Callable[..., Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(tmp_path / "a.tar", [make_clip(n, frames=14, points=600) for n in range(3)])
    dataset = WindowDataset([tmp_path / "a.tar"], WINDOW, all_points=True)
    seen: list[tuple[int, ...]] = []

    def watched(model: KinecloudPredictor, window: dict[str, Any]) -> Any:
        seen.append(tuple(window["past"].shape))
        return predict(model, window)

    monkeypatch.setattr(evaluation, "predict", watched)
    error = validation_chamfer_mm(model, dataset, 10)
    assert error is not None and error == validation_chamfer_mm(model, dataset, 10)
    assert sum(shape[0] for shape in seen) == 20 and all(shape[2] <= 256 for shape in seen)
    everything = validation_chamfer_mm(model, dataset, 10_000)
    assert everything is not None and error == pytest.approx(everything, rel=0.3)
    assert validation_chamfer_mm(model, WindowDataset([], WINDOW, all_points=True), 10) is None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, shards: tuple[Path, Path], model: KinecloudPredictor) -> Config:
    """A run folder with a model in it and with other horizons in its configuration than the model's."""
    folder = tmp_path_factory.mktemp("run")
    settings = {
        "train_shards": [str(shards[0])],
        "val_shards": [str(shards[1])],
        "window": {"horizons_s": [0.1, 0.3], "image_size": 64},
        "device": "cpu",
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"run": {"out": str(folder / "out"), "seed": 3}, "pretrain": settings}))
    model.save_pretrained(folder / "model")
    return load(path)


def test_the_report_shows_best_median_and_worst_and_every_method(run: Config) -> None:
    document = evaluate(run, run.path.parent / "model")
    assert document["horizons_s"] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert json.loads((run.folder("pretrain") / "eval.json").read_text()) == document
    ranks = {example["rank"]: example["mean_ade_mm"] for example in document["examples"]}
    assert list(ranks) == ["best", "median", "worst"] and list(ranks.values()) == sorted(ranks.values())
    section = json.loads((run.folder("pretrain") / "report" / "section.json").read_text())
    items = {
        kind: [item for item in section["items"] if item["kind"] == kind] for kind in ("images", "curves", "table")
    }
    captions = [picture["caption"] for picture in items["images"][0]["images"]]
    assert len(captions) == len(document["examples"]) == 6
    for caption, example in zip(captions, document["examples"], strict=True):
        for shown in (example["rank"].capitalize(), example["clip"], example["embodiment"], example["task"]):
            assert shown in caption
    methods = ["predictor", "no motion", "constant velocity", "least-squares velocity", "nearest neighbour"]
    assert document["methods"] == methods and set(document["results"]["all"]) == set(MEASURES)
    curve = items["curves"][0]["series"]
    assert [line["name"] for line in curve] == methods and curve[0]["x"] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert sum(not table.get("folded", False) for table in items["table"]) <= 2
    assert len(section["items"]) < 20


def test_other_shards_are_judged_beside_the_run_not_over_it(run: Config, shards: tuple[Path, Path]) -> None:
    document = evaluate(run, run.path.parent / "model", [shards[0]])
    assert document["clips"] == 24
    folder = run.folder("pretrain") / "other-shards"
    assert json.loads((folder / "eval.json").read_text())["clips"] == 24
    with pytest.raises(UserError, match=r"missing\.tar"):
        evaluate(run, run.path.parent / "model", [shards[0].parent / "missing.tar"])
