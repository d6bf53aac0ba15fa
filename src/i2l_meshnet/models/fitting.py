"""Fit of the regressed body parameters to the network's own keypoints."""

import dataclasses

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
"""Standard deviation of a keypoint along an axis, crop pixels, at each value of `CONFIDENCE`."""
OUTLIER = 20.0
"""Squared deviation at which a keypoint has lost three quarters of its weight."""
PRIOR = 0.4
"""Weight of the network's prediction. It comes from the same keypoints, so it is not independent of them."""
ITERATIONS = 5
SHAPE_STEP = 0.02
"""Step of the finite differences of shape values; the body is piecewise linear in them."""
MAX_ROTATION = 0.4
"""Maximum rotation of a bone in one iteration, radians."""
MIN_DEPTH = 0.05
"""Minimum distance of a point from the camera, metres."""


@dataclasses.dataclass(frozen=True)
class View:
    """Detected keypoints and the frame of the network.

    rays: keypoints on the image plane at depth 1. scale: standard deviations per unit on that plane. rotation: from the
    network's frame to the camera's frame.
    """

    rays: Float[Tensor, "b n 2"]
    scale: Float[Tensor, "b n 2"]
    rotation: Float[Tensor, "b 3 3"]

    def rotate(self, points: Float[Tensor, "b p 3 *d"]) -> Float[Tensor, "b n 3 *d"]:
        """The keypoints among the points (or their derivatives), in the camera's frame."""
        return torch.einsum("bij,bnj...->bni...", self.rotation, points[:, : self.rays.shape[1]])

    def root(self, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b 3"]:
        """Root position that brings the points (relative to the root) closest to their rays, by least squares."""
        axes = torch.eye(2, dtype=self.rays.dtype, device=self.rays.device).expand(*self.rays.shape, 2)
        rows, right = torch.cat([axes, -self.rays[..., None]], -1), self.rays * points[..., 2:] - points[..., :2]
        return torch.linalg.solve_ex(*_normal_equations(rows, right, self.scale.square())).result

    def residuals(
        self, points: Float[Tensor, "b n 3"], slopes: Float[Tensor, "b n 3 d"]
    ) -> tuple[Float[Tensor, "b n 2"], Float[Tensor, "b n 2 d3"]]:
        """Residuals of projected points in deviations, and their derivatives; the last three move all points."""
        translation = torch.eye(3, dtype=points.dtype, device=points.device).expand(*points.shape, 3)
        slopes = torch.cat([slopes, translation], -1)
        depth = points[..., 2:].clamp_min(MIN_DEPTH)
        projected = points[..., :2] / depth
        slope = (slopes[..., :2, :] - projected[..., None] * slopes[..., 2:, :]) / depth[..., None]
        return (projected - self.rays) * self.scale, slope * self.scale[..., None]


class ParameterFit(nn.Module):
    """A few Gauss-Newton steps from the regressed parameters of the Anny body to the most probable parameters.

    The objective has two terms. The first is the distance between the body's projected keypoints and the detected ones,
    in deviations that depend on the confidence; outliers are faded out (Geman-McClure). The second is the distance of
    rotations, shape and joint depths from the network's prediction, as a Gaussian with the mean and full covariance of
    the network's errors on training samples (`learn`). So bones whose errors are correlated move together, and the
    depths of the lixel joints, which are more accurate than the regressed rotations, have an influence too.

    Points are linear in the global rotations of the bones (`LinearPoints`), so the derivatives are exact. All
    calculations are done in the network's frame (`LixelGrid.view_rotation`).
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
        # float64, because checkpoints in half precision halve float32 only.
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("precision", torch.zeros(size, size, dtype=torch.float64).fill_diagonal_(1))

    def learn(self, errors: Float[Tensor, "n d"], tails: float = 4.0, ridge: float = 0.02) -> None:
        """Set the mean and covariance of the network's errors (`prediction_errors`).

        tails: number of deviations at which errors are clamped. ridge: relative increase of the variances.
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
        """Fitted parameters in the camera's frame, with zero translation. If a fit fails, the regressed parameters.

        output: with parameters and keypoints. crop, camera: as for `LixelGrid.to_camera`.
        """
        assert output.params is not None
        assert output.keypoints is not None
        parents = self.points.body.parents
        start = global_rotations(output.params.pose.float(), parents)
        depth = relative_depth(grid, output.mesh_joints.float(), self.root)
        image = crop.to_image(output.keypoints[..., :2])
        rays = camera.backproject(image, torch.ones_like(image[..., 0]))[..., :2]
        scale = crop.affine[:, :, :2].det().abs().sqrt()[:, None, None] * camera.focal[:, None]
        scale = scale / deviation(output.keypoints[..., 2])[..., None]
        view = View(rays, scale, grid.view_rotation(crop, camera))
        rotations, shape = self._solve(start, output.params.shape.float(), depth, view)
        pose = local_rotations(rotations, parents)
        failed = ~(pose.isfinite().flatten(1).all(1) & shape.isfinite().all(1))
        pose = torch.where(failed[:, None, None, None], output.params.pose, pose)
        shape = torch.where(failed[:, None], output.params.shape, shape)
        return BodyParams(pose, shape, torch.zeros_like(shape[:, :3])).rotated(view.rotation)

    def _solve(
        self,
        start: Float[Tensor, "b k 3 3"],
        start_shape: Float[Tensor, "b s"],
        start_depth: Float[Tensor, "b j"],
        view: View,
    ) -> tuple[Float[Tensor, "b k 3 3"], Float[Tensor, "b s"]]:
        """Global rotations in the network's frame, and shape values. start: the network's prediction.

        The unknowns, in this order: a rotation vector for each bone, the shape, and the root position in the camera's
        frame.
        """
        mean, precision = self.mean.to(start.dtype), PRIOR * self.precision.to(start.dtype)
        angle_count = 3 * start.shape[1]
        free = angle_count + start_shape.shape[1]
        root_joint = slice(self.root, self.root + 1)
        rotations, shape, root = start, start_shape, None
        arms, arm_slopes = self.arms(shape)
        for _ in range(ITERATIONS):
            points, slopes = point_derivatives(rotations, arms, arm_slopes)
            seen = view.rotate(points)
            root = view.root(seen) if root is None else root
            residual, slope = view.residuals(seen + root[:, None], view.rotate(slopes))
            weight = (OUTLIER / (OUTLIER + residual.square().sum(-1))).square()[..., None]
            hessian, gradient = _normal_equations(slope, residual, weight)
            # The network's errors if the current parameters were the true parameters.
            joints, joint_slopes = points[:, self.keypoints :, 2], slopes[:, self.keypoints :, 2]
            joints, joint_slopes = (joints - joints[:, root_joint], joint_slopes - joint_slopes[:, root_joint])
            errors = prediction_errors(start, start_shape, start_depth, rotations, shape, joints) - mean
            same = torch.eye(free, dtype=shape.dtype, device=shape.device).expand(len(shape), free, free)
            error_slopes = F.pad(torch.cat([same, joint_slopes], 1), (0, 3))
            pull = (precision @ error_slopes).mT
            hessian = hessian + pull @ error_slopes
            gradient = gradient + (pull @ errors[..., None])[..., 0]
            damping = 1e-3 * hessian.diagonal(dim1=-2, dim2=-1) + 1e-6
            step = -torch.linalg.solve_ex(hessian + torch.diag_embed(damping), gradient).result
            angles = step[:, :angle_count].unflatten(1, (-1, 3))
            angles = angles * (MAX_ROTATION / angles.norm(dim=-1, keepdim=True).clamp_min(MAX_ROTATION))
            rotations = axis_angle_to_matrix(angles) @ rotations
            shape = (shape + step[:, angle_count:free].clamp(-0.2, 0.2)).clamp(0, 1)
            root = root + step[:, free:].clamp(-1, 1)
            arms = self.points(shape)
        return rotations, shape

    def arms(self, shape: Float[Tensor, "b s"]) -> tuple[Float[Tensor, "b p k 3"], Float[Tensor, "b s p k 3"]]:
        """The arms of the points (`LinearPoints`), and their finite differences by each shape value."""
        steps = torch.where(shape + SHAPE_STEP > 1, -SHAPE_STEP, SHAPE_STEP)
        arms = self.points(torch.cat([shape[:, None], shape[:, None] + torch.diag_embed(steps)], 1))
        return arms[:, 0], (arms[:, 1:] - arms[:, :1]) / steps[:, :, None, None, None]


def point_derivatives(
    rotations: Float[Tensor, "b k 3 3"], arms: Float[Tensor, "b p k 3"], arm_slopes: Float[Tensor, "b s p k 3"]
) -> tuple[Float[Tensor, "b p 3"], Float[Tensor, "b p 3 d"]]:
    """Points relative to the root bone, and their derivatives by rotation vectors of bones and by shape values."""
    rotated = torch.einsum("bkij,bpkj->bpki", rotations, arms)
    x, y, z = rotated.unbind(-1)
    zero = torch.zeros_like(x)
    # A small rotation w moves the arm a by w x a.
    by_angle = torch.stack([zero, z, -y, -z, zero, x, y, -x, zero], -1).unflatten(-1, (3, 3))
    by_shape = torch.einsum("bkij,bspkj->bpis", rotations, arm_slopes)
    return rotated.sum(2), torch.cat([by_angle.transpose(2, 3).flatten(3), by_shape], -1)


def camera_params(network: LixelNetwork, output: LixelOutput, crop: Crop, camera: Camera) -> BodyParams:
    """A network's parameters in the camera's frame, with zero translation; fitted if the network has a `ParameterFit`.

    output: with parameters. crop, camera: as for `LixelGrid.to_camera`; all on one device.
    """
    assert output.params is not None
    fit = getattr(network, "parameter_fit", None)
    if fit is None or output.keypoints is None:
        return output.params.to(dtype=torch.float32).rotated(network.grid.view_rotation(crop, camera))
    device, fit_device = output.vertices.device, fit.mean.device
    return fit(output.to(fit_device), network.grid, crop.to(fit_device), camera.to(fit_device)).to(device)


def prediction_errors(
    found_rotations: Float[Tensor, "b k 3 3"],
    found_shape: Float[Tensor, "b s"],
    found_depth: Float[Tensor, "b j"],
    rotations: Float[Tensor, "b k 3 3"],
    shape: Float[Tensor, "b s"],
    depth: Float[Tensor, "b j"],
) -> Float[Tensor, "b d"]:
    """Differences between the ground truth and a network's prediction, as `ParameterFit` weights them.

    Rotation vectors of the bones (radians), shape values, and joint depths relative to the root (metres), in the
    network's frame.
    """
    angles = matrix_to_axis_angle(rotations @ found_rotations.mT).flatten(1)
    return torch.cat([angles, shape - found_shape, depth - found_depth], 1)


def relative_depth(grid: LixelGrid, joints: Float[Tensor, "b j 3"], root: int) -> Float[Tensor, "b j"]:
    """Depths of lixel joints relative to the joint `root`, metres."""
    depth = grid.decode(joints)[1]
    return depth - depth[:, root, None]


def deviation(confidence: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Standard deviation of a keypoint with a confidence in [0, 1], crop pixels along an axis."""
    knots, values = confidence.new_tensor(CONFIDENCE), confidence.new_tensor(DEVIATION)
    confidence = confidence.clamp(0, 1)
    above = torch.bucketize(confidence, knots[1:-1], right=True) + 1
    share = (confidence - knots[above - 1]) / (knots[above] - knots[above - 1])
    return torch.lerp(values[above - 1], values[above], share)


def _normal_equations(
    slopes: Float[Tensor, "b n 2 d"], residuals: Float[Tensor, "b n 2"], weights: Float[Tensor, "b n #2"]
) -> tuple[Float[Tensor, "b d d"], Float[Tensor, "b d"]]:
    """Matrix and right side of a weighted least-squares problem."""
    weighted = (weights[..., None] * slopes).flatten(1, 2).mT
    return weighted @ slopes.flatten(1, 2), (weighted @ residuals.flatten(1)[..., None])[..., 0]
