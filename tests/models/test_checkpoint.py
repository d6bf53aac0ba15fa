"""Our checkpoint format: saving and loading, and errors for wrong files."""

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


def test_a_loaded_network_equals_the_saved_one(network: MeshNet, path: Path) -> None:
    loaded = checkpoint.load(path)
    assert loaded.config == network.config
    assert not loaded.training
    for (key, ours), theirs in zip(loaded.state_dict().items(), network.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), key


def test_the_header_describes_the_network_and_no_data_of_the_body_is_written(network: MeshNet, path: Path) -> None:
    metadata = checkpoint.read_metadata(path)
    assert metadata.network == network.config
    assert (metadata.licence, metadata.source) == ("Apache-2.0", "a test")
    assert metadata.extra == {"epochs": 3, "seed": None}
    with safe_open(path, "pt") as file:
        header, keys = file.metadata(), {*file.keys()}
    assert (header["format"], header["version"]) == ("i2l-meshnet", "1")
    described = json.loads(header["i2l_meshnet"])["network"]
    assert described["joints"] == list(BODY.skeleton.joints)
    assert described["grid"]["shape"] == [64, 64, 64]
    assert keys == network.state_dict().keys()
    assert "joint_regressor" not in keys


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


def test_wrong_files_raise_an_error(path: Path, tmp_path: Path) -> None:
    text, foreign, key = tmp_path / "text.st", tmp_path / "foreign.st", "mesh_branch.head.deconv.3.weight"
    text.write_text("not a network")
    save_file({"weight": torch.zeros(2)}, foreign)
    for file in (
        tmp_path / "missing.safetensors",
        tmp_path,
        text,
        foreign,
        edited(path, tmp_path / "newer.safetensors", {"version": "2"}),
        edited(path, tmp_path / "damaged.safetensors", {"i2l_meshnet": "{"}),
        edited(path, tmp_path / "other.safetensors", {"i2l_meshnet": '{"network": {"grid": {}}}'}),
        edited(path, tmp_path / "lacks.safetensors", **{key: None}),
        edited(path, tmp_path / "more.safetensors", extra=torch.zeros(1)),
        edited(path, tmp_path / "shape.safetensors", **{key: torch.zeros(2)}),
    ):
        with pytest.raises(FileError) as caught:
            checkpoint.load(file)
        assert str(file) in str(caught.value)


def test_another_body_raises_an_error(path: Path, body_directory: Path) -> None:
    with pytest.raises(InputError, match="'toy'"):
        checkpoint.load(path, load_body("mano", body_directory))
