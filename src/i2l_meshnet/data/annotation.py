"""What is known of a person in a picture: flat arrays of a whole data set, and the tensors of one sample or batch."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.errors import FileError
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import prepare_box
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix
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
    (actions, sequences). left_out: how many annotations were passed over, by reason.
    """

    arrays: dict[str, np.ndarray]
    skeleton: Skeleton
    bodies: tuple[str, ...]
    groups: tuple[str, ...]
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.arrays["id"])

    def image_path(self, index: int) -> str:
        """Path of the picture, relative to the data set's folder."""
        ends = self.arrays["path_ends"]
        start = int(ends[index - 1]) if index else 0
        return bytes(self.arrays["paths"][start : int(ends[index])]).decode()

    def group(self, index: int) -> str:
        """The action or sequence of a row; empty where the data set has none."""
        return self.groups[int(self.arrays["group"][index])]

    def annotation(self, index: int) -> Annotation:
        """Row `index` as float32 tensors; the box stays in float64, in which crops are worked out."""
        row = {name: torch.from_numpy(np.array(self.arrays[name][index])) for name in FIELDS}
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
            source=torch.tensor(0),
        )

    def describe(self) -> str:
        """Everything but the arrays, as JSON."""
        return json.dumps(
            {
                "skeleton": dataclasses.asdict(self.skeleton),
                "bodies": self.bodies,
                "groups": self.groups,
                "left_out": self.left_out,
            }
        )

    @classmethod
    def restore(cls, arrays: dict[str, np.ndarray], description: str) -> "AnnotationTable":
        """The table that `describe` described."""
        facts = json.loads(description)
        skeleton = facts["skeleton"]
        return cls(
            arrays,
            Skeleton(
                skeleton["name"],
                tuple(skeleton["joints"]),
                tuple((start, end) for start, end in skeleton["bones"]),
                skeleton["root"],
            ),
            tuple(facts["bodies"]),
            tuple(facts["groups"]),
            facts["left_out"],
        )


FIELDS: dict[str, type[np.generic]] = {
    "box": np.float64,
    "image_size": np.float32,
    "focal": np.float32,
    "center": np.float32,
    "joints_image": np.float32,
    "joints_camera": np.float32,
    "visible": np.bool_,
    "has_depth": np.bool_,
    "pose": np.float32,
    "shape": np.float32,
    "translation": np.float32,
    "world_rotation": np.float32,
    "world_translation": np.float32,
    "body": np.int64,
    "fit_known": np.bool_,
    "fit_trusted": np.bool_,
    "root_depth": np.float32,
    "id": np.int64,
}
"""The tensors of a row and their types in the table; units as in `Annotation`."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """One fitted body as an adapter reads it; fields as in `FittedBody`, any nested lists."""

    pose: Any
    shape: Any
    translation: Any
    body: str
    world_rotation: Any = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    world_translation: Any = (0, 0, 0)


class TableBuilder:
    """Collects and checks rows, then packs them into an `AnnotationTable`."""

    def __init__(
        self,
        skeleton: Skeleton,
        bodies: tuple[str, ...],
        bones: int,
        shapes: int,
        trusted_fits: bool = False,
        crop_size: tuple[int, int] = (256, 256),
    ) -> None:
        """`bones`, `shapes`: how many the bodies have. `crop_size`: (height, width) that boxes are prepared for."""
        self._skeleton, self._bodies, self._bones, self._shapes = skeleton, bodies, bones, shapes
        self._trusted, self._crop_size = trusted_fits, crop_size
        self._rows: dict[str, list[Any]] = {name: [] for name in FIELDS}
        self._paths: list[bytes] = []
        self._group_of: list[int] = []
        self._groups: dict[str, int] = {}
        self._left_out: dict[str, int] = {}

    def leave_out(self, reason: str) -> None:
        """Counts an annotation that is passed over."""
        self._left_out[reason] = self._left_out.get(reason, 0) + 1

    def add(
        self,
        *,
        where: str,
        id: int,
        path: str,
        size: tuple[int, int],
        box: Any,
        prepared: bool,
        focal: Any,
        center: Any,
        joints_image: Any = None,
        joints_camera: Any = None,
        visible: Any = None,
        fit: Fit | None = None,
        root_depth: float | None = None,
        group: str = "",
    ) -> None:
        """Adds one person. Metres, pixels, radians; arrays of any nested sequence type.

        where: the file, for messages. path: picture, relative to the data set's folder. size: (width, height).
        box: (x, y, width, height); a `prepared` one (RootNet's) is taken as it is, any other one is clipped and
        widened, and left out if it has no area inside the picture. Joints: all of the skeleton's, or none.
        Raises FileError for a wrong number of joints, values that are not numbers, a prepared box without area.
        """
        where = f"{where}: annotation {id}"
        box = self._numbers(box, (4,), f"{where}: box", np.float64)
        if prepared:
            if box[2] <= 0 or box[3] <= 0:
                raise FileError(f"{where} has a box of no area ({box[2]:g} by {box[3]:g} px): mend or remove it")
        else:
            widened = prepare_box(torch.from_numpy(box), *size, crop_size=self._crop_size)
            if widened is None:
                self.leave_out("box of no area inside the picture")
                return
            box = widened.numpy()
        n, k, s = len(self._skeleton), self._bones, self._shapes
        image = np.zeros((n, 2)) if joints_image is None else self._numbers(joints_image, (n, 2), f"{where}: joints")
        camera = np.zeros((n, 3)) if joints_camera is None else self._numbers(joints_camera, (n, 3), f"{where}: joints")
        if visible is None:
            visible = np.full(n, joints_image is not None)
        row: dict[str, Any] = {
            "box": box,
            "image_size": size,
            "focal": self._numbers(focal, (2,), f"{where}: focal length"),
            "center": self._numbers(center, (2,), f"{where}: principal point"),
            "joints_image": image,
            "joints_camera": camera,
            "visible": self._numbers(visible, (n,), f"{where}: visibility") > 0,
            "has_depth": joints_camera is not None,
            "pose": np.zeros((k, 3)),
            "shape": np.zeros(s),
            "translation": np.zeros(3),
            "world_rotation": np.eye(3),
            "world_translation": np.zeros(3),
            "body": 0,
            "fit_known": fit is not None,
            "fit_trusted": self._trusted,
            "root_depth": np.nan if root_depth is None else root_depth,
            "id": id,
        }
        if fit is not None:
            row["pose"] = self._numbers(fit.pose, (k * 3,), f"{where}: pose").reshape(k, 3)
            row["shape"] = self._numbers(fit.shape, (s,), f"{where}: shape")
            row["translation"] = self._numbers(fit.translation, (3,), f"{where}: translation")
            row["world_rotation"] = self._numbers(fit.world_rotation, (3, 3), f"{where}: camera rotation")
            row["world_translation"] = self._numbers(fit.world_translation, (3,), f"{where}: camera translation")
            row["body"] = self._bodies.index(fit.body)
        for name, dtype in FIELDS.items():
            self._rows[name].append(np.asarray(row[name], dtype))
        self._paths.append(path.encode())
        self._group_of.append(self._groups.setdefault(group, len(self._groups)))

    def build(self, where: Path) -> AnnotationTable:
        """The packed table. Raises FileError if no annotation of `where` was usable."""
        if not self._paths:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self._left_out.items()) or "it is empty"
            raise FileError(f"{where} holds no usable annotation ({reasons})")
        arrays = {name: np.stack(rows) for name, rows in self._rows.items()}
        arrays["group"] = np.asarray(self._group_of, np.int32)
        arrays["paths"] = np.frombuffer(b"".join(self._paths), np.uint8)
        arrays["path_ends"] = np.cumsum([len(path) for path in self._paths], dtype=np.int64)
        return AnnotationTable(arrays, self._skeleton, self._bodies, tuple(self._groups), self._left_out)

    @staticmethod
    def _numbers(values: Any, shape: tuple[int, ...], what: str, dtype: type[np.generic] = np.float32) -> np.ndarray:
        """`values` as finite numbers of `shape`; FileError says what is wrong with them."""
        try:
            array = np.asarray(values, dtype)
        except (TypeError, ValueError) as error:
            raise FileError(f"{what} is not an array of numbers: make the annotations anew") from error
        if array.shape != shape:
            found = " by ".join(str(side) for side in array.shape)
            wanted = " by ".join(str(side) for side in shape)
            raise FileError(f"{what}: there are {found} values, not {wanted}; is this file of another joint set?")
        if not np.isfinite(array).all():
            raise FileError(f"{what} holds NaN or infinite values: mend or remove this annotation")
        return array
