"""The rows of the benchmark as data: what each learns from, how it is trained, and what closes the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from data.simulation.sensors import Sensors

MAIN = "main"
CHAIN: Sensors = "rgbd"  # of a row that does not say

Head = Literal["inverse_dynamics", "direct"]
Control = Literal["policy", "true_future", "p_controller"]


@dataclass(frozen=True)
class Clips:
    """What a row may learn from, episodes per task. labelled: robot episodes with actions, of each labelled task.

    seen: robot and hand videos of each labelled task, the labelled episodes among the robot's. unseen: the same of each
    video-only task; (0, 0) means that their videos are not used at all. oracle: video-only tasks have labels, too.
    """

    labelled: int = 3
    seen: tuple[int, int] = (20, 20)
    unseen: tuple[int, int] = (20, 20)
    oracle: bool = False


@dataclass(frozen=True)
class Row:
    """One row of the table. words: for people. chains: those it is run for.

    pretrain, align: settings of these sections, over those of the budget. grid: the predictor learns points
    all over the picture instead of the effector's. joint: one training of points and actions, as long as both.
    """

    name: str
    words: str
    clips: Clips = Clips()
    chains: tuple[Sensors, ...] = (CHAIN,)
    head: Head = "inverse_dynamics"
    control: Control = "policy"
    pretrain: Mapping[str, Any] = field(default_factory=dict)
    align: Mapping[str, Any] = field(default_factory=dict)
    grid: bool = False
    joint: bool = False


def _videos(count: int) -> Clips:
    """Of each video-only task; the odd one is a robot's."""
    return Clips(unseen=(count - count // 2, count // 2))


ROBOT_ONLY = Clips(seen=(40, 0), unseen=(40, 0))
HUMAN_ONLY = Clips(seen=(0, 40), unseen=(0, 40))
_ONE_KIND = {"mixture": None}  # of videos, so that there is nothing to weigh
_DIRECT = {"learning_rate": 3e-3, "proprio_noise": 0.5}  # how a direct head learns best

_ROWS = (
    Row(MAIN, "robot and hand videos of each task, a few labelled episodes of each labelled one",
        chains=("truth", "rgbd", "rgb")),
    Row("no_pretraining", "no videos: the predictor learns from the labelled episodes alone",
        Clips(seen=(0, 0), unseen=(0, 0)), pretrain=_ONE_KIND),
    Row("labelled_videos", "videos of the labelled tasks only", Clips(unseen=(0, 0))),
    Row("robot_only", "as many videos, all of robots", ROBOT_ONLY, pretrain=_ONE_KIND),
    Row("human_only", "as many videos, all of hands; the robot is seen in the labelled episodes alone", HUMAN_ONLY,
        chains=("rgbd", "rgb"), pretrain=_ONE_KIND),
    Row("as_hand", "as human_only; the predictor is asked as a hand, with an offset of points fitted to the labels",
        HUMAN_ONLY, pretrain=_ONE_KIND, align={"asks_as": "human-hand"}),
    Row("tracks2d", "2D tracks, depth as now (ATM-like)",
        pretrain={"model": {"dimensions": 2}, "objective": {"chamfer": 0.0, "tracked": 0.0, "tracks2d": 1.0}}),
    Row("latent", "latent actions (LAPO-like)",
        pretrain={"objective": {"chamfer": 0.0, "tracked": 1.0, "latent_action": 1.0, "waypoints": 0.0,
                                "heatmap": 0.0}}),
    Row("blind", "neither picture nor depth, in training and in control",
        pretrain={"model": {"blind": True}}),
    Row("oracle", "labels for all tasks, 3 episodes each; gripper and hands are found as for main", Clips(oracle=True)),
    Row("true_future", "the true future clouds instead of predicted ones, same head: upper bound of control",
        control="true_future"),
    Row("p_controller", "main's predicted clouds, followed by a proportional controller that learns nothing",
        control="p_controller"),
    Row("direct", "main's predictor, actions by a direct head", head="direct", align=_DIRECT | {"trunk": "frozen"}),
    Row("direct_flow", "the same, actions by flow matching", head="direct",
        align=_DIRECT | {"trunk": "frozen", "action_loss": "flow_matching"}),
    Row("direct_bins", "the same, actions by cross-entropy over bins", head="direct",
        align=_DIRECT | {"trunk": "frozen", "action_loss": "binned"}),
    Row("joint", "points and actions trained together, in one stage", head="direct", joint=True, align=_DIRECT),
    Row("separate", "predictor and head trained apart, no shared weights", head="direct",
        align=_DIRECT | {"trunk": "separate"}),
    Row("points200", "200 points instead of 32", pretrain={"window": {"points": 200}}, align={"points": 200}),
    Row("grid", "points of a uniform grid instead of the effector's", grid=True),
    *(Row(f"labelled_{count}", f"labelled episodes of each labelled task: {count}; the gripper is found as for main",
          Clips(labelled=count)) for count in (1, 5, 10)),
    Row("videos_5", "5 videos of each video-only task", _videos(5)),
    Row("videos_10", "10 videos of each video-only task", _videos(10)),
    Row("videos_20", "20 videos of each video-only task", _videos(20)),
)  # fmt: skip
ROWS = {row.name: row for row in _ROWS}
