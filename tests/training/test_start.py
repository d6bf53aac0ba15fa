"""Where a training starts: files of both formats, told apart by their content."""

import dataclasses
import os
from pathlib import Path

import pytest
import torch
from golden_recipe import official_key
from tiny_training import tiny_options

from i2l_meshnet import cli
from i2l_meshnet.bodies import load_body
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.models import assembly
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.snapshot import convert_snapshot
from i2l_meshnet.recipes import RECIPES
from i2l_meshnet.training.loop import Folders
from i2l_meshnet.training.recipe import RunOptions
from i2l_meshnet.training.train import make_network, run

RECIPE = dataclasses.replace(RECIPES["hand-param"][1], backbone="resnet18")


def write_published(path: Path, network: MeshNet, epoch: int, batches: int = 0) -> Path:
    """A snapshot as the published code writes it. batches: that the parameter regressor was trained with."""
    state = {official_key(key): value for key, value in network.state_dict().items()}
    for key in state:
        if "param_regressor" in key and key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(batches)
    torch.save({"epoch": epoch, "network": state, "optimizer": {}}, path)
    return path


def test_the_parameter_stage_starts_from_the_newest_lixel_network(tmp_path: Path, body_directory: Path) -> None:
    mano = load_body("mano", body_directory)
    network = assembly.build(assembly.published_config(mano, "resnet18"), mano)
    folders, options = Folders(tmp_path), RunOptions(out=tmp_path, body_dir=body_directory)
    folders.models.mkdir()
    with pytest.raises(FileError):
        make_network(RECIPE, options, mano, folders)

    first = write_published(folders.models / "snapshot_8.pth.tar", network, 8)
    write_published(folders.models / "snapshot_20.pth.tar", network, 20, batches=3)
    found, origin = make_network(RECIPE, options, mano, folders)
    assert origin == str(first)
    assert found.parameter_regressor is not None
    for ours, theirs in zip(found.state_dict().values(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)

    newer = write_published(tmp_path / "converted.pth.tar", network, 9)
    convert_snapshot(newer, folders.models / "converted.safetensors")
    os.utime(folders.models / "converted.safetensors", (0, 0))  # The epoch counts, not the time.
    assert make_network(RECIPE, options, mano, folders)[1] == str(folders.models / "converted.safetensors")

    named = dataclasses.replace(options, start=newer.rename(tmp_path / "any name"))
    assert make_network(RECIPE, named, mano, folders)[1] == str(named.start)
    with pytest.raises(InputError) as caught:
        make_network(dataclasses.replace(RECIPE, backbone="resnet34"), named, mano, folders)
    assert caught.value.argument == "start"


def test_info_describes_files_of_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = tiny_options(tmp_path, {"end_epoch": 1})
    assert run(options) == 0
    models = tmp_path / "output" / "model_dump"
    capsys.readouterr()
    assert cli.main(["info", str(models / "snapshot_0.safetensors")]) == 0
    printed = capsys.readouterr().out
    for content in ("toy", "resnet18", "32 x 32", "last stage: lixel", "epoch: 0", "recipe: learning_rate = 0.001"):
        assert content in printed
    state = next(models.glob("state_lixel_*.pt"))
    assert cli.main(["info", str(state)]) == 1
    assert f"{state} is a training state" in capsys.readouterr().err
