"""Random surroundings for close-ups: a wall, things in front of it, and light."""

# pyright: reportAttributeAccessIssue=false
# (mujoco fills its namespace from a C extension without type stubs)
from __future__ import annotations

import mujoco
import numpy as np

BUILTINS = (mujoco.mjtBuiltin.mjBUILTIN_FLAT, mujoco.mjtBuiltin.mjBUILTIN_GRADIENT, mujoco.mjtBuiltin.mjBUILTIN_CHECKER)


def random_colour(rng: np.random.Generator, low: float = 0.1, high: float = 0.9) -> np.ndarray:
    """f64 [3], moderately saturated: a grey mixed with a colour."""
    grey, colour = rng.uniform(low, high), rng.uniform(low, high, 3)
    return 0.6 * grey + 0.4 * colour


def _plain_geom(body: mujoco.MjsBody, kind: mujoco.mjtGeom, size: np.ndarray, position: np.ndarray) -> mujoco.MjsGeom:
    return body.add_geom(type=kind, size=size, pos=position, contype=0, conaffinity=0, group=1)


def add_wall_and_clutter(spec: mujoco.MjSpec, rng: np.random.Generator, distance: float) -> None:
    """A textured wall at y = ``distance`` metres and up to six things just in front of it (camera looks along +y)."""
    spec.add_texture(
        name="wall",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=BUILTINS[rng.integers(len(BUILTINS))],
        rgb1=random_colour(rng),
        rgb2=random_colour(rng),
        width=128,
        height=128,
        nchannel=3,
    )
    material = spec.add_material(name="wall", texrepeat=rng.uniform(2, 8, 2))
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "wall"
    material.specular, material.shininess = 0.1, 0.1
    wall = _plain_geom(spec.worldbody, mujoco.mjtGeom.mjGEOM_BOX, np.array([3, 0.01, 3]), np.array([0, distance, 0]))
    wall.material = "wall"
    for _ in range(int(rng.integers(0, 7))):
        kind = mujoco.mjtGeom.mjGEOM_BOX if rng.random() < 0.6 else mujoco.mjtGeom.mjGEOM_ELLIPSOID
        position = np.array([rng.uniform(-0.6, 0.6), distance - rng.uniform(0.05, 0.15), rng.uniform(-0.5, 0.5)])
        thing = _plain_geom(spec.worldbody, kind, rng.uniform(0.03, 0.15, 3), position)
        thing.rgba = [*random_colour(rng), 1]


def add_lights(spec: mujoco.MjSpec, rng: np.random.Generator) -> None:
    """One lamp from the camera's half of the room, plus even light so that no side of the hand is black."""
    direction = np.array([rng.uniform(-0.8, 0.8), rng.uniform(0.6, 1.0), rng.uniform(-0.9, 0.3)])
    strength = rng.uniform(0.35, 0.75)
    warmth = np.array([1, rng.uniform(0.9, 1), rng.uniform(0.8, 1)])
    spec.worldbody.add_light(
        directional=True,
        pos=-direction,
        dir=direction,
        diffuse=strength * warmth,
        specular=[0.1] * 3,
        castshadow=False,
    )
    spec.visual.headlight.ambient = [rng.uniform(0.25, 0.4)] * 3
    spec.visual.headlight.diffuse = [rng.uniform(0.15, 0.35)] * 3
    spec.visual.headlight.specular = [0.05] * 3
