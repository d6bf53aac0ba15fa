"""One training step of the lixel stage: the published formulation against ours, and what each option does to a step.

A step is forward, losses, backward and Adam, of the body network with ResNet-50, on random pictures and targets. The
published formulation (`models.reference`) makes the joints' Gaussian volumes and keeps the heads' heatmaps. All ways
work on the same weights.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import nn

from i2l_meshnet.bodies import Body, BodyParams
from i2l_meshnet.data.annotation import Annotation, FittedBody
from i2l_meshnet.data.dataset import Sample
from i2l_meshnet.data.targets import PointTarget, Target
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.reference import plain_copy
from i2l_meshnet.training.average import WeightAverage
from i2l_meshnet.training.loop import Batch, StageStep
from i2l_meshnet.training.stages import LixelStage
from subjects import made_up_body, made_up_network


@dataclasses.dataclass(frozen=True)
class Variant:
    """The formulation, and options as `i2l-meshnet train` names them."""

    published: bool = False
    channels_last: bool = False
    bf16: bool = False
    compile: bool = False
    ema: float = 0.0
    clip: float = 0.0


WAYS = {
    "published": Variant(published=True),
    "ours": Variant(),
    "channels-last": Variant(channels_last=True),
    "bf16": Variant(bf16=True),
    "bf16+channels-last": Variant(bf16=True, channels_last=True),
    "ema": Variant(ema=0.999),
    "clip": Variant(clip=1.0),
    "compile": Variant(compile=True),
    "compile+bf16+channels-last": Variant(compile=True, bf16=True, channels_last=True),
}
"""Ways of a step; but for the first all are ours."""


def make_batch(body: Body, count: int, device: str) -> Batch:
    """Random pictures and targets."""
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


class Trained:
    """A network and the optimizer of its weights, which several ways of training share to save memory."""

    def __init__(self, network: MeshNet, body: Body) -> None:
        self.network, self.stage = network, LixelStage(body)
        self.published = plain_copy(network)
        self.published.load_state_dict(network.state_dict(keep_vars=True), assign=True)
        self.parameters = self.stage.prepare(network)
        for either in (network, self.published):
            self.stage.train_mode(either)
        self.optimizer = torch.optim.Adam(self.parameters, 1e-4)

    def step(self, variant: Variant, batch: Batch) -> Callable[[], None]:
        """A training step with the options `variant`."""
        network: nn.Module = self.published if variant.published else self.network
        if variant.compile:
            network = cast(nn.Module, torch.compile(network))
        model = StageStep(cast(MeshNet, network), self.stage, variant.channels_last)
        named = {name: value for name, value in self.network.named_parameters() if value.requires_grad}
        average = WeightAverage(named, variant.ema) if variant.ema else None
        kind = batch.sample.image.device.type

        def run() -> None:
            with torch.autocast(kind, torch.bfloat16) if variant.bf16 else contextlib.nullcontext():
                terms = model(batch)
            torch.stack(list(terms.values())).sum().backward()
            if variant.clip:
                nn.utils.clip_grad_norm_(self.parameters, variant.clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
            if average:
                average.update(1000)

        return run


def step_ways(names: Sequence[str], batch: int, device: str) -> dict[str, Callable[[], None]]:
    """Training steps of `batch` pictures, by their names in `WAYS`."""
    body = made_up_body()
    network = made_up_network(body).to(device)
    pictures = make_batch(body, batch, device)
    body.to(device)
    plain = Trained(network, body)
    packed = plain
    if any(WAYS[name].channels_last for name in names):
        network = copy.deepcopy(network).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        packed = Trained(network, body)
    return {name: (packed if WAYS[name].channels_last else plain).step(WAYS[name], pictures) for name in names}
