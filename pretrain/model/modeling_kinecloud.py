"""The predictor: one image, an instruction, the embodiment and P past clouds of points on the effector in; the cloud
and the grasp opening at H later times out.

Geometry: camera frame of the "now" image, OpenCV axes (x right, y down, z forward), metres.

Shapes: B batch, P past clouds, N points, H horizons, W waypoints, S image side, D width, C image features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from .compact import CompactTrunk
from .configuration_kinecloud import KinecloudConfig
from .flow import arrival, beside, integrate, shrinkage
from .geometry import CloudGeometry, flattened, geometry_of, middles, rigid_motion, rotation_matrix, transformed
from .latent import LatentAction
from .layers import Attention, init_weights, mlp, waves, zero
from .mixture import MixtureTrunk
from .pointing import Pointing
from .tokenizer import Tokenizing
from .trunk import Context, Text

_WAVY = 1 + 8  # a number and its waves
_MOMENTS = 3 + 9  # of a field of displacements: mean, and mean product with the points' offsets


@dataclass
class KinecloudPrediction(ModelOutput):
    """points: f32 [B,H,N,3] metres. opening: f32 [B,H] metres. grasp: f32 [B,H,3] metres, the grasp point; not of
    generative predictors in training.
    waypoints: f32 [B,W,4], where the grasp point will be next and in the end, and the opening there, metres;
    models with waypoints only. heatmap: f32 [B,W,h,w], logarithm of where in the picture they are looked for, sums to 1
    once raised; models with waypoints only. actions: f32 [B,K,A], normalised; policies only.
    velocity: f32 [B,H,N,3], of the noised displacements that were given; generative models in training only.
    latent: f32 [B], cost of the latent action; models with one, in training only.
    """

    points: Tensor = None  # pyright: ignore[reportAssignmentType]  (ModelOutput wants defaults)
    opening: Tensor = None  # pyright: ignore[reportAssignmentType]
    grasp: Tensor = None  # pyright: ignore[reportAssignmentType]
    waypoints: Tensor | None = None
    heatmap: Tensor | None = None
    actions: Tensor = None  # pyright: ignore[reportAssignmentType]
    velocity: Tensor = None  # pyright: ignore[reportAssignmentType]
    latent: Tensor | None = None


@dataclass
class Observed:
    """An observation as the predictor has encoded it, before it thinks about the future."""

    geometry: CloudGeometry
    context: Context
    points_BND: Tensor  # one embedding per point
    present_BTD: Tensor  # the segment of the present: the situation, then the slots that summarise the cloud
    depth_BN1: Tensor  # of the present points, metres
    grasp_B3: Tensor  # the present grasp point, metres
    situation_BF: Tensor  # where the effector is and how it moves
    image_present_B: Tensor
    image_size: int
    images: tuple[Tensor, Tensor] | None = None  # now and later; for latent actions in training only


class KinecloudPredictor(Tokenizing, PreTrainedModel):
    """Image, instruction, embodiment and past clouds -> future clouds and openings.

    Future cloud = present cloud, rotated about the grasp point, moved by a gated constant velocity plus a learned
    translation, plus a small displacement per point. The learned parts start at zero, so training starts from a damped
    constant velocity. Points enter as a set and attend to nothing, so their number and order are free.

    A predictor with waypoints first finds, in the picture, the places that the effector will pass whenever it will be
    there, and each horizon's motion is decided with those in view.

    A generative predictor says the same of the velocity of noised displacements (flow.py) and samples the future.
    """

    config_class = KinecloudConfig
    base_model_prefix = "predictor"
    main_input_name = "image"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Block", "GemmaDecoderLayer", "SiglipEncoderLayer"]  # noqa: RUF012

    def __init__(self, config: KinecloudConfig):
        super().__init__(config)
        self.trunk = MixtureTrunk(config) if config.mixture else CompactTrunk(config)
        width, past, horizons = self.trunk.width, len(config.past_times), len(config.horizons)
        self.embodiment = nn.Embedding(len(config.embodiments) + 1, width)
        self.situation = mlp(10 + 9 * past, 2 * width, width)
        self.horizon_queries = nn.Parameter(torch.empty(horizons, width))
        self.point = mlp(5 * past + 3 + self.trunk.channels, width, width)
        self.slots = nn.Parameter(torch.empty(config.slots, width))
        self.gather = Attention(width, config.heads)
        if config.waypoints:
            self.waypoint_queries = nn.Parameter(torch.empty(config.waypoints, width))
            self.pointing = Pointing(config, width, self.trunk.channels)
            self.waypoint = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), zero(nn.Linear(width, 4)))
            told = 2 * width + 10 + 9 * past + _WAVY * (3 + 4 * config.waypoints)
            self.lead = nn.Sequential(nn.Linear(told, 3 * width), nn.GELU(), mlp(3 * width, 2 * width, width))
        self.motion = zero(nn.Linear(width, 3 + 3 + 1 + 1))  # translation, rotation, velocity gate, opening
        self.point_norm = nn.LayerNorm(width)
        self.point_of = nn.Linear(width, width // 2)
        self.horizon_of = nn.Linear(width, width // 2)
        self.displacement = zero(nn.Linear(width // 2, 3))
        if config.latent_action:
            self.latent = LatentAction(config, width, 10 + 9 * past)
        if config.generative:
            self.noise_in = mlp(_MOMENTS + 1 + 8, width, width)
            self.noise_of = nn.Linear(3 + 1, width // 2)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        init_weights(module)

    def forward(
        self,
        image: Tensor,
        intrinsics: Tensor,
        past: Tensor,
        past_visible: Tensor,
        past_valid: Tensor,
        past_opening: Tensor,
        text: Text,
        embodiment: Sequence[str] | Tensor,
        image_present: Tensor | None = None,
        past_grasp: Tensor | None = None,
        depth: Tensor | None = None,
        seed: Tensor | None = None,
        noise: Tensor | None = None,
        noised: Tensor | None = None,
        tau: Tensor | None = None,
        image_later: Tensor | None = None,
        **unused: Any,
    ) -> KinecloudPrediction:
        """image: u8 [B,3,S,S] RGB. intrinsics: f32 [B,3,3], pixels of that image. past: f32 [B,P,N,3] metres.
        past_visible: bool [B,P,N]. past_valid: bool [B,P]. past_opening: f32 [B,P] metres, NaN = unknown.
        text, embodiment: B strings; empty text and unknown names are allowed. Where there are no strings: ids i64 [B,L]
        as the text encoder takes them; i64 [B], from 1 in the order of ``config.embodiments``, 0 = unknown.
        image_present: bool [B], default all.
        past_grasp: f32 [B,P,3] metres, default the centroid of the points that are seen now. depth: f32 [B,S,S] metres,
        0 = unknown, of what the image shows; needed by models with ``config.depth``, ignored by others.

        Generative models: seed i64 [B] (default 0), or noise f32 [B,H,N,3], decides the sample; in training, noised f32
        [B,H,N,3] and tau f32 [B] are a point on the path of ``deltas`` and the result holds its velocity. Models with
        latent actions: in training, image_later u8 [B,3,S,S] is what the camera sees later. Other fields are ignored.
        """
        observed = self.observe(
            image, intrinsics, past, past_visible, past_valid, past_opening, text, embodiment, image_present,
            past_grasp, depth,
        )  # fmt: skip
        if image_later is not None:
            observed.images = (image, image_later)
        if self.config.generative and noised is None:
            return self.sample(observed, seed, noise)
        return self.estimate(observed, noised, tau, carry=noised is None)[0]

    def observe(
        self,
        image: Tensor,
        intrinsics: Tensor,
        past: Tensor,
        past_visible: Tensor,
        past_valid: Tensor,
        past_opening: Tensor,
        text: Text,
        embodiment: Sequence[str] | Tensor,
        image_present: Tensor | None = None,
        past_grasp: Tensor | None = None,
        depth: Tensor | None = None,
    ) -> Observed:
        """Everything that does not depend on the future; see ``forward``."""
        batch, size = len(past), image.shape[-1]
        if image_present is None:
            image_present = torch.ones(batch, dtype=torch.bool, device=past.device)
        image_present = image_present & (not self.config.blind)
        # depth is of what the image shows: who does not see the one knows nothing of the other
        depth = depth * image_present[:, None, None] if self.config.depth and depth is not None else None
        past_grasp = middles(self.config, past, past_visible) if past_grasp is None else past_grasp
        geometry = geometry_of(self.config, intrinsics, past, past_visible, past_valid, past_opening, past_grasp, depth)
        context = self.trunk.read(image, image_present, geometry, text)
        features = context.features_BCHW.float()
        here_BNC = F.grid_sample(
            features.detach() if self.config.latent_action else features,
            geometry.grid(size)[:, :, None],
            padding_mode="border",
            align_corners=False,
        )[..., 0].transpose(1, 2)
        points_BND = self.point(torch.cat([geometry.point_features(), here_BNC], -1))
        if isinstance(embodiment, Tensor):
            slots_B = embodiment
        else:
            names = {name: slot for slot, name in enumerate(self.config.embodiments, start=1)}
            slots_B = torch.tensor([names.get(name, 0) for name in embodiment], device=past.device)
        situation_BF = geometry.situation(size)
        situation_BD = self.situation(situation_BF) + self.embodiment(slots_B)
        slots_BLD = self.slots.expand(batch, -1, -1)
        slots_BLD = slots_BLD + self.gather(slots_BLD, points_BND)
        present_BTD = torch.cat([situation_BD[:, None], slots_BLD], 1)
        return Observed(
            geometry, context, points_BND, present_BTD, past[:, -1, :, 2:], past_grasp[:, -1], situation_BF,
            image_present, size,
        )  # fmt: skip

    def estimate(
        self,
        observed: Observed,
        noised: Tensor | None = None,
        tau: Tensor | None = None,
        later: Sequence[Tensor] = (),
        carry: bool = True,
    ) -> tuple[KinecloudPrediction, list[Tensor]]:
        """The future as the network sees it, and what became of ``later``. Regression takes neither noised nor tau.

        carry: False leaves the grasp point out where the points carry it along: sampled, or in two dimensions.
        """
        waypoints = self.config.waypoints
        future_BHD, thought = self.think(observed, noised, tau, later)
        ahead_BW4, heatmap_BWhw, cost_B = None, None, None
        if waypoints:
            ahead_BW4, heatmap_BWhw, future_BHD = self._led(
                observed, future_BHD[:, :waypoints], future_BHD[:, waypoints:]
            )
        if self.config.latent_action:
            future_BHD, cost_B = self.latent(future_BHD, observed.situation_BF, observed.images)
        prediction = self._decode(observed, future_BHD, noised, tau)
        prediction.latent, prediction.waypoints, prediction.heatmap = cost_B, ahead_BW4, heatmap_BWhw
        if carry and prediction.grasp is None:
            prediction.grasp = self._carried(observed, prediction.points)
        return prediction, thought

    def think(
        self,
        observed: Observed,
        noised: Tensor | None = None,
        tau: Tensor | None = None,
        later: Sequence[Tensor] = (),
    ) -> tuple[Tensor, list[Tensor]]:
        """Tokens of waypoints and horizons, not read out yet, and what became of ``later``: segments that see
        everything and are seen by nothing."""
        future_BHD = self.horizon_queries + observed.present_BTD[:, :1]
        if noised is not None and tau is not None:
            future_BHD = future_BHD + self.noise_in(_moments(observed.geometry.offsets_BPN3[:, -1], noised, tau))
        if self.config.waypoints:
            future_BHD = torch.cat([self.waypoint_queries + observed.present_BTD[:, :1], future_BHD], 1)
        _, future_BHD, *thought = self.trunk.think(observed.context, [observed.present_BTD, future_BHD, *later])
        return future_BHD, thought

    def _led(self, observed: Observed, ahead_BWD: Tensor, future_BHD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Waypoints [B,W,4] in metres, their heatmaps [B,W,h,w], and the tokens of the future that know of them."""
        g = observed.geometry
        tokens_BQD = torch.cat([ahead_BWD, future_BHD], 1)
        found_BQ3, seen_BQD, look_BQhw = self.pointing(
            tokens_BQD, observed.context.features_BCHW.float(), observed.image_present_B, g, observed.image_size
        )
        ahead_BW4 = self.waypoint(torch.cat([ahead_BWD, seen_BQD[:, : ahead_BWD.shape[1]]], -1)).to(found_BQ3)
        here_BW4 = torch.cat(
            [found_BQ3[:, : ahead_BWD.shape[1]], g.opening_BP[:, None, -1:].expand_as(ahead_BW4[..., :1])], -1
        )
        ahead_BW4 = ahead_BW4 + here_BW4
        horizons = future_BHD.shape[1]
        told_BHF = [
            future_BHD, seen_BQD[:, -horizons:], _wavy(found_BQ3[:, -horizons:]),
            *(once[:, None].expand(-1, horizons, -1) for once in (observed.situation_BF, _wavy(ahead_BW4.flatten(1)))),
        ]  # fmt: skip
        future_BHD = future_BHD + self.lead(torch.cat([part.to(future_BHD) for part in told_BHF], -1))
        unit = self.config.length_unit_m
        place_BW3, opening_BW1 = unit * ahead_BW4[..., :3] + g.centre_B3[:, None], unit * ahead_BW4[..., 3:]
        if self.config.dimensions == 2:
            place_BW3 = flattened(place_BW3) * observed.grasp_B3[:, None, 2:]
        return torch.cat([place_BW3, opening_BW1], -1), look_BQhw[:, : ahead_BW4.shape[1]], future_BHD

    @torch.no_grad()
    def sample(
        self, observed: Observed, seed: Tensor | None = None, noise: Tensor | None = None
    ) -> KinecloudPrediction:
        """One future out of all that are likely; the context is read once. seed: i64 [B], one per window; noise: f32
        [B,H,N,3], standard normal, by default drawn from it."""
        if noise is None:
            batch, points = observed.points_BND.shape[:2]
            seeds = [0] * batch if seed is None else seed.tolist()
            shape = (len(self.config.horizons), points, 3)
            noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(s)) for s in seeds])
        remembered = replace(observed, context=self.trunk.remember(observed.context))
        last: list[KinecloudPrediction] = []

        def velocity(noised: Tensor, tau_B: Tensor) -> Tensor:
            last[:] = [self.estimate(remembered, noised, tau_B, carry=False)[0]]
            return last[0].velocity

        deltas = integrate(velocity, noise.to(observed.depth_BN1), self.config.flow_steps)
        points = self._placed(observed, deltas * self._scale(deltas))
        return replace(last[0], points=points, velocity=None, grasp=self._carried(observed, points))

    def arrived(
        self, observed: Observed, seed: Tensor | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """A sampled future at the end of its path, for ``estimate`` to read: noised displacements f32 [B,H,N,3], and
        tau f32 [B], which is 1. Nothing for regression. See ``sample``."""
        if not self.config.generative:
            return None, None
        noised = self.deltas(observed.geometry.now_BN3, self.sample(observed, seed, noise).points)
        return noised, torch.ones_like(noised[:, 0, 0, 0])

    def deltas(self, now_BN3: Tensor, points_BHN3: Tensor) -> Tensor:
        """Displacements of clouds in metres from the present one, as a generative model wants them, [B,H,N,3]."""
        if self.config.dimensions == 2:
            now_BN3, points_BHN3 = flattened(now_BN3), flattened(points_BHN3)
        moved = (points_BHN3 - now_BN3[:, None]) / self.config.length_unit_m
        return moved / self._scale(moved)

    def _scale(self, like: Tensor) -> Tensor:
        return torch.tensor(self.config.delta_scale, device=like.device, dtype=like.dtype)[:, None, None]

    def _placed(self, observed: Observed, deltas_BHN3: Tensor) -> Tensor:
        """Displacements in length units -> clouds in metres."""
        points_BHN3 = observed.geometry.now_BN3[:, None] + self.config.length_unit_m * deltas_BHN3
        if self.config.dimensions == 3:
            return points_BHN3
        in_plane = torch.cat([points_BHN3[..., :2], torch.ones_like(points_BHN3[..., 2:])], -1)
        return in_plane * observed.depth_BN1[:, None]

    @staticmethod
    def _carried(observed: Observed, points_BHN3: Tensor) -> Tensor:
        """The grasp point as the points carry it along, [B,H,3] metres: by the rigid motion that explains them best."""
        now_BN3, grasp_B3 = observed.geometry.now_BN3, observed.grasp_B3
        now_BN3 = now_BN3 * observed.depth_BN1 / now_BN3[..., 2:]  # in two dimensions it lies at a depth of 1 m
        middle_B3 = now_BN3.mean(1)
        moved_BH3, turned_BH3 = rigid_motion(10 * (now_BN3 - middle_B3[:, None]), points_BHN3 - now_BN3[:, None])
        arm_B13 = 10 * (grasp_B3 - middle_B3)[:, None]
        return grasp_B3[:, None] + moved_BH3 + torch.linalg.cross(turned_BH3, arm_B13.expand_as(turned_BH3))

    def _decode(
        self, observed: Observed, future_BHD: Tensor, noised: Tensor | None, tau: Tensor | None
    ) -> KinecloudPrediction:
        geometry = observed.geometry
        now_BN3, offsets_B1N3 = geometry.now_BN3, geometry.offsets_BPN3[:, None, -1]
        # positions are computed at full precision whatever autocast does to the network
        translation_BH3, rotation_BH3, gate_BH1, opening_BH1 = (
            self.motion(future_BHD).to(now_BN3).split([3, 3, 1, 1], -1)
        )
        times_H1 = torch.tensor(self.config.horizons, device=now_BN3.device, dtype=now_BN3.dtype)[:, None]
        if self.config.waypoints:  # what leads somewhere has a speed: the nearer in time, the finer
            pace_H1 = (8 * times_H1).clamp(max=4)
            translation_BH3, opening_BH1 = pace_H1 * translation_BH3, pace_H1 * opening_BH1
        translation_BH3 = translation_BH3 + torch.sigmoid(gate_BH1) * times_H1 * geometry.velocity_B3[:, None]
        hidden_BHND = (
            self.point_of(self.point_norm(observed.points_BND))[:, None] + self.horizon_of(future_BHD)[:, :, None]
        )
        if noised is not None and tau is not None:
            hidden_BHND = hidden_BHND + self.noise_of(torch.cat([noised, _along(tau, noised)], -1))
        own_BHN3 = self.displacement(F.gelu(hidden_BHND)).to(now_BN3)
        turned_BHN3 = transformed(rotation_matrix(rotation_BH3)[:, :, None], offsets_B1N3) - offsets_B1N3
        deltas_BHN3 = turned_BHN3 + translation_BH3[:, :, None] + own_BHN3
        opening_BH = self.config.length_unit_m * (geometry.opening_BP[:, -1:] + opening_BH1[..., 0])
        if noised is not None and tau is not None:
            scale = self._scale(deltas_BHN3)
            velocity = deltas_BHN3 / scale + shrinkage(noised, tau)
            points_BHN3 = self._placed(observed, scale * arrival(noised, velocity, tau))
            return KinecloudPrediction(points=points_BHN3, opening=opening_BH, velocity=velocity)
        prediction = KinecloudPrediction(points=self._placed(observed, deltas_BHN3), opening=opening_BH)
        if self.config.dimensions == 3:
            prediction.grasp = geometry.centre_B3[:, None] + self.config.length_unit_m * translation_BH3
        return prediction


def _moments(offsets_BN3: Tensor, noised_BHN3: Tensor, tau_B: Tensor) -> Tensor:
    """What noised displacements say of a common affine motion, and their time: [B,H,12+9]."""
    mean_BH3 = noised_BHN3.mean(2)
    products_BH9 = torch.einsum("bhni,bnj->bhij", noised_BHN3, offsets_BN3).flatten(2) / offsets_BN3.shape[1]
    tau_BH1 = _along(tau_B, mean_BH3)
    return torch.cat([mean_BH3, products_BH9, tau_BH1, waves(tau_BH1)], -1)


def _wavy(x: Tensor) -> Tensor:
    """Places in length units as a network likes them: [...,C] -> [...,C * _WAVY]."""
    return torch.cat([x / 4, waves(x / 4)], -1)


def _along(tau_B: Tensor, x: Tensor) -> Tensor:
    """tau as one more channel of x."""
    return beside(tau_B, x).expand(*x.shape[:-1], 1)
