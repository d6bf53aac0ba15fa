"""What the options of `i2l-meshnet train` cost or save, one training step of the lixel stage beside the other.

    python benchmarks/training_step.py [--batch 4] [--repeats 3] [--threads 1] [--device cpu] [--clock cpu] [--compile]

A step is forward, losses, backward and Adam, of the body network with ResNet-50, on random pictures and targets. All
variants run in one process, one after the other (each needs 2.3 GB), the first one once more at the end to show how
steady the machine was; the figure is the least of `--repeats` steps after one that warms up. On a busy machine the
clock `cpu` with one thread counts the work alone. `--compile` adds the compiled variants, which take minutes to
compile. Prints Markdown.
"""

import argparse
import contextlib
import copy
import dataclasses
import time
from collections.abc import Callable

import torch
from network import make_body, make_network

from i2l_meshnet.bodies import Body, BodyParams
from i2l_meshnet.data.annotation import Annotation, FittedBody
from i2l_meshnet.data.dataset import Sample
from i2l_meshnet.data.targets import PointTarget, Target
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.training.average import WeightAverage
from i2l_meshnet.training.loop import Batch, StageStep
from i2l_meshnet.training.stages import LixelStage


@dataclasses.dataclass(frozen=True)
class Variant:
    """Options of a step, as `i2l-meshnet train` names them."""

    channels_last: bool = False
    bf16: bool = False
    compile: bool = False
    ema: float = 0.0
    clip: float = 0.0


VARIANTS = {
    "none (fp32)": Variant(),
    "`--channels-last`": Variant(channels_last=True),
    "`--precision bf16`": Variant(bf16=True),
    "`--precision bf16 --channels-last`": Variant(bf16=True, channels_last=True),
    "`--ema 0.999`": Variant(ema=0.999),
    "`--clip 1`": Variant(clip=1.0),
}
COMPILED = {
    "`--compile`": Variant(compile=True),
    "`--compile --precision bf16 --channels-last`": Variant(compile=True, bf16=True, channels_last=True),
}


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


def make_step(network: MeshNet, body: Body, variant: Variant, batch: Batch, device: str) -> Callable[[], None]:
    """A training step of a copy of the network."""
    network = copy.deepcopy(network)
    stage = LixelStage(body)
    if variant.channels_last:
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    parameters = stage.prepare(network)
    stage.train_mode(network)
    if variant.compile:
        network.compile()
    model, optimizer = StageStep(network, stage, variant.channels_last), torch.optim.Adam(parameters, 1e-4)
    named = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    average = WeightAverage(named, variant.ema) if variant.ema else None
    kind = torch.device(device).type

    def step() -> None:
        with torch.autocast(kind, torch.bfloat16) if variant.bf16 else contextlib.nullcontext():
            terms = model(batch)
        torch.stack(list(terms.values())).sum().backward()
        if variant.clip:
            torch.nn.utils.clip_grad_norm_(parameters, variant.clip)
        optimizer.step()
        optimizer.zero_grad()
        if average:
            average.update(1000)
        if kind == "cuda":
            torch.cuda.synchronize()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    body = make_body()
    network = make_network(body, options.device)
    batch = make_batch(body, options.batch, options.device)
    body.to(options.device)
    variants = [*VARIANTS.items(), *(COMPILED.items() if options.compile else ()), next(iter(VARIANTS.items()))]
    first = 0.0
    print(f"| options | step of {options.batch} pictures, s | ratio |\n|---|---|---|")
    for name, variant in variants:
        step = make_step(network, body, variant, batch, options.device)
        step()
        seconds = []
        for _ in range(options.repeats):
            start = clock()
            step()
            seconds.append(clock() - start)
        first = first or min(seconds)
        print(f"| {name} | {min(seconds):.2f} | {first / min(seconds):.2f} |", flush=True)


if __name__ == "__main__":
    main()
