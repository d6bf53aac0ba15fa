"""One training step of the lixel stage: the published formulation against ours.

A step is forward, losses, backward and Adam, of the body network with ResNet-50, on random images and targets. The
published formulation (`models.reference`) computes the joints' Gaussian volumes and keeps the heads' heatmaps.
"""

import contextlib
import copy
from collections.abc import Callable

import torch

from i2l_meshnet.bodies import Body, BodyParams
from i2l_meshnet.data.annotation import Annotation, FittedBody
from i2l_meshnet.data.dataset import Sample
from i2l_meshnet.data.targets import PointTarget, Target
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.reference import plain_copy
from i2l_meshnet.training.loop import Batch, StageStep
from i2l_meshnet.training.stages import LixelStage
from subjects import random_body, random_network


def make_batch(body: Body, count: int, device: str) -> Batch:
    """Random images and targets."""
    generator = torch.Generator().manual_seed(0)
    joints, vertices = body.joint_regressor.shape

    def points(number: int) -> PointTarget:
        return PointTarget(64 * torch.rand(count, number, 3, generator=generator), torch.ones(count, number, 3))

    rest = body.rest_params(count)
    params = BodyParams(rest.pose, rest.shape.clone(), rest.translation)
    zero, yes = torch.zeros(count), torch.ones(count, dtype=torch.bool)
    fit = FittedBody(
        torch.zeros(count, len(body.bones), 3),
        params.shape,
        params.translation,
        torch.eye(3).expand(count, 3, 3),
        torch.zeros(count, 3),
        torch.zeros(count, dtype=torch.long),
        yes,
        yes,
    )
    annotation = Annotation(
        torch.zeros(count, 4),
        torch.full((count, 2), 256.0),
        Camera(torch.full((count, 2), 1000.0), torch.full((count, 2), 128.0)),
        torch.zeros(count, joints, 2),
        torch.zeros(count, joints, 3),
        torch.ones(count, joints, dtype=torch.bool),
        yes,
        fit,
        zero,
        torch.arange(count),
        torch.zeros(count, dtype=torch.long),
    )
    image = torch.randint(0, 256, (count, 3, 256, 256), dtype=torch.uint8, generator=generator)
    crop = Crop(torch.eye(2, 3).expand(count, 2, 3), zero, ~yes)
    sample = Sample(image, torch.ones(count, 3), crop, annotation)
    target = Target(
        points(joints),
        points(joints),
        points(vertices),
        points(joints),
        points(joints),
        params,
        torch.ones(count),
        zero,
    )
    return Batch(sample.to(device), target.to(device))


def step_variants(count: int, device: str, half: bool) -> dict[str, Callable[[], None]]:
    """Training steps of `count` images, by variant. half: also in bfloat16, channels last."""
    body = random_body()
    network = random_network(body).to(device)
    batch = make_batch(body, count, device)
    stage = LixelStage(body.to(device))
    # Both formulations share the weights and the optimizer, which saves memory.
    published = plain_copy(network)
    published.load_state_dict(network.state_dict(keep_vars=True), assign=True)
    optimizer = torch.optim.Adam(stage.prepare(network), 1e-4)
    variants = {
        "published": _step(published, stage, optimizer, batch),
        "ours": _step(network, stage, optimizer, batch),
    }
    if half:
        packed = copy.deepcopy(network).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        optimizer = torch.optim.Adam(stage.prepare(packed), 1e-4)
        variants["bf16+channels-last"] = _step(packed, stage, optimizer, batch, half=True)
    return variants


def _step(
    network: MeshNet, stage: LixelStage, optimizer: torch.optim.Optimizer, batch: Batch, half: bool = False
) -> Callable[[], None]:
    """A training step. half: in bfloat16, channels last."""
    stage.train_mode(network)
    model = StageStep(network, stage, half)
    kind = batch.sample.image.device.type

    def run() -> None:
        with torch.autocast(kind, torch.bfloat16) if half else contextlib.nullcontext():
            terms = model(batch)
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return run
