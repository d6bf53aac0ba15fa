"""The training loop on the toy body: steps, resuming, logs and errors."""

import csv
import dataclasses
import importlib.util
import json
import multiprocessing
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import differing, newest_state, tiny_options

from i2l_meshnet.data.sources.base import Source
from i2l_meshnet.errors import FileError, InputError, UserError
from i2l_meshnet.models import checkpoint
from i2l_meshnet.precision import supported_precisions
from i2l_meshnet.training import data as training_data
from i2l_meshnet.training import train as training
from i2l_meshnet.training.loop import NonFiniteLossError, Stop
from i2l_meshnet.training.recipe import TrainOptions


def log(options: TrainOptions) -> list[dict[str, str]]:
    """The rows of a training's CSV log."""
    with (options.run.out / "log" / "lixel.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_resumed_run_equals_an_uninterrupted_run(tmp_path: Path) -> None:
    whole = tiny_options(tmp_path / "whole", {"validation": "Toy"}, tensorboard=True)
    assert training.run(whole) == 0
    halves = tiny_options(tmp_path / "halves", {"validation": "Toy"}, max_steps=2)
    assert training.run(halves) == 0
    assert newest_state(halves)["position"] == {"epoch": 0, "batch": 2, "step": 2}
    assert training.run(tiny_options(tmp_path / "halves", {"validation": "Toy"}, resume=True)) == 0
    expected, found = newest_state(whole), newest_state(halves)
    assert found["position"] == expected["position"] == {"epoch": 2, "batch": 0, "step": 6}
    assert not differing(found["network"], expected["network"])
    assert found["best"] == expected["best"] > 0
    assert torch.equal(found["random"], expected["random"])

    rows = log(halves)
    losses = [row for row in rows if row["loss"]]
    assert [row["step"] for row in losses] == ["1", "2", "3", "4", "5", "6"]
    assert [row["mesh_fit"] for row in log(whole)] == [row["mesh_fit"] for row in rows]
    assert float(losses[0]["learning_rate"]) == whole.recipe.learning_rate
    assert [row["epoch"] for row in rows if row["validation MPJPE of lixel mesh"]] == ["0", "1"]

    models = whole.run.out / "model_dump"
    assert {path.name for path in models.iterdir()} == {
        *("snapshot_0.safetensors", "snapshot_1.safetensors", "best_lixel.safetensors"),
        *("state_lixel_00000003.pt", "state_lixel_00000006.pt"),
    }
    network = checkpoint.load(models / "snapshot_1.safetensors")
    assert not differing(dict(network.state_dict()), {k: expected["network"][k] for k in network.state_dict()})
    extra = checkpoint.read_metadata(models / "snapshot_1.safetensors").extra
    assert (extra["stage"], extra["epoch"], extra["step"]) == ("lixel", 1, 6)
    assert (whole.run.out / "vis" / "lixel_1.jpg").stat().st_size > 1000
    assert list((whole.run.out / "log" / "tensorboard" / "lixel").glob("events*"))


def test_parameter_stage_starts_from_the_lixel_snapshot_and_leaves_it_alone(tmp_path: Path) -> None:
    param = {"stage": "param", "first_epoch": 1, "end_epoch": 2, "validation": "Toy"}
    with pytest.raises(FileError):
        training.run(tiny_options(tmp_path, param))
    assert training.run(tiny_options(tmp_path, {"end_epoch": 1})) == 0
    assert training.run(tiny_options(tmp_path, param)) == 0
    models = tmp_path / "output" / "model_dump"
    before = checkpoint.load(models / "snapshot_0.safetensors").state_dict()
    after = checkpoint.load(models / "snapshot_1.safetensors").state_dict()
    changed = differing(dict(before), dict(after))
    assert changed
    assert all(name.startswith("parameter_regressor.") for name in changed)
    errors = checkpoint.read_metadata(models / "snapshot_1.safetensors").extra["errors"]
    assert "validation MPJPE of param mesh" in errors
    with pytest.raises(InputError) as caught:  # a network of another size
        training.run(tiny_options(tmp_path / "other", {"crop": 64}, start=models / "snapshot_0.safetensors"))
    assert caught.value.argument == "start"


def test_accumulated_batches_equal_one_big_batch(tmp_path: Path) -> None:
    # Seven samples: a step of two batches of two, and one of a batch of two and a batch of one.
    frozen = {"batchnorm": "frozen", "end_epoch": 1, "pictures": 7, "learning_rate": 1e-6}
    big = tiny_options(tmp_path / "big", {**frozen, "batch": 4})
    small = tiny_options(tmp_path / "small", {**frozen, "batch": 2, "accumulate": 2})
    for options in (big, small):
        assert training.run(options) == 0
    expected, found = newest_state(big), newest_state(small)
    assert found["position"]["step"] == expected["position"]["step"] == 2
    # Adam's means are weighted sums of the gradients.
    for number, state in expected["optimizer"]["state"].items():
        mean = state["exp_avg"]
        close = {"rtol": 1e-3, "atol": 1e-4 * float(mean.abs().max())}
        torch.testing.assert_close(found["optimizer"]["state"][number]["exp_avg"], mean, **close)


def test_rows_of_the_log_are_means_and_gradients_are_clipped(tmp_path: Path) -> None:
    # Five samples: the last batch of one is left out, so an epoch has two steps.
    recipe = {"pictures": 5, "end_epoch": 1, "clip": 0.01}
    losses = []
    for every in (1, 2):
        options = tiny_options(tmp_path / str(every), recipe, log_every=every)
        assert training.run(options) == 0
        losses.append([float(row["mesh_fit"]) for row in log(options)])
    assert len(losses[0]) == 2
    assert losses[1] == [pytest.approx(sum(losses[0]) / 2, rel=1e-4)]
    # Adam's means after two gradients of norm 0.01: 0.09 and 0.1 of them.
    means = [value["exp_avg"] for value in newest_state(options)["optimizer"]["state"].values()]
    assert 0.05 * 0.01 < float(torch.cat([mean.flatten() for mean in means]).norm()) < 0.1901 * 0.01


def test_the_best_snapshot_has_the_lowest_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = iter([2.0, 4.0, 3.0])

    def error(*_: object) -> tuple[torch.Tensor, torch.Tensor]:
        # The second sample has no ground truth.
        return torch.tensor([next(errors), 100.0]), torch.tensor([1.0, 0.0])

    monkeypatch.setattr(training_data, "joint_error", error)
    recipe = {"pictures": 2, "end_epoch": 3, "validation": "Toy"}
    assert training.run(tiny_options(tmp_path, recipe, max_steps=2)) == 0
    options = tiny_options(tmp_path, recipe, resume=True)
    assert training.run(options) == 0
    assert next(errors, None) is None
    assert newest_state(options)["best"] == 2
    extra = checkpoint.read_metadata(options.run.out / "model_dump" / "best_lixel.safetensors").extra
    assert (extra["epoch"], extra["errors"]) == (0, {"validation MPJPE of lixel mesh": 2.0})


def test_half_precision_and_channels_last_keep_the_losses(tmp_path: Path) -> None:
    if "bf16" not in supported_precisions():
        with pytest.raises(InputError):
            training.run(tiny_options(tmp_path, {"precision": "bf16"}))
        return
    losses = []
    for number, (recipe, run) in enumerate([({}, {}), ({"precision": "bf16"}, {"channels_last": True})]):
        options = tiny_options(tmp_path / str(number), recipe, max_steps=1, **run)
        assert training.run(options) == 0
        losses.append(log(options)[0])
    for name in ("loss", "joint_fit", "mesh_fit", "mesh_edge"):
        assert float(losses[1][name]) == pytest.approx(float(losses[0][name]), rel=0.05)


def test_the_average_is_saved_and_resumed(tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    average = {"ema": 0.9, "clip": 1.0, "end_epoch": 1}
    assert training.run(tiny_options(whole, average)) == 0
    assert training.run(tiny_options(halves, average, max_steps=1)) == 0
    assert training.run(tiny_options(halves, average, resume=True)) == 0
    expected, found = newest_state(tiny_options(whole)), newest_state(tiny_options(halves))
    assert not differing(found["average"], expected["average"])
    snapshot = checkpoint.load(whole / "output" / "model_dump" / "snapshot_0.safetensors").state_dict()
    name = "mesh_branch.head.conv_x.0.weight"
    assert torch.equal(snapshot[name], expected["average"][name])
    assert not torch.equal(snapshot[name], expected["network"][name])


def test_a_started_training_is_not_overwritten_nor_mixed_with_another(tmp_path: Path) -> None:
    assert training.run(tiny_options(tmp_path, max_steps=1)) == 0
    with pytest.raises(InputError) as caught:
        training.run(tiny_options(tmp_path))
    assert caught.value.argument == "out"
    with pytest.raises(InputError):
        training.run(tiny_options(tmp_path, {"learning_rate": 0.5}, resume=True))
    (path,) = (tmp_path / "output" / "model_dump").glob("state*")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FileError):
        training.run(tiny_options(tmp_path, resume=True))


def test_a_loss_that_is_not_finite_stops_and_names_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(root: Path, split: str, pictures: int) -> Source:
        source = open_toy(root, split, pictures)
        missing = np.full_like(source.table.arrays["joints_image"], np.nan)
        table = dataclasses.replace(source.table, arrays={**source.table.arrays, "joints_image": missing})
        return dataclasses.replace(source, table=table)

    open_toy = training_data.open_toy
    monkeypatch.setattr(training_data, "open_toy", broken)
    with pytest.raises(NonFiniteLossError):
        training.run(tiny_options(tmp_path))
    content = json.loads((tmp_path / "output" / "log" / "nonfinite_1_0.json").read_text())
    assert len(content["samples"]) == 2
    assert {sample["data set"] for sample in content["samples"]} == {"Toy"}
    assert content["terms"]["joint_orig"] == "nan"
    assert not list((tmp_path / "output" / "model_dump").glob("state*"))


def test_full_disk_leaves_earlier_states(tmp_path: Path) -> None:
    assert training.run(tiny_options(tmp_path, max_steps=1)) == 0
    before = newest_state(tiny_options(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(FileError):
            training.run(tiny_options(tmp_path, max_steps=2, resume=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not differing(newest_state(tiny_options(tmp_path))["network"], before["network"])
    assert [path.name for path in (tmp_path / "output" / "model_dump").iterdir()] == ["state_lixel_00000001.pt"]


def test_a_damaged_image_in_a_loader_process_raises_its_error(tmp_path: Path) -> None:
    picture = tmp_path / "data" / "Toy" / "toy-0-6-0003.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"cut off")
    with pytest.raises(FileError) as caught:
        training.run(tiny_options(tmp_path, workers=1))
    assert str(caught.value).count(str(picture)) == 1
    # A remaining loader process would keep Python from exiting.
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("recipe", "run", "error", "argument"),
    [
        ({"batch": 1}, {}, InputError, "batch"),  # BatchNorm has no variance
        ({"train_3d": ("Nowhere",)}, {}, InputError, None),
        ({"train_3d": ("Human36M",)}, {}, FileError, None),
        ({"batchnorm": "synced"}, {"device": "cpu"}, InputError, "batchnorm"),
        ({}, {"wandb": True}, InputError, "wandb"),
        ({}, {"out": Path("/dev/null/output")}, FileError, None),
    ],
)
def test_errors_before_training(
    recipe: dict[str, Any],
    run: dict[str, Any],
    error: type[UserError],
    argument: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(error) as caught:
        training.run(tiny_options(tmp_path, recipe, **run))
    assert getattr(caught.value, "argument", None) == argument


def test_device_numbers_need_cuda_unless_the_cpu_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError) as caught:
        training.run(tiny_options(tmp_path, gpu="0-3"))
    assert caught.value.argument == "device"
    assert not (tmp_path / "output").exists()
    assert training.run(tiny_options(tmp_path, gpu="0", device="cpu", max_steps=1)) == 0


def test_second_interrupt_leaves_at_once() -> None:
    stop = Stop()
    previous = signal.getsignal(signal.SIGINT)
    with stop.watched():
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is previous
