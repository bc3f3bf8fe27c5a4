"""A simulated task as a gymnasium environment, whose observations have the names that lerobot makes its features of.

The simulator, and extraction that follows the gripper, run in Kinecloud's own environment, as a process of
``python -m align world`` each: so they need not agree with lerobot on versions.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from align.framed import receive, send
from align.lerobot_plugin.names import (
    CAMERA,
    DEPTH,
    GRASP,
    IMAGES,
    INTRINSICS,
    OBSERVATION,
    OPENING,
    POINTS,
    SCENE,
    VISIBLE,
)

_ENDS_S = 10.0  # a process whose questions have ended gets this long


@dataclass(frozen=True)
class Where:
    """What a world is started from. config: of a run that is aligned, with ``overrides`` as --set takes them.

    repository: checkout of Kinecloud; python: of its environment. Paths are relative to the repository.
    """

    repository: str
    python: str
    config: str
    overrides: Sequence[str]
    task: str

    def command(self) -> list[str]:
        """Raises RuntimeError where that Python is not there."""
        python = Path(self.repository, self.python).absolute()  # not resolved: a link is how an environment is told
        if not python.is_file():
            raise RuntimeError(
                f"env.python: found no {python}; expected the Python that Kinecloud is installed for. Set "
                "env.repository to a checkout in which bash pipeline/install.sh has run."
            )
        sets = [word for override in self.overrides for word in ("--set", override)]
        return [str(python), "-m", "align", "world", "--config", self.config, "--task", self.task, *sets]


class WorldProcess:
    """A process of ``python -m align world``. first: its first message."""

    def __init__(self, where: Where):
        """Raises RuntimeError with the process's last words where it does not start."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            where.command(), cwd=where.repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )
        self.first = self._hear()

    def ask(self, **question: Any) -> dict[str, np.ndarray]:
        """The answer. Raises RuntimeError where it is an error or the process has ended."""
        assert self._process.stdin is not None
        try:
            send(self._process.stdin, question)
        except BrokenPipeError:
            raise RuntimeError(self._last_words()) from None
        return self._hear()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        if self._errors.closed:
            return
        with self._errors, self._process.stdout:
            with contextlib.suppress(BrokenPipeError):  # it has died, and a question to it was not sent
                self._process.stdin.close()
            try:
                self._process.wait(_ENDS_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _hear(self) -> dict[str, np.ndarray]:
        assert self._process.stdout is not None
        try:
            answer = receive(self._process.stdout)
        except ValueError:  # it ended while it wrote, or something else writes where its answers go
            self._process.kill()
            answer = None
        if answer is None:
            raise RuntimeError(self._last_words())
        if "error" in answer:
            raise RuntimeError(str(answer["error"]))
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        return "\n".join([f"python -m align world ended with exit code {code}:", *said[-12:]])


class SimulatedEnv(gymnasium.Env):
    """One task. Observations are what the policy is to be given (docs/lerobot_policy.md)."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    render_mode = "rgb_array"

    def __init__(self, where: Where):
        self._world = WorldProcess(where)
        first = self._world.first
        self.task, self.task_description = where.task, str(first["instruction"])
        self._max_episode_steps = int(first["max_steps"])
        self._film = first["film"]
        self.observation_space = _space(observed(first))
        self.action_space = spaces.Box(-np.inf, np.inf, first["actions"].shape, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """The episode of ``seed``; without one, of a number that follows from the last."""
        super().reset(seed=seed)
        return self._seen(self._world.ask(seed=int(self.np_random.integers(2**31)) if seed is None else seed))

    def step(self, action: np.ndarray) -> Any:
        """Executes the action for one frame. Success ends the episode, and is the reward."""
        answer = self._world.ask(action=np.asarray(action, np.float32))
        success, over = bool(answer["success"]), bool(answer["over"])
        observation, info = self._seen(answer)
        return observation, float(success), success, over and not success, info

    def render(self) -> Any:
        """The camera's picture, u8 [H,W,3]."""
        return self._film

    def close(self) -> None:
        self._world.close()

    def _seen(self, answer: dict[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, bool]]:
        self._film = answer["film"]
        return observed(answer), {"is_success": bool(answer["success"])}


def observed(answer: dict[str, np.ndarray]) -> dict[str, Any]:
    """An answer under the names that lerobot makes its features of."""
    picture = (SCENE if answer["scene"] else CAMERA).removeprefix(IMAGES)
    named = {POINTS: "points", VISIBLE: "visible", OPENING: "opening", GRASP: "grasp", INTRINSICS: "intrinsics",
             DEPTH: "depth"}  # fmt: skip
    more = {name.removeprefix(OBSERVATION): answer[key] for name, key in named.items() if key in answer}
    return {"pixels": {picture: answer["picture"]}, "agent_pos": answer["proprio"], **more}


def _space(value: Any) -> spaces.Space[Any]:
    if isinstance(value, dict):
        return spaces.Dict({name: _space(inner) for name, inner in value.items()})
    if value.dtype == np.uint8:
        return spaces.Box(0, 255, value.shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, value.shape, np.float32)
