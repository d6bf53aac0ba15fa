"""Runtimes compute the same from exported files as the network; wrong files raise errors."""

import json
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

import runtimes
from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.errors import FileError, InputError, UserError
from i2l_meshnet.exporting.export import SUFFIXES, Format, write
from i2l_meshnet.exporting.graph import named_tensors, write_openvino
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.models.backbone import ResNet, ResNetStages
from i2l_meshnet.models.checkpoint import Metadata
from i2l_meshnet.models.config import NetworkConfig
from i2l_meshnet.models.exported import ExportedNetwork, load_exported, load_ready
from i2l_meshnet.models.lixel_head import LixelHead
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.parameters import ParameterRegressor
from i2l_meshnet.models.pose_to_feature import PoseToFeature
from i2l_meshnet.models.published import PublishedMeshBranch, PublishedPoseNet

CHANNELS = 16


def deepening() -> nn.Module:
    return nn.Sequential(nn.Conv2d(64, CHANNELS, 8, 8, bias=False), nn.BatchNorm2d(CHANNELS), nn.ReLU())


class SmallStages(ResNetStages):
    """One layer instead of the stages of a ResNet."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.layers = deepening()

    def forward(self, early: Tensor) -> Tensor:
        return self.layers(early)


class SmallBackbone(ResNet):
    """Three layers instead of a ResNet."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 4, 4), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU())
        self.layers = deepening()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        early = self.stem(image)
        return early, self.layers(early)


def small_network(body: Body) -> tuple[MeshNet, Metadata]:
    """A small published network. Its weights spread the points."""
    torch.manual_seed(0)
    joints = len(body.skeleton.joints)
    config = NetworkConfig.for_body(body, "published", "small", LixelGrid())
    heads = [LixelHead(CHANNELS, points, channels=CHANNELS) for points in (joints, config.vertices)]
    with torch.no_grad():
        for head in heads:
            for layer in (head.conv_x, head.conv_y, head.conv_z_2):
                layer[0].weight *= 20
    network = MeshNet(
        PublishedPoseNet(SmallBackbone(), heads[0]),
        PoseToFeature(joints),
        PublishedMeshBranch(SmallStages(), heads[1]),
        ParameterRegressor(joints, config.bones, config.shape_values),
        body.joint_regressor,
        config,
    )
    return network.eval(), Metadata(config, "none", "random", {"made": "for a test"})


def crops(count: int) -> Tensor:
    return torch.rand(count, 3, 256, 256, generator=torch.Generator().manual_seed(count))


@pytest.fixture(scope="module")
def toy() -> Body:
    return load_body("toy")


@pytest.fixture(scope="module")
def files(toy: Body, tmp_path_factory: pytest.TempPathFactory) -> dict[Format, Path]:
    """The small network of the toy body in every format."""
    folder = tmp_path_factory.mktemp("exported")
    found = {runtime: folder / f"network{suffix}" for runtime, suffix in SUFFIXES.items()}
    write(*small_network(toy), "onnx", found["onnx"])
    write_openvino(found["onnx"], found["openvino"])
    assert {file.name for file in folder.iterdir()} == {path.name for path in found.values()}
    return found


@torch.no_grad()
def check(network: MeshNet, exported: ExportedNetwork) -> None:
    """Compare the outputs for batches of two sizes."""
    for count in (1, 3):
        expected, found = named_tensors(network(crops(count))), named_tensors(exported(crops(count)))
        assert [*expected] == [*found]
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, atol=1e-3, rtol=0, msg=lambda text: f"{name}: {text}")  # noqa: B023
        assert float(expected["vertices"].std(1).max()) > 0.5


@pytest.mark.parametrize(("runtime", "written_for"), [(r, r) for r in SUFFIXES] + [("openvino", "onnx")])
def test_runtimes_compute_the_same_for_batches_of_any_size(
    runtime: Format, written_for: Format, files: dict[Format, Path], toy: Body
) -> None:
    network, metadata = small_network(toy)
    exported, body, read = load_exported(files[written_for], None, runtime)
    assert read == metadata
    assert (exported.grid, body.name) == (network.grid, "toy")
    check(network, exported)


def test_an_openvino_archive_contains_plain_ir(files: dict[Format, Path], toy: Body, tmp_path: Path) -> None:
    with zipfile.ZipFile(files["openvino"]) as archive:
        archive.extractall(tmp_path)
    exported, _, _ = load_exported(tmp_path / "model.xml", None, "openvino")
    check(small_network(toy)[0], exported)


def test_no_file_contains_the_regressor_of_a_licensed_body(body_directory: Path, tmp_path: Path) -> None:
    body = load_body("smpl", body_directory)
    network, metadata = small_network(body)
    paths = {runtime: tmp_path / f"network{suffix}" for runtime, suffix in SUFFIXES.items()}
    write(network, metadata, "onnx", paths["onnx"])
    write_openvino(paths["onnx"], paths["openvino"])
    values = body.joint_regressor[body.joint_regressor != 0].unique()[:16].numpy()
    for runtime, path in paths.items():
        content = path.read_bytes()
        # The four bytes of a value may occur by chance, but not those of all values.
        assert sum(value.tobytes() in content for value in values) < len(values) / 2
        exported, _, _ = load_exported(path, body_directory, runtime)
        found, expected = exported(crops(2)), network(crops(2))
        torch.testing.assert_close(found.mesh_joints, expected.mesh_joints, atol=1e-3, rtol=0)


def test_the_benchmark_times_every_runtime_and_precision(
    files: dict[Format, Path], toy: Body, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "write", lambda network, metadata, runtime, path: shutil.copy(files[runtime], path))
    network, _ = small_network(toy)
    ways = runtimes.exported_ways(network, toy, tmp_path)
    assert {"onnx fp32", "openvino fp32"} <= {*ways}
    for way in ("onnx fp32", "openvino fp32"):
        check(network, ways[way])


def test_batches_that_do_not_fit(files: dict[Format, Path], tmp_path: Path) -> None:
    exported, _, _ = load_exported(files["onnx"], None, "onnx")
    with pytest.raises(InputError):
        exported(torch.zeros(1, 3, 128, 256))
    model = onnx.load(files["onnx"])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "network.onnx")
    fixed, _, _ = load_exported(tmp_path / "network.onnx", None, "onnx")
    with pytest.raises(InputError):
        fixed(crops(3))


@pytest.mark.parametrize("suffix", [*SUFFIXES.values(), ".xml"])
def test_missing_and_damaged_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"wrong{suffix}"
    for content in (None, b"no network\nat all"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(FileError) as caught:
            load_ready(path)
        assert str(path) in str(caught.value)


def test_other_versions_and_invalid_descriptions(files: dict[Format, Path], tmp_path: Path) -> None:
    model = onnx.load(files["onnx"])
    (entry,) = (entry for entry in model.metadata_props if entry.key == "i2l_meshnet")
    content = json.loads(entry.value)
    path = tmp_path / "network.onnx"
    for change in (
        {"version": 99, "software": "9.9"},
        {"format": "something"},
        {"outputs": ["joints"]},
        {"fit": "AAAA"},
        {"network": {}},
        {"arithmetic": "int8"},
        {"body": None, "network": {**content["network"], "vertices": 7}},
    ):
        entry.value = json.dumps({**content, **change})
        onnx.save(model, path)
        with pytest.raises(UserError):
            load_ready(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(FileError):
        load_ready(path)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs signals")
def test_signals_are_handled_after_openvino_networks_are_gone(files: dict[Format, Path]) -> None:
    code = """
import faulthandler, gc, os, signal, sys
from pathlib import Path
from i2l_meshnet.models.exported import load_exported
faulthandler.enable()  # Its handlers' stack is what OpenVINO replaces.
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
networks = [load_exported(Path(sys.argv[1]), None, "openvino") for _ in range(2)]
while networks:
    networks.pop(0)
    gc.collect()
    os.kill(os.getpid(), signal.SIGUSR1)
"""
    done = subprocess.run([sys.executable, "-c", code, files["openvino"]], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["handled"] * 2), done.stderr


def test_runtimes_that_do_not_fit(files: dict[Format, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        load_ready(tmp_path / "network.pt2")
    wrong: list[tuple[Path, dict[str, Any]]] = [
        (tmp_path / "body.safetensors", {"runtime": "openvino"}),
        (files["onnx"], {"runtime": "torch"}),
        (files["onnx"], {"precision": "fp16"}),
        (files["onnx"], {"precision": "bf16"}),
    ]
    for path, given in wrong:
        with pytest.raises(InputError) as caught:
            load_ready(path, **given)
        assert caught.value.argument in given
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError):
        load_ready(files["openvino"])
