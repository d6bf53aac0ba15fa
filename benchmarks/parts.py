"""The two rewritten parts of the network alone, forward and forward with backward, against the published formulation.

    python benchmarks/parts.py [--batch 8] [--turns 7] [--threads 1] [--device cpu] [--clock cpu]

The whole network is measured by `i2l-meshnet bench`, its training step by benchmarks/training_step.py. Both ways are in
one process and take turns; milliseconds a crop are medians, ratios medians of the ratios within a turn. On a busy
machine the clock `cpu` with one thread counts the work alone. Prints Markdown.
"""

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from i2l_meshnet.benchmarking.rows import COLUMNS, timed_rows
from i2l_meshnet.benchmarking.subjects import made_up_body, made_up_network, pictures
from i2l_meshnet.benchmarking.turns import take_turns
from i2l_meshnet.geometry.lixel import soft_argmax
from i2l_meshnet.models.lixel_head import LixelHead, linear_soft_argmax
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.reference import PlainLixelHead, plain_copy

Ways = dict[str, Callable[[], Tensor]]


def parts(network: MeshNet, image: Tensor) -> dict[str, Ways]:
    """The ways of each part, by title."""
    plain = plain_copy(network)
    bridge, plain_bridge = network.pose_to_feature, plain.pose_to_feature
    head, plain_head = network.mesh_branch.get_submodule("head"), plain.mesh_branch.get_submodule("head")
    assert isinstance(head, LixelHead)
    assert isinstance(plain_head, PlainLixelHead)
    with torch.no_grad():
        pose = network.pose_net(image)
        columns = head.features(network.mesh_branch.get_submodule("backbone")(bridge(pose)))
    layers = (plain_head.conv_x, plain_head.conv_y, plain_head.conv_z_2)
    pairs = list(zip(columns, (layer.get_parameter("0.weight") for layer in layers), strict=True))
    return {
        "pose to feature": {"published": lambda: plain_bridge(pose), "ours": lambda: bridge(pose)},
        "soft-argmax of 6,890 vertices": {
            "published": lambda: torch.stack([soft_argmax(F.conv1d(c, w)) for c, w in pairs]),
            "ours": lambda: torch.stack([linear_soft_argmax(c, w.squeeze(-1)) for c, w in pairs]),
        },
    }


def forward(run: Callable[[], Tensor]) -> None:
    with torch.no_grad():
        run()


def forward_and_backward(run: Callable[[], Tensor]) -> None:
    run().sum().backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    wait = torch.cuda.synchronize if options.device == "cuda" else None
    network = made_up_network(made_up_body()).to(options.device)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for part, ways in parts(network, pictures(options.batch).to(options.device)).items():
        for what, do in ((part, forward), (f"{part}, forward and backward", forward_and_backward)):
            runs = {way: lambda do=do, run=run: do(run) for way, run in ways.items()}
            for row in timed_rows(what, take_turns(runs, options.turns, clock, wait), options.batch):
                print(f"| {' | '.join(row.cells())} |", flush=True)


if __name__ == "__main__":
    main()
