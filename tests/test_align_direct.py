"""The direct head: a linear map that is solved before training, and tokens that count as much as they are worth."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from align.direct import TEST, prepare
from align.policy import load_policy
from align.recorded import recorded_windows
from align.run import AlignRun
from align.train import new_policy
from data.clips import Clip, Shard, write_shard
from pipeline.config import Config, load
from pretrain.model.direct import DirectHead, Trust
from tests.align_runs import aligned, config_file, pretrained
from tests.pretrain_clips import moving_clip, write_clips


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return aligned(tmp_path_factory.mktemp("whole"), learning_rate=0.05)


def head_of(config: Config) -> DirectHead:
    head = load_policy(config.folder("align") / "model").head
    assert isinstance(head, DirectHead)
    return head


def test_the_linear_map_is_solved_and_does_not_learn(whole: Config) -> None:
    """The clips' actions are where the next frame, 0.05 s later, has the cloud."""
    run, head = AlignRun(whole), head_of(whole)
    found = prepare(run, new_policy(run))
    assert torch.equal(head.straight.weight, found.straight.map_FV[1:].T)
    assert torch.equal(head.straight.bias, found.straight.map_FV[0])
    assert found.straight.errors_V[:3].max() < 0.2  # of half the range of an action, in tasks that were left out
    said = found.told(run.labelled.spec.names)
    assert said.startswith(f"linear map of the plan: dx by {found.straight.reading_V[0]} (0.")
    assert not torch.equal(head.action_out.weight, torch.zeros_like(head.action_out.weight))


def test_the_map_may_read_no_more_than_it_is_told(whole: Config) -> None:
    head = head_of(whole)
    readings, horizons, proprio = head.readings(), len(head.times), 3
    width = head.straight.in_features
    assert all(part.shape == (width,) for part in readings.values())
    assert len(readings) == 1 + 4 * horizons
    first, last = (f"{seconds:g} s" for seconds in (head.times[0], head.times[-1]))
    assert int(readings[first].sum()) == 3 + 9  # a move, and the last two steps
    assert int(readings[f"{last} with turns"].sum()) == 6 * horizons + 9
    assert int(readings[f"{last} with proprio"].sum()) == 3 * horizons + 9 + proprio
    assert int(readings[f"openings {last}"].sum()) == horizons + 2
    assert readings["proprio"].nonzero()[:, 0].tolist() == list(range(width - proprio, width))


def test_tokens_are_tested_in_a_third_of_the_tasks(tmp_path: Path) -> None:
    run = AlignRun(pretrained(tmp_path, left_out="tasks"))
    found = prepare(run, new_policy(run))
    task_of = {key: shard.meta(key).instruction for shard in map(Shard, run.train_shards) for key in shard.keys}
    tested = {task_of[key] for key in found.tested}
    assert len(set(task_of.values())) == 4 and len(tested) == 2
    assert found.untaught([*task_of], 0.0).tolist() == [task in tested for task in task_of.values()]
    assert not found.untaught([*task_of], TEST).any()


@pytest.mark.parametrize(
    ("left_out", "videos", "tasks"), [(None, 0, False), (None, 1, True), ("recordings", 1, False), ("tasks", 0, True)]
)
def test_tasks_are_left_out_where_some_have_no_labels(
    whole: Config, tmp_path: Path, left_out: str | None, videos: int, tasks: bool
) -> None:
    shard, held_out = write_clips(tmp_path / "clips", labelled=True)
    clip = moving_clip(20)
    new = Clip(clip.key, clip.arrays, clip.images, clip.meta.model_copy(update={"instruction": "do something new"}))
    write_shard(tmp_path / "videos.tar", [moving_clip(21), *[new] * videos])
    shards, predictor = [str(shard), str(tmp_path / "videos.tar")], str(whole.folder("pretrain") / "model")
    path = config_file(tmp_path, (shard, held_out), left_out=left_out, train_shards=shards, predictor=predictor)
    run = AlignRun(load(path))
    assert run.leaves_out_tasks == tasks
    assert bool(prepare(run, new_policy(run)).tested) == tasks
    recorded = recorded_windows(run, new_policy(run), 1, lambda *_: {})
    assert len(set(recorded.left_out)) == (4 if tasks else 16)


def test_what_tokens_say_counts_as_it_is_worth_where_they_are_not_taught() -> None:
    """Of three numbers the tokens say the first truly, the second too loudly and the third at random."""
    random = torch.Generator().manual_seed(0)
    true_BKA, noise_BKA = torch.randn(2, 256, 1, 3, generator=random)
    said_BKA = (true_BKA * torch.tensor([1.0, 2, 0]) + noise_BKA * torch.tensor([0.0, 0, 1])).requires_grad_()
    trust, untaught = Trust(3, 1), torch.arange(256) % 2 == 0
    torch.nn.init.zeros_(trust.logit.weight)
    assert torch.equal(trust.factors(), torch.ones(3))
    optimizer = torch.optim.Adam(trust.parameters(), lr=0.01)
    for _ in range(300):
        optimizer.zero_grad()
        (trust(said_BKA, untaught) - true_BKA).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(trust.factors(), torch.tensor([1.0, 0.5, 0.0]), atol=0.15, rtol=0)
    assert said_BKA.grad is not None and (said_BKA.grad[untaught] == 0).all() and (said_BKA.grad[~untaught] != 0).any()
    taught = trust(said_BKA, torch.zeros(256, dtype=torch.bool))
    assert torch.equal(taught, said_BKA) and not torch.equal(trust(said_BKA, None), said_BKA)
