"""Uses the plugin as lerobot does: ``python lerobot_plays.py EXPORT SET WORK``, with the wheel's content on the path.

It runs in whatever environment lerobot is installed in, so it imports nothing of this repository but the plugin.
EXPORT: folder of an exported policy for actions dx, dy, dz, gripper and proprioception x, y, z. SET: a data set of
``python -m lerobot_policy_kinecloud``. WORK: an empty folder. Prints a line for each thing that held.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import gymnasium
import numpy as np
import torch
from lerobot.configs import FeatureType, PreTrainedConfig  # pyright: ignore[reportMissingImports]
from lerobot.configs.types import PolicyFeature  # pyright: ignore[reportMissingImports]
from lerobot.datasets.lerobot_dataset import LeRobotDataset  # pyright: ignore[reportMissingImports]
from lerobot.envs.configs import EnvConfig  # pyright: ignore[reportMissingImports]
from lerobot.policies.factory import make_policy, make_pre_post_processors  # pyright: ignore[reportMissingImports]
from lerobot.utils.import_utils import register_third_party_plugins  # pyright: ignore[reportMissingImports]

OWN = "observation.kinecloud."
K = np.array([[80, 0, 32], [0, 80, 24], [0, 0, 1]], np.float32)
STEPS, POINTS = 6, 20


class Toy(gymnasium.Env):
    """A cloud that moves as the actions say. Observations as the plugin wants them, pictures of noise."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    task, task_description, _max_episode_steps = "toy", "reach out", STEPS
    render_mode = "rgb_array"

    def __init__(self, **_):
        def box(*shape):
            return gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)

        clouds = {"points": box(POINTS, 3), "intrinsics": box(3, 3), "opening": box(1), "grasp": box(3)}
        picture = gymnasium.spaces.Box(0, 255, (48, 64, 3), np.uint8)
        own = {f"kinecloud.{name}": space for name, space in clouds.items()}
        pixels = gymnasium.spaces.Dict({"camera": picture})
        self.observation_space = gymnasium.spaces.Dict({"pixels": pixels, "agent_pos": box(3), **own})
        self.action_space = box(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cloud, self.step_number = self.np_random.normal([0, 0, 0.7], 0.03, (POINTS, 3)).astype(np.float32), 0
        return self._seen(), {"is_success": False}

    def step(self, action):
        self.cloud = self.cloud + np.clip(action[:3], -0.01, 0.01).astype(np.float32)
        self.step_number += 1
        over = self.step_number >= STEPS
        return self._seen(), 0.0, False, over, {"is_success": over}

    def render(self):
        return np.zeros((48, 64, 3), np.uint8)

    def _seen(self):
        picture = self.np_random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        own = {"points": self.cloud, "intrinsics": K, "opening": np.full(1, 0.04, np.float32)}
        own["grasp"] = self.cloud.mean(0)
        return {"pixels": {"camera": picture}, "agent_pos": self.cloud.mean(0)} | {
            f"kinecloud.{name}": array for name, array in own.items()
        }


@EnvConfig.register_subclass("kinecloud_toy")
@dataclass
class ToyConfig(EnvConfig):
    task: str = "Toy-v0"
    fps: int = 20
    features: dict[str, PolicyFeature] = field(
        default_factory=lambda: {
            "action": PolicyFeature(FeatureType.ACTION, (4,)),
            "pixels/camera": PolicyFeature(FeatureType.VISUAL, (48, 64, 3)),
            "agent_pos": PolicyFeature(FeatureType.STATE, (3,)),
            "kinecloud.points": PolicyFeature(FeatureType.STATE, (POINTS, 3)),
            "kinecloud.intrinsics": PolicyFeature(FeatureType.STATE, (3, 3)),
        }
    )
    features_map: dict[str, str] = field(
        default_factory=lambda: {
            "action": "action",
            "pixels/camera": "observation.images.camera",
            "agent_pos": "observation.state",
            "kinecloud.points": OWN + "points",
            "kinecloud.intrinsics": OWN + "intrinsics",
        }
    )

    @property
    def gym_kwargs(self):
        return {}


gymnasium.register("gym_kinecloud_toy/Toy-v0", entry_point=Toy)


def discovered():
    register_third_party_plugins()
    assert "kinecloud" in PreTrainedConfig.get_known_choices()
    print("discovered")


def config_of(export, **settings):
    return PreTrainedConfig.get_choice_class("kinecloud")(
        pretrained_kinecloud=str(export), embodiment="sawyer-gripper", device="cpu", push_to_hub=False, **settings
    )


def saved(export, folder):
    """A policy made of the export, saved and loaded by lerobot; both."""
    made = make_policy(config_of(export), env_cfg=ToyConfig())
    made.save_pretrained(folder)
    for processor in make_pre_post_processors(made.config):
        processor.save_pretrained(folder)
    config = PreTrainedConfig.from_pretrained(folder)
    config.pretrained_path = folder
    loaded = make_policy(config, env_cfg=ToyConfig())
    assert loaded.state_dict().keys() == made.state_dict().keys()
    for name, value in made.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert not loaded.training and loaded.config.pretrained_kinecloud is None
    print("saved and loaded")
    return made, loaded


def moments_of(seed):
    """Eight frames of one environment: picture u8, cloud, opening, proprioception."""
    random = np.random.default_rng(seed)
    clouds = random.normal([0, 0, 0.7], 0.03, (POINTS, 3)) + np.cumsum(random.normal(0, 0.01, (8, 1, 3)), 0)
    pictures = random.integers(0, 256, (8, 48, 64, 3), dtype=np.uint8)
    return pictures, clouds.astype(np.float32), random.uniform(0, 0.1, 8).astype(np.float32), clouds.mean(1)


def observed(environments, frame):
    """A batch as lerobot-eval makes it."""
    columns = list(zip(*environments, strict=True))
    pictures, clouds, openings, states = (np.stack([array[frame] for array in column]) for column in columns)
    return {
        "observation.images.camera": torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255,
        "observation.state": torch.from_numpy(states).float(),
        OWN + "points": torch.from_numpy(clouds),
        OWN + "grasp": torch.from_numpy(clouds[:, 0]),
        OWN + "opening": torch.from_numpy(openings)[:, None],
        OWN + "intrinsics": torch.from_numpy(np.stack([K] * len(environments))),
        "task": [f"do the thing {number}" for number in range(len(environments))],
    }


def wanted(policy, environment, number, frame):
    """What KinecloudPolicy.act says to the same; at 20 frames per second the past clouds are the last four frames."""
    pictures, clouds, openings, states = environment
    back = [max(frame - step, 0) for step in (3, 2, 1, 0)]
    return policy.act(
        pictures[frame], f"do the thing {number}", clouds[back], np.array([frame >= step for step in (3, 2, 1, 0)]),
        K, states[frame].astype(np.float32), "sawyer-gripper", past_opening_P=openings[back],
        past_grasp_P3=clouds[back, 0],
    )  # fmt: skip


def acts_alike(loaded, policy):
    """loaded: of lerobot; policy: KinecloudPolicy of the export. Batches of 2 and of 1, after reset, chunks.

    To the bit where the weights lie in the same memory; matrix products round by where they lie.
    """
    itself = loaded.kinecloud
    preprocessor, postprocessor = make_pre_post_processors(loaded.config)
    different = []
    for environments in ([moments_of(1), moments_of(2)], [moments_of(3)]):
        loaded.reset()
        for frame in range(8):
            batch = preprocessor(observed(environments, frame))
            found = postprocessor(loaded.select_action(batch)).numpy()
            for number, environment in enumerate(environments):
                actions = wanted(itself, environment, number, frame)[0]
                exported = wanted(policy, environment, number, frame)[0]
                np.testing.assert_allclose(actions, exported, rtol=1e-4, atol=1e-5)
                np.testing.assert_array_equal(found[number], actions, err_msg=f"frame {frame}, row {number}")
                different.append(actions)
    assert len({action.tobytes() for action in different}) == len(different), "the policy says the same to everything"
    loaded.reset()
    loaded.config.n_action_steps = 2
    environment = moments_of(4)
    found = [loaded.select_action(observed([environment], frame)).numpy()[0] for frame in range(4)]
    for frame in (0, 2):
        chunk = wanted(itself, environment, 0, frame)
        np.testing.assert_array_equal(found[frame : frame + 2], chunk[:2])
    loaded.config.n_action_steps = 1
    loaded.reset()
    chunk_BKA = loaded.predict_action_chunk(observed([environment], 0))
    np.testing.assert_array_equal(chunk_BKA[0].numpy(), wanted(itself, environment, 0, 0))
    print(f"{len(different)} actions are those of KinecloudPolicy.act")


def learns(loaded, root):
    """The loss of items of a data set, its gradients, and what else of it reaches the policy."""
    rate, config = loaded.config.rate_hz, loaded.config
    past = [step / rate for step in config.observation_delta_indices]
    probe = LeRobotDataset("local/set", root=root)
    deltas = {name: past for name in probe.features if name.startswith("observation.")}
    deltas["action"] = [step / rate for step in config.action_delta_indices]
    dataset = LeRobotDataset("local/set", root=root, delta_timestamps=deltas)
    preprocessor, _ = make_pre_post_processors(config)
    batch = preprocessor(torch.utils.data.default_collate([dataset[0], dataset[6]]))
    loaded.train()
    loss, told = loaded.forward(batch)
    loss.backward()
    gradients = [p.grad for group in loaded.get_optim_params() for p in group["params"] if p.grad is not None]
    assert torch.isfinite(loss) and gradients and all(torch.isfinite(g).all() for g in gradients)
    assert sum(float(g.abs().sum()) for g in gradients) > 0
    loaded.eval()
    with torch.no_grad():
        again = loaded.kinecloud(**_window(loaded, batch))
    physical = loaded.kinecloud.denormalize(again.actions, "action")[1].numpy()
    loaded.reset()
    for frame in range(7):
        item = {
            name: value[None] if isinstance(value, torch.Tensor) else [value] for name, value in probe[frame].items()
        }
        chunk_BKA = loaded.predict_action_chunk(preprocessor(item))
    np.testing.assert_allclose(chunk_BKA[0].numpy(), physical, atol=2e-5)
    print(f"loss {float(loss):.4f} with gradients for {len(gradients)} weights; {told}")


def _window(loaded, batch):
    windows = __import__("lerobot_policy_kinecloud.windows", fromlist=["window_of"])
    return windows.window_of(loaded._rows(batch), loaded.config.policy, "sawyer-gripper", "cpu")


def refuses(export):
    """Both sides of what does not fit are in the message."""
    for name, shape in (("action", (7,)), ("agent_pos", (9,))):
        env = ToyConfig()
        env.features[name] = PolicyFeature(env.features[name].type, shape)
        config = config_of(export)
        try:
            make_policy(config, env_cfg=env)
        except ValueError as error:
            known = "dx, dy, dz, gripper" if name == "action" else "x, y, z"
            assert f"[{shape[0]}]" in str(error) and known in str(error), error
        else:
            raise AssertionError(f"{name} {shape} was taken")
    print("refuses what does not fit")


def commands(folder, export, root, work):
    """lerobot-eval and lerobot-train, in this process: to import lerobot again takes longer than they do."""
    from lerobot.scripts import lerobot_eval, lerobot_train  # pyright: ignore[reportMissingImports]

    sys.argv = ["lerobot-eval", f"--policy.path={folder}", "--policy.device=cpu", "--env.type=kinecloud_toy",
                "--eval.n_episodes=2", "--eval.batch_size=2", "--eval.use_async_envs=false",
                f"--output_dir={work / 'eval'}"]  # fmt: skip
    lerobot_eval.main()
    print("lerobot-eval: 2 episodes")
    sys.argv = ["lerobot-train", "--policy.type=kinecloud", f"--policy.pretrained_kinecloud={export}",
                "--policy.embodiment=sawyer-gripper", "--policy.device=cpu", "--policy.push_to_hub=false",
                "--dataset.repo_id=local/set", f"--dataset.root={root}", "--steps=3", "--batch_size=2",
                "--num_workers=0", "--log_freq=1", "--save_freq=3", "--wandb.enable=false",
                f"--output_dir={work / 'train'}"]  # fmt: skip
    lerobot_train.main()
    trained = work / "train/checkpoints/last/pretrained_model"
    config = PreTrainedConfig.from_pretrained(trained)
    config.pretrained_path = trained
    after = make_policy(config, env_cfg=ToyConfig()).state_dict()
    before = make_policy(config_of(export), env_cfg=ToyConfig()).state_dict()
    changed = sum(not torch.equal(before[name], value) for name, value in after.items())
    assert changed > 10 and all(torch.equal(before[n], after[n]) for n in after if "_q0" in n or "_q9" in n)
    print(f"lerobot-train: 3 steps changed {changed} of {len(after)} tensors, none of the quantiles")


def main():
    export, root, work = map(Path, sys.argv[1:4])
    torch.manual_seed(0)
    discovered()
    made, loaded = saved(export, work / "saved")
    acts_alike(loaded, type(made.kinecloud).from_pretrained(export).eval())
    learns(loaded, root)
    refuses(export)
    commands(work / "saved", export, root, work)


main()
