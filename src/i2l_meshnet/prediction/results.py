"""What a prediction is, and the files that it is written to (described in docs/outputs.md)."""

import dataclasses
import functools
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from i2l_meshnet.animation import write_glb
from i2l_meshnet.bodies.base import Body, BodyMesh, BodyParams, HasFullMesh
from i2l_meshnet.bodies.fingers import with_hands
from i2l_meshnet.bodies.mirrored import mirror_mesh
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop
from i2l_meshnet.geometry.rotations import matrix_to_axis_angle
from i2l_meshnet.io import write_bytes
from i2l_meshnet.pictures import encode_picture
from i2l_meshnet.prediction.export import ENCODERS, Surface, write_surface
from i2l_meshnet.prediction.overlay import draw_joints, draw_overlay, draw_view, fit_to_side
from i2l_meshnet.prediction.staging import record_of, staged

FORMAT_VERSION = 1
MeshKind = Literal["lixel", "param"]
Side = Literal["left", "right"]
MeshFormat = Literal["obj", "ply", "glb", "rigged-glb"]
"""rigged-glb: with the body's skeleton and skin weights, in the pose of the picture; of the parametric mesh only."""
UNITS = {
    "lengths": "metres",
    "frame": "camera: x right, y down, z forward; .glb: x right, y up, z towards the viewer",
    "image": "pixels (x, y), integers at pixel centres; boxes x, y, width, height",
    "lixels": "bins (x, y, z) of the network's grid",
    "pose": "rotation of each bone against its parent, the first against the camera; radians where axis-angle",
}


_OF_THE_PICTURE = ("intrinsics", "image_size", "units", "versions")
"""Arrays that are the same for people and their hands."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One person of one picture. Camera frame, metres; pixels of the picture, upright.

    box: (x, y, width, height). score: of the box. confidence: mean of the pose net's keypoint confidences, None if
    it has none. reliable: False where that mean is below the gate. lixels: the network's mesh. joints_image: 2D
    joints of the pose stage, in the order of the body's skeleton. keypoints: (x, y, confidence), or None.
    root_depth: distance of the root along z, and whether it was solved or given. lixel_mesh: the lixels in space.
    params, parametric_mesh: the body model's, None for a network without parameters. reprojection_error: median and
    mean distance between the projected parametric mesh and the lixels within the picture and crop, pixels. hands:
    those that are seen, of a network that was asked for them; each a prediction of a hand's body.
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
        """The same, turned back from the mirror image of a picture of `width` pixels; box and lixels are left alone.

        body: the mirror image of this one's.
        """

        def turned(points: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
            return torch.cat([width - 1 - points[:, :1], points[:, 1:]], 1)

        return dataclasses.replace(
            self,
            body=body,
            camera=self.camera.mirrored(width),
            crop=self.crop.mirror(width),
            joints_image=turned(self.joints_image),
            lixel_mesh=mirror_mesh(self.lixel_mesh),
            params=None if self.params is None else self.body.mirror(self.params),
            parametric_mesh=None if self.parametric_mesh is None else mirror_mesh(self.parametric_mesh),
            keypoints=None if self.keypoints is None else turned(self.keypoints),
        )

    @property
    def faces(self) -> Int[Tensor, "f 3"]:
        """Triangles of the meshes, counter-clockwise seen from outside."""
        return self.body.faces

    def surface(self, kind: MeshKind) -> Surface:
        """The lixel mesh as the network gives it, or the parametric mesh, full-resolution where the body has that.

        Raises InputError for the parametric mesh of a network without parameters.
        """
        if kind == "lixel":
            return Surface(self.lixel_mesh.vertices.double().numpy(), self.faces.numpy())
        if self.parametric_mesh is None:
            raise InputError("this network predicts no body parameters, so there is no parametric mesh")
        vertices = self.parametric_mesh.vertices
        if isinstance(self.body, HasFullMesh):
            full = self.body.full_mesh(vertices).double().numpy()
            uv, face_uv = self.body.full_uv.double().numpy(), self.body.full_face_uv.numpy()
            return Surface(full, self.body.full_faces.numpy(), uv, face_uv)
        return Surface(vertices.double().numpy(), self.faces.numpy())

    @property
    def side(self) -> Side | None:
        """Of a hand; None for a whole body."""
        if self.body.skeleton.root != "Wrist":
            return None
        return "left" if bool(self.crop.mirrored) else "right"

    def surfaces(self, kind: MeshKind, made: "Surfaces | None" = None) -> list[Surface]:
        """What is drawn: the mesh without its own hands where others were found, then those.

        Of a network without parameters it is always the lixel mesh. made: the surfaces that there are already.
        """
        made = made or Surfaces()
        if self.parametric_mesh is None:
            kind = "lixel"
        whole = made.of(self, kind)
        if not self.hands:
            return [whole]
        held = np.zeros(len(whole.vertices), bool)
        for side in self.hands:
            held |= beyond_wrist(self.body, side, kind)
        whole = dataclasses.replace(
            whole,
            faces=whole.faces[~held[whole.faces].all(1)],
            face_uv=None if whole.face_uv is None else whole.face_uv[~held[whole.faces].all(1)],
        )
        return [whole, *(made.of(hand, kind) for hand in self.hands.values())]

    def save(self, path: Path | str, kind: MeshKind = "lixel") -> Path:
        """Writes one mesh as .obj, .ply or .glb and returns its path. Replaces a file."""
        path = Path(path)
        write_surface(self.surface(kind), path)
        return path


class Surfaces:
    """The surfaces of several meshes, each made once."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, MeshKind], tuple[Prediction, Surface]] = {}

    def of(self, mesh: Prediction, kind: MeshKind) -> Surface:
        """`mesh.surface(kind)`."""
        key = (id(mesh), kind)
        if key not in self._made:
            self._made[key] = (mesh, mesh.surface(kind))
        return self._made[key][1]


@dataclasses.dataclass(frozen=True)
class SaveOptions:
    """What is written for a picture.

    formats: of the meshes. meshes: which of them. pictures: whether overlay, views and joints are drawn.
    shown: which mesh they show (`Prediction.surfaces`). max_side: longer side of the drawn pictures, pixels; 0 keeps
    the photo's. overwrite: whether results that are there already are replaced.
    """

    formats: tuple[MeshFormat, ...] = ("obj", "ply", "glb")
    meshes: tuple[MeshKind, ...] = ("lixel", "param")
    pictures: bool = True
    shown: MeshKind = "param"
    max_side: int = 2048
    overwrite: bool = False


@dataclasses.dataclass(frozen=True)
class PicturePrediction(Sequence[Prediction]):
    """The people of one picture, best box first: a sequence of `Prediction`.

    name: what results are named after. file: the picture's file name, None if it came from memory. pixels: the
    upright RGB picture. camera_source: "given", "exif" or "default". boxes_source: "detector", "given" or "whole
    picture". network: facts about the network, for the record.
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
        """Numbers of the people who are drawn: the reliable ones, or all if there are none.

        A mesh that is only a guess may cover half the picture; it is drawn only if there is nothing better.
        """
        return [i for i, person in enumerate(self.people) if person.reliable] or list(range(len(self.people)))

    def save(self, folder: Path | str, options: SaveOptions | None = None, name: str | None = None) -> list[Path]:
        """Writes the results into `folder` under `name` (this picture's own if None) and returns their paths.

        All appear when all are written, the .json file last: where it is, the results are whole. Raises TakenError if
        results of that name are there already (unless `options.overwrite`), FileError if the folder cannot be written.
        """
        options = options or SaveOptions()
        base = Path(folder) / (name or self.name)
        names = self._file_names(options)
        with staged(base, options.overwrite) as written:
            self._write(written, names, options)
        endings = [*names["pictures"].values(), *_mesh_names(names), names["arrays"], ".json"]
        return [_beside(base, ending) for ending in endings]

    def _write(self, base: Path, names: dict[str, Any], options: SaveOptions) -> None:
        surfaces = Surfaces()
        if options.pictures:
            self._draw(base, names["pictures"], options, surfaces)
        hands = [hand for person in self.people for hand in person.hands.values()]
        hand_files = [files for sides in names["hands"] for files in sides.values()]
        for mesh, files in zip([*self.people, *hands], [*names["people"], *hand_files], strict=True):
            for kind, by_format in files.items():
                for form, ending in by_format.items():
                    if form != "rigged-glb":
                        _beside(base, ending).write_bytes(ENCODERS[f".{form}"](surfaces.of(mesh, kind)))
                    elif mesh.params is not None:
                        write_glb(_beside(base, ending), *_rigged(mesh, mesh.params), torch.zeros(1))
        with _beside(base, names["arrays"]).open("wb") as file:
            np.savez_compressed(file, **self.arrays())  # pyright: ignore[reportArgumentType]
        record = self.record()
        for person, files, sides in zip(record["people"], names["people"], names["hands"], strict=True):
            for target, endings in [(person, files), *((person["hands"][side], sides[side]) for side in sides)]:
                target["files"] = {
                    kind: {form: base.name + ending for form, ending in by_format.items()}
                    for kind, by_format in endings.items()
                }
        record["files"] = {what: base.name + ending for what, ending in names["pictures"].items()}
        record["files"]["arrays"] = base.name + names["arrays"]
        record_of(base).write_bytes(_encoded(record))

    def _file_names(self, options: SaveOptions) -> dict[str, Any]:
        """Endings of all files that `save` writes, beside the .json."""

        def meshes(found: Prediction, start: str) -> dict[str, dict[str, str]]:
            kinds = [kind for kind in options.meshes if kind == "lixel" or found.parametric_mesh is not None]
            return {
                kind: {
                    form: f"{start}_{kind}{'_rigged.glb' if form == 'rigged-glb' else f'.{form}'}"
                    for form in options.formats
                    if form != "rigged-glb" or kind == "param"
                }
                for kind in kinds
            }

        people = [meshes(person, f"_{index}") for index, person in enumerate(self.people)]
        hands = [
            {side: meshes(hand, f"_{index}_{side}_hand") for side, hand in person.hands.items()}
            for index, person in enumerate(self.people)
        ]
        shown = ("overlay", "joints", "side", "top") if options.pictures and self.people else ()
        return {
            "pictures": {what: f"_{what}.jpg" for what in shown},
            "people": people,
            "hands": hands,
            "arrays": ".npz",
        }

    def _draw(self, base: Path, names: dict[str, str], options: SaveOptions, made: Surfaces) -> None:
        if not self.people:
            return
        photo, scale = fit_to_side(self.pixels, options.max_side)
        chosen = self.shown
        drawn_people = [self.people[i].surfaces(options.shown, made) for i in chosen]
        surfaces = [surface for person in drawn_people for surface in person]
        numbers = [i for i, person in zip(chosen, drawn_people, strict=True) for _ in person]
        joints = [(self.people[i].joints_image.double().numpy() + 0.5) * scale - 0.5 for i in chosen]
        focal, center = self.camera.focal.double().numpy(), self.camera.center.double().numpy()
        # Hands that were seen are not hidden by their own body, whatever their meshes' depths say.
        overlay, seen = photo, (focal * scale, (center + 0.5) * scale - 0.5)
        for part in (slice(0, 1), slice(1, None)):
            layer = [surface for person in drawn_people for surface in person[part]]
            who = [i for i, person in zip(chosen, drawn_people, strict=True) for _ in person[part]]
            overlay = draw_overlay(overlay, layer, *seen, who) if layer else overlay
        with_joints = draw_joints(photo, joints, self.body.skeleton)
        for hand in [hand for i in chosen for hand in self.people[i].hands.values()]:
            places = (hand.joints_image.double().numpy() + 0.5) * scale - 0.5
            with_joints = draw_joints(with_joints, [places], hand.body.skeleton)
        drawn = {
            "overlay": overlay,
            "side": draw_view(surfaces, "side", numbers),
            "top": draw_view(surfaces, "top", numbers),
            "joints": with_joints,
        }
        for what, ending in names.items():
            _beside(base, ending).write_bytes(encode_picture(drawn[what], Path(ending).suffix, 93))

    def arrays(self) -> dict[str, np.ndarray]:
        """The content of the .npz file: people along the first axis (see docs/outputs.md)."""
        joints, vertices = self.body.joint_regressor.shape
        people = self.people
        result: dict[str, np.ndarray] = {
            "box": _stacked([p.box for p in people], 4),
            "score": np.array([p.score for p in people], np.float32),
            "confidence": np.array([np.nan if p.confidence is None else p.confidence for p in people], np.float32),
            "reliable": np.array([p.reliable for p in people], bool),
            "intrinsics": torch.cat([self.camera.focal, self.camera.center]).float().numpy(),
            "image_size": np.array([self.pixels.shape[1], self.pixels.shape[0]], np.int64),
            "crop_affine": _stacked([p.crop.affine for p in people], 2, 3),
            "lixels": _stacked([p.lixels for p in people], vertices, 3),
            "root_depth": np.array([p.root_depth for p in people], np.float32),
            "joints_image": _stacked([p.joints_image for p in people], joints, 2),
            "lixel_vertices": _stacked([p.lixel_mesh.vertices for p in people], vertices, 3),
            "lixel_joints": _stacked([p.lixel_mesh.joints for p in people], joints, 3),
            "faces": self.body.faces.numpy().astype(np.int64),
            "body": np.array([p.body.name for p in people], str),
            "joint_names": np.array(self.body.skeleton.joints),
            "bone_names": np.array(self.body.bones),
            "shape_names": np.array(self.body.shape_names),
            "units": np.array(json.dumps(UNITS)),
            "versions": np.array(json.dumps(versions())),
        }
        if all(p.params is not None for p in people) if people else self.network.get("parameters", True):
            params = [p.params for p in people if p.params is not None]
            meshes = [p.parametric_mesh for p in people if p.parametric_mesh is not None]
            bones = len(self.body.bones)
            result |= {
                "param_vertices": _stacked([mesh.vertices for mesh in meshes], vertices, 3),
                "param_joints": _stacked([mesh.joints for mesh in meshes], joints, 3),
                "pose_matrix": _stacked([p.pose for p in params], bones, 3, 3),
                "pose_axis_angle": _stacked([matrix_to_axis_angle(p.pose) for p in params], bones, 3),
                "shape": _stacked([p.shape for p in params], len(self.body.shape_names)),
                "translation": _stacked([p.translation for p in params], 3),
                "reprojection_error": np.array(
                    [p.reprojection_error or (np.nan, np.nan) for p in people], np.float32
                ).reshape(-1, 2),
            }
        keypoints = [p.keypoints for p in people if p.keypoints is not None]
        if keypoints and len(keypoints) == len(people):
            result["keypoints"] = _stacked(keypoints, *keypoints[0].shape)
        if self.body.skeleton.root == "Wrist":
            result["side"] = np.array([p.side for p in people], "<U5")
        hands = [(index, hand) for index, person in enumerate(people) for hand in person.hands.values()]
        if hands:
            found = dataclasses.replace(self, body=hands[0][1].body, people=tuple(hand for _, hand in hands))
            rows = {key: value for key, value in found.arrays().items() if key not in _OF_THE_PICTURE}
            result |= {f"hand_{key}": value for key, value in rows.items()}
            result["hand_person"] = np.array([index for index, _ in hands], np.int64)
        return result

    def record(self) -> dict[str, Any]:
        """The content of the .json file: everything but the meshes' vertices (see docs/outputs.md)."""
        return {
            "format": "i2l-meshnet prediction",
            "format_version": FORMAT_VERSION,
            "picture": {"file": self.file, "width": self.pixels.shape[1], "height": self.pixels.shape[0]},
            "intrinsics": {
                "focal": _rounded(self.camera.focal),
                "center": _rounded(self.camera.center),
                "source": self.camera_source,
            },
            "boxes_source": self.boxes_source,
            "network": self.network,
            "body": body_facts(self.body),
            "units": UNITS,
            "versions": versions(),
            "people": [_person_record(person) for person in self.people],
        }


def body_facts(body: Body) -> dict[str, Any]:
    """What a reader of results must know of the body: names of joints, bones and shape values, licence, sizes."""
    return {
        "name": body.name,
        "licence": body.licence,
        "joint_names": list(body.skeleton.joints),
        "bone_names": list(body.bones),
        "shape_names": list(body.shape_names),
        "root": body.skeleton.root,
        "vertices": body.joint_regressor.shape[1],
        "faces": len(body.faces),
    }


def _person_record(person: Prediction) -> dict[str, Any]:
    record: dict[str, Any] = {
        "box": _rounded(person.box),
        "score": round(person.score, 4),
        "confidence": None if person.confidence is None else round(person.confidence, 4),
        "reliable": person.reliable,
        "root_depth": round(person.root_depth, 6),
        "root_depth_source": person.root_depth_source,
        "reprojection_error": None,
        "crop_affine": person.crop.affine.double().tolist(),
        "joints_image": _rounded(person.joints_image),
        "lixel_joints": _rounded(person.lixel_mesh.joints),
        "keypoints": None if person.keypoints is None else _rounded(person.keypoints),
    }
    if person.reprojection_error is not None:
        median, mean = person.reprojection_error
        record["reprojection_error"] = {"median": round(median, 3), "mean": round(mean, 3)}
    if person.params is not None and person.parametric_mesh is not None:
        record |= {
            "param_joints": _rounded(person.parametric_mesh.joints),
            "pose_axis_angle": _rounded(matrix_to_axis_angle(person.params.pose)),
            "pose_matrix": _rounded(person.params.pose),
            "shape": _rounded(person.params.shape),
            "translation": _rounded(person.params.translation),
        }
    if person.side is not None:
        record["side"] = person.side
    record["hands"] = {side: _person_record(hand) for side, hand in person.hands.items()}
    return record


def beyond_wrist(body: Body, side: Side, kind: MeshKind) -> Bool[np.ndarray, "v"]:
    """Vertices of the body's own hand, told by the arm at rest: what lies beyond the wrist."""
    rest = body(body.rest_params())
    elbow, wrist = (rest.joints[body.skeleton.index(f"{side[0].upper()}_{joint}")] for joint in ("Elbow", "Wrist"))
    vertices = body.full_mesh(rest.vertices) if kind == "param" and isinstance(body, HasFullMesh) else rest.vertices
    away, along = vertices - wrist, wrist - elbow
    return ((away @ along > 0) & (away.norm(dim=-1) < along.norm())).numpy()


def _rigged(person: Prediction, params: BodyParams) -> tuple[Body, BodyParams]:
    """Body and one pose of its rig: with the fingers of the hands that were seen, where the body is Anny's."""
    there = torch.ones(1, dtype=torch.bool)
    hands: dict[Side, tuple[str, Tensor, Tensor]] = {
        side: (hand.body.name, hand.params.pose[None], there)
        for side, hand in person.hands.items()
        if hand.params is not None
    }
    return with_hands(person.body, params[None], hands)


def _mesh_names(names: dict[str, Any]) -> list[str]:
    every = [*names["people"], *(files for sides in names["hands"] for files in sides.values())]
    return [ending for files in every for by_format in files.values() for ending in by_format.values()]


def _beside(base: Path, ending: str) -> Path:
    return base.with_name(base.name + ending)


def write_record(base: Path, record: dict[str, Any]) -> None:
    """Writes the .json file of results."""
    write_bytes(record_of(base), _encoded(record))


def _encoded(record: dict[str, Any]) -> bytes:
    """JSON with a line for each entry, and for each person: indenting every number takes Python ten times as long."""

    def text(value: object) -> str:
        return json.dumps(value, allow_nan=False)

    def lines(values: Sequence[str], ends: str) -> str:
        return ends[0] + ",".join(f"\n{value}" for value in values) + f"\n{ends[1]}" if values else ends

    entries = []
    for name, value in record.items():
        shown = lines([text(one) for one in value], "[]") if name == "people" else text(value)
        entries.append(f"{text(name)}: {shown}")
    return (lines(entries, "{}") + "\n").encode()


def _stacked(items: list[Tensor], *shape: int) -> np.ndarray:
    if not items:
        return np.zeros((0, *shape), np.float32)
    return torch.stack(items).float().numpy()


def _rounded(tensor: Tensor) -> list[Any]:
    return np.round(tensor.double().numpy(), 6).tolist()


@functools.cache  # reading a package's metadata takes a millisecond
def versions() -> Mapping[str, str]:
    """Of the software, for the record."""
    return {
        "i2l-meshnet": version("i2l-meshnet"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
