"""Writes the files of results (see docs/outputs.md): meshes, drawings, arrays (.npz) and the record (.json)."""

import dataclasses
import functools
import json
import platform
from collections.abc import Callable, Mapping, Sequence
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
from i2l_meshnet.prediction.mesh_files import ENCODERS, Surface
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
    "pose": "rotation of each bone relative to its parent, of the root relative to the camera; axis-angle in radians",
}

_OF_THE_PICTURE = ("intrinsics", "image_size", "units", "versions")
"""Arrays of the whole image."""


def write_results(picture: PicturePrediction, base: Path, options: SaveOptions) -> list[Path]:
    """Write the files of an image; see `PicturePrediction.save`. base: folder, and start of all file names."""
    names: list[str] = []
    with staged(base, options.overwrite) as written:

        def new_file(ending: str) -> Path:
            names.append(written.name + ending)
            return written.with_name(names[-1])

        record = to_record(picture)
        record["files"] = {}
        if options.pictures and picture.people:
            for drawing, pixels in _drawings(picture, options).items():
                path = new_file(f"_{drawing}.jpg")
                path.write_bytes(encode_picture(pixels, path.suffix, JPEG_QUALITY))
                record["files"][drawing] = path.name
        for index, (person, entry) in enumerate(zip(picture.people, record["people"], strict=True)):
            entry["files"] = _write_meshes(new_file, f"_{index}", person, options)
            for side, hand in person.hands.items():
                entry["hands"][side]["files"] = _write_meshes(new_file, f"_{index}_{side}_hand", hand, options)
        path = new_file(".npz")
        with path.open("wb") as file:
            np.savez_compressed(file, **to_arrays(picture))  # pyright: ignore[reportArgumentType]
        record["files"]["arrays"] = path.name
        new_file(".json").write_bytes(_encoded(record))
    return [base.with_name(name) for name in names]


def _write_meshes(
    new_file: Callable[[str], Path], start: str, found: Prediction, options: SaveOptions
) -> dict[str, dict[str, str]]:
    """Write the meshes of a person or hand. Returns kind → format → file name. start: of the names' endings."""
    names: dict[str, dict[str, str]] = {}
    for kind in options.meshes:
        if kind == "param" and found.parametric_mesh is None:
            continue
        names[kind] = {}
        for form in options.formats:
            if form == "rigged-glb" and kind == "param" and found.params is not None:
                path = new_file(f"{start}_param_rigged.glb")
                write_glb(path, *_rigged(found, found.params), torch.zeros(1))
            elif f".{form}" in ENCODERS:
                path = new_file(f"{start}_{kind}.{form}")
                path.write_bytes(ENCODERS[path.suffix](found.surface(kind)))
            else:
                continue
            names[kind][form] = path.name
    return names


def _rigged(person: Prediction, params: BodyParams) -> tuple[Body, BodyParams]:
    """The body and one pose of its rig. Anny's fingers get the pose of the hands that were found."""
    present = torch.ones(1, dtype=torch.bool)
    hands: dict[Side, tuple[str, Tensor, Tensor]] = {
        side: (hand.body.name, hand.params.pose[None], present)
        for side, hand in person.hands.items()
        if hand.params is not None
    }
    return with_hands(person.body, params[None], hands)


def _drawings(picture: PicturePrediction, options: SaveOptions) -> dict[str, UInt8[np.ndarray, "_ _ 3"]]:
    """Name → drawing: overlay, joints and two views; with both meshes shown, also the overlay of the lixel meshes."""
    photo, scale = fit_to_side(picture.pixels, options.max_side)
    people = [(number, picture.people[number]) for number in picture.shown]
    meshes = [(number, person.surfaces(options.drawn)) for number, person in people]
    focal, center = picture.camera.focal.double().numpy(), picture.camera.center.double().numpy()
    camera = (focal * scale, (center + 0.5) * scale - 0.5)
    overlays = {"overlay": meshes}
    if options.shown == "both" and any(person.parametric_mesh is not None for _, person in people):
        overlays["overlay_lixel"] = [(number, person.surfaces("lixel")) for number, person in people]
    drawings = {name: _overlay(photo, shown, camera) for name, shown in overlays.items()}

    joints = photo
    found = [person for _, person in people]
    for group in (found, [hand for person in found for hand in person.hands.values()]):
        flat = [(one.joints_image.double().numpy() + 0.5) * scale - 0.5 for one in group]
        joints = draw_joints(joints, flat, group[0].body.skeleton) if group else joints
    surfaces = [surface for _, own in meshes for surface in own]
    numbers = [number for number, own in meshes for _ in own]
    side, top = draw_view(surfaces, "side", numbers), draw_view(surfaces, "top", numbers)
    return {**drawings, "joints": joints, "side": side, "top": top}


def _overlay(
    photo: UInt8[np.ndarray, "h w 3"],
    meshes: Sequence[tuple[int, list[Surface]]],
    camera: tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]],
) -> UInt8[np.ndarray, "h w 3"]:
    """The photo with meshes. meshes: number of a person, and the surfaces of body and hands. camera: focal, center."""
    # Hands are drawn last: the depths of a hand's mesh and the body's mesh may contradict each other.
    for part in (slice(0, 1), slice(1, None)):
        layer = [(number, surface) for number, own in meshes for surface in own[part]]
        if layer:
            photo = draw_overlay(photo, [s for _, s in layer], *camera, [number for number, _ in layer])
    return photo


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
    """The content of the .json file without file names; see `PicturePrediction.record`."""
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
    """The body's entry in the record: names of joints, bones and shape values, licence, sizes."""
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
    """Write the .json file of results."""
    write_bytes(record_of(base), _encoded(record))


def _encoded(record: dict[str, Any]) -> bytes:
    """JSON with one line per entry and per person. Indenting every number would take ten times as long."""

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
    """The versions of the software, for the record."""
    return {
        "i2l-meshnet": version("i2l-meshnet"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
