"""What is known of a person in a picture: flat arrays of a whole data set, and the tensors of one sample or batch."""

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
    """A body model fitted to a person, as the data sets write it.

    pose: axis-angle of each bone (rad), in the fit's world frame. shape: the model's shape values. translation: m,
    world frame. world_rotation, world_translation: from that world to the camera (m); identity and zero for fits in
    the camera frame. body: which of the source's bodies was fitted. known: whether there is a fit at all (the
    rest is zero if not). trusted: the fit is the ground truth and needs no check against the joints.
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
        """The fit in the camera frame. `root_joint`: the root joint of the body at rest with this shape, m.

        A body turns about its root joint, which is not the origin that its translation moves: turning the whole
        world moves the root joint as well, so the translation makes up for R j - j.
        """
        turned = (self.world_rotation @ (self.translation + root_joint)[..., None])[..., 0]
        return BodyParams(self.camera_pose(), self.shape, turned - root_joint + self.world_translation)


@dataclasses.dataclass(frozen=True)
class Annotation(TensorDataclass):
    """One person in one picture, or a batch of them.

    box: prepared crop box (x, y, width, height; px; square for a square crop). image_size: (width, height) px.
    joints_image: px. joints_camera: m, camera frame; zero where `has_depth` is false. visible: joints that are
    labelled. root_depth: depth of the root joint (m) to put predictions at, NaN where unknown. id: the annotation's
    number in its file. source: which data set of a mixture it comes from.
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
    """All annotations of one split of one data set, as flat arrays of n rows (see `FIELDS`).

    skeleton: its joint set. bodies: names of the body models that `body` counts. groups: names that `group` counts
    (actions, sequences). left_out: how many annotations were passed over, by reason. Among the arrays, `person` and
    `frame` number people within a group and its pictures one by one; -1 where a set has no such order.
    """

    arrays: dict[str, np.ndarray]
    skeleton: Skeleton
    bodies: tuple[str, ...]
    groups: tuple[str, ...]
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.arrays["id"])

    def is_whole(self) -> bool:
        """Whether all arrays are there, have a row for each annotation, and name pictures and groups that are there."""
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
        """Path of the picture, relative to the data set's folder."""
        ends = self.arrays["path_ends"]
        start = int(ends[index - 1]) if index else 0
        return bytes(self.arrays["paths"][start : int(ends[index])]).decode()

    def group(self, index: int) -> str:
        """The action or sequence of a row; empty where the data set has none."""
        return self.groups[int(self.arrays["group"][index])]

    def consecutive(self, count: int) -> list[tuple[int, int, int]]:
        """Those of the first `count` rows that show one person in three frames on end of a group: before, at, after."""
        names = ("group", "person", "frame")
        keys = list(zip(*(self.arrays[name][:count].tolist() for name in names), strict=True))
        rows = {key: row for row, key in enumerate(keys) if min(key) >= 0}
        around = [
            (rows.get((group, person, frame - 1)), row, rows.get((group, person, frame + 1)))
            for (group, person, frame), row in rows.items()
        ]
        return [(before, row, after) for before, row, after in around if before is not None and after is not None]

    def annotations(self, indices: Sequence[int]) -> Annotation:
        """A batch of rows as float32 tensors; the boxes stay in float64, in which crops are worked out."""
        chosen = np.asarray(indices, np.int64)
        row = {name: torch.from_numpy(np.asarray(self.arrays[name][chosen])) for name in FIELDS}
        return Annotation(
            box=row["box"],
            image_size=row["image_size"],
            camera=Camera(row["focal"], row["center"]),
            joints_image=row["joints_image"],
            joints_camera=row["joints_camera"],
            visible=row["visible"],
            has_depth=row["has_depth"],
            fit=FittedBody(
                pose=row["pose"],
                shape=row["shape"],
                translation=row["translation"],
                world_rotation=row["world_rotation"],
                world_translation=row["world_translation"],
                body=row["body"],
                known=row["fit_known"],
                trusted=row["fit_trusted"],
            ),
            root_depth=row["root_depth"],
            id=row["id"],
            source=torch.zeros(len(chosen), dtype=torch.long),
        )

    def describe(self) -> str:
        """Everything but the arrays, as JSON."""
        facts = {"bodies": self.bodies, "groups": self.groups, "left_out": self.left_out}
        return json.dumps({"skeleton": dataclasses.asdict(self.skeleton), **facts})

    @classmethod
    def restore(cls, arrays: dict[str, np.ndarray], description: str) -> "AnnotationTable":
        """The table that `describe` described."""
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
"""The tensors of a row: their types in the table and their axes; units as in `Annotation`."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """One fitted body as an adapter reads it; fields as in `FittedBody`, any nested lists; no world: the camera's."""

    pose: Any
    shape: Any
    translation: Any
    body: str
    world_rotation: Any = None
    world_translation: Any = None


MOST_JOINTS = 1000


class TableBuilder:
    """Collects and checks rows, then packs them into an `AnnotationTable`.

    Values go straight into arrays that grow; what can be worked out for all rows at once is left to `build`.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        bodies: tuple[str, ...],
        bones: int,
        shapes: int,
        trusted_fits: bool = False,
    ) -> None:
        """bones, shapes: how many the bodies have. Boxes are prepared for square crops."""
        if len(skeleton) > MOST_JOINTS:
            raise ValueError(f"{len(skeleton)} joints are more than a body has")
        self._skeleton, self._bodies, self._trusted = skeleton, bodies, trusted_fits
        self._axes = {"joints": len(skeleton), "bones": bones, "shapes": shapes}
        self._arrays = self._empty(1024)
        self._places: list[str] = []
        self._paths: list[bytes] = []
        self._prepared: list[bool] = []
        self._order: list[tuple[int, int, int]] = []
        self._groups: dict[str, int] = {}
        self._left_out: dict[str, int] = {}

    def _empty(self, rows: int) -> dict[str, np.ndarray]:
        """Arrays for `rows` annotations of which nothing is known."""
        arrays = {
            name: np.zeros((rows, *(self._axes[axis] if isinstance(axis, str) else axis for axis in axes)), kind)
            for name, (kind, axes) in FIELDS.items()
        }
        arrays["world_rotation"][:] = np.eye(3)
        arrays["root_depth"][:] = np.nan
        arrays["fit_trusted"][:] = self._trusted
        return arrays

    def leave_out(self, reason: str, count: int = 1) -> None:
        """Counts annotations that are passed over."""
        if count:
            self._left_out[reason] = self._left_out.get(reason, 0) + count

    def add(
        self,
        *,
        where: str,
        id: int,
        path: str,
        size: tuple[int, int],
        box: Any,
        focal: Any,
        center: Any,
        prepared: bool = False,
        joints_image: Any = None,
        joints_camera: Any = None,
        visible: Any = None,
        fit: Fit | None = None,
        root_depth: float | None = None,
        group: str = "",
        person: int = -1,
        frame: int = -1,
    ) -> None:
        """Adds one person. Metres, pixels, radians; arrays of any nested sequence type.

        where: the file, for messages. path: picture, relative to the data set's folder. size: (width, height).
        box: (x, y, width, height); a `prepared` one (RootNet's) is taken as it is, any other one is clipped and
        widened, and left out if it has no area inside the picture. Joints: all of the skeleton's, or none.
        visible: above 0 for labelled joints; all are by default. root_depth: that of `joints_camera` by default.
        person, frame: see `AnnotationTable`.
        Raises FileError for a wrong number of values, or what is not a number.
        """
        row = len(self._places)
        if row == len(self._arrays["id"]):
            grown = self._empty(2 * row)
            for name, values in self._arrays.items():
                grown[name][:row] = values
            self._arrays = grown
        self._places.append(where)
        self._put(row, id, "box", "box", box)
        self._put(row, id, "focal", "focal length", focal)
        self._put(row, id, "center", "principal point", center)
        arrays = self._arrays
        arrays["id"][row], arrays["image_size"][row] = id, size
        if joints_image is not None:
            self._put(row, id, "joints_image", "joints", joints_image)
            arrays["visible"][row] = True if visible is None else np.asarray(visible) > 0
        if joints_camera is not None:
            self._put(row, id, "joints_camera", "joints", joints_camera)
            arrays["has_depth"][row] = True
            arrays["root_depth"][row] = arrays["joints_camera"][row, self._skeleton.root_index, 2]
        if root_depth is not None:
            arrays["root_depth"][row] = root_depth
        if fit is not None:
            arrays["fit_known"][row] = True
            arrays["body"][row] = self._bodies.index(fit.body)
            flat = self._numbers(fit.pose, (self._axes["bones"] * 3,), f"{where}: annotation {id}: pose")
            arrays["pose"][row] = flat.reshape(-1, 3)
            self._put(row, id, "shape", "shape", fit.shape)
            self._put(row, id, "translation", "translation", fit.translation)
            if fit.world_rotation is not None:
                self._put(row, id, "world_rotation", "camera rotation", fit.world_rotation)
                self._put(row, id, "world_translation", "camera translation", fit.world_translation)
        self._paths.append(inside(path).encode())
        self._prepared.append(prepared)
        self._order.append((self._groups.setdefault(group, len(self._groups)), person, frame))

    def build(self, where: Path) -> AnnotationTable:
        """The packed table. Raises FileError for NaN, for a prepared box without area, or if no row is usable."""
        count = len(self._places)
        arrays = {name: values[:count] for name, values in self._arrays.items()}
        for name, values in arrays.items():
            if values.dtype.kind == "f" and name != "root_depth":
                finite = np.isfinite(values.reshape(count, -1)).all(1)
                self._refuse(
                    np.asarray(~finite), f"{name} holds NaN or infinite values: mend or remove this annotation"
                )
        prepared = np.asarray(self._prepared, np.bool_)
        flat = np.any(arrays["box"][:, 2:] <= 0, axis=1)
        self._refuse(np.asarray(flat & prepared), "the box has no area: mend or remove this annotation")
        boxes, sizes = (torch.from_numpy(arrays[name]) for name in ("box", "image_size"))
        widened, inside = published_boxes(boxes, sizes)
        keep = prepared | inside.numpy()
        self.leave_out("box of no area inside the picture", int((~keep).sum()))
        if not keep.any():
            reasons = ", ".join(f"{number} {reason}" for reason, number in self._left_out.items()) or "it is empty"
            raise FileError(f"{where} holds no usable annotation ({reasons})")
        arrays["box"] = np.where(prepared[:, None], arrays["box"], widened.numpy())
        arrays["group"], arrays["person"], arrays["frame"] = np.asarray(self._order, np.int32).T
        arrays = {name: values[keep] for name, values in arrays.items()}
        paths = [path for path, kept in zip(self._paths, keep, strict=True) if kept]
        arrays["paths"] = np.frombuffer(b"".join(paths), np.uint8)
        arrays["path_ends"] = np.cumsum([len(path) for path in paths], dtype=np.int64)
        return AnnotationTable(arrays, self._skeleton, self._bodies, tuple(self._groups), self._left_out)

    def _refuse(self, bad: np.ndarray, why: str) -> None:
        """Raises FileError that names the first of the bad rows, if there is one."""
        if bad.any():
            row = int(bad.argmax())
            raise FileError(f"{self._places[row]}: annotation {self._arrays['id'][row]}: {why}")

    def _put(self, row: int, id: int, name: str, what: str, values: Any) -> None:
        """Writes values into a row after a look at their number."""
        target = self._arrays[name]
        target[row] = self._numbers(values, target.shape[1:], f"{self._places[row]}: annotation {id}: {what}")

    @staticmethod
    def _numbers(values: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
        """`values` as an array of `shape`; FileError says what is wrong with them."""
        try:
            array = np.asarray(values, np.float64)
        except (TypeError, ValueError) as error:
            raise FileError(f"{what} is not an array of numbers: make the annotations anew") from error
        if array.shape != shape:
            found = " by ".join(str(side) for side in array.shape)
            wanted = " by ".join(str(side) for side in shape)
            raise FileError(f"{what}: there are {found} values, not {wanted}; is this file of another joint set?")
        return array
