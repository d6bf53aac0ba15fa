"""The left hand as the mirror image of a right hand."""

import dataclasses

from jaxtyping import Float, Int
from torch import Tensor

from i2l_meshnet.bodies.base import Body, BodyMesh, BodyParams
from i2l_meshnet.bodies.rig import Rig
from i2l_meshnet.geometry.rotations import mirror_rotations


class MirroredBody(Body):
    """The mirror image of a one-sided body at x = 0. `Body.mirror` converts the parameters of the original."""

    faces: Int[Tensor, "f 3"]
    joint_regressor: Float[Tensor, "j v"]

    def __init__(self, original: Body, name: str) -> None:
        super().__init__()
        self.original, self.name = original, name
        self.kind = "left hand" if original.kind == "right hand" else "right hand"
        self.licence, self.skeleton, self.bones = original.licence, original.skeleton, original.bones
        self.parents, self.shape_names = original.parents, original.shape_names
        self.bone_mirror, self.vertex_mirror = None, None
        self.register_buffer("faces", original.faces.flip(-1), persistent=False)
        self.register_buffer("joint_regressor", original.joint_regressor, persistent=False)

    @property
    def mean_shape(self) -> Float[Tensor, "s"]:
        return self.original.mean_shape

    @property
    def upright(self) -> Float[Tensor, "3 3"]:
        return self.original.upright

    def forward(self, params: BodyParams) -> BodyMesh:
        return mirror_mesh(self.original(self.original.mirror(params)))

    def rig(self, shape: Float[Tensor, "s"]) -> Rig:
        flip = shape.new_tensor([-1.0, 1.0, 1.0])
        return self.original.rig(shape).in_axes(flip.diag())

    def rig_rotations(self, pose: Float[Tensor, "*b k 3 3"]) -> Float[Tensor, "*b n 3 3"]:
        return mirror_rotations(self.original.rig_rotations(mirror_rotations(pose)))

    def corrective_amounts(self, pose: Float[Tensor, "*b k 3 3"]) -> Float[Tensor, "*b c"]:
        return self.original.corrective_amounts(mirror_rotations(pose))


def mirror_mesh(mesh: BodyMesh) -> BodyMesh:
    """The mirror image of a mesh at x = 0."""
    flip = mesh.vertices.new_tensor([-1.0, 1.0, 1.0])
    return dataclasses.replace(mesh, vertices=mesh.vertices * flip, joints=mesh.joints * flip)
