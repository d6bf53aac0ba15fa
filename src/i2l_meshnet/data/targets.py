"""Targets of the losses, made on the device for a whole batch: body layer, mirroring, projection, fit checks."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.data.dataset import Sample
from i2l_meshnet.data.sources.base import PUBLISHED_CODE
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.io import read_array, reading
from i2l_meshnet.skeletons import COCO, HUMAN36M, Skeleton
from i2l_meshnet.tensors import TensorDataclass

CAMERA_LIMIT, IMAGE_LIMIT = 0.025, 3.0
"""Maximum mean distance between a fit and the dataset's joints: m, and lixels of the published grid."""
PUBLISHED_BINS = 64
"""Lixels along a side of the published grid."""
SHAPE_LIMIT = 3.0
"""A larger shape value is a failed fit, and the shape target becomes the average body. The mesh targets keep the fitted
shape, as in the published code."""


@dataclasses.dataclass(frozen=True)
class PointTarget(TensorDataclass):
    """Points, and the weight of each coordinate: 0 for a missing depth, outside the grid, unlabelled or rejected."""

    points: Float[Tensor, "*b n 3"]
    weight: Float[Tensor, "*b n 3"]


@dataclasses.dataclass(frozen=True)
class Target(TensorDataclass):
    """All targets of a batch, in the order of the body's joints and vertices.

    joints: the dataset's joints, lixels. fit_joints, fit_vertices: of the fitted body, lixels. camera_joints,
    fit_camera_joints: the same joints relative to the root, m, rotated like the crop. params: the fitted body, rotated
    like the crop, with zero translation. params_weight: 1 if the fit is used. fit_error: mean distance between the fit
    and the dataset's joints, m (3D datasets) or lixels (2D datasets); NaN if not checked.
    """

    joints: PointTarget
    fit_joints: PointTarget
    fit_vertices: PointTarget
    camera_joints: PointTarget
    fit_camera_joints: PointTarget
    params: BodyParams
    params_weight: Float[Tensor, "*b"]
    fit_error: Float[Tensor, "*b"]


def read_regressor(path: Path) -> Float[Tensor, "j v"]:
    """Read a joint regressor matrix (.npy). Raises FileError if it is missing or not a matrix."""
    origin = f"it is in the folder data/ of {PUBLISHED_CODE}"
    with reading(path, "a matrix of joints by vertices", "download it again", missing=origin):
        matrix = read_array(path)
        if matrix.ndim != 2 or matrix.dtype.kind not in "fiu" or not np.isfinite(matrix).all():
            raise ValueError(f"it is of shape {matrix.shape}, or not all numbers")
        return torch.from_numpy(matrix.astype(np.float32))


class FitCheck(nn.Module):
    """Compares the joints of a fitted mesh with the dataset's joints.

    limit: mean distance above which the fit is not used, m in the camera frame or lixels of the published grid.
    """

    regressor: Tensor

    def __init__(self, regressor: Float[Tensor, "j v"], skeleton: Skeleton, limit: float) -> None:
        """skeleton: names of the regressor's joints. Additional names at its end are ignored."""
        super().__init__()
        self.register_buffer("regressor", regressor, persistent=False)
        self.joints, self.limit = skeleton.joints[: len(regressor)], limit

    def pairs(self, skeleton: Skeleton) -> tuple[list[int], list[int]]:
        """Indices of the shared joints in the regressor and in `skeleton`."""
        shared = [name for name in self.joints if name in skeleton.joints]
        return [self.joints.index(name) for name in shared], [skeleton.index(name) for name in shared]


class CameraFitCheck(FitCheck):
    """For datasets with 3D joints: distance in the camera frame after the means are aligned."""

    def __init__(self, regressor: Float[Tensor, "j v"], limit: float = CAMERA_LIMIT) -> None:
        """regressor: Human3.6M's 17 joints."""
        super().__init__(regressor, HUMAN36M, limit)

    def forward(
        self, vertices: Float[Tensor, "b v 3"], joints: "LabelledJoints", skeleton: Skeleton
    ) -> Float[Tensor, "b"]:
        """Mean distance, m; NaN without a shared joint."""
        rows, columns = self.pairs(skeleton)
        weight = joints.visible[:, columns].to(vertices.dtype)
        offset = joints.relative[:, columns] - self.regressor[rows] @ vertices
        mean = (offset * weight[..., None]).sum(-2, keepdim=True) / weight.sum(-1)[:, None, None]
        return _mean_length(offset - mean, weight)


class ImageFitCheck(FitCheck):
    """For datasets with 2D joints: distance in the crop, lixels."""

    def __init__(
        self, regressor: Float[Tensor, "j v"], limit: float = IMAGE_LIMIT, published_pelvis: bool = False
    ) -> None:
        """regressor: COCO's 17 keypoints; the pelvis is added between the hips.

        published_pelvis: the parity switch `coco_fit_check`. The published code uses the product of the hips' depths
        as the depth of that pelvis (it mistakes the depth for the flag "labelled"). So it projects the pelvis towards
        the principal point and rejects perfect fits away from it.
        """
        super().__init__(regressor, COCO, limit)
        self.joints += ("Pelvis",)
        self._hips = [COCO.index("L_Hip"), COCO.index("R_Hip")]
        self._published_pelvis = published_pelvis

    def read_joints(self, vertices: Float[Tensor, "b v 3"]) -> Float[Tensor, "b j 3"]:
        """The keypoints and the pelvis of meshes, m."""
        joints = self.regressor @ vertices
        hips = joints[:, self._hips]
        pelvis = hips.mean(1)
        if self._published_pelvis:
            pelvis = torch.cat([pelvis[:, :2], hips[..., 2].prod(1, keepdim=True)], -1)
        return torch.cat([joints, pelvis[:, None]], 1)

    def forward(
        self, points: Float[Tensor, "b k 2"], joints: "LabelledJoints", skeleton: Skeleton
    ) -> Float[Tensor, "b"]:
        """Mean distance in lixels between `points`, the projected `read_joints`, and the labelled joints.

        NaN without a shared joint.
        """
        rows, columns = self.pairs(skeleton)
        weight = joints.visible[:, columns].to(points.dtype)
        return _mean_length(joints.lixels[:, columns, :2] - points[:, rows], weight)


def _mean_length(offset: Float[Tensor, "b k d"], weight: Float[Tensor, "b k"]) -> Float[Tensor, "b"]:
    return (offset.norm(dim=-1) * weight).sum(-1) / weight.sum(-1)


@dataclasses.dataclass(frozen=True)
class LabelledJoints(TensorDataclass):
    """The dataset's joints as the crop shows them, with left and right swapped in mirrored crops.

    lixels: see `LixelGrid`. relative: to the root, m, camera frame, not rotated. inside: 1 in the grid, else 0.
    """

    lixels: Float[Tensor, "*b j 3"]
    relative: Float[Tensor, "*b j 3"]
    visible: Bool[Tensor, "*b j"]
    inside: Float[Tensor, "*b j"]


class TargetBuilder(nn.Module):
    """Makes the targets of a batch on its device."""

    def __init__(
        self,
        bodies: Sequence[Body],
        grid: LixelGrid,
        skeleton: Skeleton,
        camera_check: CameraFitCheck | None = None,
        image_check: ImageFitCheck | None = None,
        own_joints: bool = True,
    ) -> None:
        """bodies: indexed by `FittedBody.body`, with one topology; the targets have the joints of the first one.

        skeleton: joint set of the samples. camera_check, image_check: without it, all fits of 3D or 2D datasets are
        used. own_joints: whether the dataset's joints are targets in addition to the joints of the fits. The published
        hand training does not use them, because FreiHAND's joints are computed from its fits.
        """
        super().__init__()
        self.bodies = nn.ModuleList(bodies)
        self.grid, self.skeleton = grid, skeleton
        self.camera_check, self.image_check, self._own_joints = camera_check, image_check, own_joints
        self._joints = bodies[0].skeleton
        self._mirror = list(skeleton.mirror_permutation)
        self._pairs = skeleton.remap_to(self._joints)

    @torch.no_grad()
    def forward(self, sample: Sample) -> Target:
        """The targets of a batch of crops."""
        unrotate = rotation_about_z(-sample.crop.rotation)
        own = self._labelled(sample)
        has_depth = sample.annotation.has_depth[:, None, None]
        labelled = (own.visible & self._own_joints)[..., None].to(own.lixels.dtype)
        with_depth = torch.cat([torch.ones_like(own.lixels[..., :2]), has_depth.expand_as(own.lixels[..., :1])], -1)

        params, vertices, joints = self.meshes(sample)
        used, error = self._check_fits(sample, own, vertices)
        root, count = self._joints.root_index, len(self._joints)
        pixels = torch.cat([self._to_crop(points, sample) for points in (joints, vertices)], 1)
        depth = torch.cat([joints[..., 2], vertices[..., 2]], -1)
        lixels, inside = self._lixels(pixels, depth, root, torch.ones_like(sample.crop.mirrored))
        weight = (inside * used[:, None])[..., None].expand(-1, -1, 3)

        fit_camera = (joints - joints[:, root : root + 1]) @ unrotate.mT
        wild = (params.shape.abs() > SHAPE_LIMIT).any(-1, keepdim=True)
        pose = torch.cat([(unrotate @ params.pose[:, 0])[:, None], params.pose[:, 1:]], 1)
        return Target(
            joints=self._in_body_order(own.lixels, labelled * own.inside[..., None] * with_depth),
            fit_joints=PointTarget(lixels[:, :count], weight[:, :count]),
            fit_vertices=PointTarget(lixels[:, count:], weight[:, count:]),
            camera_joints=self._in_body_order(
                own.relative @ unrotate.mT, (labelled * has_depth).expand_as(own.relative)
            ),
            fit_camera_joints=PointTarget(fit_camera, used[:, None, None].expand_as(fit_camera)),
            params=BodyParams(pose, params.shape.masked_fill(wild, 0), torch.zeros_like(params.translation)),
            params_weight=used,
            fit_error=error,
        )

    def _labelled(self, sample: Sample) -> LabelledJoints:
        annotation, mirrored = sample.annotation, sample.crop.mirrored
        root = self.skeleton.root_index
        pixels = sample.crop.to_crop(annotation.joints_image)
        lixels, inside = self._lixels(pixels, annotation.joints_camera[..., 2], root, annotation.has_depth)
        relative = annotation.joints_camera - annotation.joints_camera[:, root : root + 1]
        relative = torch.where(mirrored[:, None, None], relative * relative.new_tensor([-1, 1, 1]), relative)
        return LabelledJoints(
            *(
                torch.where(mirrored.view(-1, *[1] * (values.ndim - 1)), values[:, self._mirror], values)
                for values in (lixels, relative, annotation.visible, inside)
            )
        )

    def _check_fits(
        self, sample: Sample, own: LabelledJoints, vertices: Float[Tensor, "b v 3"]
    ) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
        """1 for fits that are used, else 0; and their errors (see `Target.fit_error`)."""
        annotation, fit = sample.annotation, sample.annotation.fit
        error = torch.full_like(sample.crop.rotation, torch.nan)
        limit = torch.full_like(error, torch.inf)
        checked = fit.known & ~fit.trusted
        if self.camera_check is not None:
            rows = checked & annotation.has_depth
            error = torch.where(rows, self.camera_check(vertices, own, self.skeleton), error)
            limit = limit.masked_fill(rows, self.camera_check.limit)
        if self.image_check is not None:
            rows = checked & ~annotation.has_depth
            points = self._to_crop(self.image_check.read_joints(vertices), sample)
            points = self.grid.encode(points, torch.zeros_like(points[..., 0]))[..., :2]
            error = torch.where(rows, self.image_check(points, own, self.skeleton), error)
            # The limit is in lixels of the published grid, which may have another size.
            limit = limit.masked_fill(rows, self.image_check.limit * self.grid.shape[-1] / PUBLISHED_BINS)
        return (fit.known & ~(error > limit)).to(own.lixels.dtype), error

    def meshes(self, sample: Sample) -> tuple[BodyParams, Float[Tensor, "b v 3"], Float[Tensor, "b j 3"]]:
        """The fitted bodies, mirrored in mirrored crops: parameters, vertices, joints (m, camera frame).

        A mirrored body has the mirrored parameters. It is shifted along x, so that its root and the original root are
        symmetric about the image centre.
        """
        annotation, mirrored = sample.annotation, sample.crop.mirrored
        fit, root = annotation.fit, self._joints.root_index
        pose = fit.camera_pose()
        still = BodyParams(pose, fit.shape, torch.zeros_like(fit.translation))
        flipped: BodyParams = self._first.mirror(still)
        still = BodyParams(torch.where(mirrored[:, None, None, None], flipped.pose, pose), fit.shape, still.translation)
        vertices, joints = self._posed(still, fit.body)
        translation = fit.camera_params(joints[:, root]).translation
        start = joints[:, root] + translation
        camera = annotation.camera
        middle = ((annotation.image_size[:, 0] - 1) / 2 - camera.center[:, 0]) / camera.focal[:, 0]
        shift = torch.where(mirrored, 2 * middle * start[:, 2] - 2 * start[:, 0], torch.zeros_like(middle))
        translation = translation + torch.stack([shift, torch.zeros_like(shift), torch.zeros_like(shift)], -1)
        moved = translation[:, None]
        # Without a fit the body would be at the camera. At 1 m its projection is finite.
        moved = torch.where(fit.known[:, None, None], moved, moved.new_tensor([0, 0, 1]))
        return still, vertices + moved, joints + moved

    @property
    def _first(self) -> Body:
        body = self.bodies[0]
        assert isinstance(body, Body)
        return body

    def _posed(
        self, params: BodyParams, kind: Int[Tensor, "b"]
    ) -> tuple[Float[Tensor, "b v 3"], Float[Tensor, "b j 3"]]:
        """Vertices and joints. kind: index of each row's body."""
        if len(self.bodies) == 1:
            mesh = self._first(params)
            return mesh.vertices, mesh.joints
        vertices = params.pose.new_zeros(len(kind), self._first.joint_regressor.shape[1], 3)
        joints = params.pose.new_zeros(len(kind), len(self._joints), 3)
        for number, body in enumerate(self.bodies):
            rows = (kind == number).nonzero()[:, 0]
            if len(rows):
                mesh = body(params[rows])
                vertices[rows], joints[rows] = mesh.vertices, mesh.joints
        return vertices, joints

    def _to_crop(self, points: Float[Tensor, "b n 3"], sample: Sample) -> Float[Tensor, "b n 2"]:
        """Points of the scene, mirrored in mirrored crops, in crop pixels. `crop.affine` maps the original image."""
        crop, width = sample.crop, sample.annotation.image_size[:, None, 0]
        pixels = sample.annotation.camera.project(points)
        mirrored = torch.stack([width - 1 - pixels[..., 0], pixels[..., 1]], -1)
        return crop.to_crop(torch.where(crop.mirrored[:, None, None], mirrored, pixels))

    def _lixels(
        self,
        pixels: Float[Tensor, "b n 2"],
        depth: Float[Tensor, "b n"],
        root: int,
        has_depth: Bool[Tensor, "b"],
    ) -> tuple[Float[Tensor, "b n 3"], Float[Tensor, "b n"]]:
        """Lixels of points with depths (m) relative to point `root`, and 1 for points inside the grid, else 0.

        An unknown depth is always inside.
        """
        lixels = self.grid.encode(pixels, depth - depth[:, root : root + 1])
        extent = lixels.new_tensor(self.grid.shape[::-1])
        inside = (lixels >= 0) & (lixels < extent)
        inside[..., 2] |= ~has_depth[:, None]
        return lixels, inside.all(-1).to(lixels.dtype)

    def _in_body_order(self, points: Float[Tensor, "b j 3"], weight: Float[Tensor, "b j 3"]) -> PointTarget:
        """The dataset's joints in the body's order. The body's other joints have no weight."""
        target = [points.new_zeros(len(points), len(self._joints), 3) for _ in range(2)]
        for ours, theirs in self._pairs:
            target[0][:, theirs], target[1][:, theirs] = points[:, ours], weight[:, ours]
        return PointTarget(*target)


def rotation_about_z(angle: Float[Tensor, "*b"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices about the optical axis, rad."""
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack(
        [torch.stack([cos, -sin, zero], -1), torch.stack([sin, cos, zero], -1), torch.stack([zero, zero, one], -1)], -2
    )
