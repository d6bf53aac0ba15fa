"""Annotations of people in images: flat arrays for a whole dataset, tensors for one sample or batch."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.errors import FileError
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import published_boxes
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix
from i2l_meshnet.io import inside
from i2l_meshnet.skeletons import Skeleton
from i2l_meshnet.tensors import TensorDataclass


@dataclasses.dataclass(frozen=True)
class FittedBody(TensorDataclass):
    """A body model fitted to a person, with the parameters that the dataset provides.

    pose: axis-angle of each bone (rad), in the fit's world frame. shape: the model's shape values. translation: m,
    world frame. world_rotation, world_translation: from that world to the camera (m); identity and zero for fits in
    the camera frame. body: index of the fitted body among the source's bodies. known: whether there is a fit; without
    one, the other values are zero. trusted: the fit is the ground truth and needs no check against the joints.
    """

    pose: Float[Tensor, "*b k 3"]
    shape: Float[Tensor, "*b s"]
    translation: Float[Tensor, "*b 3"]
    world_rotation: Float[Tensor, "*b 3 3"]
    world_translation: Float[Tensor, "*b 3"]
    body: Int[Tensor, "*b"]
    known: Bool[Tensor, "*b"]
    trusted: Bool[Tensor, "*b"]

    def camera_pose(self) -> Float[Tensor, "*b k 3 3"]:
        """Rotations of the bones with the camera's rotation merged into the root (bone 0)."""
        pose = axis_angle_to_matrix(self.pose)
        root = self.world_rotation @ pose[..., 0, :, :]
        return torch.cat([root[..., None, :, :], pose[..., 1:, :, :]], -3)

    def camera_params(self, root_joint: Float[Tensor, "*b 3"]) -> BodyParams:
        """The fit in the camera frame. `root_joint`: the root joint j of the body at rest with this shape, m.

        A body rotates about its root joint, but its translation moves its origin. Rotating the world by R also moves
        the root joint, so the translation is corrected by R j - j.
        """
        rotated = (self.world_rotation @ (self.translation + root_joint)[..., None])[..., 0]
        return BodyParams(self.camera_pose(), self.shape, rotated - root_joint + self.world_translation)


@dataclasses.dataclass(frozen=True)
class Annotation(TensorDataclass):
    """One person in one image, or a batch of people.

    box: prepared crop box (x, y, width, height; px; square for a square crop). image_size: (width, height) px.
    joints_image: px. joints_camera: m, camera frame; zero where `has_depth` is false. visible: labelled joints.
    root_depth: depth of the root joint (m) for placing predictions, NaN if unknown. id: the annotation's number in its
    file. source: index of its dataset in a mixture.
    """

    box: Float[Tensor, "*b 4"]
    image_size: Float[Tensor, "*b 2"]
    camera: Camera
    joints_image: Float[Tensor, "*b j 2"]
    joints_camera: Float[Tensor, "*b j 3"]
    visible: Bool[Tensor, "*b j"]
    has_depth: Bool[Tensor, "*b"]
    fit: FittedBody
    root_depth: Float[Tensor, "*b"]
    id: Int[Tensor, "*b"]
    source: Int[Tensor, "*b"]


@dataclasses.dataclass(frozen=True)
class AnnotationTable:
    """All annotations of one split of one dataset, as flat arrays of n rows (see `FIELDS`).

    skeleton: its joint set. bodies: names of the body models, indexed by `body`. groups: names of actions or
    sequences, indexed by `group`. left_out: number of skipped annotations, by reason. The arrays `person` and `frame`
    are indices of a person and a frame within a group; -1 in datasets without such an order.
    """

    arrays: dict[str, np.ndarray]
    skeleton: Skeleton
    bodies: tuple[str, ...]
    groups: tuple[str, ...]
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.arrays["id"])

    def is_whole(self) -> bool:
        """Whether all arrays exist, have a row for each annotation, and refer to existing paths and groups."""
        rows = {self.arrays[name].shape[0] for name in (*FIELDS, "group", "person", "frame", "path_ends")}
        ends = np.asarray(self.arrays["path_ends"])
        groups = np.asarray(self.arrays["group"])
        return (
            len(rows) == 1
            and bool((np.diff(ends, prepend=0) >= 0).all())
            and (not len(ends) or int(ends[-1]) <= len(self.arrays["paths"]))
            and bool(((groups >= 0) & (groups < len(self.groups))).all())
            and all(self.arrays[name].dtype == kind for name, (kind, _) in FIELDS.items())
        )

    def image_path(self, index: int) -> str:
        """Path of the image, relative to the dataset's folder."""
        ends = self.arrays["path_ends"]
        start = int(ends[index - 1]) if index else 0
        return bytes(self.arrays["paths"][start : int(ends[index])]).decode()

    def group(self, index: int) -> str:
        """The action or sequence of a row; empty if the dataset has none."""
        return self.groups[int(self.arrays["group"][index])]

    def consecutive(self, count: int) -> list[tuple[int, int, int]]:
        """Triples of rows (before, at, after): one person in three consecutive frames. Only the first `count` rows."""
        names = ("group", "person", "frame")
        keys = list(zip(*(self.arrays[name][:count].tolist() for name in names), strict=True))
        rows = {key: row for row, key in enumerate(keys) if min(key) >= 0}
        around = [
            (rows.get((group, person, frame - 1)), row, rows.get((group, person, frame + 1)))
            for (group, person, frame), row in rows.items()
        ]
        return [(before, row, after) for before, row, after in around if before is not None and after is not None]

    def annotations(self, indices: Sequence[int]) -> Annotation:
        """A batch of rows as float32 tensors. Boxes stay in float64, in which crops are computed."""
        chosen = np.asarray(indices, np.int64)
        row = {name: torch.from_numpy(np.asarray(self.arrays[name][chosen])) for name in FIELDS}
        fit = {name: row.pop(name) for name in (*_FIT_NUMBERS, "body")}
        return Annotation(
            camera=Camera(row.pop("focal"), row.pop("center")),
            fit=FittedBody(**fit, known=row.pop("fit_known"), trusted=row.pop("fit_trusted")),
            source=torch.zeros(len(chosen), dtype=torch.long),
            **row,
        )

    def describe(self) -> str:
        """Everything except the arrays, as JSON."""
        facts = {"bodies": self.bodies, "groups": self.groups, "left_out": self.left_out}
        return json.dumps({"skeleton": dataclasses.asdict(self.skeleton), **facts})

    @classmethod
    def restore(cls, arrays: dict[str, np.ndarray], description: str) -> "AnnotationTable":
        """Make a table from its arrays and the text from `describe`."""
        facts = json.loads(description)
        skeleton = facts["skeleton"]
        bones = tuple((start, end) for start, end in skeleton["bones"])
        return cls(
            arrays,
            Skeleton(skeleton["name"], tuple(skeleton["joints"]), bones, skeleton["root"]),
            tuple(facts["bodies"]),
            tuple(facts["groups"]),
            facts["left_out"],
        )


FIELDS: dict[str, tuple[type[np.generic], tuple[int | str, ...]]] = {
    "box": (np.float64, (4,)),
    "image_size": (np.float32, (2,)),
    "focal": (np.float32, (2,)),
    "center": (np.float32, (2,)),
    "joints_image": (np.float32, ("joints", 2)),
    "joints_camera": (np.float32, ("joints", 3)),
    "visible": (np.bool_, ("joints",)),
    "has_depth": (np.bool_, ()),
    "pose": (np.float32, ("bones", 3)),
    "shape": (np.float32, ("shapes",)),
    "translation": (np.float32, (3,)),
    "world_rotation": (np.float32, (3, 3)),
    "world_translation": (np.float32, (3,)),
    "body": (np.int64, ()),
    "fit_known": (np.bool_, ()),
    "fit_trusted": (np.bool_, ()),
    "root_depth": (np.float32, ()),
    "id": (np.int64, ()),
}
"""Type and axes of each array in the table; units as in `Annotation`."""


_NUMBERS = ("box", "focal", "center", "joints_image", "joints_camera")
_FIT_NUMBERS = ("pose", "shape", "translation", "world_rotation", "world_translation")
"""The arrays that `PersonRow` and `Fit` fill, and whose shapes are checked."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted body as an adapter reads it; fields as in `FittedBody`. Without a world, it is in the camera frame."""

    pose: Any
    shape: Any
    translation: Any
    body: str
    world_rotation: Any = None
    world_translation: Any = None


@dataclasses.dataclass(frozen=True)
class PersonRow:
    """One person as an adapter reads it, in metres, pixels and radians. Arrays can be any nested sequences.

    where: the file, for messages. path: the image, relative to the dataset's folder. size: (width, height).
    box: (x, y, width, height). A `prepared` box (RootNet's) is used unchanged. Any other is clipped and widened, and
    the person is left out if it has no area inside the image. Joints: all joints of the skeleton, or None. visible:
    above 0 for labelled joints (default: all are labelled). root_depth: default: from `joints_camera`. person, frame:
    see `AnnotationTable`.
    """

    where: str
    id: int
    path: str
    size: tuple[int, int]
    box: Any
    focal: Any
    center: Any
    prepared: bool = False
    joints_image: Any = None
    joints_camera: Any = None
    visible: Any = None
    fit: Fit | None = None
    root_depth: float | None = None
    group: str = ""
    person: int = -1
    frame: int = -1


MAX_JOINTS = 1000


class TableBuilder:
    """Collects and checks rows, then packs them into an `AnnotationTable`.

    Values are written directly into growing arrays. `build` checks and converts all rows at once.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        bodies: tuple[str, ...] = (),
        bones: int = 0,
        shapes: int = 0,
        trusted_fits: bool = False,
    ) -> None:
        """bodies: of the fits; none for a dataset without fits. bones, shapes: their number of bones and shape values.

        Boxes are prepared for square crops.
        """
        if len(skeleton) > MAX_JOINTS:
            raise ValueError(f"it has {len(skeleton)} joints, more than the limit of {MAX_JOINTS}")
        self._skeleton, self._bodies, self._trusted = skeleton, bodies, trusted_fits
        self._axes = {"joints": len(skeleton), "bones": bones, "shapes": shapes}
        self._arrays = self._empty(1024)
        self._rows: list[tuple[str, bytes, bool]] = []
        """File, path of the image, and whether the box is prepared."""
        self._order: list[tuple[int, int, int]] = []
        self._groups: dict[str, int] = {}
        self._left_out: dict[str, int] = {}

    def _empty(self, rows: int) -> dict[str, np.ndarray]:
        """Arrays for `rows` people of whom nothing is known."""
        arrays = {
            name: np.zeros((rows, *(self._axes[axis] if isinstance(axis, str) else axis for axis in axes)), kind)
            for name, (kind, axes) in FIELDS.items()
        }
        arrays["world_rotation"][:] = np.eye(3)
        arrays["root_depth"][:] = np.nan
        arrays["fit_trusted"][:] = self._trusted
        return arrays

    def leave_out(self, reason: str, count: int = 1) -> None:
        """Count skipped annotations."""
        if count:
            self._left_out[reason] = self._left_out.get(reason, 0) + count

    def add(self, person: PersonRow) -> None:
        """Add a person. Raises FileError for a wrong number of values and for values that are not numbers."""
        row, arrays = len(self._rows), self._arrays
        if row == len(arrays["id"]):
            grown = self._empty(2 * row)
            for name, array in arrays.items():
                grown[name][:row] = array
            self._arrays = arrays = grown
        values = {name: getattr(person, name) for name in _NUMBERS}
        if person.fit is not None:
            values |= {name: getattr(person.fit, name) for name in _FIT_NUMBERS}
            arrays["fit_known"][row] = True
            arrays["body"][row] = self._bodies.index(person.fit.body)
        for name, value in values.items():
            if value is not None:
                shape = (self._axes["bones"] * 3,) if name == "pose" else arrays[name].shape[1:]
                checked = _numbers(value, shape, f"{person.where}: annotation {person.id}: {name}")
                arrays[name][row] = checked.reshape(arrays[name].shape[1:])
        arrays["id"][row], arrays["image_size"][row] = person.id, person.size
        if person.joints_image is not None:
            arrays["visible"][row] = True if person.visible is None else np.asarray(person.visible) > 0
        if person.joints_camera is not None:
            arrays["has_depth"][row] = True
            arrays["root_depth"][row] = arrays["joints_camera"][row, self._skeleton.root_index, 2]
        if person.root_depth is not None:
            arrays["root_depth"][row] = person.root_depth
        self._rows.append((person.where, inside(person.path).encode(), person.prepared))
        group = self._groups.setdefault(person.group, len(self._groups))
        self._order.append((group, person.person, person.frame))

    def build(self, where: Path) -> AnnotationTable:
        """Pack the table. Raises FileError for NaN, for a prepared box without area, or if no row is usable."""
        count = len(self._rows)
        arrays = {name: values[:count] for name, values in self._arrays.items()}
        for name, values in arrays.items():
            if values.dtype.kind == "f" and name != "root_depth":
                finite = np.isfinite(values.reshape(count, -1)).all(1)
                self._refuse(np.asarray(~finite), f"{name} has NaN or infinite values")
        prepared = np.array([row[2] for row in self._rows], np.bool_)
        self._refuse((arrays["box"][:, 2:] <= 0).any(1) & prepared, "the box has no area")
        boxes, sizes = (torch.from_numpy(arrays[name]) for name in ("box", "image_size"))
        widened, has_area = published_boxes(boxes, sizes)
        keep = prepared | has_area.numpy()
        self.leave_out("box without area inside the image", int((~keep).sum()))
        if not keep.any():
            reasons = ", ".join(f"{number} {reason}" for reason, number in self._left_out.items()) or "it is empty"
            raise FileError(f"{where} has no usable annotation ({reasons})")
        arrays["box"] = np.where(prepared[:, None], arrays["box"], widened.numpy())
        arrays["group"], arrays["person"], arrays["frame"] = np.asarray(self._order, np.int32).T
        arrays = {name: values[keep] for name, values in arrays.items()}
        paths = [path for (_, path, _), kept in zip(self._rows, keep, strict=True) if kept]
        arrays["paths"] = np.frombuffer(b"".join(paths), np.uint8)
        arrays["path_ends"] = np.cumsum([len(path) for path in paths], dtype=np.int64)
        return AnnotationTable(arrays, self._skeleton, self._bodies, tuple(self._groups), self._left_out)

    def _refuse(self, bad: np.ndarray, why: str) -> None:
        """Raise FileError that names the first bad row, if there is one."""
        if bad.any():
            row = int(bad.argmax())
            number = self._arrays["id"][row]
            raise FileError(f"{self._rows[row][0]}: annotation {number}: {why}: correct or remove this annotation")


def _numbers(values: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """`values` as an array of `shape`; FileError names `what`."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise FileError(f"{what} is not an array of numbers: make the annotations again") from error
    if array.shape != shape:
        found, wanted = (" by ".join(map(str, sides)) for sides in (array.shape, shape))
        raise FileError(f"{what} has {found} values, not {wanted}; is this file of another joint set?")
    return array
