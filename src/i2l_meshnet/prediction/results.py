"""The types of results: one person or hand (`Prediction`), and all people of an image (`PicturePrediction`)."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, overload

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from tyro.conf import arg

from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.bodies.base import Body, BodyMesh, BodyParams
from i2l_meshnet.bodies.mirrored import mirror_mesh
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop
from i2l_meshnet.prediction.mesh_files import Surface, write_surface

MeshKind = Literal["lixel", "param"]
ShownMesh = Literal["lixel", "param", "both"]
Side = Literal["left", "right"]
MeshFormat = Literal["obj", "ply", "glb", "rigged-glb"]
"""rigged-glb: with the body's skeleton and skin weights, in the pose of the image; parametric meshes only."""
AnimationFormat = Literal["bvh", "usd"]
"""Written for clips only."""


@dataclasses.dataclass(frozen=True)
class SaveOptions:
    """The files to write."""

    formats: tuple[MeshFormat | AnimationFormat, ...] = ("obj", "ply", "glb")
    """Mesh formats. rigged-glb has a skeleton and skin weights. For clips, glb and usd contain the animated body, bvh
    contains its skeleton."""
    meshes: tuple[MeshKind, ...] = ("lixel", "param")
    """Meshes to write: the network's mesh (lixel), the body model's mesh (param)."""
    pictures: bool = True
    """Write drawings: overlay, side view, top view and joints."""
    shown: Annotated[ShownMesh, arg(name="show")] = "param"
    """Mesh to draw: the body model's (param) or the network's (lixel). Without body parameters, always lixel. With
    both, images get a second overlay, of the network's mesh."""
    max_side: int = 2048
    """Maximum longer side of the drawings, pixels; 0: no limit."""
    overwrite: bool = False
    """Replace existing results. Default: images that have results are skipped."""

    def __post_init__(self) -> None:
        if "rigged-glb" in self.formats and "param" not in self.meshes:
            raise InputError("rigged-glb needs the mesh param, which is not written", argument="formats")
        if self.max_side < 0:
            raise InputError(f"the minimum is 0, not {self.max_side}", argument="max_side")

    @property
    def drawn(self) -> MeshKind:
        """The mesh of all drawings except the second overlay of `both`."""
        return "lixel" if self.shown == "lixel" else "param"


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One person or hand of an image. Camera frame, metres; pixels of the upright image.

    box: (x, y, width, height). score: of the box. lixels: the network's mesh in bins. joints_image: 2D joints of the
    first stage, in the order of the body's skeleton. lixel_mesh: the lixels in space. root_depth: of the root joint
    along z. root_depth_source: whether the depth was solved from the mesh or given. params, parametric_mesh: of the
    body model; None for a network without parameters. reprojection_error: median and mean distance between the
    projected parametric mesh and the lixels inside the image and the crop, pixels. keypoints: (x, y, confidence), or
    None. confidence: mean of the keypoint confidences, or None. reliable: False if `confidence` is too low
    (`placing.CONFIDENCE_GATE`). hands: the hands that were found, if they were requested.
    """

    body: Body
    box: Float[Tensor, "4"]
    score: float
    camera: Camera
    crop: Crop
    lixels: Float[Tensor, "v 3"]
    joints_image: Float[Tensor, "j 2"]
    lixel_mesh: BodyMesh
    root_depth: float
    root_depth_source: Literal["solved", "given"]
    params: BodyParams | None = None
    parametric_mesh: BodyMesh | None = None
    reprojection_error: tuple[float, float] | None = None
    keypoints: Float[Tensor, "k 3"] | None = None
    confidence: float | None = None
    reliable: bool = True
    hands: Mapping[Side, "Prediction"] = dataclasses.field(default_factory=dict)

    def mirrored(self, width: int, body: Body) -> "Prediction":
        """The prediction for the mirror image of `width` pixels. Box and lixels do not change.

        body: the mirrored body.
        """

        def flipped(points: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
            return torch.cat([width - 1 - points[:, :1], points[:, 1:]], 1)

        return dataclasses.replace(
            self,
            body=body,
            camera=self.camera.mirrored(width),
            crop=self.crop.mirror(width),
            joints_image=flipped(self.joints_image),
            lixel_mesh=mirror_mesh(self.lixel_mesh),
            params=None if self.params is None else self.body.mirror(self.params),
            parametric_mesh=None if self.parametric_mesh is None else mirror_mesh(self.parametric_mesh),
            keypoints=None if self.keypoints is None else flipped(self.keypoints),
        )

    @property
    def faces(self) -> Int[Tensor, "f 3"]:
        """Triangles of the meshes, counter-clockwise seen from outside."""
        return self.body.faces

    @property
    def side(self) -> Side | None:
        """The side of a hand; None for a whole body."""
        if self.body.kind == "body":
            return None
        return "left" if bool(self.crop.mirrored) else "right"

    def surface(self, kind: MeshKind) -> Surface:
        """The network's mesh, or the parametric mesh in the body's full resolution.

        Raises InputError for the parametric mesh of a network without parameters.
        """
        return self._lixel_surface if kind == "lixel" else self._param_surface

    @functools.cached_property
    def _lixel_surface(self) -> Surface:
        return Surface(self.lixel_mesh.vertices.double().numpy(), self.faces.numpy())

    @functools.cached_property
    def _param_surface(self) -> Surface:
        if self.parametric_mesh is None:
            raise InputError("this network predicts no parametric mesh")
        vertices = self.parametric_mesh.vertices
        if not isinstance(self.body, AnnyBody):
            return Surface(vertices.double().numpy(), self.faces.numpy())
        full = self.body.full_mesh(vertices).double().numpy()
        uv, face_uv = self.body.full_uv.double().numpy(), self.body.full_face_uv.numpy()
        return Surface(full, self.body.full_faces.numpy(), uv, face_uv)

    def surfaces(self, kind: MeshKind) -> list[Surface]:
        """The meshes to draw: the body, then its hands. A hand in `hands` replaces the hand of the body's mesh.

        A network without parameters has only the lixel mesh.
        """
        if self.parametric_mesh is None:
            kind = "lixel"
        whole = self.surface(kind)
        if not self.hands:
            return [whole]
        hidden = np.zeros(len(whole.vertices), bool)
        for side in self.hands:
            hidden |= beyond_wrist(self.body, side, kind)
        kept = ~hidden[whole.faces].all(1)
        face_uv = None if whole.face_uv is None else whole.face_uv[kept]
        body = dataclasses.replace(whole, faces=whole.faces[kept], face_uv=face_uv)
        return [body, *(hand.surface(kind) for hand in self.hands.values())]

    def save(self, path: Path | str, kind: MeshKind = "lixel") -> Path:
        """Write one mesh as .obj, .ply or .glb and return its path. An existing file is replaced."""
        path = Path(path)
        write_surface(self.surface(kind), path)
        return path


def beyond_wrist(body: Body, side: Side, kind: MeshKind) -> Bool[np.ndarray, "v"]:
    """Which vertices of the body are its hand: beyond the wrist of the arm in the rest pose."""
    rest = body(body.rest_params())
    elbow, wrist = (rest.joints[body.skeleton.index(f"{side[0].upper()}_{joint}")] for joint in ("Elbow", "Wrist"))
    vertices = body.full_mesh(rest.vertices) if kind == "param" and isinstance(body, AnnyBody) else rest.vertices
    away, along = vertices - wrist, wrist - elbow
    return ((away @ along > 0) & (away.norm(dim=-1) < along.norm())).numpy()


@dataclasses.dataclass(frozen=True)
class PicturePrediction(Sequence[Prediction]):
    """The people of an image, a sequence of `Prediction` with the highest box score first.

    name: file name of the results. file: file name of the image; None for an image in memory. pixels: the upright RGB
    image. camera_source: "given", "exif" or "default". boxes_source: "detector", "given" or "whole picture"; for
    `HandPredictor` also "hand detector". network: facts about the network, for the record.
    """

    name: str
    file: str | None
    pixels: UInt8[np.ndarray, "h w 3"]
    camera: Camera
    camera_source: str
    boxes_source: str
    body: Body
    people: tuple[Prediction, ...]
    network: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.people)

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.people)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Prediction]: ...
    def __getitem__(self, index: int | slice) -> Prediction | Sequence[Prediction]:
        return self.people[index]

    @property
    def shown(self) -> list[int]:
        """Indices of the people to draw: the reliable people, or everybody if no person is reliable.

        An unreliable mesh may cover half the image.
        """
        return [i for i, person in enumerate(self.people) if person.reliable] or list(range(len(self.people)))

    def save(self, folder: Path | str, options: SaveOptions | None = None, name: str | None = None) -> list[Path]:
        """Write the results into `folder` and return their paths. name: of the results; default: `self.name`.

        The files are moved into the folder when all are complete, the .json file last: if it exists, the results are
        complete. Raises TakenError if results of that name exist (unless `options.overwrite`), FileError if the folder
        cannot be written.
        """
        return _files().write_results(self, Path(folder) / (name or self.name), options or SaveOptions())

    def arrays(self) -> dict[str, np.ndarray]:
        """The content of the .npz file; the first axis is the person (see docs/outputs.md)."""
        return _files().to_arrays(self)

    def record(self) -> dict[str, Any]:
        """The content of the .json file: everything except vertices (see docs/outputs.md)."""
        return _files().to_record(self)


def _files() -> ModuleType:
    """The module that writes these types. It is imported late because it imports this module."""
    from i2l_meshnet.prediction import result_files

    return result_files
