"""Two processes train like one process with twice the batch size.

BatchNorm is frozen: with statistics per process (as published), two half batches give another network than one whole
batch, and statistics over all processes (`batchnorm="synced"`) need CUDA.
"""

import csv
import socket
from pathlib import Path

import pytest
import torch
from test_resume import start, wait
from tiny_training import newest_state, tiny_options

from i2l_meshnet.errors import InputError
from i2l_meshnet.training import train as training
from i2l_meshnet.training.recipe import TrainOptions

RECIPE = {"batchnorm": "frozen", "pictures": 4, "end_epoch": 1, "validation": "Toy"}


def exit_codes_of_two(options: TrainOptions, log: Path) -> list[int | None]:
    """Exit codes of two processes that are started as torchrun starts them."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    common = {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    processes = [start(options, log, {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)]
    return [wait(process) for process in processes]


def test_two_processes_equal_one_with_twice_the_batch(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    one = tiny_options(tmp_path / "one", {**RECIPE, "batch": 4})
    two = tiny_options(tmp_path / "two", {**RECIPE, "batch": 2}, device="cpu", gpu="0-1")
    assert wait(start(one, log)) == 0, log.read_text()
    assert exit_codes_of_two(two, log) == [0, 0], log.read_text()

    rows = []
    for options in (one, two):
        with (options.run.out / "log" / "lixel.csv").open() as file:
            rows.append([{name: value for name, value in row.items() if value} for row in csv.DictReader(file)])
    assert len(rows[0]) == 2  # losses, then the validation error
    for expected, found in zip(*rows, strict=True):
        for name in expected.keys() - {"images_per_second"}:
            assert float(found[name]) == pytest.approx(float(expected[name]), rel=2e-3), name

    expected, found = newest_state(one), newest_state(two)
    assert (found["processes"], found["random"].shape[0]) == (2, 2)
    assert found["position"] == expected["position"] == {"epoch": 1, "batch": 0, "step": 1}
    assert len(expected["optimizer"]["state"]) > 100
    # Adam's means after one step are a tenth of the gradients.
    gradients = {number: state["exp_avg"] for number, state in expected["optimizer"]["state"].items()}
    for number, gradient in gradients.items():
        assert gradient.norm() > 0
        # Another batch size adds in another order: up to 3e-3 of a tensor's largest gradient was seen with AVX2.
        close = 2e-2 * float(gradient.abs().max())
        torch.testing.assert_close(found["optimizer"]["state"][number]["exp_avg"], gradient, rtol=0, atol=close)

    with pytest.raises(InputError):  # one process cannot resume a run of two
        training.run(tiny_options(tmp_path / "two", {**RECIPE, "batch": 2}, resume=True))
