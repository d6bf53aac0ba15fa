"""Where a 2D detector sees its keypoints on real people, learnt from people whom several cameras saw.

The regressor of rendered bodies (`bodies.anny.rendered_keypoints`) says where RTMPose sees its 26 points on pictures of
the body model. On people it sees some of them elsewhere: its knees lie lower, its heads higher. Poses, shapes and one
offset for each point in the frame of its bone are found together, so that the body keeps to the triangulated points.
"""

import dataclasses
import functools

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
"""Bones of the rig, and the points that move with the vertices which these hold (without the side)."""
HELD = 0.5
"""Least weight with which the carrying bones hold a vertex that serves to move a point."""
MIRROR = (-1.0, 1.0, 1.0)
"""Of the body's frame: x to its left."""


@dataclasses.dataclass(frozen=True)
class CalibrationOptions:
    """How the offsets are learnt; deviations in metres but for the pose's.

    point: of a triangulated point from the body's. outlier: as many deviations at which a point has lost three
    quarters of its weight. offset: of the offsets, along each axis, from zero. pose: weight of the network's answer,
    as its errors weigh it (`ParameterFit.precision`). steps: of the optimiser.
    """

    point: float = 0.015
    outlier: float = 5.0
    offset: float = 0.02
    pose: float = 0.02
    steps: int = 600


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Offsets (metres, body frame at rest) of the points of `HALPE26`, and the people's mean distances from them.

    before, after: metres from the triangulated points, without the offsets (poses and shapes fitted as well) and with.
    shape: of each person.
    """

    offsets: Float[Tensor, "26 3"]
    before: float
    after: float
    shape: Float[Tensor, "p 6"]


def offset_rows(body: AnnyBody) -> Float[Tensor, "26 3 v"]:
    """What the regressor's rows change by when a point moves by a metre along each axis of the body's frame at rest.

    The weights, summing to 0, are the smallest on the vertices that the point's bones hold: so the point keeps its
    place on the bone, and an offset grows with the body.
    """
    rest = body(body.rest_params()).vertices
    rows = rest.new_zeros(len(HALPE26), 3, len(rest))
    for bones, points in CARRIERS.items():
        for point in points.split():
            for side, suffix in (("", ""),) if point in HALPE26.joints else (("L_", ".L"), ("R_", ".R")):
                names = [f"{bone}{suffix}" if f"{bone}{suffix}" in body.rig_bones else bone for bone in bones.split()]
                held = body.weights[:, [body.rig_bones.index(name) for name in names]].sum(1) > HELD
                places = (rest[held] - rest[held].mean(0)).double()
                rows[HALPE26.index(side + point)][:, held] = torch.linalg.pinv(places).float()
    return rows


def moved_regressor(body: AnnyBody, offsets: Float[Tensor, "26 3"]) -> Float[Tensor, "26 v"]:
    """The regressor of rendered bodies with its points moved by `offsets` (`Calibration`), exactly mirror-symmetric."""
    assert body.vertex_mirror is not None
    moved = rendered_keypoints() + torch.einsum("pc,pcv->pv", offsets, offset_rows(body))
    return (moved + moved[list(HALPE26.mirror_permutation)][:, body.vertex_mirror]) / 2


def triangulated_people(samples: MultiviewSamples) -> tuple[MultiviewSamples, Float[Tensor, "n 26 3"]]:
    """A sample of each person in each frame, and the person's 26 triangulated points in its camera's frame, metres.

    The samples hold 12 joints only, in each view's frame: these tell how the cameras stand to each other.
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
    """Learns the offsets from all people of `samples`, their poses begun with what `network` lifts."""
    seen, points = triangulated_people(samples)
    crop = seen.crop(network.grid.crop_size)
    keypoints = torch.cat([crop.to_crop(seen.keypoints[..., :2]), seen.keypoints[..., 2:]], -1)
    pose_net, fit = network.pose_net, network.parameter_fit
    assert isinstance(pose_net, KeypointPoseNet)
    assert fit is not None
    with torch.no_grad():
        params = camera_params(network, network.from_pose(pose_net.lift(keypoints)), crop, seen.camera)
    people = torch.unique(seen.person, return_inverse=True)[1]
    turns = 3 * len(body.bones)
    return learn_offsets(body, params, people, points, fit.precision[:turns, :turns].float(), options)


def learn_offsets(
    body: AnnyBody,
    start: BodyParams,
    people: Int[Tensor, "n"],
    points: Float[Tensor, "n 26 3"],
    pose_precision: Float[Tensor, "d d"],
    options: CalibrationOptions,
) -> Calibration:
    """Offsets, poses and shapes that bring the body's keypoints to `points` (metres).

    start: poses in the frame of the points. people: whose shape a row has, numbered from 0. pose_precision: of the
    turns of all bones away from the start.
    """
    linear = LinearPoints(body, torch.cat([rendered_keypoints(), offset_rows(body).flatten(0, 1)]))
    adults = ShapeSampler(body, children=0.0).sample(4000, torch.Generator().manual_seed(0))
    rotations = global_rotations(start.pose, body.parents)
    fit = functools.partial(_fit, linear, adults, rotations, people, points, pose_precision, options)
    rest, _, _ = fit(moving=False)
    after, offsets, shape = fit(moving=True)
    return Calibration(offsets, rest, after, shape)


def _fit(
    linear: LinearPoints,
    adults: Float[Tensor, "a 6"],
    rotations: Float[Tensor, "n bones 3 3"],
    people: Int[Tensor, "n"],
    points: Float[Tensor, "n 26 3"],
    pose_precision: Float[Tensor, "d d"],
    options: CalibrationOptions,
    moving: bool,
) -> tuple[float, Float[Tensor, "26 3"], Float[Tensor, "p 6"]]:
    """Mean distance (metres), offsets and shapes; the offsets stay zero unless `moving`."""
    count = len(HALPE26)
    mean, precision = adults.mean(0), torch.linalg.inv(torch.cov(adults.T) + 1e-4 * torch.eye(adults.shape[1]))
    root = points.nanmean(1, keepdim=True)
    known = points.isfinite().all(-1)
    goal = (points - root).nan_to_num(0)

    turn = torch.zeros(*rotations.shape[:2], 3, requires_grad=True)
    shape = mean.repeat(int(people.max()) + 1, 1).requires_grad_()
    place = torch.zeros(len(points), 1, 3, requires_grad=True)
    side = torch.zeros(count, 3, requires_grad=moving)
    rates = {turn: 0.02, shape: 0.01, place: 0.01, side: 0.002}
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
        found = torch.einsum("nkij,npkj->npi", axis_angle_to_matrix(turn) @ rotations, arms[people]) + place
        distance = (found - goal).norm(dim=-1) * known
        deviations = (distance / options.point).square()
        away, odd = turn.flatten(1), shape - mean
        loss = (
            (deviations / (1 + deviations / options.outlier**2)).sum() / 4
            + options.pose * ((away @ pose_precision) * away).sum()
            + ((odd @ precision) * odd).sum()
            + (offsets / options.offset).square().sum()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return float((distance.sum() / known.sum()).detach()), offsets.detach(), shape.detach().clamp(0, 1)
