"""Killed and resumed, a training ends with the same bits; told to stop, it saves first."""

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_training import differing, newest_state, slim_networks, tiny_options

from i2l_meshnet.training import job
from i2l_meshnet.training.recipe import TrainOptions

RECIPE = {"pictures": 30, "end_epoch": 2, "ema": 0.9, "validation": "Toy"}
STEPS = 30


@pytest.fixture(scope="module", autouse=True)
def slim() -> Iterator[None]:
    with slim_networks():
        yield


def start(options: TrainOptions) -> int:
    """Trains in a process of its own (a fork, which need not import anything again); its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        torch.set_num_threads(1)
        code = job.run(options)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int | None:
    """Exit status of the process, negative for a signal; None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def progress(options: TrainOptions) -> int:
    """A number that grows while the training runs: rows of its log."""
    path = options.run.out / "log" / "lixel.csv"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def states(options: TrainOptions) -> list[Path]:
    return sorted((options.run.out / "model_dump").glob("state_lixel_*.pt"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> TrainOptions:
    options = tiny_options(tmp_path_factory.mktemp("undisturbed"), RECIPE)
    assert wait(start(options)) == 0
    return options


def test_killed_at_random_moments_and_resumed_ends_bit_identical(tmp_path: Path, undisturbed: TrainOptions) -> None:
    moments = random.Random(5)
    kills = 0
    for _ in range(40):
        # Every other run loads its pictures in another process: the samples are the same.
        resume = bool(states(tiny_options(tmp_path)))
        options = tiny_options(tmp_path, RECIPE, save_every=2, resume=resume, workers=kills % 2)
        seen, pid = progress(options), start(options)
        code = None
        if kills < 6:
            # Three rows on, and a random moment more: in the middle of a step, of saving or of measuring.
            while (code := ended(pid)) is None and (progress(options) < seen + 3 or not states(options)):
                time.sleep(0.002)
            if code is None:
                time.sleep(moments.uniform(0, 0.1))
                os.kill(pid, signal.SIGKILL)
                kills += 1
        if code is None:
            code = wait(pid)
        if code == 0:
            break
        assert code == -signal.SIGKILL
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_saves_first(
    tmp_path: Path, undisturbed: TrainOptions, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    options = tiny_options(tmp_path, RECIPE, workers=1)
    pid = start(options)
    while progress(options) < 3:
        assert ended(pid) is None
        time.sleep(0.002)
    os.kill(pid, number)
    assert wait(pid) == 128 + number
    assert f"stopped by {number.name} after" in capfd.readouterr().out
    assert 1 <= newest_state(options)["position"]["step"] < STEPS
    assert wait(start(tiny_options(tmp_path, RECIPE, resume=True))) == 0
    assert not differing(newest_state(options)["network"], newest_state(undisturbed)["network"])
