"""Times posing a batch of bodies on one CPU thread, with and without gradients: `python benchmarks/bodies.py`.

SMPL and MANO are timed where I2L_MESHNET_BODIES names their files.
"""

import argparse
import time

import torch

from i2l_meshnet.bodies import BODIES, BodyParams, load_body
from i2l_meshnet.errors import FileError


def seconds(name: str, batch: int, gradients: bool, repeats: int = 5) -> float:
    """The fastest of several runs."""
    body = load_body(name)
    rest = body.rest_params(batch)
    times = []
    for _ in range(repeats + 1):
        pose, shape = rest.pose.clone().requires_grad_(gradients), rest.shape.clone().requires_grad_(gradients)
        start = time.perf_counter()
        vertices = body(BodyParams(pose, shape, rest.translation)).vertices
        if gradients:
            vertices.square().sum().backward()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=384)
    batch = parser.parse_args().batch
    torch.set_num_threads(1)
    print(f"| body | {batch} bodies, ms | with gradients, ms |\n|---|---|---|")
    for name in BODIES:
        try:
            plain, learning = (1000 * seconds(name, batch, gradients) for gradients in (False, True))
        except FileError:
            continue
        print(f"| {name} | {plain:.0f} | {learning:.0f} |", flush=True)


if __name__ == "__main__":
    main()
