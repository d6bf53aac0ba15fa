"""Saved results of the toy body: a photo of two people, a clip of two."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from i2l_meshnet.bodies import BodyParams, load_body
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix
from i2l_meshnet.prediction.results import PicturePrediction, Prediction, SaveOptions
from i2l_meshnet.video.track import PersonTrack

CAMERA = Camera(torch.tensor([500.0, 500.0]), torch.tensor([159.5, 119.5]))


@pytest.fixture(scope="session")
def toy() -> Body:
    return load_body("toy")


def moving(body: Body, frames: int, seed: int) -> BodyParams:
    """A body upright before the camera that moves a little."""
    generator = torch.Generator().manual_seed(seed)
    ends = 0.4 * torch.randn(2, len(body.bones), 3, generator=generator)
    pose = axis_angle_to_matrix(torch.lerp(ends[0], ends[1], torch.linspace(0, 1, frames)[:, None, None]))
    pose[:, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0])) @ pose[:, 0]
    place = torch.tensor([seed - 0.5, 0.8, 4.0]) + torch.linspace(0, 0.3, frames)[:, None]
    return BodyParams(pose, torch.full((frames, 2), 0.2 * seed), place)


@pytest.fixture(scope="session")
def photo(toy: Body, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The .json of a photo's results; the photo lies beside it."""
    folder = tmp_path_factory.mktemp("photo")
    people = []
    for seed in range(2):
        params = moving(toy, 1, seed)[0]
        mesh = toy(params)
        box = torch.tensor([20.0, 20.0, 100.0, 200.0])
        people.append(
            Prediction(
                body=toy,
                box=box,
                score=0.9,
                camera=CAMERA,
                crop=Crop.around(box, (256, 192), margin=1.0),
                lixels=mesh.vertices * 3,
                joints_image=CAMERA.project(mesh.joints),
                lixel_mesh=toy(moving(toy, 1, seed + 5)[0]),
                root_depth=4.0,
                root_depth_source="solved",
                params=params,
                parametric_mesh=mesh,
            )
        )
    pixels = np.full((240, 320, 3), 120, np.uint8)
    picture = PicturePrediction("photo", "photo.jpg", pixels, CAMERA, "given", "given", toy, tuple(people))
    picture.save(folder, SaveOptions(formats=("rigged-glb",), pictures=False))
    return folder / "photo.json"


@pytest.fixture(scope="session")
def clip(toy: Body, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The .json of a clip's results: a person in frames 0 to 9, another one in 4 to 11; no lixel meshes."""
    folder = tmp_path_factory.mktemp("clip")
    people = []
    for seed, (first, frames) in enumerate([(0, 10), (4, 8)]):
        params = moving(toy, frames, seed)
        numbers = np.arange(first, first + frames)
        track = PersonTrack(
            body="toy",
            joint_names=toy.skeleton.joints,
            bone_names=toy.bones,
            shape_names=toy.shape_names,
            time=numbers / 25,
            frame=numbers,
            focal=CAMERA.focal.numpy(),
            center=CAMERA.center.numpy(),
            box=np.ones((frames, 4), np.float32),
            confidence=np.ones(frames, np.float32),
            bridged=np.zeros(frames, bool),
            joints=toy(params).joints.numpy(),
            pose=params.pose.numpy(),
            shape=params.shape[0].numpy(),
            translation=params.translation.numpy(),
        )
        track.save(folder / f"clip_person_{seed:02d}.npz")
        people.append({"files": {"arrays": {"npz": f"clip_person_{seed:02d}.npz"}}})
    record = {
        "format": "i2l-meshnet clip",
        "clip": {"file": "clip.mp4", "width": 320, "height": 240},
        "intrinsics": {"focal": [500.0, 500.0], "center": [159.5, 119.5]},
        "people": people,
    }
    (folder / "clip.json").write_text(json.dumps(record))
    return folder / "clip.json"
