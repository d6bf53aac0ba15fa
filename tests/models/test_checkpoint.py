"""Our checkpoint format: what is saved comes back, what is wrong is told in one line."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from i2l_meshnet.bodies import load_body
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.models import assembly, checkpoint
from i2l_meshnet.models.meshnet import MeshNet

BODY = load_body("toy")


@pytest.fixture(scope="module")
def network() -> MeshNet:
    torch.manual_seed(0)
    return assembly.build(assembly.published_config(BODY, "resnet18"), BODY).eval()


@pytest.fixture(scope="module")
def path(network: MeshNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "network.safetensors"
    checkpoint.save(network, path, {"epochs": 3, "seed": None}, licence="Apache-2.0", source="a test")
    return path


def edited(path: Path, out: Path, header: dict[str, str] | None = None, **tensors: torch.Tensor | None) -> Path:
    """A copy of a checkpoint with header entries or tensors changed (removed where None)."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() | (header or {})
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    state = {key: value for key, value in (state | tensors).items() if value is not None}
    save_file(state, out, metadata)
    return out


def test_what_is_saved_comes_back(network: MeshNet, path: Path) -> None:
    loaded = checkpoint.load(path)
    assert loaded.config == network.config
    assert not loaded.training
    for (key, ours), theirs in zip(loaded.state_dict().items(), network.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), key
    image = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        torch.testing.assert_close(loaded(image).vertices, network(image).vertices, atol=0, rtol=0)


def test_the_header_describes_the_network(network: MeshNet, path: Path) -> None:
    metadata = checkpoint.read_metadata(path)
    assert metadata.network == network.config
    assert (metadata.licence, metadata.source) == ("Apache-2.0", "a test")
    assert metadata.extra == {"epochs": 3, "seed": None}
    with safe_open(path, "pt") as file:
        header = file.metadata()
    assert (header["format"], header["version"]) == ("i2l-meshnet", "1")
    described = json.loads(header["i2l_meshnet"])["network"]
    assert described["joints"] == list(BODY.skeleton.joints)
    assert described["grid"]["shape"] == [64, 64, 64]


def test_nothing_of_the_body_is_written(network: MeshNet, path: Path) -> None:
    """The joint regressor and all other data of a body may be licensed."""
    with safe_open(path, "pt") as file:
        written = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    assert written.keys() == network.state_dict().keys()
    assert "joint_regressor" not in written
    sizes = {tuple(buffer.shape) for buffer in BODY.buffers() if buffer.numel() > 100}
    assert not [key for key, value in written.items() if tuple(value.shape) in sizes]


def test_half_precision_halves_the_file_and_keeps_the_statistics(network: MeshNet, path: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    checkpoint.save(network, half, half=True)
    assert half.stat().st_size < 0.51 * path.stat().st_size
    loaded = checkpoint.load(half)
    for (key, ours), theirs in zip(loaded.state_dict().items(), network.state_dict().values(), strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-3, msg=key)
        if "running_" in key:
            assert torch.equal(ours, theirs)


def test_a_network_without_description_cannot_be_saved(network: MeshNet, tmp_path: Path) -> None:
    parts = network.pose_net, network.pose_to_feature, network.mesh_branch, network.parameter_regressor
    by_hand = MeshNet(*parts, network.joint_regressor, network.grid)
    with pytest.raises(ValueError, match=r"assembly\.build"):
        checkpoint.save(by_hand, tmp_path / "network.safetensors")


def test_wrong_files_are_told_in_one_line(path: Path, tmp_path: Path) -> None:
    text, foreign = tmp_path / "text.safetensors", tmp_path / "foreign.safetensors"
    text.write_text("not a network")
    save_file({"weight": torch.zeros(2)}, foreign)
    key = "mesh_branch.head.deconv.3.weight"
    wrong = {
        tmp_path / "missing.safetensors": "does not exist",
        tmp_path: "cannot read",
        text: "i2l-meshnet convert",
        foreign: "not an I2L-MeshNet checkpoint",
        edited(path, tmp_path / "newer.safetensors", {"version": "2"}): "update it",
        edited(path, tmp_path / "damaged.safetensors", {"i2l_meshnet": "{"}): "not an I2L",
        edited(path, tmp_path / "other.safetensors", {"i2l_meshnet": '{"network": {"grid": {}}}'}): "not an I2L",
        edited(path, tmp_path / "lacks.safetensors", **{key: None}): f"lacks the tensor '{key}'",
        edited(path, tmp_path / "more.safetensors", extra=torch.zeros(1)): "unknown tensor 'extra'",
        edited(path, tmp_path / "shape.safetensors", **{key: torch.zeros(2)}): r"is \(2,\)",
    }
    for file, message in wrong.items():
        with pytest.raises(FileError, match=message) as caught:
            checkpoint.load(file)
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_body_is_refused(path: Path, body_directory: Path) -> None:
    with pytest.raises(InputError, match="use the body 'toy'"):
        checkpoint.load(path, load_body("mano", body_directory))
