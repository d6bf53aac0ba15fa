"""Two processes train like one with the double batch.

BatchNorm is frozen here: each process' own statistics (as published) make another network of two half batches than of
a whole one, and statistics over all processes (`batchnorm="synced"`) need CUDA.
"""

import socket
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch
from test_resume import start, wait
from tiny_training import newest_state, slim_networks, tiny_options

from i2l_meshnet.errors import InputError
from i2l_meshnet.training import train as training
from i2l_meshnet.training.recipe import TrainOptions

RECIPE = {"batchnorm": "frozen", "pictures": 12, "end_epoch": 1, "validation": "Toy"}


@pytest.fixture(scope="module", autouse=True)
def slim() -> Iterator[None]:
    with slim_networks():
        yield


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start_two(options: TrainOptions, log: Path) -> list[ForkServerProcess]:
    """Starts two processes as torchrun does."""
    common = {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    return [start(options, log, {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)]


@pytest.mark.slow
def test_two_processes_equal_one_with_the_double_batch(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    one = tiny_options(tmp_path / "one", {**RECIPE, "batch": 4})
    two = tiny_options(tmp_path / "two", {**RECIPE, "batch": 2}, device="cpu", gpu="0-1")
    assert wait(start(one, log)) == 0, log.read_text()
    assert [wait(process) for process in start_two(two, log)] == [0, 0], log.read_text()

    logs = [(options.run.out / "log" / "lixel.csv").read_text().splitlines() for options in (one, two)]
    columns = logs[0][0].split(",")
    assert logs[1][0].split(",") == columns
    rows = [[dict(zip(columns, line.split(","), strict=True)) for line in log[1:]] for log in logs]
    for expected, found in zip(*rows, strict=True):
        for name in set(columns) - {"images_per_second"}:
            assert float(found[name] or 0) == pytest.approx(float(expected[name] or 0), rel=2e-3), name

    expected, found = newest_state(one), newest_state(two)
    assert found["processes"] == 2
    assert found["random"].shape[0] == 2
    assert found["position"]["step"] == expected["position"]["step"] == 3


def test_gradients_of_two_processes_equal_those_of_the_double_batch(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    # Adam's mean after one step is a tenth of the gradient.
    one = tiny_options(tmp_path / "one", {**RECIPE, "batch": 4}, max_steps=1)
    two = tiny_options(tmp_path / "two", {**RECIPE, "batch": 2}, max_steps=1, device="cpu", gpu="0,1")
    assert wait(start(one, log)) == 0, log.read_text()
    assert [wait(process) for process in start_two(two, log)] == [0, 0], log.read_text()
    expected, found = newest_state(one)["optimizer"]["state"], newest_state(two)["optimizer"]["state"]
    assert expected.keys() == found.keys()
    assert len(expected) > 100
    for number, state in expected.items():
        gradient = 10 * state["exp_avg"]
        assert gradient.norm() > 0
        # Another batch size adds in another order: up to 3e-4 of a tensor's largest gradient was seen with AVX2.
        close = 1e-3 * float(gradient.abs().max())
        torch.testing.assert_close(10 * found[number]["exp_avg"], gradient, rtol=1e-3, atol=close)


def test_a_training_of_two_processes_does_not_go_on_with_one(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    two = tiny_options(tmp_path, RECIPE, max_steps=1, device="cpu", gpu="0,1")
    assert [wait(process) for process in start_two(two, log)] == [0, 0], log.read_text()
    with pytest.raises(InputError, match="made by 2 processes, not 1"):
        training.run(tiny_options(tmp_path, RECIPE, resume=True))
