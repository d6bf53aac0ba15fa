"""Published snapshots: every key is used or listed as dropped; any other file raises an error."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from published_files import light_state, mark, published_shapes, write_snapshot
from safetensors import safe_open

from i2l_meshnet.bodies import load_body
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.models import assembly, checkpoint, snapshot
from i2l_meshnet.models.backbone import STEM_KEYS, ResNet, ResNetName, ResNetStages
from i2l_meshnet.models.lixel_head import UNUSED_KEYS
from i2l_meshnet.models.snapshot import PREFIXES, convert_snapshot, read_snapshot


def with_resnet(shapes: dict[str, list[int]], name: ResNetName) -> dict[str, list[int]]:
    """The same snapshot on another ResNet."""
    with torch.device("meta"):
        backbones = {"pose_backbone": ResNet(name), "mesh_backbone": ResNetStages(name)}
    deep = backbones["pose_backbone"].deep_channels
    shapes = {key: list(shape) for key, shape in shapes.items() if "backbone.layer" not in key}
    for module, backbone in backbones.items():
        layers = {key: value for key, value in backbone.state_dict().items() if key.startswith("layer")}
        shapes |= {f"module.{module}.{key}": list(value.shape) for key, value in layers.items()}
    for head in ("pose_net", "mesh_net"):
        shapes[f"module.{head}.deconv.0.weight"][0] = deep
        shapes[f"module.{head}.conv_z_1.0.weight"][1] = deep
    return shapes


@pytest.mark.parametrize(("kind", "body", "depth"), [("body", "smpl", 2.0), ("hand", "mano", 0.3)])
def test_every_key_is_used_or_listed_as_dropped(tmp_path: Path, kind: str, body: str, depth: float) -> None:
    state = light_state(published_shapes(kind))
    read = read_snapshot(write_snapshot(tmp_path / "snapshot_12.pth.tar", state))
    assert (read.epoch, read.config.body, read.config.backbone) == (12, body, "resnet50")
    assert read.config.grid.depth_extent == depth
    used = set()
    for key, value in read.state.items():
        theirs = next(old + key.removeprefix(new) for old, new in PREFIXES.items() if key.startswith(new))
        used.add(f"module.{theirs}")
        if value.is_floating_point():
            assert value.flatten()[0] == pytest.approx(mark(f"module.{theirs}"))
    dropped = {f"module.{key}" for keys in read.dropped.values() for key in keys}
    assert used | dropped == state.keys()
    assert not used & dropped
    licensed = {key for key in state if key.startswith("module.human_model_layer.")}
    assert licensed
    assert {f"module.{key}" for key in read.dropped["the body model's licensed buffers"]} == licensed


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet101", "resnet152"])
def test_other_resnets_are_detected_by_their_layers(tmp_path: Path, name: ResNetName) -> None:
    state = light_state(with_resnet(published_shapes("hand"), name))
    assert read_snapshot(write_snapshot(tmp_path / "snapshot_1.pth.tar", state)).config.backbone == name


def test_conversion_keeps_the_weights_and_nothing_licensed(tmp_path: Path, body_directory: Path) -> None:
    state = light_state(with_resnet(published_shapes("hand"), "resnet18"))
    path = write_snapshot(tmp_path / "snapshot_24.pth.tar", state)
    out = tmp_path / "hand.safetensors"
    read = convert_snapshot(path, out, half=True)
    metadata = checkpoint.read_metadata(out)
    assert metadata.network == read.config
    assert metadata.extra == {"epoch": 12}
    assert "research only" in metadata.licence
    with safe_open(out, "pt") as file:
        keys = set(file.keys())
    assert keys == read.state.keys()
    assert not [key for key in keys if "human_model" in key or "regressor" in key.split(".")[-1]]
    network = checkpoint.load(out, load_body("mano", body_directory))
    direct = assembly.build(read.config, load_body("mano", body_directory)).eval()
    checkpoint.load_state(direct, read.state, path)
    for (key, ours), theirs in zip(network.state_dict().items(), direct.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3, msg=key)


@pytest.mark.parametrize("kind", ["body", "hand"])
def test_a_checkpoint_goes_back_to_the_official_code(tmp_path: Path, kind: str) -> None:
    state = light_state(published_shapes(kind))
    source = write_snapshot(tmp_path / "snapshot_12.pth.tar", state)
    convert_snapshot(source, tmp_path / "ours.safetensors")
    out = tmp_path / "snapshot_3.pth.tar"
    snapshot.write_snapshot(tmp_path / "ours.safetensors", out)
    written = torch.load(out, weights_only=True)
    assert written["epoch"] == 12
    # The official code makes these buffers itself and loads with strict=False.
    expected = {key: value for key, value in state.items() if ".human_model_layer." not in key}
    assert written["network"].keys() == expected.keys()
    without_effect = (*UNUSED_KEYS, *(f"mesh_backbone.{key}" for key in STEM_KEYS))
    for key, value in expected.items():
        assert written["network"][key].dtype == value.dtype
        assert written["network"][key].shape == value.shape
        if not any(part in key for part in without_effect):
            torch.testing.assert_close(written["network"][key], value, rtol=0, atol=0, msg=key)
    again = read_snapshot(out)
    assert again.state.keys() == read_snapshot(source).state.keys()


def test_the_official_code_cannot_hold_every_network(tmp_path: Path, body_directory: Path) -> None:
    mano = load_body("mano", body_directory)
    for body, backbone in ((load_body("toy"), "resnet50"), (mano, "resnet18")):
        path = tmp_path / f"{body.name}.safetensors"
        network = assembly.build(assembly.published_config(body, backbone), body)
        checkpoint.save(network, path)
        with pytest.raises(InputError) as caught:
            snapshot.write_snapshot(path, tmp_path / "snapshot_0.pth.tar")
        assert str(path) in str(caught.value)
        assert not (tmp_path / "snapshot_0.pth.tar").exists()


WRONG: dict[str, dict[str, tuple[int, ...] | None]] = {
    "no mesh net": {"mesh_net": None},
    "a missing tensor": {"pose_net.deconv.3.weight": None},
    "no pose of the parameters": {"param_regressor.fc_pose": None},
    "an unknown module": {"root_net.weight": (1,)},
    "an unknown tensor": {"pose_net.conv_w.0.weight": (1,)},
    "another number of joints": {"pose_net.conv_x.0.weight": (17, 256, 1)},
    "a single number": {"pose_net.conv_x.0.weight": ()},
    "another shape": {"pose_net.deconv.3.weight": (256, 256, 3, 3)},
    "no known ResNet": {"pose_backbone.layer3.4": None},
    "another ResNet for the mesh": {"mesh_backbone.layer3.4": None},
}
"""Changes of a snapshot: a key and its new shape, or the start of keys to remove."""


@pytest.mark.parametrize("name", WRONG)
def test_wrong_contents_raise_an_error(tmp_path: Path, name: str) -> None:
    state = light_state(published_shapes("hand"))
    for start, shape in WRONG[name].items():
        if shape is None:
            state = {key: value for key, value in state.items() if not key.startswith(f"module.{start}")}
        else:
            state[f"module.{start}"] = torch.zeros(shape)
    path = write_snapshot(tmp_path / "snapshot_0.pth.tar", state)
    with pytest.raises(FileError, match=r"snapshot_0\.pth\.tar"):
        read_snapshot(path)


class Exploit:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("content", ["missing", "text", "tensors", "exploit"])
def test_other_files_raise_an_error_and_run_no_code(tmp_path: Path, content: str) -> None:
    path, trace = tmp_path / "snapshot_0.pth.tar", tmp_path / "trace"
    if content == "text":
        path.write_text("not a network")
    elif content == "tensors":
        torch.save({"weight": torch.zeros(2)}, path)
    elif content == "exploit":
        torch.save({"epoch": 1, "network": Exploit(trace)}, path)
    with pytest.raises(FileError, match=r"snapshot_0\.pth\.tar"):
        read_snapshot(path)
    assert not trace.exists()
