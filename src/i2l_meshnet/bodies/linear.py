"""Bodies in the form of SMPL (Loper et al., 2015): linear shape, pose-dependent corrections, linear blend skinning."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.bodies.base import Body, BodyKind, BodyMesh, BodyParams
from i2l_meshnet.bodies.files import read_body_file
from i2l_meshnet.bodies.rig import Rig
from i2l_meshnet.bodies.skinning import KinematicTree, blend
from i2l_meshnet.errors import FileError
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from i2l_meshnet.skeletons import MANO, SMPL, Skeleton, mirror_permutation


@dataclasses.dataclass(frozen=True)
class LinearBodyData:
    """The constants of a body, float64, metres.

    template (V, 3); shape_directions (V, 3, S): per unit of each shape value; pose_directions (V, 3, 9 (K - 1)): per
    entry of the rotation matrices less the identity, bones after the root; weights (V, K); bone_regressor (K, V):
    where bones start, from the vertices at rest; parents (K), -1 for the root; faces (F, 3); pose_mean (K, 3):
    axis-angle added to the pose.
    """

    template: np.ndarray
    shape_directions: np.ndarray
    pose_directions: np.ndarray
    weights: np.ndarray
    bone_regressor: np.ndarray
    parents: np.ndarray
    faces: np.ndarray
    pose_mean: np.ndarray

    def mirrored(self) -> "LinearBodyData":
        """The body's image in the plane x = 0, which its mirrored parameters pose."""
        flip = np.array([-1.0, 1.0, 1.0])
        entries = np.tile((flip[:, None] * flip).ravel(), len(self.parents) - 1)
        return dataclasses.replace(
            self,
            template=self.template * flip,
            shape_directions=self.shape_directions * flip[:, None],
            pose_directions=self.pose_directions * flip[:, None] * entries,
            faces=self.faces[:, ::-1],
            pose_mean=self.pose_mean * -flip,
        )


class LinearBody(Body):
    """SMPL, MANO or a body like them.

    Its joints are where its bones start, then some of its vertices, in the skeleton's order. The joint
    regressor gives the same joints at rest from the vertices alone.
    """

    template: Float[Tensor, "v 3"]
    shape_directions: Float[Tensor, "s v*3"]
    pose_directions: Float[Tensor, "p v*3"]
    weights: Float[Tensor, "v k"]
    bone_regressor: Float[Tensor, "k v"]
    pose_mean: Float[Tensor, "k 3"]

    def __init__(
        self,
        name: str,
        licence: str,
        skeleton: Skeleton,
        bones: tuple[str, ...],
        data: LinearBodyData,
        joint_vertices: tuple[int, ...] = (),
        joint_order: tuple[int, ...] | None = None,
        regressor_vertices: tuple[int, ...] | None = None,
        kind: BodyKind = "body",
        vertex_mirror: np.ndarray | None = None,
    ) -> None:
        """joint_vertices: vertices that are joints, appended to the bones' starts; joint_order: rows of the two
        together in the skeleton's order (as they come if None). regressor_vertices: the vertices that the joint
        regressor uses instead, where the published network differs from its layer. kind, vertex_mirror: see `Body`.
        """
        super().__init__()
        self.name, self.kind, self.licence, self.skeleton, self.bones = name, kind, licence, skeleton, bones
        self.parents = tuple(int(parent) for parent in data.parents)
        self.shape_names = tuple(f"shape_{i}" for i in range(data.shape_directions.shape[2]))
        self.bone_mirror = mirror_permutation(bones) if kind == "body" else None
        self._tree = KinematicTree(self.parents)
        self._joint_vertices = list(joint_vertices)
        self._joint_order = list(joint_order or range(len(skeleton)))
        self._has_pose_mean = bool(data.pose_mean.any())
        self._constant("template", data.template)
        self._constant("shape_directions", data.shape_directions.reshape(-1, len(self.shape_names)).T)
        self._constant("pose_directions", data.pose_directions.reshape(3 * len(data.template), -1).T)
        self._constant("weights", data.weights)
        self._constant("bone_regressor", data.bone_regressor)
        self._constant("pose_mean", data.pose_mean)
        self.register_buffer("faces", torch.from_numpy(data.faces.astype(np.int64)), persistent=False)
        twins = None if vertex_mirror is None else torch.from_numpy(vertex_mirror.astype(np.int64))
        self.register_buffer("vertex_mirror", twins, persistent=False)
        chosen = np.eye(len(data.template))[list(regressor_vertices or joint_vertices)]
        regressor = np.concatenate([data.bone_regressor, chosen.reshape(-1, len(data.template))])
        self._constant("joint_regressor", regressor[self._joint_order])

    def _constant(self, name: str, value: np.ndarray) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(value)).float(), persistent=False)

    def forward(self, params: BodyParams) -> BodyMesh:
        """Poses the body. The root bone turns about its own place at rest; the translation is added to all."""
        pose = self.rig_rotations(params.pose)
        rest, heads, offsets = self._rest(params.shape)
        if len(self.pose_directions):
            rest = rest + (_less_identity(pose) @ self.pose_directions).unflatten(-1, (-1, 3))
        rotations, places = self._tree.pose(pose, offsets, heads[..., 0, :] + params.translation)
        vertices = blend(rest, self.weights, rotations, places - (rotations * heads[..., None, :]).sum(-1))
        joints = torch.cat([places, vertices[..., self._joint_vertices, :]], -2)
        return BodyMesh(vertices, joints[..., self._joint_order, :])

    def _rest(
        self, shape: Float[Tensor, "*b s"]
    ) -> tuple[Float[Tensor, "*b v 3"], Float[Tensor, "*b k 3"], Float[Tensor, "*b k 3"]]:
        """Vertices and bone starts of a shape at rest, and the starts against those of the parents (0 for the root)."""
        rest = self.template + (shape @ self.shape_directions).unflatten(-1, (-1, 3))
        heads = self.bone_regressor @ rest
        return rest, heads, heads - heads[..., [max(parent, 0) for parent in self.parents], :]

    def rig(self, shape: Float[Tensor, "s"]) -> Rig:
        """The shaped template with one bone for each posed one; the root's own start is its offset."""
        rest, heads, offsets = self._rest(shape)
        turns = torch.eye(3, dtype=rest.dtype, device=rest.device).expand(len(heads), 3, 3)
        offsets = torch.cat([heads[:1], offsets[1:]])
        correctives = self.pose_directions.unflatten(-1, (-1, 3))
        return Rig(self.bones, self.parents, rest, self.weights, heads, turns, offsets, correctives)

    def rig_rotations(self, pose: Float[Tensor, "*b k 3 3"]) -> Float[Tensor, "*b k 3 3"]:
        """The pose, with the mean pose added as axis-angles where the body has one."""
        if not self._has_pose_mean:
            return pose
        return axis_angle_to_matrix(matrix_to_axis_angle(pose) + self.pose_mean)

    def corrective_amounts(self, pose: Float[Tensor, "*b k 3 3"]) -> Float[Tensor, "*b c"]:
        """Entries of the rotation matrices less the identity, where the body has pose-dependent corrections."""
        if not len(self.pose_directions):
            return super().corrective_amounts(pose)
        return _less_identity(self.rig_rotations(pose))


def _less_identity(rotations: Float[Tensor, "*b k 3 3"]) -> Float[Tensor, "*b p"]:
    """What pose directions are multiplied by: the matrices of all bones but the root, less the identity."""
    identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
    return (rotations[..., 1:, :, :] - identity).flatten(-3)


SMPL_BONES = SMPL.joints[:24]
SMPL_FACE_VERTICES = (331, 2802, 6262, 3489, 3990)
"""Nose, left eye, right eye, left ear, right ear."""

MANO_BONES = (
    "Wrist",
    *(f"{finger}_{i}" for finger in ("Index", "Middle", "Pinky", "Ring", "Thumb") for i in (1, 2, 3)),
)
MANO_TIPS = (745, 317, 444, 556, 673)
"""Vertices at the tips of thumb, index, middle, ring and little finger."""

MANO_PUBLISHED_TIPS = (745, 317, 445, 556, 673)
"""The same in the published network's joint regressor, which takes a neighbour at the middle finger."""

MANO_ORDER = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)
"""Rows of bones and tips in the skeleton's order."""


def load_smpl(path: Path, name: str = "smpl") -> LinearBody:
    """SMPL from one of its official files (.pkl or .npz): 6,890 vertices, 24 bones, 10 shape values, 29 joints.

    Frame: x to the body's left, y up, z to the front. Raises FileError if the file is not SMPL.
    """
    data = read_linear_body(path, vertices=6890, faces=13776, bones=24)
    return LinearBody(
        name, "SMPL model licence (research only)", SMPL, SMPL_BONES, data, joint_vertices=SMPL_FACE_VERTICES
    )


def load_mano(path: Path, left: bool = False, flat: bool = False, published_regressor: bool = False) -> LinearBody:
    """MANO from its official right-hand file: 778 vertices, 16 bones, 10 shape values, 21 joints; metres.

    The identity pose is MANO's mean pose, a relaxed hand; with `flat`, a flat one. `left`: the right hand's mirror
    image. `published_regressor`: the joint regressor of the published network, whose tip of the middle finger is
    vertex 445 where the layer's is 444. Raises FileError if the file is not MANO.
    """
    data = read_linear_body(path, vertices=778, faces=1538, bones=16)
    if flat:
        data = dataclasses.replace(data, pose_mean=np.zeros_like(data.pose_mean))
    return LinearBody(
        "mano-left" if left else "mano",
        "MANO model licence (research only)",
        MANO,
        MANO_BONES,
        data.mirrored() if left else data,
        joint_vertices=MANO_TIPS,
        joint_order=MANO_ORDER,
        regressor_vertices=MANO_PUBLISHED_TIPS if published_regressor else None,
        kind="left hand" if left else "right hand",
    )


def read_linear_body(path: Path, vertices: int, faces: int, bones: int) -> LinearBodyData:
    """Reads and checks a file of SMPL's form. Raises FileError with the path and what is missing or wrong."""
    entries = read_body_file(path)
    shapes: dict[str, tuple[int, ...]] = {
        "v_template": (vertices, 3),
        "shapedirs": (vertices, 3, 10),
        "posedirs": (vertices, 3, 9 * (bones - 1)),
        "weights": (vertices, bones),
        "J_regressor": (bones, vertices),
        "kintree_table": (2, bones),
        "f": (faces, 3),
    }
    if bones == 16:
        shapes["hands_mean"] = (45,)
    missing = [key for key in shapes if not isinstance(entries.get(key), np.ndarray)]
    if missing:
        raise FileError(f"{path} lacks {', '.join(missing)}: it is not the body file that it should be")
    arrays = {key: entries[key] for key in shapes}
    if arrays["shapedirs"].ndim == 3:
        arrays["shapedirs"] = arrays["shapedirs"][:, :, :10]  # Some files hold 300 shape values.
    for key, shape in shapes.items():
        if arrays[key].dtype.kind not in "fi":
            raise FileError(f"{path}: {key} does not hold numbers: it is not the body file that it should be")
        if arrays[key].shape != shape:
            raise FileError(f"{path}: {key} is of shape {arrays[key].shape}, not {shape}: it is another body's file")
        if not np.isfinite(arrays[key]).all():
            raise FileError(f"{path}: {key} holds values that are not numbers: the file is damaged")
    if not (arrays["f"].min() >= 0 and arrays["f"].max() < vertices):
        raise FileError(f"{path}: f names vertices that do not exist: the file is damaged")
    parents = np.concatenate([[-1], arrays["kintree_table"][0, 1:]]).astype(np.int64)
    if not all(0 <= parent < bone for bone, parent in enumerate(parents) if bone):
        raise FileError(f"{path}: kintree_table is not a tree whose parents come first: the file is damaged")
    mean = np.zeros((bones, 3))
    if "hands_mean" in arrays:
        mean[1:] = arrays["hands_mean"].reshape(-1, 3)
    return LinearBodyData(
        template=arrays["v_template"],
        shape_directions=arrays["shapedirs"],
        pose_directions=arrays["posedirs"],
        weights=arrays["weights"],
        bone_regressor=arrays["J_regressor"],
        parents=parents,
        faces=arrays["f"].astype(np.int64),
        pose_mean=mean,
    )
