"""A training that is stopped by a signal saves its state, and ends with the same bits when it is resumed.

`tests/security/kills.py` kills a training at random moments.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch
from tiny_training import differing, newest_state, slim_networks, tiny_options

from i2l_meshnet.training import train as training
from i2l_meshnet.training.recipe import TrainOptions

RECIPE = {"pictures": 30, "end_epoch": 2, "ema": 0.9, "validation": "Toy"}
STEPS = 30


PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["i2l_meshnet.training.train", "tiny_training"])


def train(options: TrainOptions, log: Path, environment: Mapping[str, str]) -> None:
    """The function of a training process: it prints into `log` and exits with the exit code of `train`."""
    os.environ.update(environment)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # Loader processes of the fork server would outlive a killed training.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    with slim_networks():
        sys.exit(training.run(options))


def start(options: TrainOptions, log: Path, environment: Mapping[str, str] | None = None) -> ForkServerProcess:
    """Train in a fresh process. environment: additional variables."""
    process = PROCESSES.Process(target=train, args=(options, log, environment or {}))
    process.start()
    return process


def wait(process: ForkServerProcess) -> int | None:
    """Wait for the process to end and return its exit code, negative for a signal."""
    process.join()
    return process.exitcode


def progress(options: TrainOptions) -> int:
    """Number of lines in the training's log."""
    path = options.run.out / "log" / "lixel.csv"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_signal_saves_the_training_state(tmp_path: Path) -> None:
    whole, stopped, printed = tiny_options(tmp_path / "whole", RECIPE), tmp_path / "stopped", tmp_path / "log"
    assert wait(start(whole, printed)) == 0, printed.read_text()
    options = tiny_options(stopped, RECIPE, workers=1)
    process = start(options, printed)
    while progress(options) < 3:
        assert process.is_alive(), printed.read_text()
        time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    assert wait(process) == 128 + signal.SIGINT, printed.read_text()
    assert 1 <= newest_state(options)["position"]["step"] < STEPS
    assert wait(start(tiny_options(stopped, RECIPE, resume=True), printed)) == 0, printed.read_text()
    expected, found = newest_state(whole), newest_state(options)
    assert (found["position"], found["best"]) == (expected["position"], expected["best"])
    assert not differing(found["network"], expected["network"])
    assert not differing(found["average"], expected["average"])
