"""One training step of the lixel stage: the published formulation against ours, and what each option does to a step.

    python benchmarks/training_step.py --threads 1 --clock cpu
    python benchmarks/training_step.py --ways published ours compile

A step is forward, losses, backward and Adam, of the body network with ResNet-50, on random pictures and targets. The
published formulation (i2l_meshnet.models.reference) makes the joints' Gaussian volumes and keeps the heads' heatmaps.
All ways are in one process (6 GB), work on the same weights and take turns (A B A B ...): seconds are medians, ratios
medians of the ratios within a turn. On a busy machine the clock `cpu` with one thread counts the work alone. The
compiled ways, which take minutes to compile, are measured when they are named. Prints Markdown.
"""

import argparse
import contextlib
import copy
import dataclasses
import math
import os
import time
from collections.abc import Callable

import torch
from torch import nn

from i2l_meshnet.benchmarking.subjects import made_up_body, made_up_network
from i2l_meshnet.benchmarking.turns import take_turns
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
            network = torch.compile(network)  # type: ignore[assignment]
        model = StageStep(network, self.stage, variant.channels_last)  # type: ignore[arg-type]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--budget", type=float, default=math.inf, help="no turn begins after so many seconds")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[name for name in WAYS if "compile" not in name])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    body = made_up_body()
    network = made_up_network(body).to(options.device)
    batch = make_batch(body, options.batch, options.device)
    body.to(options.device)
    packed = Trained(copy.deepcopy(network).to(memory_format=torch.channels_last), body)  # type: ignore[call-overload]
    plain = Trained(network, body)
    ways = {way: (packed if WAYS[way].channels_last else plain).step(WAYS[way], batch) for way in options.ways}
    wait = torch.cuda.synchronize if options.device == "cuda" else None
    load = os.getloadavg()[0]
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    times = take_turns(ways, options.turns, clock, wait, options.budget)
    turns = len(times.seconds[options.ways[0]])
    print(f"Load {load:.1f} before, {os.getloadavg()[0]:.1f} after; {turns} turns.\n")
    print(f"| way | step of {options.batch} pictures, s | range | times as fast |\n|---|---|---|---|")
    for way in ways:
        low, high = times.spread(way)
        print(f"| {way} | {times.median(way):.2f} | {low:.2f} to {high:.2f} | {times.ratio(way):.2f} |")


if __name__ == "__main__":
    main()
