"""The camera that saw a robot whose end-effector poses were recorded, and what in its picture rides on the effector.

    corners of the whole picture -> camera guesses from single tracks -> the guess that explains most of what moves
    -> bundle adjustment -> tracks again, guided by the motion -> bundle adjustment -> how sure that is

Static camera, square pixels, principal point in the middle. Everything is metric, because the poses are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from extract.effector import Camera
from extract.robot.background import background, foreground_share, stands_out
from extract.robot.bundle import Priors, Rig, Sights, adjust, normal_equations
from extract.robot.config import ProprioSettings
from extract.robot.guided import faint_corners, follow_templates, sharpness
from extract.robot.starts import camera_guesses, place_tracks, seed_tracks
from extract.robot.tracks import PictureTracks, picture_tracks, working_picture
from extract.steps import Shot
from pipeline.errors import UserError

CHAIN_NOISE, GUIDED_NOISE = 2.0, 1.0  # working pixels: chained tracks drift, guided ones hardly
MOVES = 4.0  # working pixels: tracks that travel less tell nothing
MOST_TRACKS = 300  # per episode
JUDGED = 8  # observations per track that a guess is judged by
CANDIDATES = 5
TEMPLATE_FRAMES = 24  # frames of an episode that templates are taken from, where possible: few are followed faster
TEMPLATES = 3  # pictures of an episode in which more points are looked for
SIGMA_SCALE = 1.7  # errors of tracks are not independent: what the adjustment's covariance is too small by
IN_FRONT = 0.6  # share of a point's frames
DENSE_SPACING = 3.0  # working pixels
FITS = 0.45  # share of a track's sights that must agree
FAR = 2.4  # times ``size_m`` from the middle: not the effector any more
KNOWN_SPREAD = {"given": 0.003, "metadata": 0.03, "estimated": 0.03}  # of the logarithm of the focal length


@dataclass(frozen=True)
class Ridden:
    """The tracks of one episode that ride on the effector (K). template_K: int, frame whose patch was followed.

    pixels_TK2: f64, NaN where not seen. agrees_TK: bool, seen where the rigid motion wants it. offsets_K3: metres, in
    the effector's frame. sigma_TK2: f64 metres, across and along the ray.
    """

    poses: np.ndarray
    template_K: np.ndarray
    pixels_TK2: np.ndarray
    agrees_TK: np.ndarray
    offsets_K3: np.ndarray
    sigma_TK2: np.ndarray


@dataclass(frozen=True)
class Solved:
    """reason: None, or why this is not to be trusted, with ``detail``. quality: named figures."""

    camera: Camera | None = None
    camera_from_base: np.ndarray | None = None
    episodes: list[Ridden] = field(default_factory=list)
    score: float = 0.0
    quality: dict[str, float] = field(default_factory=dict)
    reason: str | None = None
    detail: str = ""


@dataclass(frozen=True)
class _Episode:
    """pictures: uint8 [h,w] each, at the working size. foreground_THW: bool, not background, original size.

    poses: f64 [T,4,4]. stride: every so many frames are adjusted.
    """

    pictures: list[np.ndarray]
    foreground_THW: np.ndarray
    poses: np.ndarray
    stride: int


@dataclass(frozen=True)
class _Track:
    """One image point of one episode. pixels_T2: original pixels from the picture's middle, NaN where not seen.

    sharp_22: how sharply it is located, by direction (see ``guided.sharpness``).
    """

    episode: int
    template: int
    pixels_T2: np.ndarray
    sharp_22: np.ndarray

    @property
    def travel(self) -> float:
        return float(np.linalg.norm(np.nanmax(self.pixels_T2, 0) - np.nanmin(self.pixels_T2, 0)))


def solve(shots: Sequence[Shot], settings: ProprioSettings) -> Solved:
    """One static camera for all ``shots``, whose frames carry ``base_from_effector`` in one base frame.

    Raises UserError for poses that are not rigid, and for shots of different size.
    """
    sizes = {shot.camera.image_size for shot in shots}
    if len(sizes) != 1:
        raise UserError(f"proprio: episodes solved together must have one image size, found {sorted(sizes)}")
    recorded = [recorded_poses(shot) for shot in shots]
    if any(poses is None for poses in recorded):
        return Solved(reason="no_poses", detail="frames without base_from_effector")
    poses = [found for found in recorded if found is not None]
    travel = max(float(np.linalg.norm(np.ptp(path[:, :3, 3], axis=0))) for path in poses)
    if travel < settings.min_travel_m:
        detail = f"the effector moved {1000 * travel:.0f} mm; at least {1000 * settings.min_travel_m:.0f} mm are needed"
        return Solved(reason="too_little_motion", detail=detail)

    scale = settings.tracks.work_side / max(shots[0].camera.image_size)
    middle = np.array(shots[0].camera.image_size) / 2
    episodes = [_episode(shot, path, scale, settings) for shot, path in zip(shots, poses, strict=True)]
    tracks = [
        track
        for number, shot in enumerate(shots)
        for track in _moving(
            picture_tracks([f.image for f in shot.frames], settings.tracks), number, middle, episodes[number].pictures
        )
    ]
    if len(tracks) < settings.min_tracks:
        detail = f"{len(tracks)} moving image tracks; at least {settings.min_tracks} are needed"
        return Solved(reason="nothing_moves", detail=detail)
    rough = _priors(shots[0].camera, settings, CHAIN_NOISE / scale)
    rig = _best_camera(_sights(tracks, episodes), np.array([t.travel for t in tracks]) * scale, rough)

    fine = replace(rough, noise=GUIDED_NOISE / scale)
    for width in (2.0, 1.0):
        riding, _ = _riders(_sights(tracks, episodes), rig, replace(fine, noise=width * fine.noise))
        if riding.sum() < settings.min_tracks:
            detail = f"{int(riding.sum())} image tracks ride on the effector; at least {settings.min_tracks} are needed"
            return Solved(reason="no_rigid_tracks", detail=detail)
        tracks = [track for track, kept in zip(tracks, riding, strict=True) if kept]
        sights = _sights(tracks, episodes)
        rig, _ = adjust(sights, place_tracks(sights, rig, fine), fine, rounds=25)
        tracks = _guided(tracks, episodes, rig, scale, middle)
    tracks += _denser(tracks, episodes, rig, scale, middle, settings.points)
    tracks = [track for track in tracks if _in_front(track, episodes[track.episode], middle)]
    if not tracks:
        return Solved(
            reason="no_rigid_tracks", detail="nothing that rides on the effector stands out from its background"
        )
    sights = _sights(tracks, episodes)
    placed = place_tracks(sights, rig, fine)
    riding, _ = _agreeing(sights, placed, fine)
    if riding.sum() < settings.min_tracks:
        detail = f"{int(riding.sum())} image tracks ride on the effector; at least {settings.min_tracks} are needed"
        return Solved(reason="no_rigid_tracks", detail=detail)
    tracks = [track for track, kept in zip(tracks, riding, strict=True) if kept]
    sights = sights.of_tracks(riding)
    rig, _ = adjust(sights, replace(placed, offsets_K3=placed.offsets_K3[riding]), fine)
    return _judge(tracks, episodes, sights, rig, fine, shots[0].camera, settings)


def recorded_poses(shot: Shot) -> np.ndarray | None:
    """f64 [T,4,4], or None when a frame has none. Raises UserError for what is no rigid pose."""
    poses = [frame.base_from_effector for frame in shot.frames]
    if any(pose is None for pose in poses):
        return None
    stacked = np.stack([pose for pose in poses if pose is not None]).astype(np.float64)
    turns = stacked[:, :3, :3]
    wrong = np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max((1, 2)) > 0.02
    wrong |= (np.linalg.det(turns) < 0) | ~np.isfinite(stacked).all((1, 2))
    if wrong.any():
        frame = shot.frames[int(np.argmax(wrong))]
        raise UserError(
            f"base_from_effector: frame {frame.index} is no rigid pose ({stacked[wrong][0, :3].tolist()}); "
            "write rotation matrices (orthonormal, determinant 1) and metres"
        )
    return stacked


def _episode(shot: Shot, poses: np.ndarray, scale: float, settings: ProprioSettings) -> _Episode:
    stride = -(-len(shot.frames) // settings.solve_frames)
    images = [frame.image for frame in shot.frames]
    empty = background(images)
    foreground = np.stack([stands_out(image, empty) for image in images])
    return _Episode([working_picture(image, scale) for image in images], foreground, poses, stride)


def _priors(camera: Camera, settings: ProprioSettings, noise: float) -> Priors:
    if camera.origin in KNOWN_SPREAD:
        return Priors(camera.focal_px, KNOWN_SPREAD[camera.origin], settings.size_m, settings.reach_m, noise)
    widest, narrowest = (0.5 * max(camera.image_size) / np.tan(np.deg2rad(f) / 2) for f in settings.fov_deg[::-1])
    spread = float(np.log(narrowest / widest)) / 3  # the usual range is three sigma wide
    return Priors(float(np.sqrt(narrowest * widest)), spread, settings.size_m, settings.reach_m, noise)


def _moving(found: PictureTracks, episode: int, middle: np.ndarray, pictures: Sequence[np.ndarray]) -> list[_Track]:
    """The tracks that travel, those first that are long and travel far."""
    travel = found.travel_K * found.scale
    worth = found.seen_TK.sum(0) * np.minimum(travel, 60)
    chosen = [k for k in np.argsort(-worth, kind="stable")[:MOST_TRACKS] if travel[k] > MOVES]
    tracks = []
    shared = np.unique(np.linspace(0, len(found.seen_TK) - 1, TEMPLATE_FRAMES).round().astype(int))
    for k in chosen:
        slots = np.flatnonzero(found.seen_TK[:, k])
        wanted = np.intersect1d(slots, shared) if np.isin(slots, shared).any() else slots
        template = int(wanted[len(wanted) // 2])
        pixels_T2 = found.pixels_TK2[:, k].astype(np.float64)
        sharp = sharpness(pictures[template], pixels_T2[template] * found.scale - 0.5)
        tracks.append(_Track(episode, template, pixels_T2 - middle, sharp))
    return tracks


def _in_front(track: _Track, episode: _Episode, middle: np.ndarray) -> bool:
    """The point lies on what moves, not on the still background beside its outline."""
    seen = np.isfinite(track.pixels_T2[:, :1])
    return bool(foreground_share(episode.foreground_THW, track.pixels_T2[:, None] + middle, seen)[0] > IN_FRONT)


def _sights(tracks: Sequence[_Track], episodes: Sequence[_Episode], most: int | None = None) -> Sights:
    """All measurements, or ``most`` of every track, evenly."""
    first = np.cumsum([0] + [len(episode.poses) for episode in episodes])
    pixels, pose, owner = [], [], []
    for number, track in enumerate(tracks):
        slots = np.flatnonzero(np.isfinite(track.pixels_T2[:, 0]))
        kept = slots[slots % episodes[track.episode].stride == 0]
        slots = kept if len(kept) >= 3 else slots
        if most is not None and len(slots) > most:
            slots = slots[np.linspace(0, len(slots) - 1, most).round().astype(int)]
        pixels.append(track.pixels_T2[slots])
        pose.append(slots + first[track.episode])
        owner.append(np.full(len(slots), number))
    poses = np.concatenate([episode.poses for episode in episodes])
    sharp = np.stack([track.sharp_22 for track in tracks])
    return Sights(np.concatenate(pixels), np.concatenate(pose), np.concatenate(owner), poses, len(tracks), sharp)


def _riders(sights: Sights, rig: Rig, priors: Priors) -> tuple[np.ndarray, np.ndarray]:
    """bool [K]: the track moves as if fixed to the effector, near its middle; f64 [K]: how many sights agree."""
    placed = place_tracks(sights, rig, priors)
    return _agreeing(sights, placed, priors)


def _agreeing(sights: Sights, rig: Rig, priors: Priors) -> tuple[np.ndarray, np.ndarray]:
    squared = (rig.weighed(sights) ** 2).sum(1) / priors.noise**2
    agree = np.bincount(sights.track_M, 1 / (1 + squared) ** 2, minlength=sights.tracks)
    count = np.bincount(sights.track_M, minlength=sights.tracks)
    apart = np.linalg.norm(rig.offsets_K3 - rig.middle_3, axis=1)
    return (agree > FITS * count) & (apart < FAR * priors.size), agree


def _best_camera(sights: Sights, travel_K: np.ndarray, priors: Priors) -> Rig:
    worth_K = np.minimum(1, travel_K / 12)
    guesses = camera_guesses(sights, seed_tracks(sights, travel_K), priors)
    few = _thinned(sights, JUDGED)
    judged = []
    for guess in guesses:
        riding, agree = _riders(few, guess, priors)
        judged.append(float((agree * worth_K)[riding].sum()))
    best, most = guesses[0], -1.0
    for number in np.argsort(-np.array(judged), kind="stable")[:CANDIDATES]:
        rig = guesses[int(number)]
        for _ in range(2):
            riding, _ = _riders(sights, rig, priors)
            if riding.sum() < 3:
                break
            chosen = sights.of_tracks(riding)
            rig, _ = adjust(chosen, place_tracks(chosen, rig, priors), priors, rounds=10)
        riding, agree = _riders(sights, rig, priors)
        support = float((agree * worth_K)[riding].sum())
        if support > most:
            best, most = rig, support
    return best


def _thinned(sights: Sights, most: int) -> Sights:
    """At most so many sights of every track, evenly."""
    heads = np.searchsorted(sights.track_M, np.arange(sights.tracks + 1))
    kept = np.concatenate(
        [
            np.unique(np.linspace(low, high - 1, min(most, high - low)).round().astype(int))
            for low, high in itertools.pairwise(heads)
        ]
    )
    return replace(sights, pixels_M2=sights.pixels_M2[kept], pose_M=sights.pose_M[kept], track_M=sights.track_M[kept])


def _guided(
    tracks: Sequence[_Track],
    episodes: Sequence[_Episode],
    rig: Rig,
    scale: float,
    middle: np.ndarray,
    every: bool = False,
) -> list[_Track]:
    """The tracks again, from templates, where ``rig`` (whose offsets are theirs) wants them."""
    renewed = list(tracks)
    for number, episode in enumerate(episodes):
        own = [k for k, track in enumerate(tracks) if track.episode == number]
        if not own:
            continue
        points = rig.in_camera(episode.poses[:, None], rig.offsets_K3[None, own])
        expected = rig.focal * points[..., :2] / np.maximum(points[..., 2:], 1e-3)
        template = np.array([tracks[k].template for k in own])
        seen = np.stack([tracks[k].pixels_T2[tracks[k].template] for k in own])
        expected += seen - expected[template, np.arange(len(own))]
        followed = _followed([tracks[k] for k in own], episode, expected, scale, middle, every)
        for k, track in zip(own, followed, strict=True):
            renewed[k] = track
    return renewed


def _followed(
    tracks: Sequence[_Track],
    episode: _Episode,
    expected_TK2: np.ndarray,
    scale: float,
    middle: np.ndarray,
    every: bool = False,
) -> list[_Track]:
    """``tracks`` of one episode from their templates; as they were where a template is hardly found again.

    every: in all frames, not only in those that are adjusted.
    """
    template = np.array([track.template for track in tracks])
    stride = 1 if every else episode.stride
    found, ok = follow_templates(episode.pictures, template, (expected_TK2 + middle) * scale - 0.5, stride)
    pixels = np.where(ok[..., None], (found.astype(np.float64) + 0.5) / scale - middle, np.nan)
    return [replace(track, pixels_T2=pixels[:, k]) if ok[:, k].sum() >= 4 else track for k, track in enumerate(tracks)]


def _denser(
    tracks: Sequence[_Track], episodes: Sequence[_Episode], rig: Rig, scale: float, middle: np.ndarray, most: int
) -> list[_Track]:
    """More points between the ones that ride: every corner, however faint, near them in a few pictures."""
    added: list[_Track] = []
    for number, episode in enumerate(episodes):
        own = [k for k, track in enumerate(tracks) if track.episode == number]
        if len(own) < 3 or len(own) >= most:
            continue
        points = rig.in_camera(episode.poses[:, None], rig.offsets_K3[None, own])
        wanted = rig.focal * points[..., :2] / np.maximum(points[..., 2:], 1e-3)
        seen = np.isfinite(np.stack([tracks[k].pixels_T2[:, 0] for k in own], 1)).sum(1)
        fresh: list[_Track] = []
        for part in np.array_split(np.arange(len(seen)), TEMPLATES):
            if not len(part) or seen[part].max() < 3:
                continue
            slot = int(part[np.argmax(seen[part])])
            corners = faint_corners((wanted[slot] + middle) * scale - 0.5, episode.pictures[slot], DENSE_SPACING)
            for corner in corners[: (most - len(own)) // TEMPLATES]:
                pixels = np.full((len(seen), 2), np.nan)
                pixels[slot] = (corner + 0.5) / scale - middle
                fresh.append(_Track(number, slot, pixels, sharpness(episode.pictures[slot], corner)))
        if not fresh:
            continue
        # Followed as if they were as far away as the middle of those that are known.
        origin = rig.in_camera(episode.poses, np.median(rig.offsets_K3[own], 0))
        path = rig.focal * origin[:, :2] / np.maximum(origin[:, 2:], 1e-3)
        template = np.array([track.template for track in fresh])
        expected = path[:, None] + np.stack([t.pixels_T2[t.template] for t in fresh]) - path[template]
        added += _followed(fresh, episode, expected, scale, middle)
    return added


def _judge(
    tracks: Sequence[_Track],
    episodes: Sequence[_Episode],
    sights: Sights,
    rig: Rig,
    priors: Priors,
    camera: Camera,
    settings: ProprioSettings,
) -> Solved:
    riding, _ = _agreeing(sights, rig, priors)
    if riding.sum() < settings.min_tracks:
        detail = f"{int(riding.sum())} image tracks ride on the effector; at least {settings.min_tracks} are needed"
        return Solved(reason="no_rigid_tracks", detail=detail)
    chosen = sights.of_tracks(riding)
    rig, _ = adjust(chosen, replace(rig, offsets_K3=rig.offsets_K3[riding]), priors)
    tracks = [track for track, kept in zip(tracks, riding, strict=True) if kept]
    if any(episode.stride > 1 for episode in episodes):
        scale = settings.tracks.work_side / max(camera.image_size)
        tracks = _guided(tracks, episodes, rig, scale, np.array(camera.image_size) / 2, every=True)
    equations = normal_equations(chosen, rig, priors)
    try:
        covariance = equations.covariance()
    except np.linalg.LinAlgError:
        return Solved(reason="ill_conditioned", detail="the motion does not determine the camera")
    squared = (rig.weighed(chosen) ** 2).sum(1)
    agree = squared < (2 * priors.noise) ** 2
    ridden: list[Ridden] = []
    distances: list[np.ndarray] = []
    for number, episode in enumerate(episodes):
        own = np.array([k for k, track in enumerate(tracks) if track.episode == number], int)
        sigma = SIGMA_SCALE * _sigma(rig, episode.poses, own, covariance)
        pixels = np.stack([tracks[k].pixels_T2 for k in own], 1) if len(own) else np.zeros((len(episode.poses), 0, 2))
        points = rig.in_camera(episode.poses[:, None], rig.offsets_K3[None, own])
        wanted = rig.focal * points[..., :2] / points[..., 2:]
        with np.errstate(invalid="ignore"):
            near = np.linalg.norm(pixels - wanted, axis=-1) < 2 * priors.noise
        template = np.array([tracks[k].template for k in own], int)
        middle = np.array(camera.image_size) / 2
        ridden.append(Ridden(episode.poses, template, pixels + middle, near, rig.offsets_K3[own], sigma))
        distances.append(_middle_sigma(rig, episode.poses, covariance[0]))
    relative = SIGMA_SCALE * float(np.median(np.concatenate(distances)))
    quality = {
        "tracks": float(riding.sum()),
        "riding": float(riding.mean()),
        "agreeing": float(agree.mean()),
        "rms_px": float(np.sqrt(squared[agree].mean())),
        "relative_sigma": relative,
        "focal_sigma": SIGMA_SCALE * float(np.sqrt(covariance[0][0, 0])),
        "focal_px": rig.focal,
    }
    width, height = camera.image_size
    intrinsics = np.array([[rig.focal, 0, width / 2], [0, rig.focal, height / 2], [0, 0, 1.0]])
    found = Camera(intrinsics, camera.image_size, "given" if camera.origin == "given" else "estimated")
    score = float(agree.mean() * np.exp(-0.5 * (relative / settings.max_sigma) ** 2))
    solved = Solved(found, rig.camera_from_base, ridden, score, quality)
    if relative > settings.max_sigma:
        detail = f"distance is known to {100 * relative:.1f} % only; {100 * settings.max_sigma:.1f} % are needed"
        return replace(solved, reason="ill_conditioned", detail=detail + ": more, or less planar, motion helps")
    return solved


def _middle_sigma(rig: Rig, poses: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """f64 [T]: one sigma of the distance of the points' middle, as a share of the distance."""
    turn = rig.camera_from_base[:3, :3]
    turned = (poses[:, :3, :3] @ rig.middle_3 + poses[:, :3, 3]) @ turn.T
    distance = turned[:, 2] + rig.camera_from_base[2, 3]
    jacobian = np.zeros((len(poses), len(shared)))
    jacobian[:, 1], jacobian[:, 2] = turned[:, 1], -turned[:, 0]  # z of w x y
    jacobian[:, 6] = 1
    jacobian[:, 7:] = turn[2] @ poses[:, :3, :3]
    return np.sqrt(np.einsum("ti,ij,tj->t", jacobian, shared, jacobian)) / distance


def _sigma(
    rig: Rig, poses: np.ndarray, own: np.ndarray, covariance: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> np.ndarray:
    """f64 [T,K,2] metres: one sigma of the points across and along the ray, from the adjustment's covariance."""
    shared, cross, points = covariance
    turn = rig.camera_from_base[:3, :3]
    offsets = rig.offsets_K3[own]
    base = np.einsum("tij,kj->tki", poses[:, :3, :3], offsets) + poses[:, None, :3, 3]
    turned = base @ turn.T
    camera = turned + rig.camera_from_base[:3, 3]
    jacobian = np.zeros((*camera.shape, 13))
    jacobian[..., 1:4] = -np.stack([np.cross(turned, axis) for axis in np.eye(3)], -1)
    jacobian[..., 4:7] = np.eye(3)
    jacobian[..., 10:] = (turn @ poses[:, :3, :3])[:, None]
    joint = np.zeros((len(own), 13, 13))
    joint[:, :10, :10] = shared
    joint[:, :10, 10:] = cross[own]
    joint[:, 10:, :10] = cross[own].transpose(0, 2, 1)
    joint[:, 10:, 10:] = points[own]
    spread = jacobian @ joint @ np.swapaxes(jacobian, -1, -2)
    ray = camera / np.linalg.norm(camera, axis=-1, keepdims=True)
    along = np.einsum("tki,tkij,tkj->tk", ray, spread, ray)
    across = (np.einsum("tkii->tk", spread) - along) / 2
    return np.sqrt(np.maximum(np.stack([across, along], -1), 0))
