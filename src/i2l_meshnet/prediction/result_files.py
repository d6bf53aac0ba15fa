"""The files of results, described in docs/outputs.md: meshes, drawings, arrays (.npz) and the record (.json)."""

import dataclasses
import functools
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from i2l_meshnet.animation import write_glb
from i2l_meshnet.bodies.base import Body, BodyParams
from i2l_meshnet.bodies.fingers import with_hands
from i2l_meshnet.geometry.rotations import matrix_to_axis_angle
from i2l_meshnet.io import write_bytes
from i2l_meshnet.pictures import encode_picture
from i2l_meshnet.prediction.mesh_files import ENCODERS
from i2l_meshnet.prediction.overlay import draw_joints, draw_overlay, draw_view, fit_to_side
from i2l_meshnet.prediction.results import PicturePrediction, Prediction, SaveOptions, Side
from i2l_meshnet.prediction.staging import record_of, staged

FORMAT_VERSION = 1
JPEG_QUALITY = 93
UNITS = {
    "lengths": "metres",
    "frame": "camera: x right, y down, z forward; .glb: x right, y up, z towards the viewer",
    "image": "pixels (x, y), integers at pixel centres; boxes x, y, width, height",
    "lixels": "bins (x, y, z) of the network's grid",
    "pose": "rotation of each bone against its parent, the first against the camera; radians where axis-angle",
}

_OF_THE_PICTURE = ("intrinsics", "image_size", "units", "versions")
"""Arrays that are the same for people and their hands."""


class _Files:
    """The files of one image that have been written. base: path and start of all names."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.names: list[str] = []

    def add(self, ending: str) -> Path:
        """The path of one more file."""
        self.names.append(self.base.name + ending)
        return self.base.with_name(self.names[-1])


def write_results(picture: PicturePrediction, base: Path, options: SaveOptions) -> list[Path]:
    """Writes all files of an image's results; see `PicturePrediction.save`. base: path and start of their names."""
    with staged(base, options.overwrite) as written:
        files, record = _Files(written), to_record(picture)
        record["files"] = {}
        if options.pictures and picture.people:
            for what, drawing in _drawings(picture, options).items():
                path = files.add(f"_{what}.jpg")
                path.write_bytes(encode_picture(drawing, path.suffix, JPEG_QUALITY))
                record["files"][what] = path.name
        for index, (person, entry) in enumerate(zip(picture.people, record["people"], strict=True)):
            entry["files"] = _write_meshes(files, f"_{index}", person, options)
            for side, hand in person.hands.items():
                entry["hands"][side]["files"] = _write_meshes(files, f"_{index}_{side}_hand", hand, options)
        path = files.add(".npz")
        with path.open("wb") as file:
            np.savez_compressed(file, **to_arrays(picture))  # pyright: ignore[reportArgumentType]
        record["files"]["arrays"] = path.name
        files.add(".json").write_bytes(_encoded(record))
    return [base.with_name(name) for name in files.names]


def _write_meshes(files: _Files, ending: str, found: Prediction, options: SaveOptions) -> dict[str, dict[str, str]]:
    """Writes the meshes of a person or hand; returns kind → format → name of the file."""
    names: dict[str, dict[str, str]] = {}
    for kind in options.meshes:
        if kind == "param" and found.parametric_mesh is None:
            continue
        names[kind] = {}
        for form in options.formats:
            if form == "rigged-glb" and kind == "param" and found.params is not None:
                path = files.add(f"{ending}_param_rigged.glb")
                write_glb(path, *_rigged(found, found.params), torch.zeros(1))
            elif f".{form}" in ENCODERS:
                path = files.add(f"{ending}_{kind}.{form}")
                path.write_bytes(ENCODERS[path.suffix](found.surface(kind)))
            else:
                continue
            names[kind][form] = path.name
    return names


def _rigged(person: Prediction, params: BodyParams) -> tuple[Body, BodyParams]:
    """Body and one pose of its rig, for Anny with the fingers of the hands that were found."""
    present = torch.ones(1, dtype=torch.bool)
    hands: dict[Side, tuple[str, Tensor, Tensor]] = {
        side: (hand.body.name, hand.params.pose[None], present)
        for side, hand in person.hands.items()
        if hand.params is not None
    }
    return with_hands(person.body, params[None], hands)


def _drawings(picture: PicturePrediction, options: SaveOptions) -> dict[str, UInt8[np.ndarray, "_ _ 3"]]:
    """Overlay, joints and views, by name."""
    photo, scale = fit_to_side(picture.pixels, options.max_side)
    people = [(number, picture.people[number]) for number in picture.shown]
    meshes = [(number, person.surfaces(options.shown)) for number, person in people]
    focal, center = picture.camera.focal.double().numpy(), picture.camera.center.double().numpy()
    camera = (focal * scale, (center + 0.5) * scale - 0.5)
    overlay = photo
    # Hands in front: the depth of a hand's mesh and of its body's may contradict each other.
    for part in (slice(0, 1), slice(1, None)):
        layer = [(number, surface) for number, surfaces in meshes for surface in surfaces[part]]
        if layer:
            overlay = draw_overlay(overlay, [s for _, s in layer], *camera, [number for number, _ in layer])

    def in_drawing(found: Prediction) -> Float[np.ndarray, "j 2"]:
        return (found.joints_image.double().numpy() + 0.5) * scale - 0.5

    joints = draw_joints(photo, [in_drawing(person) for _, person in people], picture.body.skeleton)
    for hand in [hand for _, person in people for hand in person.hands.values()]:
        joints = draw_joints(joints, [in_drawing(hand)], hand.body.skeleton)
    every = [surface for _, surfaces in meshes for surface in surfaces]
    numbers = [number for number, surfaces in meshes for _ in surfaces]
    side, top = draw_view(every, "side", numbers), draw_view(every, "top", numbers)
    return {"overlay": overlay, "joints": joints, "side": side, "top": top}


def to_arrays(picture: PicturePrediction) -> dict[str, np.ndarray]:
    """The content of the .npz file; see `PicturePrediction.arrays`."""
    joints, vertices = picture.body.joint_regressor.shape
    people = picture.people
    result: dict[str, np.ndarray] = {
        "box": _stacked([p.box for p in people], 4),
        "score": np.array([p.score for p in people], np.float32),
        "confidence": np.array([np.nan if p.confidence is None else p.confidence for p in people], np.float32),
        "reliable": np.array([p.reliable for p in people], bool),
        "intrinsics": torch.cat([picture.camera.focal, picture.camera.center]).float().numpy(),
        "image_size": np.array([picture.pixels.shape[1], picture.pixels.shape[0]], np.int64),
        "crop_affine": _stacked([p.crop.affine for p in people], 2, 3),
        "lixels": _stacked([p.lixels for p in people], vertices, 3),
        "root_depth": np.array([p.root_depth for p in people], np.float32),
        "joints_image": _stacked([p.joints_image for p in people], joints, 2),
        "lixel_vertices": _stacked([p.lixel_mesh.vertices for p in people], vertices, 3),
        "lixel_joints": _stacked([p.lixel_mesh.joints for p in people], joints, 3),
        "faces": picture.body.faces.numpy().astype(np.int64),
        "body": np.array([p.body.name for p in people], str),
        "joint_names": np.array(picture.body.skeleton.joints),
        "bone_names": np.array(picture.body.bones),
        "shape_names": np.array(picture.body.shape_names),
        "units": np.array(json.dumps(UNITS)),
        "versions": np.array(json.dumps(versions())),
    }
    if all(p.params is not None for p in people) if people else picture.network.get("parameters", True):
        params = [p.params for p in people if p.params is not None]
        meshes = [p.parametric_mesh for p in people if p.parametric_mesh is not None]
        bones = len(picture.body.bones)
        result |= {
            "param_vertices": _stacked([mesh.vertices for mesh in meshes], vertices, 3),
            "param_joints": _stacked([mesh.joints for mesh in meshes], joints, 3),
            "pose_matrix": _stacked([p.pose for p in params], bones, 3, 3),
            "pose_axis_angle": _stacked([matrix_to_axis_angle(p.pose) for p in params], bones, 3),
            "shape": _stacked([p.shape for p in params], len(picture.body.shape_names)),
            "translation": _stacked([p.translation for p in params], 3),
            "reprojection_error": np.array(
                [p.reprojection_error or (np.nan, np.nan) for p in people], np.float32
            ).reshape(-1, 2),
        }
    keypoints = [p.keypoints for p in people if p.keypoints is not None]
    if keypoints and len(keypoints) == len(people):
        result["keypoints"] = _stacked(keypoints, *keypoints[0].shape)
    if picture.body.kind != "body":
        result["side"] = np.array([p.side for p in people], "<U5")
    hands = [(index, hand) for index, person in enumerate(people) for hand in person.hands.values()]
    if hands:
        found = dataclasses.replace(picture, body=hands[0][1].body, people=tuple(hand for _, hand in hands))
        rows = {key: value for key, value in to_arrays(found).items() if key not in _OF_THE_PICTURE}
        result |= {f"hand_{key}": value for key, value in rows.items()}
        result["hand_person"] = np.array([index for index, _ in hands], np.int64)
    return result


def to_record(picture: PicturePrediction) -> dict[str, Any]:
    """The content of the .json file but for the names of files; see `PicturePrediction.record`."""
    return {
        "format": "i2l-meshnet prediction",
        "format_version": FORMAT_VERSION,
        "picture": {"file": picture.file, "width": picture.pixels.shape[1], "height": picture.pixels.shape[0]},
        "intrinsics": {
            "focal": _rounded(picture.camera.focal),
            "center": _rounded(picture.camera.center),
            "source": picture.camera_source,
        },
        "boxes_source": picture.boxes_source,
        "network": picture.network,
        "body": body_facts(picture.body),
        "units": UNITS,
        "versions": versions(),
        "people": [_person_record(person) for person in picture.people],
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
