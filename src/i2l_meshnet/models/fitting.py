"""The last step to body parameters: the regressed ones moved so that the body lies on the network's own keypoints."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.bodies.linear_points import LinearPoints
from i2l_meshnet.bodies.skinning import global_rotations, local_rotations
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from i2l_meshnet.models.output import LixelNetwork, LixelOutput

CONFIDENCE = (0.0, 0.2, 0.3, 0.5, 0.7, 0.85, 1.0)
DEVIATION = (60.0, 40.0, 14.0, 4.5, 2.3, 1.6, 1.4)
"""Standard deviation of a keypoint's place, crop pixels along an axis, at each of `CONFIDENCE`."""
OUTLIER = 20.0
"""Squared deviations at which a keypoint has lost three quarters of its weight."""
PRIOR = 0.4
"""Weight of the network's answer: it comes from the same keypoints, so it is no independent witness."""
ITERATIONS = 5
SHAPE_STEP = 0.02
"""Change of a shape value for its finite differences; the body is piecewise linear in them."""
LONGEST_TURN = 0.4
"""Radians that a bone is turned in one iteration at most."""
NEAREST = 0.05
"""No point is taken to be nearer to the camera than this, metres."""


class ParameterFit(nn.Module):
    """A few Gauss-Newton steps from the regressed parameters of the Anny body to the most probable ones.

    What is weighed against each other: how far the body's keypoints project from those that were detected, in
    deviations that depend on their confidence and with outliers faded out (Geman-McClure); and how far rotations,
    shape and the depths of joints are from the network's answer, as a Gaussian whose mean and full covariance are
    those of the network's errors on training samples (`learn`). So bones that are usually wrong together move
    together, and the lixel joints' depths, which are better than the regressed rotations, pull too.

    The points are linear in the bones' rotations against the frame (`LinearPoints`), hence the exact derivatives. All
    of it happens in the frame that the network sees bodies in (`LixelGrid.view_rotation`).
    """

    mean: Tensor
    precision: Tensor

    def __init__(self, body: AnnyBody) -> None:
        super().__init__()
        if body.keypoint_regressor is None:
            raise ValueError(f"{body.name} has no keypoints of a 2D detector")
        self.keypoints, self.root = len(body.keypoint_regressor), body.skeleton.root_index
        self.points = LinearPoints(body, torch.cat([body.keypoint_regressor, body.joint_regressor]))
        size = 3 * len(body.bones) + len(body.shape_names) + len(body.joint_regressor)
        # In 64 bits, which halving a checkpoint's weights leaves alone.
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("precision", torch.zeros(size, size, dtype=torch.float64).fill_diagonal_(1))

    def learn(self, errors: Float[Tensor, "n d"], tails: float = 4.0, ridge: float = 0.02) -> None:
        """Takes the mean and covariance of the network's errors (`answer_errors`), whose tails are cut.

        tails: deviations beyond which an error counts no more. ridge: share by which variances are raised.
        """
        errors = errors.double()
        self.mean.copy_(errors.mean(0))
        centered = errors - self.mean
        limit = tails * centered.std(0)
        centered = torch.clamp(centered, -limit, limit)
        covariance = centered.T @ centered / len(centered)
        spread = ridge * covariance.diagonal() + 1e-6
        self.precision.copy_(torch.linalg.inv(covariance + torch.diag(spread)))

    def forward(self, output: LixelOutput, grid: LixelGrid, crop: Crop, camera: Camera) -> BodyParams:
        """Fitted parameters in the camera's frame, of zero translation. Where a fit fails, they are the regressed ones.

        output: with parameters and keypoints. crop, camera: as for `LixelGrid.to_camera`.
        """
        assert output.params is not None
        assert output.keypoints is not None
        turn = grid.view_rotation(crop, camera)
        parents = self.points.body.parents
        start = global_rotations(output.params.pose.float(), parents)
        depth = relative_depth(grid, output.mesh_joints.float(), self.root)
        image = crop.to_image(output.keypoints[..., :2])
        rays = camera.backproject(image, torch.ones_like(image[..., 0]))[..., :2]
        # From the picture plane at depth 1 to deviations.
        scale = crop.affine[:, :, :2].det().abs().sqrt()[:, None, None] * camera.focal[:, None]
        scale = scale / deviation(output.keypoints[..., 2])[..., None]
        rotations, shape = self._solve(start, output.params.shape.float(), depth, rays, scale, turn)
        pose = local_rotations(rotations, parents)
        fitted = BodyParams(pose, shape, torch.zeros_like(shape[:, :3]))
        failed = ~(pose.isfinite().flatten(1).all(1) & shape.isfinite().all(1))
        if failed.any():
            fitted = BodyParams(
                torch.where(failed[:, None, None, None], output.params.pose, fitted.pose),
                torch.where(failed[:, None], output.params.shape, fitted.shape),
                fitted.translation,
            )
        return fitted.rotated(turn)

    def _solve(
        self,
        start: Float[Tensor, "b k 3 3"],
        start_shape: Float[Tensor, "b s"],
        depth: Float[Tensor, "b j"],
        rays: Float[Tensor, "b n 2"],
        scale: Float[Tensor, "b n 2"],
        turn: Float[Tensor, "b 3 3"],
    ) -> tuple[Float[Tensor, "b k 3 3"], Float[Tensor, "b s"]]:
        """Rotations in the frame of the view, and shape values.

        The unknowns are, in this order: a turn of each bone, the shape, and where the root is in the camera's frame.
        """
        mean, precision = self.mean.to(start.dtype), PRIOR * self.precision.to(start.dtype)
        turns = 3 * start.shape[1]
        free = turns + start_shape.shape[1]
        root = slice(self.root, self.root + 1)
        rotations, shape = start, start_shape
        arms, arm_slopes = self._arms(shape)
        place = None
        for _ in range(ITERATIONS):
            points, slopes = _derivatives(rotations, arms, arm_slopes)
            seen, seen_slopes = self._seen(points, turn), self._seen(slopes, turn)
            if place is None:
                place = _place(seen, rays, scale)
            residual, slope = _projection(seen + place[:, None], seen_slopes, rays, scale)
            weight = (OUTLIER / (OUTLIER + residual.square().sum(-1))).square()[..., None, None]
            weighted = (weight * slope).flatten(1, 2).mT
            # The errors of the network's answer, were the present parameters the true ones.
            joints, joint_slopes = points[:, self.keypoints :, 2], slopes[:, self.keypoints :, 2]
            joints, joint_slopes = (joints - joints[:, root], joint_slopes - joint_slopes[:, root])
            errors = answer_errors(start, start_shape, depth, rotations, shape, joints) - mean
            same = torch.eye(free, dtype=shape.dtype, device=shape.device).expand(len(shape), free, free)
            error_slopes = F.pad(torch.cat([same, joint_slopes], 1), (0, 3))
            pull = (precision @ error_slopes).mT
            hessian = weighted @ slope.flatten(1, 2) + pull @ error_slopes
            gradient = (weighted @ residual.flatten(1)[..., None] + pull @ errors[..., None])[..., 0]
            damping = 1e-3 * hessian.diagonal(dim1=-2, dim2=-1) + 1e-6
            step = -torch.linalg.solve_ex(hessian + torch.diag_embed(damping), gradient).result
            angles = step[:, :turns].unflatten(1, (-1, 3))
            angles = angles * (LONGEST_TURN / angles.norm(dim=-1, keepdim=True).clamp_min(LONGEST_TURN))
            rotations = axis_angle_to_matrix(angles) @ rotations
            shape = (shape + step[:, turns:free].clamp(-0.2, 0.2)).clamp(0, 1)
            place = place + step[:, free:].clamp(-1, 1)
            arms = self.points(shape)
        return rotations, shape

    def _seen(self, points: Float[Tensor, "b p 3 *d"], turn: Float[Tensor, "b 3 3"]) -> Float[Tensor, "b n 3 *d"]:
        """The keypoints among the points (or their derivatives), turned to the camera's frame."""
        return torch.einsum("bij,bnj...->bni...", turn, points[:, : self.keypoints])

    def _arms(self, shape: Float[Tensor, "b s"]) -> tuple[Float[Tensor, "b p k 3"], Float[Tensor, "b s p k 3"]]:
        """The points' arms (`LinearPoints`) and their differences by each shape value, backward ones at its bound."""
        steps = torch.where(shape + SHAPE_STEP > 1, -SHAPE_STEP, SHAPE_STEP)
        arms = self.points(torch.cat([shape[:, None], shape[:, None] + torch.diag_embed(steps)], 1))
        return arms[:, 0], (arms[:, 1:] - arms[:, :1]) / steps[:, :, None, None, None]


def _derivatives(
    rotations: Float[Tensor, "b k 3 3"], arms: Float[Tensor, "b p k 3"], arm_slopes: Float[Tensor, "b s p k 3"]
) -> tuple[Float[Tensor, "b p 3"], Float[Tensor, "b p 3 d"]]:
    """Points against the root bone, and what they change by when bones turn about the frame's axes or shape changes."""
    carried = torch.einsum("bkij,bpkj->bpki", rotations, arms)
    x, y, z = carried.unbind(-1)
    none = torch.zeros_like(x)
    # A small turn w moves the arm a by w x a.
    by_turn = torch.stack([none, z, -y, -z, none, x, y, -x, none], -1).unflatten(-1, (3, 3))
    by_shape = torch.einsum("bkij,bspkj->bpis", rotations, arm_slopes)
    return carried.sum(2), torch.cat([by_turn.transpose(2, 3).flatten(3), by_shape], -1)


def camera_params(network: LixelNetwork, output: LixelOutput, crop: Crop, camera: Camera) -> BodyParams:
    """A network's parameters in the camera's frame, of zero translation, fitted if the network can (`ParameterFit`).

    output: the network's, with parameters. crop, camera: as for `LixelGrid.to_camera`; everything on one device.
    """
    assert output.params is not None
    fit = getattr(network, "parameter_fit", None)
    if fit is None or output.keypoints is None:
        return output.params.to(dtype=torch.float32).rotated(network.grid.view_rotation(crop, camera))
    device = output.vertices.device
    there = fit.mean.device
    return fit(output.to(there), network.grid, crop.to(there), camera.to(there)).to(device)


def answer_errors(
    found_rotations: Float[Tensor, "b k 3 3"],
    found_shape: Float[Tensor, "b s"],
    found_depth: Float[Tensor, "b j"],
    rotations: Float[Tensor, "b k 3 3"],
    shape: Float[Tensor, "b s"],
    depth: Float[Tensor, "b j"],
) -> Float[Tensor, "b d"]:
    """How the truth differs from a network's answer, as `ParameterFit` weighs it.

    Bones' rotations (as rotation vectors, radians) and joints' depths against the root's (metres) in the frame of the
    view, and shape values.
    """
    turned = matrix_to_axis_angle(rotations @ found_rotations.mT).flatten(1)
    return torch.cat([turned, shape - found_shape, depth - found_depth], 1)


def relative_depth(grid: LixelGrid, joints: Float[Tensor, "b j 3"], root: int) -> Float[Tensor, "b j"]:
    """Depths of lixel joints against that of the joint `root`, metres."""
    depth = grid.decode(joints)[1]
    return depth - depth[:, root, None]


def deviation(confidence: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Standard deviation of a keypoint of some confidence in [0, 1], crop pixels along an axis."""
    knots, values = confidence.new_tensor(CONFIDENCE), confidence.new_tensor(DEVIATION)
    confidence = confidence.clamp(0, 1)
    above = torch.bucketize(confidence, knots[1:-1], right=True) + 1
    share = (confidence - knots[above - 1]) / (knots[above] - knots[above - 1])
    return torch.lerp(values[above - 1], values[above], share)


def _place(
    points: Float[Tensor, "b n 3"], rays: Float[Tensor, "b n 2"], scale: Float[Tensor, "b n 2"]
) -> Float[Tensor, "b 3"]:
    """Where the root is if the points (against it) lie on their rays, by least squares: a start for the fit."""
    rows = torch.cat([torch.eye(2, dtype=rays.dtype, device=rays.device).expand(*rays.shape, 2), -rays[..., None]], -1)
    right = rays * points[..., 2:] - points[..., :2]
    weighted = (scale.square()[..., None] * rows).flatten(1, 2).mT
    return torch.linalg.solve_ex(weighted @ rows.flatten(1, 2), (weighted @ right.flatten(1)[..., None])[..., 0]).result


def _projection(
    points: Float[Tensor, "b n 3"],
    slopes: Float[Tensor, "b n 3 d"],
    rays: Float[Tensor, "b n 2"],
    scale: Float[Tensor, "b n 2"],
) -> tuple[Float[Tensor, "b n 2"], Float[Tensor, "b n 2 d3"]]:
    """Residuals in deviations, and their derivatives; the last three are those for moving all points alike."""
    moved = torch.eye(3, dtype=points.dtype, device=points.device).expand(*points.shape, 3)
    slopes = torch.cat([slopes, moved], -1)
    depth = points[..., 2:].clamp_min(NEAREST)
    projected = points[..., :2] / depth
    slope = (slopes[..., :2, :] - projected[..., None] * slopes[..., 2:, :]) / depth[..., None]
    return (projected - rays) * scale, slope * scale[..., None]
