"""Where a 2D detector finds its keypoints on real people, learnt from multi-view clips.

The regressor `bodies.anny.rendered_keypoints` gives the positions of RTMPose's 26 points on images of the body model.
On real people some are elsewhere: knees lower, tops of heads higher. Poses, shapes, and one offset for each point in
the frame of its bone are optimised together to fit the triangulated points.
"""

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from i2l_lab.synthetic.shapes import ShapeSampler
from i2l_meshnet.bodies.anny import AnnyBody, rendered_keypoints
from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.bodies.linear_points import LinearPoints
from i2l_meshnet.bodies.skinning import global_rotations
from i2l_meshnet.data.multiview import MultiviewSamples
from i2l_meshnet.data.triangulation import PosedCamera, triangulate_best_views
from i2l_meshnet.geometry.alignment import rigid_motion
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix
from i2l_meshnet.models.fitting import camera_params
from i2l_meshnet.models.keypoint import KeypointPoseNet
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.skeletons import HALPE26

CARRIERS = {
    "head": "Nose Eye Ear Head_top",
    "spine01": "Neck Shoulder",
    "spine05": "Hip Pelvis",
    "upperarm01 upperarm02": "Elbow",
    "lowerarm01 lowerarm02": "Wrist",
    "upperleg01 upperleg02": "Knee",
    "lowerleg01 lowerleg02": "Ankle",
    "foot": "Big_toe Small_toe Heel",
}
"""Bones, and the points that move with the vertices of these bones (without the side)."""
MINIMUM_WEIGHT = 0.5
"""Minimum skinning weight of the bones for a vertex that moves a point."""
MIRROR = (-1.0, 1.0, 1.0)
"""Reflection in the body's frame, whose x axis is to the left."""


@dataclasses.dataclass(frozen=True)
class CalibrationOptions:
    """How the offsets are learnt.

    point: standard deviation of triangulated points from the body's, metres. outlier: number of these deviations at
    which a point loses three quarters of its weight. offset: standard deviation of the prior of the offsets along each
    axis, metres. pose: weight of the network's poses and their precision (`ParameterFit.precision`). steps: optimizer
    steps.
    """

    point: float = 0.015
    outlier: float = 5.0
    offset: float = 0.02
    pose: float = 0.02
    steps: int = 600


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The result of a calibration.

    offsets: of the points of `HALPE26`, metres, in the body frame at rest. before, after: mean distance from the
    triangulated points, metres, without and with offsets (poses and shapes are fitted in both). shape: of each person.
    """

    offsets: Float[Tensor, "26 3"]
    before: float
    after: float
    shape: Float[Tensor, "p 6"]


def offset_rows(body: AnnyBody) -> Float[Tensor, "26 3 v"]:
    """Change of the regressor's rows if a point moves by a metre along each axis of the body's frame at rest.

    These are the smallest weights with a sum of 0 on the vertices of the point's bones. So the point moves with the
    bone, and an offset scales with the body.
    """
    rest = body(body.rest_params()).vertices
    rows = rest.new_zeros(len(HALPE26), 3, len(rest))
    for bones, points in CARRIERS.items():
        for point in points.split():
            for side, suffix in (("", ""),) if point in HALPE26.joints else (("L_", ".L"), ("R_", ".R")):
                names = [f"{bone}{suffix}" if f"{bone}{suffix}" in body.rig_bones else bone for bone in bones.split()]
                used = body.weights[:, [body.rig_bones.index(name) for name in names]].sum(1) > MINIMUM_WEIGHT
                positions = (rest[used] - rest[used].mean(0)).double()
                rows[HALPE26.index(side + point)][:, used] = torch.linalg.pinv(positions).float()
    return rows


def moved_regressor(body: AnnyBody, offsets: Float[Tensor, "26 3"]) -> Float[Tensor, "26 v"]:
    """The regressor of rendered bodies with its points moved by `offsets` (`Calibration`), exactly mirror-symmetric."""
    assert body.vertex_mirror is not None
    moved = rendered_keypoints() + torch.einsum("pc,pcv->pv", offsets, offset_rows(body))
    return (moved + moved[list(HALPE26.mirror_permutation)][:, body.vertex_mirror]) / 2


def triangulated_people(samples: MultiviewSamples) -> tuple[MultiviewSamples, Float[Tensor, "n 26 3"]]:
    """One sample per person and frame, and the person's 26 triangulated points in its camera frame, metres.

    The relative poses of the cameras are computed from the samples' 12 joints, which are in each view's frame.
    """
    chosen, points = [], []
    for key in sorted(set(zip(samples.frame.tolist(), samples.person.tolist(), strict=True))):
        rows = [
            i for i, at in enumerate(zip(samples.frame.tolist(), samples.person.tolist(), strict=True)) if at == key
        ]
        views = samples[rows].to(dtype=torch.float64)
        first = views.joints[:1].expand_as(views.joints)
        cameras = PosedCamera(views.camera, *rigid_motion(first, views.joints))
        present = torch.ones(len(rows), dtype=torch.bool)
        found, _ = triangulate_best_views(cameras, views.keypoints[..., :2], views.keypoints[..., 2], present)
        chosen.append(rows[0])
        points.append(found.float())
    return samples[chosen], torch.stack(points)


def calibrate(network: MeshNet, body: AnnyBody, samples: MultiviewSamples, options: CalibrationOptions) -> Calibration:
    """Learn the offsets from all people of `samples`, starting from the poses that `network` predicts."""
    seen, points = triangulated_people(samples)
    crop = seen.crop(network.grid.crop_size)
    keypoints = torch.cat([crop.to_crop(seen.keypoints[..., :2]), seen.keypoints[..., 2:]], -1)
    pose_net, fit = network.pose_net, network.parameter_fit
    assert isinstance(pose_net, KeypointPoseNet)
    assert fit is not None
    with torch.no_grad():
        params = camera_params(network, network.from_pose(pose_net.lift(keypoints)), crop, seen.camera)
    people = torch.unique(seen.person, return_inverse=True)[1]
    size = 3 * len(body.bones)
    return learn_offsets(body, params, people, points, fit.precision[:size, :size].float(), options)


def learn_offsets(
    body: AnnyBody,
    start: BodyParams,
    people: Int[Tensor, "n"],
    points: Float[Tensor, "n 26 3"],
    pose_precision: Float[Tensor, "d d"],
    options: CalibrationOptions,
) -> Calibration:
    """Offsets, poses and shapes that bring the body's keypoints to `points` (metres).

    start: poses in the frame of the points. people: the person of each row, numbered from 0. pose_precision: of the
    rotations of all bones from the start.
    """
    linear = LinearPoints(body, torch.cat([rendered_keypoints(), offset_rows(body).flatten(0, 1)]))
    adults = ShapeSampler(body, children=0.0).sample(4000, torch.Generator().manual_seed(0))
    seen = _Observed(global_rotations(start.pose, body.parents), people, points, pose_precision)
    before, _, _ = _fit(linear, adults, seen, options, with_offsets=False)
    after, offsets, shape = _fit(linear, adults, seen, options, with_offsets=True)
    return Calibration(offsets, before, after, shape)


@dataclasses.dataclass(frozen=True)
class _Observed:
    """What `learn_offsets` receives; rotations: the global ones at the start."""

    rotations: Float[Tensor, "n bones 3 3"]
    people: Int[Tensor, "n"]
    points: Float[Tensor, "n 26 3"]
    pose_precision: Float[Tensor, "d d"]


def _fit(
    linear: LinearPoints, adults: Float[Tensor, "a 6"], seen: _Observed, options: CalibrationOptions, with_offsets: bool
) -> tuple[float, Float[Tensor, "26 3"], Float[Tensor, "p 6"]]:
    """Mean distance (metres), offsets (zero unless `with_offsets`) and shapes. adults: the prior of the shapes."""
    count = len(HALPE26)
    mean, precision = adults.mean(0), torch.linalg.inv(torch.cov(adults.T) + 1e-4 * torch.eye(adults.shape[1]))
    root = seen.points.nanmean(1, keepdim=True)
    known = seen.points.isfinite().all(-1)
    goal = (seen.points - root).nan_to_num(0)

    turn = torch.zeros(*seen.rotations.shape[:2], 3, requires_grad=True)
    shape = mean.repeat(int(seen.people.max()) + 1, 1).requires_grad_()
    shift = torch.zeros(len(goal), 1, 3, requires_grad=True)
    side = torch.zeros(count, 3, requires_grad=with_offsets)
    rates = {turn: 0.02, shape: 0.01, shift: 0.01, side: 0.002}
    optimizer = torch.optim.Adam(
        [{"params": [value], "lr": rate} for value, rate in rates.items() if value.requires_grad]
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / options.steps)
    mirror, twin = torch.tensor(MIRROR), list(HALPE26.mirror_permutation)
    offsets, distance = side.detach(), goal[..., 0]
    for _ in range(options.steps):
        offsets = (side + side[twin] * mirror) / 2
        arms = linear(shape.clamp(0, 1))
        arms = arms[:, :count] + torch.einsum("pc,qpckj->qpkj", offsets, arms[:, count:].unflatten(1, (count, 3)))
        found = torch.einsum("nkij,npkj->npi", axis_angle_to_matrix(turn) @ seen.rotations, arms[seen.people]) + shift
        distance = (found - goal).norm(dim=-1) * known
        deviations = (distance / options.point).square()
        turned, unusual = turn.flatten(1), shape - mean
        loss = (
            (deviations / (1 + deviations / options.outlier**2)).sum() / 4
            + options.pose * ((turned @ seen.pose_precision) * turned).sum()
            + ((unusual @ precision) * unusual).sum()
            + (offsets / options.offset).square().sum()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return float((distance.sum() / known.sum()).detach()), offsets.detach(), shape.detach().clamp(0, 1)
