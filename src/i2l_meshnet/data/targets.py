"""What the losses compare with, made on the device for a whole batch: body layer, mirror, projection, fit checks."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.data.dataset import Sample
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.io import read_array, reading
from i2l_meshnet.skeletons import COCO, HUMAN36M, Skeleton
from i2l_meshnet.tensors import TensorDataclass

CAMERA_LIMIT = 0.025
PUBLISHED_BINS = 64
"""Lixels along a side of the published grid."""
IMAGE_LIMIT = 3.0
SHAPE_LIMIT = 3.0
"""Beyond this, a shape value counts as a failed fit and the whole shape target is set to the average body. The mesh
targets keep the fitted shape, as in the published code."""


@dataclasses.dataclass(frozen=True)
class PointTarget(TensorDataclass):
    """Points and how much each coordinate counts: 0 for missing depth, outside the grid, unlabelled or rejected."""

    points: Float[Tensor, "*b n 3"]
    weight: Float[Tensor, "*b n 3"]


@dataclasses.dataclass(frozen=True)
class Target(TensorDataclass):
    """All targets of a batch, in the order of the body's joints and vertices.

    joints: the data set's own, lixels. fit_joints, fit_vertices: of the fitted body, lixels. camera_joints,
    fit_camera_joints: root-relative, m, turned back by the crop's rotation. params: the fitted body likewise;
    translation zero. params_weight: 1 where the fit is used. fit_error: mean distance between the fit and the data
    set's joints, m (3D sets) or lixels (2D sets), NaN where not checked.
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
    """A joint regressor matrix (.npy). Raises FileError if it is missing or not a matrix."""
    origin = "it comes with the published I2L-MeshNet code, folder data/"
    with reading(path, "a matrix of joints by vertices", "download it again", missing=origin):
        matrix = read_array(path)
        if matrix.ndim != 2 or matrix.dtype.kind not in "fiu" or not np.isfinite(matrix).all():
            raise ValueError(f"it is of shape {matrix.shape}, or not all numbers")
        return torch.from_numpy(matrix.astype(np.float32))


class FitCheck(nn.Module):
    """Joints read off a fitted mesh, to be held against the data set's own.

    limit: mean distance beyond which the fit is not used, m in the camera frame or lixels of the published grid.
    """

    regressor: Tensor

    def __init__(self, regressor: Float[Tensor, "j v"], skeleton: Skeleton, limit: float) -> None:
        """skeleton: names of the regressor's joints (it may have more at the end)."""
        super().__init__()
        self.register_buffer("regressor", regressor, persistent=False)
        self.joints, self.limit = skeleton.joints[: len(regressor)], limit

    def pairs(self, skeleton: Skeleton) -> tuple[list[int], list[int]]:
        """Rows of the regressor and of `skeleton` that are the same joints."""
        shared = [name for name in self.joints if name in skeleton.joints]
        return [self.joints.index(name) for name in shared], [skeleton.index(name) for name in shared]


class CameraFitCheck(FitCheck):
    """For sets with 3D joints: distance in the camera frame after the means are aligned."""

    def __init__(self, regressor: Float[Tensor, "j v"], limit: float = CAMERA_LIMIT) -> None:
        """regressor: Human3.6M's 17 joints."""
        super().__init__(regressor, HUMAN36M, limit)

    def forward(
        self,
        vertices: Float[Tensor, "b v 3"],
        joints: Float[Tensor, "b j 3"],
        visible: Bool[Tensor, "b j"],
        skeleton: Skeleton,
    ) -> Float[Tensor, "b"]:
        """Mean distance, m; NaN without a shared joint."""
        rows, columns = self.pairs(skeleton)
        weight = visible[:, columns].to(vertices.dtype)
        offset = joints[:, columns] - self.regressor[rows] @ vertices
        mean = (offset * weight[..., None]).sum(-2, keepdim=True) / weight.sum(-1)[:, None, None]
        return ((offset - mean).norm(dim=-1) * weight).sum(-1) / weight.sum(-1)


class ImageFitCheck(FitCheck):
    """For sets with 2D joints: distance in the crop, lixels."""

    def __init__(
        self, regressor: Float[Tensor, "j v"], limit: float = IMAGE_LIMIT, published_pelvis: bool = False
    ) -> None:
        """regressor: COCO's 17 keypoints; the pelvis is added between the hips.

        published_pelvis: the parity switch `coco_fit_check`. The published code gives that pelvis the product of
        the hips' depths for its depth (it takes it for the flag "labelled"), so it is projected towards the
        principal point and perfect fits away from it are rejected.
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
        self,
        points: Float[Tensor, "b k 2"],
        joints: Float[Tensor, "b j 2"],
        visible: Bool[Tensor, "b j"],
        skeleton: Skeleton,
    ) -> Float[Tensor, "b"]:
        """Mean distance between `read_joints` seen in the crop and the labelled joints, lixels; NaN without any."""
        rows, columns = self.pairs(skeleton)
        weight = visible[:, columns].to(points.dtype)
        distance = (joints[:, columns] - points[:, rows]).norm(dim=-1)
        return (distance * weight).sum(-1) / weight.sum(-1)


class TargetBuilder(nn.Module):
    """Makes the targets of a batch, on the device that it was moved to."""

    def __init__(
        self,
        bodies: Sequence[Body],
        grid: LixelGrid,
        skeleton: Skeleton,
        camera_check: CameraFitCheck | None = None,
        image_check: ImageFitCheck | None = None,
        own_joints: bool = True,
    ) -> None:
        """bodies: those that `FittedBody.body` counts, all of one topology; the first one's joints are the target's.

        skeleton: joint set of the samples. Without a check the fits of that kind of data set are all used.
        own_joints: whether the data set's joints are targets beside the fit's. The published hand training has them
        off: FreiHAND's joints are those of its fits.
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
        """sample: a batch of crops."""
        annotation, crop, fit = sample.annotation, sample.crop, sample.annotation.fit
        mirrored = crop.mirrored
        unturn = turn_about_z(-crop.rotation)
        root = self.skeleton.root_index

        lixels, inside = self._lixels(
            crop.to_crop(annotation.joints_image), annotation.joints_camera[..., 2], root, annotation.has_depth
        )
        relative = annotation.joints_camera - annotation.joints_camera[:, root : root + 1]
        relative = torch.where(mirrored[:, None, None], relative * relative.new_tensor([-1, 1, 1]), relative)
        lixels, relative, visible, inside = (
            torch.where(mirrored.view(-1, *[1] * (values.ndim - 1)), values[:, self._mirror], values)
            for values in (lixels, relative, annotation.visible, inside)
        )
        has_depth = annotation.has_depth[:, None, None]
        three = torch.cat([torch.ones_like(lixels[..., :2]), has_depth.expand_as(lixels[..., :1])], -1)
        labelled = (visible & self._own_joints)[..., None].to(lixels.dtype)

        params, vertices, joints = self.meshes(sample)
        camera, size = annotation.camera, annotation.image_size
        seen = [self._seen(points, camera, size, crop) for points in (joints, vertices)]
        body_root = self._joints.root_index
        depth = torch.cat([joints[..., 2], vertices[..., 2]], -1)
        known = torch.ones_like(mirrored)
        fit_lixels, fit_inside = self._lixels(torch.cat(seen, 1), depth, body_root, known)
        count = len(self._joints)

        error = torch.full_like(crop.rotation, torch.nan)
        limit = torch.full_like(error, torch.inf)
        checked = fit.known & ~fit.trusted
        if self.camera_check is not None:
            with_depth = checked & annotation.has_depth
            distance = self.camera_check(vertices, relative, visible, self.skeleton)
            error, limit = (
                torch.where(with_depth, distance, error),
                limit.masked_fill(with_depth, self.camera_check.limit),
            )
        if self.image_check is not None:
            without = checked & ~annotation.has_depth
            points = self._seen(self.image_check.read_joints(vertices), camera, size, crop)
            points = self.grid.encode(points, torch.zeros_like(points[..., 0]))[..., :2]
            distance = self.image_check(points, lixels[..., :2], visible, self.skeleton)
            # The limit is one of the published grid; here a lixel may be another part of the crop.
            image_limit = self.image_check.limit * self.grid.shape[-1] / PUBLISHED_BINS
            error, limit = torch.where(without, distance, error), limit.masked_fill(without, image_limit)
        used = (fit.known & ~(error > limit)).to(lixels.dtype)

        fit_weight = (fit_inside * used[:, None])[..., None].expand(-1, -1, 3)
        fit_camera = (joints - joints[:, body_root : body_root + 1]) @ unturn.mT
        wild = (params.shape.abs() > SHAPE_LIMIT).any(-1, keepdim=True)
        pose = torch.cat([(unturn @ params.pose[:, 0])[:, None], params.pose[:, 1:]], 1)
        return Target(
            joints=self._own(lixels, labelled * inside[..., None] * three),
            fit_joints=PointTarget(fit_lixels[:, :count], fit_weight[:, :count]),
            fit_vertices=PointTarget(fit_lixels[:, count:], fit_weight[:, count:]),
            camera_joints=self._own(relative @ unturn.mT, (labelled * has_depth).expand_as(relative)),
            fit_camera_joints=PointTarget(fit_camera, used[:, None, None].expand_as(fit_camera)),
            params=BodyParams(pose, params.shape.masked_fill(wild, 0), torch.zeros_like(params.translation)),
            params_weight=used,
            fit_error=error,
        )

    def meshes(self, sample: Sample) -> tuple[BodyParams, Float[Tensor, "b v 3"], Float[Tensor, "b j 3"]]:
        """The fitted bodies as the crop shows them, mirrored where it is: parameters, vertices, joints (m, camera).

        A mirrored body is that of the mirrored parameters, shifted along x so that its root and the original
        one's lie symmetrically about the image centre.
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
        middle = ((annotation.image_size[:, 0] - 1) / 2 - annotation.camera.center[:, 0]) / annotation.camera.focal[
            :, 0
        ]
        shift = torch.where(mirrored, 2 * middle * start[:, 2] - 2 * start[:, 0], torch.zeros_like(middle))
        translation = translation + torch.stack([shift, torch.zeros_like(shift), torch.zeros_like(shift)], -1)
        moved = translation[:, None]
        # Without a fit the body would stand in the camera; a metre away its projection stays finite.
        moved = torch.where(fit.known[:, None, None], moved, moved.new_tensor([0, 0, 1]))
        return still, vertices + moved, joints + moved

    @property
    def _first(self) -> Body:
        body = self.bodies[0]
        assert isinstance(body, Body)
        return body

    def _posed(self, params: BodyParams, kind: Tensor) -> tuple[Float[Tensor, "b v 3"], Float[Tensor, "b j 3"]]:
        """Vertices and joints of each row's own body."""
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

    def _seen(
        self, points: Float[Tensor, "b n 3"], camera: Camera, image_size: Float[Tensor, "b 2"], crop: Crop
    ) -> Float[Tensor, "b n 2"]:
        """Points of the (mirrored) scene in crop pixels. The crop's affine starts from the unmirrored picture."""
        pixels = camera.project(points)
        across = torch.stack([image_size[:, None, 0] - 1 - pixels[..., 0], pixels[..., 1]], -1)
        return crop.to_crop(torch.where(crop.mirrored[:, None, None], across, pixels))

    def _lixels(
        self,
        pixels: Float[Tensor, "b n 2"],
        depth: Float[Tensor, "b n"],
        root: int,
        has_depth: Bool[Tensor, "b"],
    ) -> tuple[Float[Tensor, "b n 3"], Float[Tensor, "b n"]]:
        """Lixels of points with depths (m) relative to point `root`, and 1 for those inside the grid.

        Depth is left out of that test where it is not known.
        """
        lixels = self.grid.encode(pixels, depth - depth[:, root : root + 1])
        extent = lixels.new_tensor(self.grid.shape[::-1])
        inside = (lixels >= 0) & (lixels < extent)
        inside[..., 2] |= ~has_depth[:, None]
        return lixels, inside.all(-1).to(lixels.dtype)

    def _own(self, points: Float[Tensor, "b j 3"], weight: Float[Tensor, "b j 3"]) -> PointTarget:
        """The data set's joints in the body's order; joints that only the body has get no weight."""
        target = [points.new_zeros(len(points), len(self._joints), 3) for _ in range(2)]
        for ours, theirs in self._pairs:
            target[0][:, theirs], target[1][:, theirs] = points[:, ours], weight[:, ours]
        return PointTarget(*target)


def turn_about_z(angle: Float[Tensor, "*b"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices about the optical axis, rad."""
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack(
        [torch.stack([cos, -sin, zero], -1), torch.stack([sin, cos, zero], -1), torch.stack([zero, zero, one], -1)], -2
    )
