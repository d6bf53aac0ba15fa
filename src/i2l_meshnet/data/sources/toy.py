"""Images of the toy body with exact ground truth: a dataset for tests and for trying out a training."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet.bodies.base import BodyParams
from i2l_meshnet.bodies.toy import make_toy
from i2l_meshnet.data.annotation import Fit, PersonRow, TableBuilder
from i2l_meshnet.data.sources.base import Source
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import box_from_points
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from i2l_meshnet.pictures import write_picture
from i2l_meshnet.rendering.shading import render_meshes

TOY = "Toy"
"""Name of the dataset, and of its folder in the data root."""
SEEDS = {"train": 0, "test": 1}
"""Split → seed of its people."""
TEST_PICTURES = 32
"""Number of images of the test split."""
SIDE, FOCAL = 128, 150.0
"""Width and height of the pictures and their camera's focal length, pixels."""
POSE_SPREAD = 0.3
HEADING_SPREAD = 0.7
"""Standard deviations of the bones' angles and of the rotation about the vertical, radians."""


def open_toy(root: Path, split: str, pictures: int = TEST_PICTURES) -> Source:
    """A split of the toy dataset in the data root. pictures: number of training images, which also limits the test
    images. Raises InputError for an unknown split, FileError if the folder cannot be written.
    """
    if split not in SEEDS:
        raise InputError(f"{TOY} has the splits {', '.join(SEEDS)}, not {split!r}")
    count = pictures if split == "train" else min(pictures, TEST_PICTURES)
    return dataclasses.replace(toy_source(root / TOY, count, SEEDS[split]), split=split)


def toy_source(folder: Path, count: int, seed: int = 0) -> Source:
    """`count` images of one toy person each, with random pose, shape and position.

    Missing images are drawn into `folder`. The annotations are always computed from `seed`. Raises FileError if the
    folder cannot be written.
    """
    body = make_toy()
    params = _draw(count, seed)
    with torch.no_grad():
        mesh = body(params)
    camera = Camera(torch.full((2,), FOCAL), torch.full((2,), (SIDE - 1) / 2))
    pixels = camera.project(mesh.joints)
    rows = TableBuilder(body.skeleton, (body.name,), len(body.bones), len(body.shape_names), trusted_fits=True)
    pose = matrix_to_axis_angle(params.pose).flatten(1)
    for i in range(count):
        # The people of another count are other people.
        name = f"toy-{seed}-{count}-{i:04d}.png"
        if not (folder / name).exists():
            _render(folder / name, mesh.vertices[i].numpy(), body.faces.numpy(), i)
        rows.add(
            PersonRow(
                where=str(folder),
                id=i,
                path=name,
                size=(SIDE, SIDE),
                box=box_from_points(pixels[i], torch.ones(len(body.skeleton), dtype=torch.bool)).tolist(),
                focal=(FOCAL, FOCAL),
                center=camera.center.tolist(),
                joints_image=pixels[i].numpy(),
                joints_camera=mesh.joints[i].numpy(),
                fit=Fit(pose[i].tolist(), params.shape[i].tolist(), params.translation[i].tolist(), body.name),
            )
        )
    return Source(TOY, f"seed {seed}", folder, rows.build(folder), three_d=True)


def _draw(count: int, seed: int) -> BodyParams:
    """Upright people, 3.5 to 4.5 m in front of the camera."""
    generator = torch.Generator().manual_seed(seed)
    bones = len(make_toy().bones)
    pose = axis_angle_to_matrix(POSE_SPREAD * torch.randn(count, bones, 3, generator=generator))
    # The toy's y points up and its z to the front. The camera's y points down and its z away.
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    heading = _about_y(HEADING_SPREAD * torch.randn(count, generator=generator))
    pose = torch.cat([(facing @ heading @ pose[:, 0])[:, None], pose[:, 1:]], 1)
    shape = torch.randn(count, 2, generator=generator)
    offset = torch.rand(count, 3, generator=generator) - 0.5
    # A body rotates about its root joint, 0.95 m above its origin.
    translation = offset * torch.tensor([1.0, 0.4, 1.0]) + torch.tensor([0.0, -0.95, 4.0])
    return BodyParams(pose, shape, translation)


def _about_y(angle: Float[Tensor, "n"]) -> Float[Tensor, "n 3 3"]:
    axis = torch.stack([torch.zeros_like(angle), angle, torch.zeros_like(angle)], -1)
    return axis_angle_to_matrix(axis)


def _render(path: Path, vertices: np.ndarray, faces: np.ndarray, number: int) -> None:
    """Draw a figure, whose vertices have different colours, on a plain background."""
    generator = np.random.default_rng(number)
    hue = np.arange(len(vertices)) * (2 * math.pi / len(vertices))
    colours = 0.55 + 0.45 * np.stack([np.cos(hue), np.cos(hue + 2.1), np.cos(hue + 4.2)], -1)
    middle = (SIDE - 1) / 2
    picture, cover = render_meshes(vertices, faces, (FOCAL, FOCAL), (middle, middle), (SIDE, SIDE), colours)
    ground = generator.uniform(0.1, 0.5, 3)
    blended = picture * cover[..., None] + ground * (1 - cover[..., None])
    pixels = (blended.clip(0, 1) * 255).astype(np.uint8)
    write_picture(path, pixels)
