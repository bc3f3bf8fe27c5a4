"""What pictures are rendered with: whatever there is, and the same pictures come of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHOSEN = ("MUJOCO_GL", "PYOPENGL_PLATFORM")  # the second by MuJoCo, when it is imported
CHOICE = """
import ctypes.util, os
ctypes.util.find_library = lambda name: {found}
import data.simulation
print(os.environ["MUJOCO_GL"])
"""
PICTURE = """
import hashlib
from data.simulation.render import RgbdRenderer, View, add_camera
import mujoco, numpy as np
spec = mujoco.MjSpec.from_string(
    "<mujoco><worldbody><light pos='0 0 3'/><geom type='plane' size='2 2 .1' rgba='.2 .6 .3 1'/>"
    "<geom type='sphere' size='.2' pos='0 .1 .2' rgba='1 0 0 1'/></worldbody></mujoco>"
)
add_camera(spec)
model = spec.compile()
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with RgbdRenderer(model, 96, 64) as renderer:
    renderer.look(View((1, 0.5, 1), (0, 0, 0), 45))
    shown = renderer.render(data)
assert shown.image.std() > 10
for array in (shown.image, shown.depth, shown.geom):
    print(hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest())
"""


def printed(script: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=kept | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("found", "chosen"), [("'libOSMesa.so.8'", "osmesa"), ("None", "egl")])
def test_the_renderer_is_one_that_is_there_unless_one_was_chosen(found: str, chosen: str) -> None:
    assert printed(CHOICE.format(found=found)).strip() == chosen
    assert printed(CHOICE.format(found=found), MUJOCO_GL="glfw").strip() == "glfw"


def test_without_osmesa_pictures_are_the_same() -> None:
    assert printed(PICTURE) == printed(PICTURE, MUJOCO_GL="egl")
