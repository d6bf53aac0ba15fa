"""A benchmark of toy bodies in black images, evaluated in milliseconds."""

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from i2l_meshnet.bodies import Body, BodyParams, load_body
from i2l_meshnet.data.annotation import Fit, PersonRow, TableBuilder
from i2l_meshnet.data.dataset import PersonDataset
from i2l_meshnet.data.sources import Source
from i2l_meshnet.evaluation.annotated import AnnotatedPictures, DrawingOptions, ScoredSource, ScoringOptions
from i2l_meshnet.evaluation.benchmark import System, evaluate
from i2l_meshnet.evaluation.protocols import Protocol
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix
from i2l_meshnet.models.output import LixelNetwork

PROTOCOL = Protocol("Toy", "test", "toy", vertices=True, group="scene")
FITTED = dataclasses.replace(PROTOCOL, truth="fit")
GRID = LixelGrid()
WIDTH, HEIGHT = 320, 240


@dataclasses.dataclass(frozen=True)
class ToyBenchmark:
    """vertices: mesh of each person, camera frame, m. lixels: the same mesh as a perfect network predicts it."""

    source: Source
    body: Body
    vertices: Tensor
    lixels: Tensor


def scored(network: LixelNetwork, body: Body, data: ScoredSource, **options: Any) -> AnnotatedPictures:
    """A benchmark after the network was scored. options: fields of `ScoringOptions`."""
    system = System(network, body, torch.device("cpu"), "mine")
    benchmark = AnnotatedPictures(system, data, ScoringOptions(**options), DrawingOptions(pictures=1, plots=False))
    evaluate(benchmark)
    return benchmark


def make_toy_benchmark(
    folder: Path, people: int = 5, without_truth: tuple[int, ...] = (), grid: LixelGrid = GRID
) -> ToyBenchmark:
    """Write images of `people` upside-down toys (the toy's y points up, the camera's down), two per group."""
    body = load_body("toy")
    generator = torch.Generator().manual_seed(0)
    pose = torch.randn(people, len(body.bones), 3, generator=generator) * 0.2
    place = torch.tensor([0.0, -0.9, 4.0]) + torch.randn(people, 3, generator=generator) * torch.tensor([0.3, 0.1, 0.3])
    shape = torch.randn(people, 2, generator=generator) * 0.5
    mesh = body(BodyParams(axis_angle_to_matrix(pose), shape, place))
    camera = Camera(torch.tensor([400.0, 410.0]), torch.tensor([160.0, 120.0]))
    pixels = camera.project(mesh.vertices)
    rows = TableBuilder(body.skeleton, ("toy",), bones=len(body.bones), shapes=2, trusted_fits=True)
    for number in range(people):
        known = number not in without_truth
        name = f"{number}.png"
        cv2.imwrite(str(folder / name), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        low, high = pixels[number].amin(0), pixels[number].amax(0)
        side = float((high - low).max()) * 1.25
        center = (low + high) / 2
        rows.add(
            PersonRow(
                where="toys",
                id=100 + number,
                path=name,
                size=(WIDTH, HEIGHT),
                box=[float(center[0]) - side / 2, float(center[1]) - side / 2, side, side],
                prepared=True,
                focal=camera.focal.tolist(),
                center=camera.center.tolist(),
                joints_image=camera.project(mesh.joints[number]).tolist() if known else None,
                joints_camera=mesh.joints[number].tolist() if known else None,
                fit=Fit(pose[number].flatten().tolist(), shape[number].tolist(), place[number].tolist(), "toy")
                if known
                else None,
                root_depth=float(mesh.joints[number, body.skeleton.root_index, 2]),
                group=f"scene {number // 2}",
            )
        )
    source = Source("Toy", "test", folder, rows.build(folder), True)
    dataset = PersonDataset(source, crop_size=grid.crop_size)
    samples = dataset.batch(range(people))
    depth = torch.from_numpy(np.array(source.table.arrays["root_depth"]))
    lixels = grid.from_camera(mesh.vertices, samples.crop, samples.annotation.camera, depth)
    return ToyBenchmark(source, body, mesh.vertices, lixels)


def with_depths(source: Source, depths: np.ndarray) -> Source:
    """The source with other root depths."""
    table = source.table
    arrays = {**table.arrays, "root_depth": depths.astype(np.float32)}
    return dataclasses.replace(source, table=dataclasses.replace(table, arrays=arrays))
