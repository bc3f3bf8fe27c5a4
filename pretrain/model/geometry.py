"""What is computed from clouds and camera before any weight is applied.

Geometry: camera frame of the "now" image, OpenCV axes (x right, y down, z forward), metres; the centre of pixel
(row r, column c) is at (u, v) = (c + 0.5, r + 0.5).

Shapes: B batch, P past clouds, N points, H horizons, S image side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .configuration_kinecloud import KinecloudConfig
from .layers import waves


@dataclass
class CloudGeometry:
    """Lengths in the network's unit, but for centre, now and depth. The centre is the grasp point."""

    centre_B3: Tensor  # metres
    now_BN3: Tensor  # the present cloud, metres
    offsets_BPN3: Tensor  # past clouds about the present centre
    velocity_B3: Tensor  # of the centre, per second, least squares over the valid past
    path_BP3: Tensor  # past centres about the present one
    extent_B3: Tensor  # standard deviation of the present cloud
    valid_BP: Tensor
    visible_BPN: Tensor
    opening_BP: Tensor
    opening_known_BP: Tensor
    rays_B22: Tensor  # (fx, fy), (cx, cy) in pixels
    depth_BSS: Tensor | None  # of what the picture shows, metres, 0 = unknown
    unit_m: float

    def situation(self, size: int) -> Tensor:
        """Where the effector is and how it moves as one vector [B, 10 + 9 P]. size: side of the image, pixels."""
        depth_B1 = self.centre_B3[:, 2:].clamp(min=1e-3)
        steps_BP3 = torch.diff(self.path_BP3, dim=1, prepend=torch.zeros_like(self.path_BP3[:, :1]))
        parts = [
            self.centre_B3[:, :2] / depth_B1, depth_B1.log(), size / self.rays_B22[:, 0], self.extent_B3,
            1 / depth_B1 / 4, self.path_BP3.flatten(1), 3 * steps_BP3.flatten(1), self.valid_BP, self.opening_BP,
            self.opening_known_BP, self.valid_BP.to(depth_B1.dtype).mean(1, keepdim=True),
        ]  # fmt: skip
        return torch.cat([part.to(depth_B1.dtype) for part in parts], -1)

    def point_features(self) -> Tensor:
        """Each point's place about the centre, its past and whether it was seen: [B, N, 3 + 5 P]."""
        offsets_BNP3 = self.offsets_BPN3.transpose(1, 2)
        relative_BNP3 = offsets_BNP3 - offsets_BNP3[:, :, -1:]
        valid_BNP = self.valid_BP[:, None].expand(-1, offsets_BNP3.shape[1], -1)
        parts = [offsets_BNP3[:, :, -1], 3 * relative_BNP3.flatten(2), self.visible_BPN.transpose(1, 2), valid_BNP]
        return torch.cat([part.to(offsets_BNP3.dtype) for part in parts], -1)

    def grid(self, size: int) -> Tensor:
        """Where the present points are in the image of side ``size``, [B,N,2] from -1 to 1 as grid_sample counts."""
        return (projected(self.now_BN3, self.rays_B22) * (2 / size) - 1).clamp(-2, 2)

    def _rays(self, rows: int, columns: int, size: int) -> Tensor:
        """Viewing rays of the middles of a grid over the image, x and y at a depth of 1; [B, rows * columns, 2]."""
        down, along = (torch.arange(n, device=self.centre_B3.device) + 0.5 for n in (rows, columns))
        pixel_T2 = torch.cartesian_prod(down * (size / rows), along * (size / columns)).flip(-1)
        return (pixel_T2 - self.rays_B22[:, None, 1]) / self.rays_B22[:, None, 0]

    def _depths(self, rows: int, columns: int) -> Tensor | None:
        """Measured depth at the middles of a grid over the image, [B, rows * columns, 1] metres, 0 = unknown."""
        if self.depth_BSS is None:
            return None
        down, along = (
            ((torch.arange(n, device=self.depth_BSS.device) + 0.5) * (self.depth_BSS.shape[-1] / n)).long()
            for n in (rows, columns)
        )
        return self.depth_BSS[:, down][:, :, along].flatten(1)[..., None]

    def sights(self, rows: int, columns: int, size: int) -> Tensor:
        """What is known of the depth of a grid over the image without seeing it: the viewing rays and how far away the
        effector is, and waves of these, [B, rows * columns, 27]."""
        ray_BT2 = self._rays(rows, columns, size)
        away_BT1 = self.centre_B3[:, None, 2:].clamp(min=1e-3).log().expand(-1, ray_BT2.shape[1], -1)
        return torch.cat([ray_BT2, away_BT1], -1)

    def places(self, rows: int, columns: int, size: int, deeper_BT1: Tensor | None = None) -> Tensor:
        """What a grid over the image looks at, as offsets from the centre in units, [B, rows * columns, 3].

        Where depth is not known: the effector's, times ``deeper``.
        """
        ray_BT2 = self._rays(rows, columns, size)
        depth_BT1 = self.centre_B3[:, None, 2:].clamp(min=1e-3).expand(-1, ray_BT2.shape[1], -1)
        if deeper_BT1 is not None:
            depth_BT1 = depth_BT1 * deeper_BT1
        measured_BT1 = self._depths(rows, columns)
        if measured_BT1 is not None:
            depth_BT1 = torch.where(measured_BT1 > 0, measured_BT1, depth_BT1)
        ray_BT3 = torch.cat([ray_BT2, torch.ones_like(ray_BT2[..., :1])], -1)
        return (ray_BT3 * depth_BT1 - self.centre_B3[:, None]) / self.unit_m

    def patch_places(self, rows: int, columns: int, size: int) -> Tensor:
        """Where the patches of an image look: viewing ray, ray from the effector's centre, and the offset from it
        if the patch were at the effector's depth, and waves of these; with depth also whether it is known, the offset
        of what is seen, and waves of that. [B, rows * columns, place_size]."""
        ray_BT2 = self._rays(rows, columns, size)
        depth_B11 = self.centre_B3[:, None, 2:].clamp(min=1e-3)
        from_effector_BT2 = ray_BT2 - self.centre_B3[:, None, :2] / depth_B11
        place_BT6 = torch.cat([ray_BT2, from_effector_BT2, from_effector_BT2 * depth_B11 / self.unit_m / 4], -1)
        parts = [place_BT6, waves(place_BT6)]
        measured_BT1 = self._depths(rows, columns)
        if measured_BT1 is not None:
            offset_BT3 = self.places(rows, columns, size) / 4
            parts += [(measured_BT1 > 0).to(offset_BT3.dtype), offset_BT3, waves(offset_BT3)]
        return torch.cat(parts, -1)


def place_size(config: KinecloudConfig) -> int:
    """How many numbers ``patch_places`` gives for a patch."""
    return 6 + 6 * 8 + config.depth * (1 + 3 + 3 * 8)


def geometry_of(
    config: KinecloudConfig,
    intrinsics: Tensor,
    past: Tensor,
    visible: Tensor,
    valid: Tensor,
    opening: Tensor,
    grasp: Tensor,
    depth: Tensor | None = None,
) -> CloudGeometry:
    """From the inputs of ``KinecloudPredictor.forward``; in two dimensions from what an image shows of them."""
    unit = config.length_unit_m
    if config.dimensions == 2:
        past, grasp, opening, depth = flattened(past), flattened(grasp), torch.full_like(opening, float("nan")), None
    seen_BN1 = _seen_now(visible).to(past.dtype)
    centre_B3 = grasp[:, -1]
    past = torch.where(valid[..., None, None], past, past[:, -1:])  # what is not valid stands still
    path_BP3 = torch.where(valid[..., None], grasp - centre_B3[:, None], torch.zeros_like(grasp)) / unit
    offsets_BPN3 = (past - centre_B3[:, None, None]) / unit
    weight_BP1 = valid[..., None].to(past.dtype)
    time_P1 = torch.tensor(config.past_times, device=past.device, dtype=past.dtype)[:, None]
    count_B11 = weight_BP1.sum(1, keepdim=True).clamp(min=1)
    time_BP1 = weight_BP1 * (time_P1 - (weight_BP1 * time_P1).sum(1, keepdim=True) / count_B11)
    velocity_B3 = (time_BP1 * path_BP3).sum(1) / time_BP1.square().sum(1).clamp(min=1e-6)
    middle_B13 = (seen_BN1 * offsets_BPN3[:, -1]).sum(1, keepdim=True) / seen_BN1.sum(1, keepdim=True)
    spread_BN3 = offsets_BPN3[:, -1] - middle_B13
    extent_B3 = ((seen_BN1 * spread_BN3.square()).sum(1) / seen_BN1.sum(1)).clamp(min=1e-8).sqrt()
    known_BP = torch.isfinite(opening) & valid
    return CloudGeometry(
        centre_B3, past[:, -1], offsets_BPN3, velocity_B3, path_BP3, extent_B3, valid, visible,
        torch.where(known_BP, opening, torch.zeros_like(opening)) / unit, known_BP,
        rays_of(intrinsics), depth, unit,
    )  # fmt: skip


def _seen_now(visible_BPN: Tensor) -> Tensor:
    """The points that are seen now, bool [B,N,1]; all where none is."""
    seen_BN1 = visible_BPN[:, -1, :, None]
    return seen_BN1 | ~seen_BN1.any(1, keepdim=True)


def middles(config: KinecloudConfig, past_BPN3: Tensor, visible_BPN: Tensor) -> Tensor:
    """Of the points that are seen now, or of all where none is, at all past times, [B,P,3] metres; in two dimensions of
    what an image shows of them, at their mean depth."""
    seen_BN1 = _seen_now(visible_BPN).to(past_BPN3.dtype)

    def mean(points_BPN3: Tensor) -> Tensor:
        return (points_BPN3 * seen_BN1[:, None]).sum(2) / seen_BN1.sum(1)[:, None]

    if config.dimensions == 2:
        return mean(flattened(past_BPN3)) * mean(past_BPN3)[..., 2:]
    return mean(past_BPN3)


def flattened(points: Tensor) -> Tensor:
    """[...,3] metres -> the same points moved along their rays to a depth of 1 m: what an image shows of them."""
    return points / points[..., 2:].clamp(min=1e-3)


def rays_of(intrinsics_B33: Tensor) -> Tensor:
    """(fx, fy), (cx, cy) in pixels, [B,2,2]."""
    return torch.stack([torch.diagonal(intrinsics_B33, dim1=1, dim2=2)[:, :2], intrinsics_B33[:, :2, 2]], 1)


def projected(points_BN3: Tensor, rays_B22: Tensor) -> Tensor:
    """Where a camera shows points (metres), pixels [B,N,2]; of what is behind it, nothing that means anything."""
    return flattened(points_BN3)[..., :2] * rays_B22[:, None, 0] + rays_B22[:, None, 1]


def rotation_matrix(rotation_3: Tensor) -> Tensor:
    """Rotation vectors [...,3] (radians) -> matrices [...,3,3], by Rodrigues' formula; smooth at zero."""
    square = rotation_3.square().sum(-1)[..., None, None]
    angle = square.clamp(min=1e-8).sqrt()
    small = square < 1e-6
    first = torch.where(small, 1 - square / 6, angle.sin() / angle)
    second = torch.where(small, 0.5 - square / 24, (1 - angle.cos()) / angle.square())
    x, y, z = rotation_3.unbind(-1)
    nothing = torch.zeros_like(x)
    cross = torch.stack([nothing, -z, y, z, nothing, -x, -y, x, nothing], -1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=rotation_3.dtype, device=rotation_3.device)
    return eye + first * cross + second * (rotation_3[..., :, None] * rotation_3[..., None, :] - square * eye)


def rigid_motion(offsets_BN3: Tensor, deltas_BHN3: Tensor) -> tuple[Tensor, Tensor]:
    """The translation and the rotation vector (radians, small) that explain displacements best in least squares,
    each [B,H,3]. offsets: points about any centre; deltas: their displacements."""
    centred_BN3 = offsets_BN3 - offsets_BN3.mean(1, keepdim=True)
    translation_BH3 = deltas_BHN3.mean(2)
    left_BHN3 = deltas_BHN3 - translation_BH3[:, :, None]
    moment_BH3 = torch.linalg.cross(centred_BN3[:, None].expand_as(left_BHN3), left_BHN3).mean(2)
    square_B33 = (centred_BN3[..., :, None] * centred_BN3[..., None, :]).mean(1)
    trace_B = square_B33.diagonal(dim1=1, dim2=2).sum(-1)
    eye = torch.eye(3, dtype=offsets_BN3.dtype, device=offsets_BN3.device)
    inertia_B33 = (trace_B + 1e-4)[:, None, None] * eye - square_B33
    return translation_BH3, torch.linalg.solve(inertia_B33, moment_BH3.transpose(1, 2)).transpose(1, 2)


def transformed(matrix_33: Tensor, points_3: Tensor) -> Tensor:
    """[...,3,3] times [...,3], without the reduced precision that a matrix product may have."""
    return (matrix_33 * points_3[..., None, :]).sum(-1)
