"""Data sets of others: LeRobot, RLDS, HDF5, RGB-D. Every camera of a recording becomes an episode, or several where the
instruction changes on the way; all of a recording are one group."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from data.config import Source
from data.index import Episode, Place, Rejection
from data.scan.episodes import episode_id, parts
from data.scan.hashes import Hashes
from data.schema import ActionSpec
from data.sidecar import Sidecar
from data.sources.folder import DataSet, data_sets, recordings
from data.sources.recording import Camera, Piece, Recording, safe_name
from data.video import Unreadable
from pipeline.errors import UserError
from pipeline.fingerprint import digest


def scan(folder: Path, source: Source, hashes: Hashes, split_minutes: float | None) -> Iterator[Episode | Rejection]:
    """Every recording of the data sets below ``folder``: numbers and words are read and checked, pictures are not.

    Raises UserError where there is no data set.
    """
    found = data_sets(folder, source.layout)
    if not found:
        raise UserError(
            f"index.sources: '{source.name}': {folder} holds no LeRobot, RLDS, HDF5 or RGB-D data set "
            "(meta/info.json, dataset_info.json, *.hdf5, rgb.txt, ...). Name its folder, or use kind: video."
        )
    for data_set in found:
        for one in recordings(data_set, source.layout):
            if isinstance(one, Recording):
                yield from _episodes(data_set, one, source, hashes, split_minutes)
            else:
                yield Rejection(one.item, one.reason, one.detail)


def _episodes(
    data_set: DataSet, recording: Recording, source: Source, hashes: Hashes, split_minutes: float | None
) -> list[Episode] | list[Rejection]:
    """Those of all cameras, or what is wrong with the recording."""
    item = f"{data_set.root}: {recording.name}"
    try:
        return list(_of_cameras(data_set, recording, source, hashes, split_minutes))
    except Unreadable as error:
        return [Rejection(item, error.reason, error.detail)]
    except OSError as error:
        return [Rejection(item, "unreadable", f"{error.filename}: {error.strerror}")]


def _of_cameras(
    data_set: DataSet, recording: Recording, source: Source, hashes: Hashes, split_minutes: float | None
) -> Iterator[Episode]:
    cameras = [_camera(recording, name) for name in source.cameras or _coloured(recording)]
    stretches = _stretches(recording.instructions)
    if source.effector == "hand_joints" and recording.hands is None:
        raise Unreadable("no_joints", f"{recording.name} brings no joints of hands; use effector: hand")
    spec = _action_spec(recording, source, cameras[0].fps)
    content = {"files": _content(recording.pieces, hashes)}
    for camera in cameras:
        sha256 = digest({**content, "camera": camera.name, "pictures": _content(camera.pieces, hashes)})
        for instruction, span in stretches:
            sidecar = Sidecar(
                instruction=instruction or None,
                embodiment=safe_name(recording.robot) if recording.robot else None,
                effector=source.effector,
                intrinsics=_intrinsics(camera, source),
                frame_range=span if len(stretches) > 1 else None,
                group=digest(content)[:16],
                license=recording.license or None,
                labelled=spec is not None,
                action_spec=spec,
            )
            for part in parts(sidecar, recording.frames, recording.frames / camera.fps, split_minutes):
                yield _episode(data_set, recording, camera, source, sha256, part)


def _coloured(recording: Recording) -> list[str]:
    """Cameras that show pictures. Raises Unreadable where there are none."""
    found = [name for name, camera in recording.cameras.items() if camera.images is not None]
    if not found:
        raise Unreadable("no_camera", f"no camera of {recording.name} has pictures")
    return found


def _camera(recording: Recording, name: str) -> Camera:
    if name not in recording.cameras:
        there = ", ".join(recording.cameras) or "none"
        raise Unreadable("no_camera", f"{recording.name} has no camera {name}; there are {there}")
    return recording.cameras[name]


def _stretches(instructions: tuple[str, ...]) -> list[tuple[str, tuple[int, int]]]:
    """Each instruction, with the first frame that it is given for and the one after the last."""
    starts = [0, *(at for at, (one, other) in enumerate(pairwise(instructions), start=1) if one != other)]
    return [
        (instructions[start], span) for start, span in zip(starts, pairwise([*starts, len(instructions)]), strict=True)
    ]


def _action_spec(recording: Recording, source: Source, rate_hz: float) -> ActionSpec | None:
    """What the actions mean, where the source says it. Raises Unreadable where there are none."""
    if source.actions is None:
        return None
    actions, proprio = recording.actions, recording.proprio
    if actions is None or proprio is None:
        lacking = "actions" if actions is None else "proprioception"
        raise Unreadable("no_actions", f"{recording.name} has no {lacking}; leave index.sources.actions out")
    names = {"names": list(actions.names), "proprio_names": list(proprio.names)}
    return ActionSpec(rate_hz=rate_hz, **names, **source.actions.model_dump())


def _intrinsics(camera: Camera, source: Source) -> tuple[tuple[float, float, float], ...] | None:
    told = source.intrinsics if camera.intrinsics is None else camera.intrinsics.tolist()
    return None if told is None else tuple((row[0], row[1], row[2]) for row in told)


def _content(pieces: tuple[Piece, ...], hashes: Hashes) -> list[list[str]]:
    return [[hashes.sha256(piece.path), piece.part] for piece in pieces]


def _episode(
    data_set: DataSet, recording: Recording, camera: Camera, source: Source, sha256: str, sidecar: Sidecar
) -> Episode:
    identity = {"recording": sha256, "sidecar": sidecar.model_dump(), "source": source.name}
    files = {piece.path for piece in (*recording.pieces, *camera.pieces)}
    return Episode(
        episode_id=episode_id(f"{recording.name}-{camera.name.rsplit('.', 1)[-1]}", identity),
        source=source.name,
        path=data_set.root,
        bytes=sum(path.stat().st_size for path in files),
        sha256=sha256,
        width=camera.width,
        height=camera.height,
        fps=camera.fps,
        frames=recording.frames,
        duration_s=recording.frames / camera.fps,
        focal_35mm=None,
        embodiment=sidecar.embodiment or source.embodiment,
        instruction=sidecar.instruction or source.instruction,
        group=sidecar.group or "",
        license=sidecar.license or source.license,
        sidecar=sidecar,
        recording=Place(kind=data_set.kind, address=dict(recording.address), camera=camera.name, layout=source.layout),
    )
