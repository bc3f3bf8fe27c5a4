"""From what the detector and the depth sensor say to the observations that a hand is fitted to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from extract.effector import Camera
from extract.hand.skeleton import CHORD_LENGTHS, LANDMARK_SPAN, PALM, PALM_SIZE, chord_lengths, palm_size

DEPTH_WINDOW = 2  # pixels each side of a landmark
WORLD_SHARE, IMAGE_SHARE = 0.35, 0.6  # of the two opinions on relative depth; both exaggerate a little
DEPTH_GATE_M = 0.15  # a landmark whose depth differs by more from the hand's median looks past the hand


@dataclass(frozen=True)
class HandObservations:
    """One hand over T frames. Frames that are not measured hold interpolated values that only start the fit.

    time_T: seconds. measured_T: bool.
    rays_T212: x/z and y/z of the 21 landmarks in the camera frame, no unit.
    relative_z_T21: metres, depth of each joint behind the palm's centre, from MediaPipe's world landmarks scaled to the
        assumed palm size and turned from the ray through the hand to the optical axis.
    image_z_T21: depth of each joint behind the palm's centre from the landmarks in the image, per unit of the palm's
        distance (no unit), so free of the detector's idea of a hand's size; NaN where the detector has none.
    extent_T: size of the hand in the plane of the rays, no unit; landmark errors grow with it.
    surface_z_T21: metres, depth of the surface seen at each landmark; NaN = not measured.
    palm_distance_T: metres, depth of the palm's centre for a palm of the assumed size, see ``palm_distances``.
    """

    time_T: np.ndarray
    measured_T: np.ndarray
    rays_T212: np.ndarray
    relative_z_T21: np.ndarray
    image_z_T21: np.ndarray
    extent_T: np.ndarray
    surface_z_T21: np.ndarray
    palm_distance_T: np.ndarray

    @property
    def sensed(self) -> bool:
        """A depth sensor saw the hand somewhere."""
        return bool(np.isfinite(self.surface_z_T21).any())

    def behind_palm(self, palm_z_T: np.ndarray) -> np.ndarray:
        """Depth of each joint behind the palm's centre at that depth, f64 [T,21] metres: both of the detector's
        opinions in the proportions that fit exact joints best, or its world landmarks alone."""
        both = WORLD_SHARE * self.relative_z_T21 + IMAGE_SHARE * self.image_z_T21 * palm_z_T[:, None]
        return np.where(np.isfinite(both), both, self.relative_z_T21)

    def part(self, frames: slice) -> HandObservations:
        """The same hand in a stretch of frames."""
        return HandObservations(**{name: value[frames] for name, value in vars(self).items()})


def observe(
    time_T: np.ndarray,
    landmarks_T212: np.ndarray,
    world_T213: np.ndarray,
    surface_z_T21: np.ndarray,
    measured_T: np.ndarray,
    camera: Camera,
    assumed_palm_m: float,
    depth_px_T21: np.ndarray | None = None,
) -> HandObservations:
    """Puts measurements into the camera frame. Values in frames that are not measured are interpolated over time.

    assumed_palm_m: of the hand; its landmarks are taken to span LANDMARK_SPAN of it.
    depth_px_T21: the detector's depth of the landmarks in pixels (detection.Detection.depth_px), NaN = none.
    """
    landmarks, world = (
        _interpolate(time_T, values, measured_T) for values in (landmarks_T212.astype(float), world_T213.astype(float))
    )
    rays = camera.unproject(landmarks, np.ones(landmarks.shape[:-1]))[..., :2]
    palm = assumed_palm_m * LANDMARK_SPAN
    world = world * (palm / palm_size(world))[:, None, None]
    turn = _camera_from_ray(rays[:, PALM].mean(1))
    z = np.einsum("tj,tkj->tk", turn[:, 2], world)
    image_z = np.full(z.shape, np.nan)
    if depth_px_T21 is not None:
        behind = _interpolate(time_T, depth_px_T21.astype(float), measured_T) / camera.focal_px
        in_image = np.concatenate([rays - rays[:, PALM].mean(1, keepdims=True), behind[..., None]], -1)
        image_z = np.einsum("tj,tkj->tk", turn[:, 2], in_image)
        image_z -= image_z[:, PALM].mean(1, keepdims=True)
    surface = np.where(measured_T[:, None], surface_z_T21, np.nan)
    return HandObservations(
        time_T=np.asarray(time_T, float),
        measured_T=measured_T,
        rays_T212=rays,
        relative_z_T21=z - z[:, PALM].mean(1, keepdims=True),
        image_z_T21=image_z,
        extent_T=(rays.max(1) - rays.min(1)).max(1),
        surface_z_T21=surface,
        palm_distance_T=np.exp(np.nanmean(np.log(palm_distances(rays, image_z, palm)), axis=0)),
    )


def depth_of_least_foreshortened_chord(rays_T212: np.ndarray, assumed_palm_m: float) -> np.ndarray:
    """Depth of the palm, f64 [T] metres: a chord of length L seen under the angle a is at most L / (2 sin(a / 2)) away,
    and the one that is foreshortened least is the nearest to that bound. The second least is taken, against noise.
    """
    rays = np.concatenate([rays_T212, np.ones((*rays_T212.shape[:-1], 1))], -1)
    units = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    centre = units[:, PALM].mean(1)
    bound = CHORD_LENGTHS * (assumed_palm_m / PALM_SIZE) / np.maximum(chord_lengths(units), 1e-6)
    return np.sort(bound, axis=1)[:, 1] * centre[:, 2] / np.linalg.norm(centre, axis=-1)


def palm_distances(rays_T212: np.ndarray, image_z_T21: np.ndarray, assumed_palm_m: float) -> np.ndarray:
    """Two estimates of the palm's depth, f64 [2,T] metres, for a palm of the assumed size: from the chord that is
    foreshortened least, and from all chords with their slant in the image landmarks' own depth (NaN without it)."""
    in_image = np.concatenate([rays_T212, image_z_T21[..., None]], -1)
    slanted = assumed_palm_m / np.maximum(palm_size(in_image), 1e-6)
    return np.stack([depth_of_least_foreshortened_chord(rays_T212, assumed_palm_m), slanted])


def sample_surface_depth(depth_HW: np.ndarray, mask_HW: np.ndarray | None, landmarks_212: np.ndarray) -> np.ndarray:
    """Median depth of a small window around each landmark, f64 [21] metres, NaN where nothing was measured.

    depth_HW: metres, 0 = not measured. mask_HW: the hand's pixels where they are known; without them, depths far from
    the hand's own median are dropped.
    """
    height, width = depth_HW.shape
    offsets = np.arange(-DEPTH_WINDOW, DEPTH_WINDOW + 1)
    columns = np.floor(landmarks_212[:, 0]).astype(int)[:, None, None] + offsets[None, None, :]
    rows = np.floor(landmarks_212[:, 1]).astype(int)[:, None, None] + offsets[None, :, None]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
    values = depth_HW[rows, columns].astype(np.float64)
    usable = inside & (values > 0)
    if mask_HW is not None:
        usable &= mask_HW[rows, columns]
    values = np.sort(np.where(usable, values, np.inf).reshape(len(landmarks_212), -1), axis=1)
    count = usable.reshape(len(values), -1).sum(1)
    middle = values[np.arange(len(values)), np.maximum(count - 1, 0) // 2]
    depth = np.where(count >= 3, middle, np.nan)
    if np.isfinite(depth).any():
        depth[np.abs(depth - np.nanmedian(depth)) > DEPTH_GATE_M] = np.nan
    return depth


def _interpolate(time_T: np.ndarray, values: np.ndarray, measured_T: np.ndarray) -> np.ndarray:
    flat = values.reshape(len(values), -1).copy()
    known = np.flatnonzero(measured_T)
    missing = np.flatnonzero(~measured_T)
    for column in flat.T:
        column[missing] = np.interp(time_T[missing], time_T[known], column[known])
    return flat.reshape(values.shape)


def _camera_from_ray(centre_T2: np.ndarray) -> np.ndarray:
    """Rotations [T,3,3] that take the optical axis to the ray through (x/z, y/z), keeping x level."""
    z = np.concatenate([centre_T2, np.ones((len(centre_T2), 1))], -1)
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return np.stack([x, np.cross(z, x), z], -1)


def level(joints_T213: np.ndarray, observed: HandObservations) -> float:
    """By how much to scale a clip about the camera, so that its distance rests on several estimates instead of one.

    A fit gets its distance from all bones and their slants, and where it takes a slant for a smaller hand it errs in
    every frame alike. Palm chords err in other clips. Without a depth sensor nothing tells which is right: the clip is
    placed at the geometric mean of the fit's distance and the palm's distances. Landmarks keep their pixels.
    """
    rows = observed.measured_T
    ratio = np.log(observed.palm_distance_T[rows] / joints_T213[rows][:, PALM, 2].mean(1))
    return float(np.exp(2 / 3 * np.median(ratio)))
