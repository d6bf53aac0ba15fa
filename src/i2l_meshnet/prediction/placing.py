"""Places meshes in space: from a network's lixels and parameters to predictions in the camera frame."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.bodies.base import Body, BodyMesh, BodyParams
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop
from i2l_meshnet.models.fitting import camera_params
from i2l_meshnet.models.output import LixelNetwork, LixelOutput
from i2l_meshnet.prediction.boxes import PersonBox
from i2l_meshnet.prediction.depth import MIN_DEPTH, Placement, solve_root_depth, solve_translation
from i2l_meshnet.prediction.results import Prediction

CONFIDENCE_GATE = 0.45
"""A prediction is unreliable if its mean keypoint confidence is lower (docs/default-model.md)."""


@dataclasses.dataclass(frozen=True)
class Views:
    """The crops and cameras of a batch of people.

    sizes: width and height of each person's image, pixels. root_depth: metres, NaN if unknown.
    """

    people: Sequence[PersonBox]
    crop: Crop
    camera: Camera
    sizes: Float[Tensor, "b 2"]
    root_depth: Float[Tensor, "b"]


class MeshPlacer:
    """Places the meshes that a network predicts. All tensors are on the CPU."""

    def __init__(self, network: LixelNetwork, body: Body) -> None:
        self.network, self.body = network, body
        rest = body(body.rest_params())
        joints = body.joint_regressor @ rest.vertices
        self._area = _vertex_areas(rest.vertices, body.faces)
        height, width = network.grid.crop_size
        self._crop_size = torch.tensor([[float(width), float(height)]])
        self._bones = torch.tensor(body.skeleton.bone_indices)
        self._bone_lengths = (joints[self._bones[:, 0]] - joints[self._bones[:, 1]]).norm(dim=-1)

    def __call__(self, output: LixelOutput, views: Views) -> list[Prediction]:
        """The predictions of a batch in the camera frame."""
        grid, crop = self.network.grid, views.crop
        relative_depth = grid.decode(output.vertices)[1]
        params = mesh = placement = None
        if output.params is None:
            root_depth = torch.where(views.root_depth.isnan(), self._depth_from_bones(output, views), views.root_depth)
        else:
            params, mesh, placement = self._parametric(output, views)
            root_depth = placement.translation[..., 2]
        root_depth = torch.maximum(root_depth, MIN_DEPTH - relative_depth.amin(-1))
        lixel_mesh = self._mesh(grid.to_camera(output.vertices, crop, views.camera, root_depth))
        joints_image = crop.to_image(grid.decode(output.joints)[0])
        keypoints = output.keypoints
        if keypoints is not None:
            keypoints = torch.cat([crop.to_image(keypoints[..., :2]), keypoints[..., 2:]], -1)

        predictions = []
        for i, person in enumerate(views.people):
            confidence = None if keypoints is None else float(keypoints[i, :, 2].mean())
            errors = None
            if placement is not None:
                errors = (float(placement.median_error[i]), float(placement.mean_error[i]))
            predictions.append(
                Prediction(
                    body=self.body,
                    box=torch.tensor(person.box),
                    score=person.score,
                    camera=views.camera[i],
                    crop=crop[i],
                    lixels=output.vertices[i],
                    joints_image=joints_image[i],
                    lixel_mesh=lixel_mesh[i],
                    root_depth=float(root_depth[i]),
                    root_depth_source="solved" if bool(views.root_depth[i].isnan()) else "given",
                    params=None if params is None else params[i],
                    parametric_mesh=None if mesh is None else mesh[i],
                    reprojection_error=errors,
                    keypoints=None if keypoints is None else keypoints[i],
                    confidence=confidence,
                    reliable=confidence is None or confidence >= CONFIDENCE_GATE,
                )
            )
        return predictions

    def _parametric(self, output: LixelOutput, views: Views) -> tuple[BodyParams, BodyMesh, Placement]:
        """The body model's parameters and mesh, placed so that the mesh projects onto the lixels."""
        crop_pixels, _ = self.network.grid.decode(output.vertices)
        pixels = views.crop.to_image(crop_pixels)
        weights = self._area * _inside(crop_pixels, self._crop_size) * _inside(pixels, views.sizes)
        # If the image shows almost nothing of a person, the visible part alone cannot place the mesh.
        weights = torch.where(weights.sum(-1, keepdim=True) < 0.1 * self._area.sum(), self._area, weights)
        params = camera_params(self.network, output, views.crop, views.camera)
        posed = self.body(params).vertices
        at_root = self.body.joint_regressor[self.body.skeleton.root_index] @ posed
        rooted = posed - at_root[..., None, :]
        free = solve_translation(rooted, pixels, views.camera, weights).translation[..., 2]
        root_depth = torch.where(views.root_depth.isnan(), free, views.root_depth)
        placement = solve_translation(rooted, pixels, views.camera, weights, root_depth)
        mesh = self._mesh(rooted + placement.translation[..., None, :])
        moved = dataclasses.replace(params, translation=params.translation + placement.translation - at_root)
        return moved, mesh, placement

    def _mesh(self, vertices: Float[Tensor, "b v 3"]) -> BodyMesh:
        return BodyMesh(vertices, self.body.joint_regressor @ vertices)

    def _depth_from_bones(self, output: LixelOutput, views: Views) -> Float[Tensor, "b"]:
        """Root depths at which the joints of the lixel mesh have the bone lengths of the rest body."""
        grid, camera = self.network.grid, views.camera
        crop_pixels, relative = grid.decode(output.mesh_joints)
        visible = _inside(crop_pixels, self._crop_size)
        # Solved in the frame whose z is the grid's depth axis, with the image plane at z = 1.
        rotation = grid.view_rotation(views.crop, camera)
        rays = camera.backproject(views.crop.to_image(crop_pixels), torch.ones_like(relative)) @ rotation
        plane = Camera(torch.ones_like(camera.focal), torch.zeros_like(camera.center))
        along = solve_root_depth(plane.project(rays), relative, plane, self._bones, self._bone_lengths, visible)
        return along * rotation[..., 2, 2]


def _vertex_areas(vertices: Float[Tensor, "v 3"], faces: Tensor) -> Float[Tensor, "v"]:
    """Each vertex's share of the surface area. It keeps dense regions, such as fingers, from outweighing limbs."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    area = torch.linalg.cross(b - a, c - a).norm(dim=-1) / 6
    total = torch.zeros_like(vertices[:, 0])
    for corner in range(3):
        total = total.index_add(0, faces[:, corner], area)
    return total


def _inside(pixels: Float[Tensor, "b n 2"], sizes: Float[Tensor, "#b 2"]) -> Float[Tensor, "b n"]:
    """1 for points inside their image or crop of (width, height) `sizes`, 0 for points outside."""
    return ((pixels >= 0) & (pixels <= sizes[:, None] - 1)).all(-1).to(pixels.dtype)
