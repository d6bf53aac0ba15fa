"""Killed and resumed, a training ends with the same bits; told to stop, it saves first."""

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch
from tiny_training import differing, newest_state, slim_networks, tiny_options

from i2l_meshnet.training import train as training
from i2l_meshnet.training.recipe import TrainOptions

RECIPE = {"pictures": 30, "end_epoch": 2, "ema": 0.9, "validation": "Toy"}
STEPS = 30


PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["i2l_meshnet.training.train", "tiny_training"])


def train(options: TrainOptions, log: Path, environment: Mapping[str, str]) -> None:
    """What a process does: it trains, leaves with the exit code, and prints into `log`."""
    os.environ.update(environment)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # As in a user's process; loader processes of the fork server would outlive a killed training.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    with slim_networks():
        sys.exit(training.run(options))


def start(options: TrainOptions, log: Path, environment: Mapping[str, str] | None = None) -> ForkServerProcess:
    """Trains in a process that, like a user's, has done nothing before, whatever other tests did in this one.

    environment: variables that it has beside those of the first process that was started.
    """
    process = PROCESSES.Process(target=train, args=(options, log, environment or {}))
    process.start()
    return process


def wait(process: ForkServerProcess) -> int | None:
    """Exit code of the process once it has ended, negative for a signal."""
    process.join()
    return process.exitcode


def progress(options: TrainOptions) -> int:
    """A number that grows while the training runs: rows of its log."""
    path = options.run.out / "log" / "lixel.csv"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def states(options: TrainOptions) -> list[Path]:
    return sorted((options.run.out / "model_dump").glob("state_lixel_*.pt"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> TrainOptions:
    folder = tmp_path_factory.mktemp("undisturbed")
    options, log = tiny_options(folder, RECIPE), folder / "log"
    assert wait(start(options, log)) == 0, log.read_text()
    return options


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_ends_bit_identical(tmp_path: Path, undisturbed: TrainOptions) -> None:
    moments = random.Random(5)
    kills, said = 0, tmp_path / "log"
    for _ in range(40):
        # Every other run loads its pictures in another process: the samples are the same.
        resume = bool(states(tiny_options(tmp_path)))
        options = tiny_options(tmp_path, RECIPE, save_every=2, resume=resume, workers=kills % 2)
        seen, process = progress(options), start(options, said)
        if kills < 6:
            # Three rows on, and a random moment more: in the middle of a step, of saving or of measuring.
            while process.is_alive() and (progress(options) < seen + 3 or not states(options)):
                time.sleep(0.002)
            if process.is_alive():
                time.sleep(moments.uniform(0, 0.1))
                process.kill()
                kills += 1
        code = wait(process)
        if code == 0:
            break
        assert code == -signal.SIGKILL, said.read_text()
    else:
        pytest.fail("the training never came to its end")
    assert kills >= 2
    expected, found = newest_state(undisturbed), newest_state(options)
    assert found["position"] == expected["position"] == {"epoch": 2, "batch": 0, "step": STEPS}
    assert not differing(found["network"], expected["network"])
    assert not differing(found["average"], expected["average"])
    assert torch.equal(found["random"], expected["random"])
    assert found["best"] == expected["best"]
    for number, state in expected["optimizer"]["state"].items():
        assert not differing(found["optimizer"]["state"][number], state)
    log = Path("log") / "lixel.csv"
    steps = [
        [line.split(",")[0] for line in (run.run.out / log).read_text().splitlines()] for run in (options, undisturbed)
    ]
    assert steps[0] == steps[1]
    assert not list((options.run.out / "model_dump").glob(".*"))


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_told_to_stop_it_saves_first(tmp_path: Path, undisturbed: TrainOptions, number: signal.Signals) -> None:
    options, said = tiny_options(tmp_path, RECIPE, workers=1), tmp_path / "log"
    process = start(options, said)
    while progress(options) < 3:
        assert process.is_alive(), said.read_text()
        time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, number)
    assert wait(process) == 128 + number, said.read_text()
    assert f"stopped by {number.name} after" in said.read_text()
    assert 1 <= newest_state(options)["position"]["step"] < STEPS
    assert wait(start(tiny_options(tmp_path, RECIPE, resume=True), said)) == 0, said.read_text()
    assert not differing(newest_state(options)["network"], newest_state(undisturbed)["network"])
