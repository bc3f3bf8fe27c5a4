"""Changes of a window's camera and scene that are exact: pixels, intrinsics, clouds and words agree afterwards.

Shapes: B windows, S image side. Clouds are in the camera frame, OpenCV axes (x right, y down, z forward), metres; the
centre of pixel (row r, column c) is at (u, v) = (c + 0.5, r + 0.5).
"""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.model.geometry import rotation_matrix

CLOUDS = ("past", "future", "past_grasp", "future_grasp", "waypoints")  # [B,...,3 or more]: x, y, z come first
LENGTHS = ("past_opening", "future_opening", "depth", "sigma")
IMAGES = ("image", "image_later")  # of one camera at rest; the second is there for some objectives only
_SIDES = re.compile(r"\b(left|right)(?=\b|most\b|wards?\b)|\b(counter-?|anti-?)?clockwise\b", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}


def images_of(window: dict[str, Any]) -> list[str]:
    """The image fields that the window has."""
    return [name for name in IMAGES if name in window]


def clouds_of(window: dict[str, Any]) -> list[str]:
    """The fields that hold places."""
    return [name for name in CLOUDS if name in window]


def _with_places(window: dict[str, Any], field: str, places: Tensor) -> None:
    """Replaces x, y, z of a field; what comes after them stays."""
    window[field] = torch.cat([places, window[field][..., 3:]], -1) if window[field].shape[-1] > 3 else places


def change_camera(window: dict[str, Any], roll_B: Tensor, intrinsics_B33: Tensor) -> None:
    """Replaces images, intrinsics and clouds by those of a camera at the same place, turned by ``roll_B`` (radians,
    about z), with other intrinsics and images of the same size. Beyond the old image is black; images of bytes are
    rounded."""
    rotation_B33 = about_z(roll_B)
    for field in clouds_of(window):
        places: Tensor = window[field][..., :3]
        turned = places.flatten(1, -2) @ rotation_B33.transpose(1, 2)
        _with_places(window, field, turned.reshape(places.shape))
    old_from_new_B33 = window["intrinsics"] @ rotation_B33.transpose(1, 2) @ torch.linalg.inv(intrinsics_B33)
    grid = _grid(old_from_new_B33, window["image"].shape[-1])
    for name in images_of(window):
        image: Tensor = window[name]
        seen = F.grid_sample(image.float(), grid, mode="bilinear", align_corners=False)
        window[name] = seen if image.is_floating_point() else seen.round_().to(image.dtype)
    if "depth" in window:  # along the viewing axis, about which the camera turns, so it stays the same number
        window["depth"] = F.grid_sample(window["depth"][:, None], grid, mode="nearest", align_corners=False)[:, 0]
    window["intrinsics"] = intrinsics_B33


def _grid(old_from_new_B33: Tensor, size: int) -> Tensor:
    """Where each pixel of the new image lies in the old one, [B,size,size,2], as grid_sample counts: -1 to 1 over the
    whole image. The map is affine, as that between cameras of parallel axes is."""
    along_S = torch.arange(size).to(old_from_new_B33) + 0.5
    to_grid = old_from_new_B33[:, :2] * (2 / size)
    across_BS2 = to_grid[:, None, :, 0] * along_S[:, None]
    down_BS2 = to_grid[:, None, :, 1] * along_S[:, None] + (to_grid[:, None, :, 2] - 1)
    return across_BS2[:, None] + down_BS2[:, :, None]


def about_z(angle_B: Tensor) -> Tensor:
    """Rotations about the viewing axis, [B,3,3]: turned_from_old. angle: radians."""
    nothing_B = torch.zeros_like(angle_B)
    return rotation_matrix(torch.stack([nothing_B, nothing_B, angle_B], -1))


def zoomed(intrinsics_B33: Tensor, zoom_B: Tensor, shift_B2: Tensor) -> Tensor:
    """Intrinsics with focal lengths times ``zoom_B`` and the principal point moved by ``shift_B2`` pixels."""
    after_B33 = intrinsics_B33.clone()
    after_B33[:, :2, :2] *= zoom_B[:, None, None]
    after_B33[:, :2, 2] += shift_B2
    return after_B33


def cropped(intrinsics_B33: Tensor, size: int, keep_B3: Tensor, side_B: Tensor, place_B2: Tensor) -> Tensor:
    """Intrinsics after a square part of the image, of side ``size`` pixels, is enlarged to the whole of it.

    side_B: of the part, as a share of the image, in 0..1. place_B2: where the part lies between its first and last
    position, 0..1 to the right and down. All positions keep the 3D point ``keep_B3`` in view; where that is not in the
    image, any position will do.
    """
    uvw_B3 = (intrinsics_B33 * keep_B3[:, None]).sum(-1)
    pixel_B2 = uvw_B3[:, :2] / uvw_B3[:, 2:].clamp(min=1e-3)
    part_B1 = side_B[:, None] * size
    seen_B1 = ((pixel_B2 >= 0) & (pixel_B2 <= size)).all(1, keepdim=True)
    first_B2 = torch.where(seen_B1, (pixel_B2 - part_B1).clamp(min=0), 0.0)
    last_B2 = torch.where(seen_B1, torch.minimum(pixel_B2, size - part_B1), size - part_B1)
    corner_B2 = first_B2 + place_B2 * (last_B2 - first_B2)
    after_B33 = intrinsics_B33.clone()
    after_B33[:, :2, 2] -= corner_B2
    after_B33[:, :2] /= side_B[:, None, None]
    return after_B33


def mirror(window: dict[str, Any], flip_B: Tensor) -> None:
    """Replaces windows where ``flip_B`` by what a mirror would show: left and right change sides, in words too.

    A mirrored hand is the other hand; what is asymmetric about a robot is no longer that robot's.
    """
    for name in images_of(window):
        window[name] = torch.where(flip_B[:, None, None, None], window[name].flip(-1), window[name])
    sign_B = torch.where(flip_B, -1.0, 1.0)
    if "depth" in window:
        window["depth"] = torch.where(flip_B[:, None, None], window["depth"].flip(-1), window["depth"])
    for field in clouds_of(window):
        cloud = window[field].clone()
        cloud[..., 0] *= _beside(sign_B, cloud[..., 0])
        window[field] = cloud
    intrinsics_B33 = window["intrinsics"].clone()
    intrinsics_B33[:, 0, 1] *= sign_B
    principal_B = intrinsics_B33[:, 0, 2]
    intrinsics_B33[:, 0, 2] = torch.where(flip_B, window["image"].shape[-1] - principal_B, principal_B)
    window["intrinsics"] = intrinsics_B33
    flips = flip_B.tolist()
    window["text"] = [mirrored(text) if flip else text for text, flip in zip(window["text"], flips, strict=True)]


def mirrored(text: str) -> str:
    """An instruction with left and right, and the senses of rotation, exchanged; capitals are kept."""
    return _SIDES.sub(_mirrored_word, text)


def _mirrored_word(match: re.Match[str]) -> str:
    word = match[0]
    other = _OTHER.get(word.lower()) or ("clockwise" if match[2] else "counterclockwise")
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other


def scale(window: dict[str, Any], factor_B: Tensor) -> None:
    """Replaces clouds and openings by those of a world ``factor_B`` times as large, as far away as many times: a single
    camera sees the same."""
    for field in (*clouds_of(window), *(name for name in LENGTHS if name in window)):
        window[field] = window[field] * _beside(factor_B, window[field])


def _beside(values_B: Tensor, like: Tensor) -> Tensor:
    """values [B] with as many dimensions as ``like``."""
    return values_B.reshape(-1, *[1] * (like.ndim - 1))
