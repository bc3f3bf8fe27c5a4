"""Colour, metric depth and geom identity of a MuJoCo scene, with a camera in OpenCV axes."""

# pyright: reportAttributeAccessIssue=false
# (mujoco fills its namespace from a C extension without type stubs)
from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0])
CAMERA_NAME = "view"


@dataclass(frozen=True)
class View:
    """Where the camera stands and how it looks: eye and target in metres (world), vertical field of view in degrees."""

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    fovy_deg: float
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def rotation(self) -> np.ndarray:
        """f64 [3,3] world_from_camera rotation with MuJoCo camera axes (x right, y up, looking along -z) as columns."""
        eye, target = np.asarray(self.eye, float), np.asarray(self.target, float)
        z = eye - target
        z /= np.linalg.norm(z)
        x = np.cross(self.up, z)
        x /= np.linalg.norm(x)
        return np.stack([x, np.cross(z, x), z], axis=1)

    def world_from_camera(self) -> np.ndarray:
        """f64 [4,4], camera axes of OpenCV (x right, y down, z forward), metres."""
        transform = np.eye(4)
        transform[:3, :3] = self.rotation() @ OPENCV_FROM_OPENGL
        transform[:3, 3] = self.eye
        return transform

    def intrinsics(self, width: int, height: int) -> np.ndarray:
        """f64 [3,3] in pixels; pixel (row r, column c) has its centre at (c + 0.5, r + 0.5)."""
        focal = 0.5 * height / np.tan(np.deg2rad(self.fovy_deg) / 2)
        return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])


@dataclass(frozen=True)
class Rendering:
    """image: uint8 [H,W,3] RGB. depth: f32 [H,W] metres along z. geom: int32 [H,W], model geom id, -1 for none."""

    image: np.ndarray
    depth: np.ndarray
    geom: np.ndarray


def add_camera(spec: mujoco.MjSpec) -> None:
    """Add the camera that :class:`RgbdRenderer` moves around to a scene that is not compiled yet."""
    spec.worldbody.add_camera(name=CAMERA_NAME, pos=[0, 0, 1], fovy=45)


class RgbdRenderer:
    """Renders one model at one size: a colour + depth pass and an identity pass.

    Close it before another renderer is made: two living software contexts corrupt each other's identity pass.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int):
        # The context reads these once. Multisampling and shadow maps cost a factor of ten in software rendering,
        # and blended samples would make the identity pass meaningless.
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0
        model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
        model.vis.global_.offheight = max(height, model.vis.global_.offheight)
        self.model, self.width, self.height = model, width, height
        self.view: View | None = None
        self._camera = model.camera(CAMERA_NAME).id
        self._renderer = mujoco.Renderer(model, height, width, max_geom=2000)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = (1, 1, 1, 0, 0, 0)
        self._option.sitegroup[:] = (1, 1, 1, 0, 0, 0)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = False
        self._rect = mujoco.MjrRect(0, 0, width, height)

    def look(self, view: View) -> None:
        """Use this view from now on; it survives changes of the simulated state."""
        self.view = view
        self.model.cam_fovy[self._camera] = view.fovy_deg

    def intrinsics(self) -> np.ndarray:
        """f64 [3,3], pixels, of the current view."""
        return self._current_view().intrinsics(self.width, self.height)

    def render(self, data: mujoco.MjData) -> Rendering:
        """Render the state in ``data`` as its geom poses stand; nothing is simulated or recomputed here."""
        view = self._current_view()
        data.cam_xpos[self._camera] = view.eye
        data.cam_xmat[self._camera] = view.rotation().ravel()
        renderer = self._renderer
        renderer.update_scene(data, camera=CAMERA_NAME, scene_option=self._option)
        if renderer._gl_context:
            renderer._gl_context.make_current()
        image = np.empty((self.height, self.width, 3), np.uint8)
        depth = np.empty((self.height, self.width), np.float32)
        self._draw(image, depth)
        return Rendering(image[::-1].copy(), self._metric(depth)[::-1].copy(), self._draw_identity())

    def close(self) -> None:
        """Free the graphics context."""
        self._renderer.close()

    def __enter__(self) -> RgbdRenderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _current_view(self) -> View:
        if self.view is None:
            raise RuntimeError("RgbdRenderer: call look(view) before rendering")
        return self.view

    def _draw(self, image: np.ndarray, depth: np.ndarray | None) -> None:
        context = self._renderer._mjr_context
        mujoco.mjr_render(self._rect, self._renderer.scene, context)
        mujoco.mjr_readPixels(image, depth, self._rect, context)

    def _metric(self, buffer: np.ndarray) -> np.ndarray:
        # MuJoCo stores reversed depth: 1 at the near plane, 0 at the far plane.
        near = self.model.vis.map.znear * self.model.stat.extent
        far = self.model.vis.map.zfar * self.model.stat.extent
        return (near * far / (near + (far - near) * buffer.astype(np.float64))).astype(np.float32)

    def _draw_identity(self) -> np.ndarray:
        scene = self._renderer.scene
        flags = scene.flags.copy()
        scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = True
        scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = True
        colour = np.empty((self.height, self.width, 3), np.uint8)
        self._draw(colour, None)
        np.copyto(scene.flags, flags)
        code = colour.astype(np.int32) @ np.array([1, 1 << 8, 1 << 16], np.int32)
        geom_of_code = np.full(scene.ngeom + 1, -1, np.int32)
        for geom in scene.geoms[: scene.ngeom]:
            if geom.segid != -1 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                geom_of_code[geom.segid + 1] = geom.objid
        return geom_of_code[code][::-1].copy()


def backproject(depth: np.ndarray, intrinsics_33: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Pixels of ``mask`` (bool [H,W]) lifted with ``depth`` (metres [H,W]) to f64 [M,3], metres, camera frame."""
    rows, columns = np.nonzero(mask)
    z = depth[rows, columns].astype(np.float64)
    x = (columns + 0.5 - intrinsics_33[0, 2]) / intrinsics_33[0, 0] * z
    y = (rows + 0.5 - intrinsics_33[1, 2]) / intrinsics_33[1, 1] * z
    return np.stack([x, y, z], axis=-1)
