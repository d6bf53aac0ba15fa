"""One forward pass and one training step: the published formulation against ours, same weights, side by side.

    python benchmarks/network.py [--threads 2] [--repeats 7] [--device cpu] [--clock cpu]

Both networks are in one process and take turns, so that whatever else the machine does meets both alike. The published
formulation makes the joints' Gaussian volumes and keeps the heads' heatmaps (i2l_meshnet.models.reference); its
weights, those of the golden numbers (tests/golden_recipe.py), spread the lixels as trained weights do. Peak memory is
measured in processes of their own. On a busy machine the clock `cpu` with one thread counts the work alone. Prints
Markdown.
"""

import argparse
import copy
import ctypes
import gc
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.geometry.lixel import soft_argmax
from i2l_meshnet.models import assembly
from i2l_meshnet.models.lixel_head import LixelHead, linear_soft_argmax
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.reference import PlainLixelHead, plain_copy
from i2l_meshnet.training.losses import LixelTarget, PointTarget, lixel_losses

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))

import body_files  # noqa: E402 (of the tests: stand-in for SMPL's file)
import golden_recipe  # noqa: E402 (of the tests: weights and pictures)

Variants = dict[str, Callable[[], object]]
Clock = Callable[[], float]


def make_body() -> Body:
    """A stand-in with SMPL's numbers of vertices, faces and joints."""
    with tempfile.TemporaryDirectory() as folder:
        body_files.write_body_files(Path(folder))
        return load_body("smpl", Path(folder))


def make_network(body: Body, device: str) -> MeshNet:
    """The published body network, ResNet-50, with the goldens' weights."""
    network = assembly.build(assembly.published_config(body), body)
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    weights = {key: golden_recipe.weight(golden_recipe.official_key(key), shape) for key, shape in shapes.items()}
    network.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    network.parameter_regressor = None
    return network.eval().to(device)


def pictures(batch: int, device: str) -> Tensor:
    return torch.from_numpy(golden_recipe.images(batch)).to(device)


def take_turns(variants: Variants, repeats: int, device: str, clock: Clock) -> dict[str, list[float]]:
    """Milliseconds of `repeats` runs of each variant, one after another in turn, after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, run in variants.items():
            start = clock()
            run()
            if device != "cpu":
                torch.cuda.synchronize()
            if turn:
                times[name].append(1e3 * (clock() - start))
    return times


def print_rows(title: str, times: dict[str, list[float]], per: int = 1) -> None:
    """Median, range and ratio of the first variant's median to each, milliseconds a crop."""
    first = statistics.median(next(iter(times.values())))
    for name, values in times.items():
        median = statistics.median(values)
        spread = f"{min(values) / per:.1f} to {max(values) / per:.1f}"
        print(f"| {title} | {name} | {median / per:.1f} | {spread} | {first / median:.2f} |", flush=True)


def forward_pass(network: MeshNet, plain: MeshNet, batches: list[int], repeats: int, device: str, clock: Clock) -> None:
    """Whole forward passes, per crop."""
    packed_network = copy.deepcopy(network).to(memory_format=torch.channels_last)
    for batch in batches:
        image = pictures(batch, device)
        packed = image.contiguous(memory_format=torch.channels_last)
        variants: Variants = {
            "published": lambda image=image: plain(image),
            "ours": lambda image=image: network(image),
            "ours, channels last": lambda packed=packed: packed_network(packed),
        }
        print_rows(f"forward, batch {batch}", take_turns(variants, repeats, device, clock), batch)


def parts(network: MeshNet, plain: MeshNet, batch: int, repeats: int, device: str, clock: Clock) -> None:
    """The two rewritten parts alone, forward and forward with backward, per crop."""
    bridge, plain_bridge = network.pose_to_feature, plain.pose_to_feature
    head, plain_head = network.mesh_branch.get_submodule("head"), plain.mesh_branch.get_submodule("head")
    assert isinstance(head, LixelHead)
    assert isinstance(plain_head, PlainLixelHead)
    with torch.no_grad():
        pose = network.pose_net(pictures(batch, device))
        deep = network.mesh_branch.get_submodule("backbone")(bridge(pose))
        columns = [feature.detach() for feature in head.features(deep)]
    rows = [layer[0].weight for layer in (plain_head.conv_x, plain_head.conv_y, plain_head.conv_z_2)]
    bridges = {"published": plain_bridge, "ours": bridge}
    soft_argmaxes = {
        "published": lambda: [soft_argmax(F.conv1d(c, w)) for c, w in zip(columns, rows, strict=True)],
        "ours": lambda: [linear_soft_argmax(c, w.squeeze(-1)) for c, w in zip(columns, rows, strict=True)],
    }

    def with_gradient(run: Callable[[], Tensor]) -> Callable[[], None]:
        def both() -> None:
            with torch.enable_grad():
                run().sum().backward()

        return both

    titles: dict[str, dict[str, Callable[[], Tensor]]] = {
        "pose to feature": {name: partial(part, pose) for name, part in bridges.items()},
        "soft-argmax of 6,890 vertices": {
            name: lambda run=run: torch.stack(run()) for name, run in soft_argmaxes.items()
        },
    }
    for title, variants in titles.items():
        print_rows(f"{title}, batch {batch}", take_turns(dict(variants), repeats, device, clock), batch)
        trained = {name: with_gradient(run) for name, run in variants.items()}
        print_rows(
            f"{title}, forward and backward, batch {batch}", take_turns(dict(trained), repeats, device, clock), batch
        )


def training_step(
    network: MeshNet, plain: MeshNet, body: Body, batch: int, repeats: int, device: str, clock: Clock
) -> None:
    """One step of the lixel stage with Adam, the whole batch."""
    image = pictures(batch, device)
    faces = body.faces.to(device)
    points = {n: torch.rand(batch, n, 3, device=device) * 64 for n in body.joint_regressor.shape}
    joints, vertices = (PointTarget(value, torch.ones_like(value)) for value in points.values())
    target = LixelTarget(joint_fit=joints, joint_orig=joints, mesh_fit=vertices)

    def make(network: MeshNet) -> Callable[[], None]:
        network.train()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

        def step() -> None:
            optimizer.zero_grad()
            with torch.enable_grad():
                torch.stack([*lixel_losses(network(image), target, faces).values()]).sum().backward()
            optimizer.step()

        return step

    variants: Variants = {"published": make(plain), "ours": make(network)}
    print_rows(f"training step, batch {batch} in all", take_turns(variants, repeats, device, clock))


def deviation(network: MeshNet, plain: MeshNet, device: str) -> str:
    """The largest difference between the two networks' coordinates."""
    image = pictures(2, device)
    ours, theirs = network(image), plain(image)
    largest = max(
        float((a - b).abs().max()) for a, b in ((ours.joints, theirs.joints), (ours.vertices, theirs.vertices))
    )
    depth = 1e3 * network.grid.depth_extent / network.grid.shape[0]
    return f"Largest deviation of a coordinate: {largest:.1e} lixels ({largest * depth:.1e} mm of depth)."


def peak_memory(which: str, batch: int, training: bool, threads: int) -> float:
    """GiB that one pass (or one with its backward pass, gradients included) adds at most, in a process of its own."""
    options = ["--child", which, "--batch", str(batch), "--threads", str(threads)] + ["--train"] * training
    done = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True, check=True)
    return float(done.stdout)


def child(which: str, batch: int, training: bool) -> None:
    """Prints what one pass adds to this process's memory at its peak."""
    body = make_body()
    network = make_network(body, "cpu")
    if which == "published":
        network = plain_copy(network)
    image = pictures(batch, "cpu")
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # Gives freed memory back, which the pass would use unseen.
    Path("/proc/self/clear_refs").write_text("5")  # Forgets the peak of setting up.
    before = resident("VmRSS")
    with torch.set_grad_enabled(training):
        output = network.train(training)(image)
        if training:
            (output.vertices.sum() + output.joints.sum()).backward()
    print(resident("VmHWM") - before)


def resident(which: str) -> float:
    """GiB of this process in memory, now (VmRSS) or at most (VmHWM). Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**20 for line in lines if line.startswith(which))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: what the process itself used")
    parser.add_argument("--child", choices=["published", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        child(options.child, options.batch, options.train)
        return
    device, repeats = options.device, options.repeats
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    body = make_body()
    network = make_network(body, device)
    plain = plain_copy(network)
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {device}, threads: {options.threads}, PyTorch {torch.__version__}, clock: {options.clock}")
    print(f"load before {os.getloadavg()[0]:.1f}\n")
    print("| what | formulation | ms, median | range | times as fast |\n|---|---|---|---|---|")
    with torch.no_grad():
        forward_pass(network, plain, [1, 8], repeats, device, clock)
        parts(network, plain, 8, repeats, device, clock)
        message = deviation(network, plain, device)
    training_step(network, plain, body, 4, max(3, repeats // 2), device, clock)
    print(f"\n{message} Load after {os.getloadavg()[0]:.1f}.")
    if device == "cpu":
        print("\n| memory that a pass adds, GiB | published | ours |\n|---|---|---|")
        for title, batch, training in (
            ("forward, batch 1", 1, False),
            ("forward, batch 8", 8, False),
            ("forward and backward, batch 4", 4, True),
        ):
            values = [peak_memory(which, batch, training, options.threads) for which in ("published", "ours")]
            print(f"| {title} | {values[0]:.2f} | {values[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
