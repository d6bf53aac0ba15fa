"""Bodies like SMPL (Loper et al., 2015): linear shape, pose-dependent corrections, linear blend skinning."""

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

    template (V, 3). shape_directions (V, 3, S): displacements per unit of each shape value. pose_directions
    (V, 3, 9 (K - 1)): displacements per entry of the rotation matrices minus the identity, for all bones but the root.
    weights (V, K): skin weights. bone_regressor (K, V): bone heads from the vertices at rest. parents (K): -1 for the
    root. faces (F, 3). pose_mean (K, 3): axis-angles added to the pose. vertex_mirror (V): see `Body`.
    """

    template: np.ndarray
    shape_directions: np.ndarray
    pose_directions: np.ndarray
    weights: np.ndarray
    bone_regressor: np.ndarray
    parents: np.ndarray
    faces: np.ndarray
    pose_mean: np.ndarray
    vertex_mirror: np.ndarray | None = None

    def mirrored(self) -> "LinearBodyData":
        """The mirror image of the body at x = 0, which is posed by mirrored parameters."""
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


@dataclasses.dataclass(frozen=True)
class LinearBodyForm:
    """Names of a body and the definition of its joints.

    Joints are the bone heads, followed by `joint_vertices`, in the order of the skeleton: `joint_order` has their
    indices (default: unchanged). regressor_vertices: the vertices that the joint regressor uses instead of
    `joint_vertices`, if they differ.
    """

    name: str
    licence: str
    skeleton: Skeleton
    bones: tuple[str, ...]
    kind: BodyKind = "body"
    joint_vertices: tuple[int, ...] = ()
    joint_order: tuple[int, ...] | None = None
    regressor_vertices: tuple[int, ...] | None = None


class LinearBody(Body):
    """SMPL, MANO or a similar body. At rest, the joint regressor gives the same joints as the bones."""

    template: Float[Tensor, "v 3"]
    shape_directions: Float[Tensor, "s v*3"]
    pose_directions: Float[Tensor, "p v*3"]
    weights: Float[Tensor, "v k"]
    bone_regressor: Float[Tensor, "k v"]
    pose_mean: Float[Tensor, "k 3"]

    def __init__(self, form: LinearBodyForm, data: LinearBodyData) -> None:
        super().__init__()
        self.name, self.kind, self.licence = form.name, form.kind, form.licence
        self.skeleton, self.bones = form.skeleton, form.bones
        self.parents = tuple(int(parent) for parent in data.parents)
        self.shape_names = tuple(f"shape_{i}" for i in range(data.shape_directions.shape[2]))
        self.bone_mirror = mirror_permutation(form.bones) if form.kind == "body" else None
        self._tree = KinematicTree(self.parents)
        self._joint_vertices = list(form.joint_vertices)
        self._joint_order = list(form.joint_order or range(len(form.skeleton)))
        self._has_pose_mean = bool(data.pose_mean.any())
        chosen = np.eye(len(data.template))[list(form.regressor_vertices or form.joint_vertices)]
        regressor = np.concatenate([data.bone_regressor, chosen.reshape(-1, len(data.template))])
        constants = {
            "template": data.template,
            "shape_directions": data.shape_directions.reshape(-1, len(self.shape_names)).T,
            "pose_directions": data.pose_directions.reshape(3 * len(data.template), -1).T,
            "weights": data.weights,
            "bone_regressor": data.bone_regressor,
            "pose_mean": data.pose_mean,
            "joint_regressor": regressor[self._joint_order],
        }
        for name, value in constants.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(value)).float(), persistent=False)
        for name, index in (("faces", data.faces), ("vertex_mirror", data.vertex_mirror)):
            tensor = None if index is None else torch.from_numpy(index.astype(np.int64))
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, params: BodyParams) -> BodyMesh:
        """Pose the body. The root bone rotates about its own head; the translation is added to all points."""
        pose = self.rig_rotations(params.pose)
        rest, heads, offsets = self._rest(params.shape)
        if len(self.pose_directions):
            rest = rest + (_minus_identity(pose) @ self.pose_directions).unflatten(-1, (-1, 3))
        rotations, posed = self._tree.pose(pose, offsets, heads[..., 0, :] + params.translation)
        vertices = blend(rest, self.weights, rotations, posed - (rotations * heads[..., None, :]).sum(-1))
        joints = torch.cat([posed, vertices[..., self._joint_vertices, :]], -2)
        return BodyMesh(vertices, joints[..., self._joint_order, :])

    def _rest(
        self, shape: Float[Tensor, "*b s"]
    ) -> tuple[Float[Tensor, "*b v 3"], Float[Tensor, "*b k 3"], Float[Tensor, "*b k 3"]]:
        """Vertices and bone heads of a shape at rest, and heads relative to those of the parents (0 for the root)."""
        rest = self.template + (shape @ self.shape_directions).unflatten(-1, (-1, 3))
        heads = self.bone_regressor @ rest
        return rest, heads, heads - heads[..., [max(parent, 0) for parent in self.parents], :]

    def rig(self, shape: Float[Tensor, "s"]) -> Rig:
        """The shaped template with its posed bones. The offset of the root is its head at rest."""
        rest, heads, offsets = self._rest(shape)
        identities = torch.eye(3, dtype=rest.dtype, device=rest.device).expand(len(heads), 3, 3)
        offsets = torch.cat([heads[:1], offsets[1:]])
        correctives = self.pose_directions.unflatten(-1, (-1, 3))
        return Rig(self.bones, self.parents, rest, self.weights, heads, identities, offsets, correctives)

    def rig_rotations(self, pose: Float[Tensor, "*b k 3 3"]) -> Float[Tensor, "*b k 3 3"]:
        """The pose, plus the mean pose (added as axis-angles) if the body has one."""
        if not self._has_pose_mean:
            return pose
        return axis_angle_to_matrix(matrix_to_axis_angle(pose) + self.pose_mean)

    def corrective_amounts(self, pose: Float[Tensor, "*b k 3 3"]) -> Float[Tensor, "*b c"]:
        """Entries of the rotation matrices minus the identity, if the body has pose-dependent corrections."""
        if not len(self.pose_directions):
            return super().corrective_amounts(pose)
        return _minus_identity(self.rig_rotations(pose))


def _minus_identity(rotations: Float[Tensor, "*b k 3 3"]) -> Float[Tensor, "*b p"]:
    """Factors of the pose directions: the matrices of all bones but the root, minus the identity."""
    identity = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
    return (rotations[..., 1:, :, :] - identity).flatten(-3)


SMPL_FORM = LinearBodyForm(
    "smpl",
    "SMPL model licence (research only)",
    SMPL,
    SMPL.joints[:24],
    joint_vertices=(331, 2802, 6262, 3489, 3990),  # nose, left eye, right eye, left ear, right ear
)

MANO_PUBLISHED_TIPS = (745, 317, 445, 556, 673)
"""Fingertips of the published network's joint regressor: the middle finger differs from `MANO_FORM`."""

MANO_FORM = LinearBodyForm(
    "mano",
    "MANO model licence (research only)",
    MANO,
    ("Wrist", *(f"{finger}_{i}" for finger in ("Index", "Middle", "Pinky", "Ring", "Thumb") for i in (1, 2, 3))),
    "right hand",
    joint_vertices=(745, 317, 444, 556, 673),  # tips of thumb, index, middle, ring and little finger
    joint_order=(0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20),
)


def load_smpl(path: Path, name: str = "smpl") -> LinearBody:
    """SMPL from one of its official files (.pkl or .npz): 6,890 vertices, 24 bones, 10 shape values, 29 joints.

    Frame: x to the body's left, y up, z to the front. Raises FileError if the file is not SMPL.
    """
    data = read_linear_body(path, vertices=6890, faces=13776, bones=24)
    return LinearBody(dataclasses.replace(SMPL_FORM, name=name), data)


def load_mano(path: Path, left: bool = False, flat: bool = False, published_regressor: bool = False) -> LinearBody:
    """MANO from its official right-hand file: 778 vertices, 16 bones, 10 shape values, 21 joints; metres.

    The identity pose is MANO's mean pose, a relaxed hand; with `flat`, a flat hand. left: return the mirror image.
    published_regressor: use the joint regressor of the published network, whose tip of the middle finger is vertex 445
    (444 in the published layer). Raises FileError if the file is not MANO.
    """
    data = read_linear_body(path, vertices=778, faces=1538, bones=16)
    if flat:
        data = dataclasses.replace(data, pose_mean=np.zeros_like(data.pose_mean))
    tips = MANO_PUBLISHED_TIPS if published_regressor else None
    form = dataclasses.replace(MANO_FORM, regressor_vertices=tips)
    if left:
        form, data = dataclasses.replace(form, name="mano-left", kind="left hand"), data.mirrored()
    return LinearBody(form, data)


def read_linear_body(path: Path, vertices: int, faces: int, bones: int) -> LinearBodyData:
    """Read and check a file of SMPL or MANO. Raises FileError with the path and the missing or wrong entry."""
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
        raise FileError(f"{path} has no {', '.join(missing)}: it is not the expected body file")
    arrays = {key: entries[key] for key in shapes}
    if arrays["shapedirs"].ndim == 3:
        arrays["shapedirs"] = arrays["shapedirs"][:, :, :10]  # Some files have 300 shape values.
    for key, shape in shapes.items():
        if arrays[key].dtype.kind not in "fi":
            raise FileError(f"{path}: {key} does not contain numbers: it is not the expected body file")
        if arrays[key].shape != shape:
            raise FileError(f"{path}: {key} has shape {arrays[key].shape}, not {shape}: it is the file of another body")
        if not np.isfinite(arrays[key]).all():
            raise FileError(f"{path}: {key} contains infinite values or NaN: the file is damaged")
    if not (arrays["f"].min() >= 0 and arrays["f"].max() < vertices):
        raise FileError(f"{path}: f contains indices of missing vertices: the file is damaged")
    parents = np.concatenate([[-1], arrays["kintree_table"][0, 1:]]).astype(np.int64)
    if not all(0 <= parent < bone for bone, parent in enumerate(parents) if bone):
        raise FileError(f"{path}: kintree_table is not a tree with parents before children: the file is damaged")
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
