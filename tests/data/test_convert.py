"""The converters of 3DPW and SURREAL. Their files open as a dataset whose bodies match the joints of the release."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from scipy.spatial.transform import Rotation

from i2l_meshnet.bodies import Body, BodyParams, load_body
from i2l_meshnet.data.convert import Pw3dOptions, SurrealOptions, convert_pw3d, convert_surreal, pw3d
from i2l_meshnet.data.convert.surreal import CENTER, FOCAL, WORLD_TO_CAMERA
from i2l_meshnet.data.dataset import PersonDataset, collate
from i2l_meshnet.data.sources import open_source
from i2l_meshnet.data.sources.surreal import JOINTS
from i2l_meshnet.data.targets import TargetBuilder
from i2l_meshnet.errors import FileError
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def bodies(body_directory: Path) -> dict[str, Body]:
    return {name: load_body(name, body_directory) for name in ("smpl", "smpl-male", "smpl-female")}


def params(generator: np.random.Generator, *batch: int) -> BodyParams:
    pose = torch.from_numpy(generator.normal(0, 0.25, (*batch, 24, 3))).float()
    shape = torch.from_numpy(generator.normal(0, 1, (*batch, 10))).float()
    return BodyParams(axis_angle_to_matrix(pose), shape, torch.zeros(*batch, 3))


def write_sequence(release: Path, split: str, name: str, bodies: dict[str, Body]) -> dict[str, Any]:
    """A sequence of three frames and two people. The second one is not visible in frame 1."""
    generator = np.random.default_rng(len(name))
    data: dict[str, Any] = {
        "sequence": name,
        "genders": ["m", "f"],
        "cam_intrinsics": np.array([[900.0, 0, 150], [0, 905, 200], [0, 0, 1]]),
        "texture_maps": [np.zeros((2, 2, 3), np.uint8)],
    }
    extrinsics = np.tile(np.eye(4), (3, 1, 1))
    extrinsics[:, :3, :3] = Rotation.from_rotvec(generator.normal(0, 0.4, (3, 3))).as_matrix()
    extrinsics[:, :3, 3] = [0.1, 0.0, 4.0]
    data["cam_poses"] = extrinsics
    keys = ("betas", "poses", "trans", "jointPositions", "campose_valid", "poses2d")
    data |= {key: [] for key in keys}
    for body in (bodies["smpl-male"], bodies["smpl-female"]):
        fit = params(generator, 3)
        fit = dataclasses.replace(fit, shape=fit.shape[:1].expand(3, -1))
        trans = generator.normal(0, 0.1, (3, 3))
        moved = dataclasses.replace(fit, translation=torch.from_numpy(trans).float())
        data["betas"].append(np.concatenate([fit.shape[0].double().numpy(), np.zeros(290)]))
        data["poses"].append(matrix_to_axis_angle(fit.pose).flatten(-2).double().numpy())
        data["trans"].append(trans)
        data["jointPositions"].append(body(moved).joints[:, :24].flatten(-2).double().numpy())
        data["campose_valid"].append(np.array([1, int(body is bodies["smpl-male"]), 1]))
        data["poses2d"].append(np.zeros((3, 3, 18)))
    folder = release / "sequenceFiles" / split
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.pkl").write_bytes(pickle.dumps(data, protocol=2))
    pictures = release / "imageFiles" / name
    pictures.mkdir(parents=True)
    for frame in range(3):
        Image.new("RGB", (300, 400), (frame, 20, 30)).save(pictures / f"image_{frame:05d}.jpg")
    return data


def test_3dpw(tmp_path: Path, bodies: dict[str, Body]) -> None:
    release = tmp_path / "data" / "PW3D"
    for split in SPLITS:
        write_sequence(release, split, f"street_{split}", bodies)
    truth = write_sequence(release, "train", "a_walk", bodies)
    assert convert_pw3d(Pw3dOptions(release, tmp_path / "data")) == 0
    source = open_source("PW3D", tmp_path / "data", "train")
    assert len(source) == 10
    assert source.table.groups == ("a_walk", "street_train")
    np.testing.assert_array_equal(source.table.arrays["id"], np.arange(10))
    batch = collate([PersonDataset(source)[index] for index in range(len(source))])
    build = TargetBuilder([bodies[name] for name in source.table.bodies], LixelGrid(), source.table.skeleton)
    joints = build.meshes(batch)[2][:, :24].numpy()
    place = [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)]
    for row, (frame, person) in enumerate(place):
        camera = truth["cam_poses"][frame]
        world = truth["jointPositions"][person][frame].reshape(24, 3)
        expected = world @ camera[:3, :3].T + camera[:3, 3]
        np.testing.assert_allclose(joints[row], expected, atol=2e-5)  # m; float32
        assert float(batch.annotation.root_depth[row]) == pytest.approx(expected[0, 2], abs=1e-5)
    assert not list((tmp_path / "data" / "PW3D" / "data").glob(".*-parts"))


def test_an_interrupted_conversion_resumes(
    tmp_path: Path, bodies: dict[str, Body], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = tmp_path / "release"
    for name in ("a", "b"):
        write_sequence(release, "train", name, bodies)
    damaged = release / "sequenceFiles" / "train" / "b.pkl"
    whole = damaged.read_bytes()
    options = Pw3dOptions(release, tmp_path / "data")
    for content in (whole[:200], b"cos\nsystem\n(S'exit 1'\ntR."):
        damaged.write_bytes(content)
        with pytest.raises(FileError, match=r"b\.pkl"):
            convert_pw3d(options)
    damaged.write_bytes(whole)
    read: list[str] = []
    original = pw3d.read_body_file
    monkeypatch.setattr(pw3d, "read_body_file", lambda path: read.append(path.stem) or original(path))
    convert_pw3d(options)
    assert read == ["b"]


def test_a_missing_release_is_refused(tmp_path: Path, body_directory: Path) -> None:
    with pytest.raises(FileError):
        convert_pw3d(Pw3dOptions(tmp_path, tmp_path))
    with pytest.raises(FileError):
        convert_surreal(SurrealOptions(tmp_path, tmp_path, body_directory))


def write_clip(folder: Path, name: str, frames: int, body: Body, male: bool, packed: bool = False) -> np.ndarray:
    """A clip at 8 frames per second with mirrored parameters, as released. Returns its joints in the camera frame."""
    folder.mkdir(parents=True, exist_ok=True)
    video = cv2.VideoWriter(str(folder / f"{name}.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 8, (320, 240))
    for frame in range(frames):
        video.write(np.full((240, 320, 3), 10 * frame, np.uint8))
    video.release()
    generator = np.random.default_rng(frames)
    truth = params(generator, frames)
    posed = body(truth).joints[:, :24].double().numpy()
    rotation = Rotation.from_rotvec([2.9, 0.2, 0.1])
    camera = rotation.apply(posed.reshape(-1, 3)).reshape(posed.shape) + np.array([0.1, -0.2, 6])
    location = np.array([7.0, -1.0, 0.5])
    mirror = list(JOINTS.mirror_permutation)
    world = (camera @ WORLD_TO_CAMERA)[:, mirror] + location
    pixels = camera[..., :2] / camera[..., 2:] * FOCAL + CENTER
    released = body.mirror(truth)
    info = {
        "camLoc": location[:, None],
        "joints3D": world.transpose(2, 1, 0),
        "joints2D": pixels[:, mirror].transpose(2, 1, 0),
        "gender": np.full((frames, 1), int(male)),
        "pose": matrix_to_axis_angle(released.pose).flatten(-2).numpy().T,
        "shape": truth.shape.numpy().T,
    }
    savemat(folder / f"{name}_info.mat", info, do_compression=packed)
    return camera


def test_surreal(tmp_path: Path, bodies: dict[str, Body], body_directory: Path) -> None:
    release, root = tmp_path / "cmu", tmp_path / "data"
    camera = write_clip(release / "train" / "run0" / "01_01", "01_01_c0001", 17, bodies["smpl-male"], True)
    write_clip(release / "train" / "run0" / "01_01", "01_01_c0002", 1, bodies["smpl-male"], True)
    middle = write_clip(release / "val" / "run1" / "02_02", "02_02_c0001", 9, bodies["smpl-female"], False)
    write_clip(release / "val" / "run1" / "02_02", "02_02_c0002", 9, bodies["smpl-female"], False)
    listed = tmp_path / "clips"
    listed.write_text("/somewhere/run1/02_02/02_02_c0001.mp4\n")
    assert convert_surreal(SurrealOptions(release, root, body_directory, listed)) == 0
    for split, expected in (("train", camera[[0, 8, 16]]), ("val", middle[[4]])):
        source = open_source("SURREAL", root, split)
        assert len(source) == len(expected)
        batch = collate([PersonDataset(source)[index] for index in range(len(source))])
        own = [bodies[name] for name in source.table.bodies]
        joints = TargetBuilder(own, LixelGrid(), source.table.skeleton).meshes(batch)[2][:, :24].numpy()
        np.testing.assert_allclose(joints, expected, atol=2e-5)  # m; float32 at 6 m
        np.testing.assert_allclose(batch.annotation.joints_camera.numpy(), expected, atol=2e-5)
    pictures = sorted((root / "SURREAL" / "train").rglob("*.jpg"))
    assert [picture.name for picture in pictures] == [f"01_01_c0001_{frame:03d}.jpg" for frame in (0, 8, 16)]


def test_surreal_without_its_info_file(tmp_path: Path, bodies: dict[str, Body], body_directory: Path) -> None:
    write_clip(tmp_path / "train" / "run0" / "01_01", "clip", 3, bodies["smpl-male"], True)
    (tmp_path / "train" / "run0" / "01_01" / "clip_info.mat").unlink()
    with pytest.raises(FileError, match=r"clip_info\.mat"):
        convert_surreal(SurrealOptions(tmp_path, tmp_path / "data", body_directory))
