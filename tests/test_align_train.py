"""Alignment keeps the predictor's weights, takes its units from the labels, and survives being killed."""

from __future__ import annotations

import json
import shutil
from itertools import compress
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from align.adapters import adapt
from align.config import ActionLoss
from align.labels import labelled_set
from align.objective import action_errors
from align.policy import load_policy
from align.run import AlignRun
from align.train import Alignment, align, new_policy
from data.clips import Clip, Shard, write_shard
from data.loader import batches, collate
from pipeline.config import Config, load
from pipeline.errors import Refused, UserError
from pretrain.model.direct import BINS
from pretrain.model.policy_kinecloud import PolicyPrediction
from pretrain.train import pretrain
from tests.align_runs import aligned, command, config_file, pretrained
from tests.pretrain_clips import moving_clip, write_clips


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run that nobody disturbed."""
    return aligned(tmp_path_factory.mktemp("whole"))


def copied(config: Config, folder: Path, **align_changes: Any) -> Config:
    """The same run elsewhere, with what it has trained so far."""
    shutil.copytree(config.run.out, folder / "run")
    clips = config.run.out.parent / "clips"
    return load(config_file(folder, (clips / "train-00000.tar", clips / "val-00000.tar"), **align_changes))


def test_a_new_policy_holds_every_weight_of_the_predictor(whole: Config) -> None:
    policy = new_policy(AlignRun(whole))
    stored = load_file(whole.folder("pretrain") / "model" / "model.safetensors")
    trunk = policy.predictor.state_dict()
    assert trunk.keys() == stored.keys()
    assert all(torch.equal(trunk[name], stored[name]) for name in stored)


def test_a_new_policy_predicts_the_clouds_of_the_predictor(whole: Config) -> None:
    run = AlignRun(whole)
    policy, predictor = new_policy(run).eval(), run.predictor().eval()
    window = collate([run.val_windows[(n, n)] for n in range(4)])
    with torch.no_grad():
        torch.testing.assert_close(policy(**window).points, predictor(**window).points, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("trunk", ["full", "lora", "frozen", "separate"])
def test_only_a_full_trunk_learns(whole: Config, tmp_path: Path, trunk: str) -> None:
    config = whole if trunk == "full" else copied(whole, tmp_path, trunk=trunk)
    if trunk != "full":
        align(config, resume=False)
    before = load_file(config.folder("pretrain") / "model" / "model.safetensors")
    after = load_file(config.folder("align") / "model" / "model.safetensors")
    same = all(torch.equal(before[name], after[f"predictor.{name}"]) for name in before)
    assert same is (trunk in ("frozen", "separate"))
    assert not any("lora" in name for name in after)
    assert any(name.startswith("own.") for name in after) is (trunk == "separate")
    assert after["head.action_out.weight"].abs().sum() > 0


def test_videos_keep_teaching_the_trunk_and_say_nothing_of_actions(tmp_path: Path) -> None:
    shard, held_out = write_clips(tmp_path / "clips", labelled=True)
    write_shard(tmp_path / "videos.tar", [moving_clip(20), moving_clip(21)])
    shards = [str(shard), str(tmp_path / "videos.tar")]
    config = load(config_file(tmp_path, (shard, held_out), videos=0.5, train_shards=shards))
    pretrain(config, resume=True)
    align(config, resume=True)
    training, policy = Alignment(AlignRun(config)), load_policy(config.folder("align") / "model")
    window = next(batches(training.dataset, 8, seed=0))
    labelled = window["actions_valid"].any(1)
    assert int(labelled.sum()) == 4
    known = {name: _chosen(values, labelled) for name, values in window.items()}
    both, alone = training.loss(policy, window, 1.0), training.loss(policy, known, 1.0)
    torch.testing.assert_close(both.terms["action"], alone.terms["action"] / 2)  # the mean over labelled windows
    assert both.terms["chamfer"] != alone.terms["chamfer"]


def _chosen(values: Any, which_B: torch.Tensor) -> Any:
    return list(compress(values, which_B.tolist())) if isinstance(values, list) else values[which_B]


def test_adapters_learn_and_are_merged_into_the_weights_of_the_predictor(tmp_path: Path) -> None:
    config = aligned(tmp_path, trunk="lora", lora_rank=2, learning_rate=0.01)
    trained = load_file(config.folder("pretrain") / "model" / "model.safetensors")
    stored = load_file(config.folder("align") / "model" / "model.safetensors")
    run = AlignRun(config)
    policy = new_policy(run)
    adapt(policy, 2)
    policy.load_state_dict(load_file(max((config.folder("align") / "checkpoints").iterdir()) / "model.safetensors"))
    changed = {name for name in trained if not torch.equal(trained[name], stored[f"predictor.{name}"])}
    assert changed and all(trained[name].ndim == 2 for name in changed)
    for name in changed:
        assert torch.linalg.matrix_rank(stored[f"predictor.{name}"] - trained[name], rtol=1e-3) <= 2
    window = collate([run.val_windows[(n, n)] for n in range(3)])
    with torch.no_grad():
        merged, adapted = load_policy(config.folder("align") / "model")(**window), policy.eval()(**window)
    torch.testing.assert_close(merged.actions, adapted.actions, atol=1e-5, rtol=1e-4)


def test_a_separate_head_changes_no_prediction_and_sees_with_its_own_trunk(tmp_path: Path) -> None:
    config = aligned(tmp_path, trunk="separate")
    run = AlignRun(config)
    policy, predictor = load_policy(config.folder("align") / "model"), run.predictor().eval()
    window = collate([run.val_windows[(n, n)] for n in range(3)])
    with torch.no_grad():
        found = policy(**window)
        torch.testing.assert_close(found.points, predictor(**window).points, atol=1e-6, rtol=1e-5)
        assert policy.own is not None
        for weight in policy.own.trunk.parameters():
            weight.zero_()
        assert not torch.equal(policy(**window).actions, found.actions)


def test_from_scratch_only_the_architecture_is_taken(tmp_path: Path) -> None:
    run = AlignRun(pretrained(tmp_path, start="scratch"))
    trained = load_file(run.predictor_folder / "model.safetensors")
    fresh, again = run.predictor().state_dict(), run.predictor().state_dict()
    assert fresh.keys() == trained.keys() and all(torch.equal(fresh[name], again[name]) for name in fresh)
    assert not torch.equal(fresh["horizon_queries"], trained["horizon_queries"])
    assert not fresh["motion.weight"].any()


@pytest.mark.parametrize(
    "settings",
    [{"videos": 0.5, "trunk": "frozen"}, {"videos": 0.5, "dynamics": 0.0}, {"start": "scratch", "trunk": "frozen"}],
)
def test_what_teaches_nothing_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="trunk"):
        AlignRun(pretrained(tmp_path, **settings))


def test_quantiles_come_from_the_training_labels_and_travel_with_the_policy(whole: Config) -> None:
    run = AlignRun(whole)
    shard = Shard(run.train_shards[0])
    actions = np.concatenate([shard.array(key, "actions") for key in shard.keys]).astype(np.float64)
    policy = new_policy(run)
    low, high = np.quantile(actions, [0.01, 0.99], axis=0)
    stored = load_file(whole.folder("align") / "model" / "model.safetensors")
    np.testing.assert_allclose(stored["action_q01"].numpy(), low, rtol=1e-6)
    np.testing.assert_allclose(stored["action_q99"].numpy(), high, rtol=1e-6)
    edges = torch.from_numpy(np.stack([low, high])).float()
    torch.testing.assert_close(policy.normalize(edges, "action"), torch.tensor([[-1.0] * 3, [1.0] * 3]))
    torch.testing.assert_close(policy.denormalize(policy.normalize(edges, "action"), "action"), edges)


def test_actions_beyond_the_end_of_a_clip_do_not_count() -> None:
    random = torch.Generator().manual_seed(0)
    ours, true, garbage = (torch.randn(3, 4, 2, generator=random) for _ in range(3))
    found = PolicyPrediction(actions=ours, action_logits=torch.randn(3, 4, 2, BINS, generator=random))
    valid = torch.tensor([[True] * 4, [True, True, False, False], [False] * 4])
    changed = torch.where(valid[..., None], true, garbage)
    for kind in get_args(ActionLoss):
        error, known = action_errors(found, true, valid, kind)
        assert known.tolist() == [True, True, False]
        torch.testing.assert_close(error, action_errors(found, changed, valid, kind)[0])
    expected = (ours - true).abs()[1, :2].mean()
    torch.testing.assert_close(action_errors(found, true, valid, "l1")[0][1], expected)


def test_a_killed_run_goes_on_to_the_same_bytes(whole: Config, tmp_path: Path) -> None:
    config = copied(whole, tmp_path)
    folder = config.folder("align")
    for trace in (folder / "checkpoints" / "step-00000004", folder / "model"):
        shutil.rmtree(trace)
    (folder / "done.json").unlink()
    align(config, resume=True)
    for name in ("model/model.safetensors", "metrics.jsonl", "eval.json"):
        assert (folder / name).read_bytes() == (whole.folder("align") / name).read_bytes(), name


def test_another_configuration_is_refused_with_the_differing_key(whole: Config, tmp_path: Path) -> None:
    config = copied(whole, tmp_path, learning_rate=0.5)
    with pytest.raises(Refused, match=r"settings\.learning_rate: 0\.001 -> 0\.5"):
        align(config, resume=True)


def test_finished_work_is_recognised_without_torch(whole: Config) -> None:
    program = "import sys; from align.cli import main; code = main(); print('torch' in sys.modules); sys.exit(code)"
    done = command("-c", program, "--config", whole.path)
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(("action_loss", "more"), [
    ("smooth_l1", {}), ("l1", {}), ("flow_matching", {}),
    ("binned", {"steps": 100, "checkpoint_every": 100, "learning_rate": 3e-3}),  # bins learn more slowly
])  # fmt: skip
def test_the_policy_learns_more_than_the_mean_action(tmp_path: Path, action_loss: str, more: dict[str, Any]) -> None:
    settings = {"steps": 60, "batch_size": 16, "checkpoint_every": 60, "dynamics": 0.0} | more
    config = aligned(tmp_path, **settings, action_loss=action_loss)
    errors = json.loads((config.folder("align") / "eval.json").read_text())["errors"]
    assert sum(errors["policy"]["chunk"]) < 0.8 * sum(errors["dataset mean"]["chunk"])


def test_without_labels_there_is_nothing_to_align_with(tmp_path: Path) -> None:
    config = pretrained(tmp_path, labelled=False)
    with pytest.raises(UserError, match="no training clip is labelled"):
        align(config, resume=True)


def relabelled(clip: Clip, **spec: Any) -> Clip:
    meta = clip.meta.model_copy(update={"action_spec": clip.meta.action_spec.model_copy(update=spec)})  # pyright: ignore
    return Clip(clip.key, clip.arrays, clip.images, meta)


def test_labels_of_another_kind_or_rate_are_refused(tmp_path: Path) -> None:
    clips = [moving_clip(0, labelled=True), relabelled(moving_clip(1, labelled=True), unit="inch")]
    write_shard(tmp_path / "mixed.tar", clips)
    with pytest.raises(UserError, match=r"mixed\.tar: clip clip-0001: meta\.action_spec differs"):
        labelled_set([tmp_path / "mixed.tar"])
    write_shard(tmp_path / "slow.tar", [relabelled(moving_clip(0, labelled=True), rate_hz=10)])
    with pytest.raises(UserError, match=r"20\.00 Hz, but actions at 10 Hz.*extract\.rate_hz=10"):
        labelled_set([tmp_path / "slow.tar"])


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": {"chamfer": 0, "tracked": 0, "flow_matching": 1}},
        {"objective": {"chamfer": 0, "tracked": 0, "tracks2d": 1}, "model": {"width": 32, "heads": 2, "dimensions": 2}},
        {"objective": {"chamfer": 0, "latent_action": 1}},
    ],
    ids=["flow matching", "2D tracks", "latent actions"],
)
def test_a_predictor_of_any_objective_becomes_a_policy_that_acts(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = aligned(tmp_path, pretrain=changes)
    evaluation = json.loads((config.folder("pretrain") / "eval.json").read_text())
    assert np.isfinite(evaluation["last_horizon"]["all"]["chamfer_mm"])
    policy = load_policy(config.folder("align") / "model")
    run = AlignRun(config)
    window = collate([run.val_windows[(n, n)] for n in range(3)])
    with torch.no_grad():
        actions = policy(**window).actions
        assert torch.equal(actions, policy(**window).actions) and torch.isfinite(actions).all()
    assert float(actions.std()) > 0
