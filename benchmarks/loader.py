"""Loading training samples: the published method and ours, on the same synthetic images.

`PublishedLoader` does what the published loader does for each sample, in plain NumPy, OpenCV and PyTorch: decode the
whole image, convert it to float32, mirror and warp it, pose one body (dense matrices, one bone after the other, a
4 x 4 matrix per vertex), project it, check the fit. Ours is `PersonDataset.batch`, as a worker calls it. The targets
of a whole batch are computed on the device.
"""

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from i2l_meshnet.bodies.linear import LinearBody
from i2l_meshnet.data.annotation import Fit, PersonRow, TableBuilder
from i2l_meshnet.data.augmentation import RandomAugmentation, draw
from i2l_meshnet.data.dataset import PersonDataset
from i2l_meshnet.data.sources import Source
from i2l_meshnet.data.targets import CameraFitCheck, ImageFitCheck, TargetBuilder
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.skeletons import COCO, HUMAN36M, MANO, Skeleton
from published import pose_plainly
from subjects import SEED, person, random_body

BATCH = 16
"""Samples whose targets are computed together."""


@dataclasses.dataclass(frozen=True)
class Case:
    """Images like those of a dataset. size: (width, height). side: of the box around the person; pixels."""

    name: str
    size: tuple[int, int]
    side: int
    skeleton: Skeleton
    three_d: bool = True


CASES = (
    Case("Human36M", (1000, 1002), 560, HUMAN36M),
    Case("MuCo", (2048, 2048), 1100, HUMAN36M),
    Case("MSCOCO", (640, 480), 300, COCO, three_d=False),
    Case("PW3D", (1080, 1920), 800, HUMAN36M),
    Case("FreiHAND", (224, 224), 150, MANO),
)


def random_source(case: Case, folder: Path, people: int) -> Source:
    """Write images to `folder`; return them with annotations of one person in each."""
    generator = np.random.default_rng(SEED)
    width, height = case.size
    # Blurred to be as smooth as a photo, so that it decodes as fast.
    picture = cv2.GaussianBlur(person(height, width)[..., ::-1], (0, 0), 2)
    hand = case.skeleton is MANO
    rows = TableBuilder(case.skeleton, ("random",), bones=16 if hand else 24, shapes=10, trusted_fits=hand)
    for number in range(people):
        name = f"{case.name}{number}.jpg"
        cv2.imwrite(str(folder / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
        x, y = (float(generator.uniform(0, side - case.side)) for side in case.size)
        joints = generator.normal(0, 0.3, (len(case.skeleton), 3)) + np.array([0, 0, 4])
        fit = Fit(generator.normal(0, 0.2, 48 if hand else 72), generator.normal(0, 1, 10), (0.0, 0.0, 4.0), "random")
        rows.add(
            PersonRow(
                where="random",
                id=number,
                path=name,
                size=case.size,
                box=(x, y, case.side, case.side),
                prepared=True,
                focal=(1000, 1000),
                center=(width / 2, height / 2),
                joints_image=generator.uniform((x, y), (x + case.side, y + case.side), (len(case.skeleton), 2)),
                joints_camera=joints if case.three_d else None,
                fit=fit,
            )
        )
    return Source(case.name, "train", folder, rows.build(folder), case.three_d)


class PublishedLoader:
    """Training samples one by one, as the published dataset classes compute them."""

    def __init__(
        self, source: Source, body: LinearBody, regressor: np.ndarray, depth_extent: float, mirror: bool
    ) -> None:
        self.source, self.body, self.regressor = source, body, regressor
        self.depth_extent, self.mirror = depth_extent, mirror
        arrays = source.table.arrays
        self.rows = [
            {name: np.array(values[i]) for name, values in arrays.items() if not name.startswith("path")}
            for i in range(len(source))
        ]

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = {name: values.copy() for name, values in self.rows[index].items()}
        image: Any = cv2.imread(str(self.source.image_path(index)), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        image = image[:, :, ::-1].astype(np.float32)
        change = draw(random.random, lambda: float(np.random.randn()), self.mirror)  # noqa: NPY002, as published
        width = image.shape[1]
        x, y, w, h = row["box"]
        center = np.array([x + w / 2, y + h / 2])
        if change.mirrored:
            image = image[:, ::-1, :]
            center[0] = width - center[0] - 1
        cos, sin = np.cos(change.rotation), np.sin(change.rotation)
        down, right = np.array([-sin, cos]) * h * change.scale / 2, np.array([cos, sin]) * w * change.scale / 2
        affine = cv2.getAffineTransform(
            np.array([center, center + down, center + right], np.float32),
            np.array([[128, 128], [128, 256], [256, 128]], np.float32),
        )
        patch = cv2.warpAffine(image, affine, (256, 256), flags=cv2.INTER_LINEAR).astype(np.float32)
        patch = np.clip(patch * np.array(change.colour)[None, None], 0, 255)
        picture = np.ascontiguousarray(patch.transpose(2, 0, 1).astype(np.float32)) / 255.0

        joints, camera = row["joints_image"].copy(), row["joints_camera"].copy()
        visible = row["visible"].astype(np.float32)[:, None]
        if change.mirrored:
            order = list(self.source.table.skeleton.mirror_permutation)
            joints[:, 0] = width - 1 - joints[:, 0]
            joints, camera, visible = joints[order], camera[order] * [-1, 1, 1], visible[order]
        joints, truncation = self.lixels(joints, camera[:, 2] - camera[0, 2], affine)

        pose = row["pose"]
        if change.mirrored and self.body.bone_mirror is not None:
            pose = pose[list(self.body.bone_mirror)] * [1, -1, -1]
        with torch.no_grad():
            fit = (torch.from_numpy(np.float32(values))[None] for values in (pose, row["shape"], row["translation"]))
            points = pose_plainly(self.body, *fit)[0].numpy()
        pixels = points[:, :2] / points[:, 2:] * row["focal"] + row["center"]
        fitted, fit_truncation = self.lixels(pixels, points[:, 2] - points[-1, 2], affine)
        read = np.dot(self.regressor, points[: self.regressor.shape[1]])
        error = np.sqrt(
            np.sum((read - read.mean(0) - camera[: len(read)] + camera[: len(read)].mean(0)) ** 2, 1)
        ).mean()
        turn = cv2.Rodrigues(np.array([0, 0, -change.rotation]))[0]
        root = cv2.Rodrigues(np.dot(turn, cv2.Rodrigues(row["pose"][0])[0]))[0]
        return {
            "img": picture,
            "orig_joint_img": joints.astype(np.float32),
            "orig_joint_trunc": (truncation[:, None] * visible).astype(np.float32),
            "orig_joint_cam": np.dot(turn, (camera - camera[:1]).T).T.astype(np.float32),
            "fit_img": fitted.astype(np.float32),
            "fit_trunc": fit_truncation[:, None].astype(np.float32),
            "pose_param": np.concatenate([root.ravel(), row["pose"][1:].ravel()]).astype(np.float32),
            "shape_param": row["shape"],
            "is_valid_fit": np.float32(error < 25),
        }

    def lixels(self, pixels: np.ndarray, depth: np.ndarray, affine: np.ndarray) -> tuple[Any, Any]:
        """Grid coordinates, and whether they are inside the grid."""
        moved = np.dot(affine, np.concatenate([pixels, np.ones_like(pixels[:, :1])], 1).T).T / 4
        grid = np.concatenate([moved, ((depth / (self.depth_extent / 2) + 1) / 2 * 64)[:, None]], 1)
        return grid, ((grid >= 0) & (grid < 64)).all(1)


def loading_variants(case: Case, folder: Path, count: int) -> dict[str, Callable[[], object]]:
    """Load `count` samples: published, ours, and ours with targets, from images written to `folder`."""
    hand = case.skeleton is MANO
    body = random_body(hand)
    regressor = np.random.default_rng(SEED).dirichlet(np.ones(body.joint_regressor.shape[1]), 17)
    extent = 0.3 if hand else 2.0
    source = random_source(case, folder, count)
    published = PublishedLoader(source, body, regressor, extent, mirror=not hand)
    dataset = PersonDataset(source, draw=RandomAugmentation(SEED, mirror=not hand))
    matrix = torch.from_numpy(regressor).float()
    checks = (None, None) if hand else (CameraFitCheck(matrix), ImageFitCheck(matrix))
    build = TargetBuilder([body], LixelGrid(depth_extent=extent), source.table.skeleton, *checks)
    batches = [range(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]

    def with_targets() -> None:
        for numbers in batches:
            batch = dataset.batch(numbers)
            build(batch)
            batch.network_input()

    return {
        "published": lambda: [published[index] for index in range(count)],
        "ours": lambda: [dataset.batch(numbers) for numbers in batches],
        "ours with targets": with_targets,
    }
